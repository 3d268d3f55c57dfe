"""NL514."""

from collections.abc import Iterator, Sequence

from normlab.measure.half_precision import HalfPrecision
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery, in_float32

SEVERAL = 1.6
"""Errors of single roundings. One rounding is 1, and two independent ones are 1.41: the product with a weight after
the result was rounded, as Llama's norm has it. Three are 1.73.
"""


class HalfRoundings(Rule):
    """A norm may take half precision and give it, and compute in float32 between the two: then its result is rounded
    once, or twice where the weight comes after the cast. One that computes its statistics in half precision rounds
    at every step, and the rounding of the scale is common to a whole example. Implementations of one model that
    differ in the order of casts give different numbers for the same weights.
    """

    id = "NL514"
    severity = "note"
    title = "a norm that computes in half precision"
    source = "pytorch issue 189581, transformers issue 33133; Zhang & Sennrich 2019, arXiv 1910.07467, section 4"
    remedy = "x.float() before the statistics, and the cast back after the weight"

    def check(self, half_norms: dict[str, HalfPrecision]) -> Iterator[Found]:
        for path, half in half_norms.items():
            if half.roundings > SEVERAL:
                told = f"its error is {half.roundings:.2f} times that of rounding the result once"
                yield path, f"{told}; float32 inside gives 1 to 1.41"

    def mend(self, paths: Sequence[str]) -> Surgery:
        return in_float32(tuple(paths))
