"""NL511."""

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from normlab.measure.passes import Use
from normlab.norms.group import GroupNorm
from normlab.rules.mending import exchanged
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery

CANCELS = 100.0
"""Mean over deviation of a group, from which on the result is wrong in its third digit (measured: 1e-3 at 100,
0.2 at 1,000, and nothing right at 3,000).
"""


class ChannelsLastGroup(Rule):
    """For inputs in channels-last torch's group norm on a CPU takes the variance as E[x^2] - E[x]^2 in float32: two
    large numbers whose difference is small. At a mean of 1,000 deviations the result is off by a fifth, at 3,000 it
    is hundreds of times too large. For contiguous inputs the operator is another, and right.
    """

    id = "NL511"
    severity = "warning"
    title = "a group norm that cancels in channels-last"
    source = "measured with torch 2.13.0 on a CPU; Chan, Golub & LeVeque 1983, on algorithms for the variance"
    remedy = "normlab.nn.GroupNorm, which is right in both layouts, or x.contiguous() before the norm"

    def check(self, example_norm_uses: dict[str, Use]) -> Iterator[Found]:
        for path, use in example_norm_uses.items():
            norm, x = use.module, use.input
            if not isinstance(norm, nn.GroupNorm) or isinstance(norm, GroupNorm):
                continue
            if x is None or x.layout != "channels_last" or x.mean is None or x.var is None:
                continue
            ratio = _ratio(x.mean, x.var, norm.num_groups)
            if ratio > CANCELS:
                told = f"channels-last inputs whose mean is {ratio:.3g} deviations"
                yield path, f"{told}; up to {CANCELS:g} three digits are right"

    def mend(self, paths: Sequence[str]) -> Surgery:
        return exchanged(tuple(paths), "group")


def _ratio(mean: Tensor, var: Tensor, groups: int) -> float:
    """The largest mean over deviation of a group, of all examples together: that of one is no smaller."""
    means = mean.reshape(groups, -1)
    variance = var.reshape(groups, -1).mean(1) + means.var(1, correction=0)
    return (means.mean(1).abs() / variance.sqrt()).nan_to_num(0, posinf=0).max().item()
