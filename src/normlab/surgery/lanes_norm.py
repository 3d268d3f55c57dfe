"""What a batch norm does beside normalizing: which statistics it takes, and what it keeps of the batch's."""

import math
from typing import Literal, cast

import torch
from torch import Tensor, nn

from normlab.kernels.settings import Part
from normlab.norms.batch import BatchNorm1d, BatchNorm2d
from normlab.norms.frozen import FrozenBatchNorm1d, FrozenBatchNorm2d
from normlab.norms.mean_only import MeanOnlyBatchNorm1d, MeanOnlyBatchNorm2d
from normlab.norms.standardize import BatchStatistics
from normlab.norms.variance_only import VarianceOnlyBatchNorm1d, VarianceOnlyBatchNorm2d
from normlab.surgery.find import BatchNorm

TORCHS = (nn.BatchNorm1d, nn.BatchNorm2d)
FROZEN = (FrozenBatchNorm1d, FrozenBatchNorm2d)
_PARTS: dict[type, Part] = {
    **dict.fromkeys((MeanOnlyBatchNorm1d, MeanOnlyBatchNorm2d), "mean"),
    **dict.fromkeys((VarianceOnlyBatchNorm1d, VarianceOnlyBatchNorm2d), "variance"),
}
KNOWN = (*TORCHS, *FROZEN, BatchNorm1d, BatchNorm2d, *_PARTS)
"""These classes themselves: what a subclass does, only its forward knows."""

Mode = Literal["none", "batch", "fixed"]


def mode(norm: BatchNorm | None) -> Mode:
    """Whose statistics it normalizes by."""
    if norm is None:
        return "none"
    if type(norm) in FROZEN:
        return "fixed"
    return "batch" if norm.training or norm.running_mean is None or norm.running_var is None else "fixed"


def part(norm: BatchNorm | None) -> Part:
    """Which of the statistics it takes off."""
    return _PARTS.get(type(norm), "both")


def describe(norm: nn.Module) -> str:
    """In two words or three."""
    kind = "frozen " if type(norm) in FROZEN else f"{_PARTS[type(norm)]}-only " if type(norm) in _PARTS else ""
    return f"{kind}batch norm"


def track(norm: BatchNorm, count: int, mean: Tensor, var: Tensor) -> None:
    """Do to its buffers what the norm's own forward would after a batch of `count` values in each channel.

    `mean` and the biased `var` are (C,), without history. Only a norm in train mode keeps anything.
    """
    if not norm.training:
        return
    unbiased = var * (count / (count - 1))
    if type(norm) in TORCHS:
        _track_as_torch(norm, mean, unbiased)
    else:
        finite = math.isfinite(unbiased.sum(dtype=torch.float64).item())
        cast(BatchNorm1d | BatchNorm2d, norm)._track(BatchStatistics(count, mean, unbiased, finite))


def _track_as_torch(norm: BatchNorm, mean: Tensor, unbiased: Tensor) -> None:
    if not norm.track_running_stats:
        return
    share = 0.0 if norm.momentum is None else norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:  # the cumulative mean
            share = 1 / float(norm.num_batches_tracked)
    if norm.running_mean is not None and norm.running_var is not None:
        norm.running_mean.mul_(1 - share).add_(mean, alpha=share)
        norm.running_var.mul_(1 - share).add_(unbiased, alpha=share)
