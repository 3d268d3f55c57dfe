"""NL312."""

from collections.abc import Iterator

from normlab.measure.merged import Moments
from normlab.measure.norms import Norm
from normlab.rules.behaviour.constant_channels import ENOUGH
from normlab.rules.rule import Found, Rule

OUTWEIGHS = 10
"""Times the variance: outputs then have a standard deviation below 0.3. Published networks start at 2 at most."""


class EpsOutweighs(Rule):
    """The output of batch norm has variance var / (var + eps): 1 as long as eps is small beside the variance. Where
    eps is the larger, the norm hardly normalizes: it multiplies by 1 / sqrt(eps), the scale of the layers before it
    comes through, and vanishes from layer to layer.
    """

    id = "NL312"
    severity = "warning"
    title = "eps is far larger than the variance"
    source = "Ioffe & Szegedy 2015, arXiv 1502.03167, algorithm 1"
    remedy = "larger initial weights before it, inputs of a larger scale, or a smaller eps: normlab.surgery.adjust"

    def check(self, batch_inputs: dict[str, Moments], batch_norms: dict[str, Norm]) -> Iterator[Found]:
        for path, batch in batch_inputs.items():
            varying = batch.var[~batch.constant]
            eps = batch_norms[path].eps
            if eps is None or batch.values < ENOUGH or not len(varying):
                continue
            if (median := varying.median().item()) * OUTWEIGHS < eps:
                yield (
                    path,
                    f"eps is {eps:g}, the median variance of its input channels {median:.2g}: outputs have "
                    f"a variance of {median / (median + eps):.2g}, where 1 is expected",
                )
