"""NL205."""

import math
from collections.abc import Iterator, Sequence

from normlab.measure.norms import FAMILIES, Norm
from normlab.rules.mending import USUAL_EPS, changed, eps
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery

LARGEST = 0.01
"""Ten times what any known architecture has; a channel of variance 1 then shrinks by half a percent."""


class LargeEps(Rule):
    """eps keeps a constant channel from a division by 0. As large as the variance it is part of the function: a
    channel is divided by sqrt(var + eps), comes out smaller the less it varies, and is not normalized. The second
    argument of torch's norms is eps; in `BatchNorm2d(64, 0.8)`, which half of all GAN examples have copied from one
    another, a momentum of Keras's was meant.
    """

    id = "NL205"
    severity = "warning"
    title = "an eps so large that the norm does not normalize"
    source = "github.com/eriklindernoren/PyTorch-GAN/issues/116; torch.nn.BatchNorm2d(num_features, eps, momentum)"
    remedy = "eps=1e-5, and momentum by its name: nn.BatchNorm2d(64, momentum=0.2); then train again"
    recalibrates = True

    def check(self, norms: dict[str, Norm]) -> Iterator[Found]:
        for path, norm in norms.items():
            if norm.family in FAMILIES and norm.eps is not None and norm.eps > LARGEST:
                left = 1 / math.sqrt(1 + norm.eps)
                yield (
                    path,
                    f"eps {norm.eps:g}, where 1e-5 is usual: a standard deviation of 1 becomes {left:.3f}",
                )

    def mend(self, paths: Sequence[str]) -> Surgery:
        return changed(tuple(paths), eps(USUAL_EPS))
