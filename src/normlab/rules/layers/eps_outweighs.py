"""NL509."""

from collections.abc import Iterator, Sequence

from normlab.measure.norms import Norm
from normlab.measure.passes import Use
from normlab.rules.mending import USUAL_EPS, changed, eps
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery

OUTWEIGHS = 4.0
"""Times the mean square: the layer then divides by more than twice what it should. Up to the usual eps is no cause:
new networks may have branches whose values are tiny, and grow.
"""


class EpsOutweighs(Rule):
    """A norm divides by sqrt(variance + eps), and eps is there for the case that the variance is 0. Where it is most
    of the sum, the layer no longer normalizes: it multiplies by about 1 / sqrt(eps), and its output is as small, or
    as changeable in scale, as its input. An eps of 1e-3, the default of another framework, is too large for inputs
    whose root mean square is 0.01.
    """

    id = "NL509"
    severity = "warning"
    title = "an eps that is most of what the norm divides by"
    source = "Ba, Kiros & Hinton 2016, arXiv 1607.06450, section 3; Keras' LayerNormalization has epsilon=0.001"
    remedy = "a smaller eps: normlab.surgery.adjust((PATH,), {'eps': 1e-5})"

    def check(self, example_norms: dict[str, Norm], example_norm_uses: dict[str, Use]) -> Iterator[Found]:
        for path, use in example_norm_uses.items():
            added, x = example_norms[path].eps, use.input
            if added is None or added <= USUAL_EPS or x is None or x.mean is None or x.var is None:
                continue
            square = (x.mean.square() + x.var).mean().item()  # no smaller than the mean variance of the examples
            if 0 < OUTWEIGHS * square < added:  # zeros are none to normalize
                shrunk = (square / (square + added)) ** 0.5
                told = f"eps {added:g} against inputs of mean square {square:.2g}"
                yield path, f"{told}: a root mean square of at most {shrunk:.2f} comes out, expected about 1"

    def mend(self, paths: Sequence[str]) -> Surgery:
        return changed(tuple(paths), eps(USUAL_EPS))
