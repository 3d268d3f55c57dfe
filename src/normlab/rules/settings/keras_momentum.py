"""NL201."""

from collections.abc import Iterator, Sequence

from torch import nn

from normlab.measure.norms import Norm
from normlab.rules.mending import at
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery, adjust

LIKE_KERAS = 0.9
"""From here on up to 1 the number is the share that Keras and TensorFlow keep of the old statistics; 1 itself, the
last batch alone, is somebody's intention.
"""


class KerasMomentum(Rule):
    """In torch momentum is the share of the new batch in the running statistics; in Keras, TensorFlow and many papers
    it is what is kept of the old ones. A momentum of 0.99, copied from there, makes the statistics those of the last
    batch, and evaluation as noisy as one batch is. Several well-known model libraries had it, one for years.
    """

    id = "NL201"
    severity = "warning"
    title = "a momentum in the convention of Keras: the running statistics are those of the last batch"
    source = "torch.nn.BatchNorm2d, note on momentum; github.com/pytorch/vision/issues/8250; pytorch/issues/15298"
    remedy = "momentum = 1 - momentum where the norms are made, then recalibrate: normlab.surgery.recalibrate"

    def check(self, moving_norms: dict[str, Norm]) -> Iterator[Found]:
        for path, norm in moving_norms.items():
            momentum = norm.module.momentum
            if isinstance(momentum, float) and LIKE_KERAS <= momentum < 1:
                meant = f"in torch's convention {1 - momentum:.4g} is what was meant"
                yield (
                    path,
                    f"momentum {momentum:g}: a batch replaces {100 * momentum:.4g} % of the averages; {meant}",
                )

    def mend(self, paths: Sequence[str]) -> Surgery:
        return at(tuple(paths), _turned)


def _turned(norm: nn.Module) -> Surgery:
    # Rounded, so that 0.99 becomes 0.01.
    return adjust(("",), {"momentum": round(1 - getattr(norm, "momentum", 0.0), 12)})
