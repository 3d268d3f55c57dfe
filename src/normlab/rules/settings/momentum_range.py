"""NL204."""

from collections.abc import Iterator, Sequence

from normlab.measure.norms import Norm
from normlab.rules.mending import USUAL_MOMENTUM
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery, adjust


class MomentumRange(Rule):
    """The running statistics go a share of the way to those of the batch, (1 - momentum) * old + momentum * new.
    Below 0 they run away from the batch, above 1 they go beyond it: soon a variance is negative, and evaluation NaN.
    """

    id = "NL204"
    severity = "error"
    title = "a momentum outside of 0 to 1"
    source = "torch.nn.BatchNorm2d, note on momentum"
    remedy = "momentum between 0 and 1, torch's default is 0.1; then recalibrate: normlab.surgery.recalibrate"
    recalibrates = True

    def check(self, moving_norms: dict[str, Norm]) -> Iterator[Found]:
        for path, norm in moving_norms.items():
            momentum = norm.module.momentum
            if isinstance(momentum, int | float) and not 0 <= momentum <= 1:
                yield path, f"momentum {momentum:g}: {1 - momentum:g} * old + {momentum:g} * new is no average"

    def mend(self, paths: Sequence[str]) -> Surgery:
        return adjust(tuple(paths), {"momentum": USUAL_MOMENTUM})
