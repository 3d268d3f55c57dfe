"""NL509."""

from collections.abc import Iterator

from normlab.measure.norms import Norm
from normlab.measure.passes import Use
from normlab.rules.rule import Found, Rule

OUTWEIGHS = 4.0
"""Times the mean square: the layer then divides by more than twice what it should."""


class EpsOutweighs(Rule):
    """A norm divides by sqrt(variance + eps), and eps is there for the case that the variance is 0. Where the inputs
    are so small that it is most of the sum, the layer no longer normalizes: it multiplies by about 1 / sqrt(eps), and
    its output is as small, or as changeable in scale, as its input. Embeddings that begin tiny are the usual cause.
    """

    id = "NL509"
    severity = "warning"
    title = "inputs so small that eps is most of what the norm divides by"
    source = (
        "Ba, Kiros & Hinton 2016, arXiv 1607.06450, section 3; Zhang & Sennrich 2019, arXiv 1910.07467, section 4"
    )
    remedy = "initialize what feeds it larger, or a smaller eps: normlab.surgery.adjust((PATH,), {'eps': ...})"

    def check(self, example_norms: dict[str, Norm], example_norm_uses: dict[str, Use]) -> Iterator[Found]:
        for path, use in example_norm_uses.items():
            eps, x = example_norms[path].eps, use.input
            if eps is None or x is None or x.mean is None or x.var is None:
                continue
            square = (x.mean.square() + x.var).mean().item()  # bounds the variance of most examples from above
            if 0 < OUTWEIGHS * square < eps:  # zeros are none to normalize
                shrunk = (square / (square + eps)) ** 0.5
                told = f"eps {eps:g} against inputs of mean square {square:.2g}"
                yield path, f"{told}: a root mean square of at most {shrunk:.2f} comes out, expected about 1"
