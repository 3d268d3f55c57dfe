"""NL512."""

from collections.abc import Iterator, Sequence

from normlab.measure.half_precision import HalfPrecision
from normlab.measure.norms import Norm
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery, in_float32


class HalfEps(Rule):
    """The smallest number above 0 in float16 is 6e-8. A layer that adds a smaller eps in float16 adds nothing, and an
    example of zeros, as padding is, becomes 0 / 0: NaN, which spreads to all that attends to it. The layers of torch
    add eps in float32, where 1e-12 is a number; those that libraries and models write for themselves may not.
    """

    id = "NL512"
    severity = "error"
    title = "an eps that is zero in half precision"
    source = "pytorch issue 66707; IEEE 754-2019, table 3.5: binary16"
    remedy = "an eps of 1e-6 or more, or statistics in float32 inside the layer: x.float()"

    def check(self, example_norms: dict[str, Norm], half_norms: dict[str, HalfPrecision]) -> Iterator[Found]:
        for path, half in half_norms.items():
            if not half.survives_zeros:
                kind = str(half.dtype).removeprefix("torch.")
                yield path, f"gives NaN for zeros in {kind}: its eps {example_norms[path].eps:g} is 0 there"

    def mend(self, paths: Sequence[str]) -> Surgery:
        return in_float32(tuple(paths))
