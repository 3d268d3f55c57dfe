"""NL405."""

import math
from collections.abc import Iterator

from normlab.rules.rule import Found, Rule

FACTOR = 1e5
"""Between the first norm and the last: 60 plain layers. Published networks with random weights stay below 2e4."""


class ExplodingGradients(Rule):
    """Batch norm keeps the scale of the activations at any depth, not that of the gradients: in a plain chain,
    without skip connections, each layer multiplies them by about 1.2 on the way back, at any initialization. After
    some fifty layers the first steps take the early layers anywhere.
    """

    id = "NL405"
    severity = "warning"
    title = "gradients that explode on the way back"
    source = "Yang et al. 2019, arXiv 1902.08129, abstract and section 1"
    remedy = "skip connections, or fewer layers"
    study = "trainability"

    def check(self, gradient_sizes: dict[str, float]) -> Iterator[Found]:
        if len(gradient_sizes) < 2:
            return
        (first, at_first), *_, (last, at_last) = gradient_sizes.items()
        if math.isfinite(at_first) and at_first > FACTOR * at_last > 0:
            yield first, f"the gradient here is {at_first / at_last:.2g} times as large as at {last}, the last norm"
