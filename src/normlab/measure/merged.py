"""merged: the moments of several tensors taken as one."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from normlab.measure.passes import Summary

ROUNDING = 8
"""Machine epsilons of its mean, within which the standard deviation of a constant stays."""


@dataclasses.dataclass(frozen=True)
class Moments:
    """Of each channel, in float64."""

    values: int
    """Of each channel: examples times positions."""
    mean: Tensor
    """(C,)."""
    var: Tensor
    """(C,), biased."""
    dtype: torch.dtype
    """Of the tensors themselves: the widest of them."""

    @property
    def constant(self) -> Tensor:
        """(C,): whether the values of a channel are equal, but for what rounding leaves of their deviations."""
        unit = torch.finfo(torch.promote_types(self.dtype, torch.float32)).eps
        return self.var.sqrt() <= ROUNDING * unit * self.mean.abs()


def values_per_channel(shape: Sequence[int]) -> int:
    """Of (N, C, *spatial)."""
    return shape[0] * math.prod(shape[2:])


def merged(summaries: Sequence[Summary]) -> Moments:
    """Of summaries that have means and variances, one at least, each counting by its size."""
    values = [values_per_channel(each.shape) for each in summaries]
    share = torch.tensor(values, dtype=torch.float64).unsqueeze(1) / sum(values)
    means = torch.stack([each.mean for each in summaries if each.mean is not None]).cpu()
    variances = torch.stack([each.var for each in summaries if each.var is not None]).cpu()
    mean = (share * means).sum(0)
    var = (share * (variances + (means - mean).square())).sum(0)
    return Moments(sum(values), mean, var, functools.reduce(torch.promote_types, (each.dtype for each in summaries)))
