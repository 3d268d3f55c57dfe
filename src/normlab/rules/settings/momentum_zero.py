"""NL202."""

from collections.abc import Iterator, Sequence

from torch import nn

from normlab.measure.norms import Norm
from normlab.measure.running import untrained
from normlab.rules.mending import USUAL_MOMENTUM, at
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery, adjust, freeze
from normlab.surgery.find import BatchNorm


class MomentumZero(Rule):
    """With momentum 0 the running statistics are never updated, but training does not use them: it goes on with those
    of each batch, while evaluation uses the old ones. That is no frozen batch norm; the layer trains as one function
    and evaluates as another, and nothing brings the two together.
    """

    id = "NL202"
    severity = "warning"
    title = "momentum 0 freezes the running statistics, not the norm: training still uses the batch's"
    source = "torch.nn.BatchNorm2d, note on momentum; He et al. 2017, arXiv 1703.06870, section 3.1, on freezing"
    remedy = "normlab.surgery.freeze('statistics')(model) to train by the running statistics; else momentum = 0.1"
    study = "averages"

    def check(self, moving_norms: dict[str, Norm]) -> Iterator[Found]:
        for path, norm in moving_norms.items():
            if norm.module.momentum == 0:
                yield path, "momentum 0: training uses the batch's statistics, evaluation those that no batch moves"

    def mend(self, paths: Sequence[str]) -> Surgery:
        return at(tuple(paths), _mended)


def _mended(norm: nn.Module) -> Surgery:
    """What was meant: a frozen norm, where there is something to freeze it at."""
    new = isinstance(norm, BatchNorm) and untrained(norm)
    return adjust(("",), {"momentum": USUAL_MOMENTUM}) if new else freeze("statistics")
