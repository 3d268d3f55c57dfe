"""Synchronized batch normalization: batch norm by the statistics of all processes' batches together.

    y = weight * (x - mean) / sqrt(var + eps) + bias

    count = sum of count_k               over the processes k, each with a part
    mean  = sum of count_k mean_k / count
    var   = sum of (M2_k + count_k (mean_k - mean)^2) / count

When K processes share a batch, plain batch norm would normalize each part by itself: with two images a process
its statistics are those of two images. Here every process tells the others, for each channel, how many values it
has, their mean, and M2, the sum of their squared deviations from that mean. Merged in this way (Chan, Golub &
LeVeque 1979) they give mean and variance of the whole batch, however unevenly it was divided; averaging the means
and variances themselves would not. A process may even have no image at all.

The statistics of one process depend on the inputs of all, and so do the gradients: the gradient that reaches x is
that of the sum of all processes' losses. If the objective is the mean over the whole batch, each process divides
its summed loss by the count of the whole batch. Every process must run the layer, and its backward pass, equally
often: the others wait for it. The gradients of weight and bias are each process's own share, to be added up as
those of any other parameter; DistributedDataParallel takes their mean, so there the loss is to be multiplied by
the number of processes.

Over: the batch of all processes and all positions, each channel by itself.
Cost: plain operations, forward about 5 readings and 4 writings of the size of x, backward twice that; and in each
    direction one exchange of 3 numbers for each channel and process.
When: several processes with few images each (detection, segmentation, volumes), or when the result must not depend
    on the number of processes. Not with large parts, whose own statistics are good enough and need no waiting.
Source: Peng et al. 2018, arXiv 1711.07240 (MegDet, cross-GPU batch normalization); the merge: Chan, Golub &
    LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
See: batch, ghost, running-statistics
"""

import copy
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor, fx
from torch.autograd import Function

from normlab.norms.batch import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    Channels,
    _BatchNorm,
    batch_norm,
)
from normlab.norms.channels import accumulator, cast, column, count, cut, deviations, inverse_std
from normlab.norms.running import check_arguments, next_running
from normlab.norms.standardize import BatchStatistics


def sync_batch_norm(
    x: Float[Tensor, "N C *spatial"],
    running_mean: Channels | None = None,
    running_var: Channels | None = None,
    weight: Channels | None = None,
    bias: Channels | None = None,
    *,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
    mask: Bool[Tensor, "..."] | None = None,
    group: "dist.ProcessGroup | None" = None,
) -> tuple[Float[Tensor, "N C *spatial"], Channels | None, Channels | None]:
    """`batch_norm` of the processes' x laid end to end: in training its statistics are those of all.

    Arguments and results are `batch_norm`'s. `group` is the processes that share a batch, None all of them.
    Evaluation asks no other process, and neither does a process alone: both are `batch_norm`.
    """
    if not training or is_alone(group):
        return batch_norm(
            x, running_mean, running_var, weight, bias, training=training, momentum=momentum, eps=eps, mask=mask
        )
    check_arguments(x, running_mean, running_var, weight, bias, eps, momentum)
    y, batch = normalize_by_all(x, weight, bias, mask, eps, group)
    return y, *next_running(running_mean, running_var, batch, momentum)


def is_alone(group: Any) -> bool:
    """Whether this process shares its batch with no other: `group` may be torch's mark for who is in none, too."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_world_size(group) < 2


def normalize_by_all(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    eps: float,
    group: "dist.ProcessGroup | None",
) -> tuple[Tensor, BatchStatistics]:
    """This process's y (N, C, *spatial), and the statistics of all. One value in all gives `bias`."""
    kept = None
    if mask is not None:
        x, mask = cut(x, mask)
        kept = mask.to(accumulator(x))
    own_mean, own_squares, centered = deviations(x, kept, exact=eps == 0)
    own = torch.stack((count(x, kept).expand_as(own_mean), own_mean, own_squares))
    counts, means, squares = _gather(own, group).unbind(1)

    counts = counts.detach()  # numbers, which came with what has a gradient
    total = counts.sum(0)
    # Summed from one of the means on, equal means give that mean: a constant channel keeps deviations of 0.
    start = means.detach().gather(0, counts.argmax(0, keepdim=True))
    mean = (start + (counts * (means - start)).sum(0) / total.clamp(min=1)).squeeze(0)
    squares = (squares + counts * (means - mean).square()).sum(0)

    scale = inverse_std(squares / total.clamp(min=1), eps)
    scale = scale if weight is None else scale * cast(weight, x)
    shift = (own_mean - mean) * scale
    shift = shift if bias is None else shift + cast(bias, x)
    y = (centered * column(scale, x) + column(shift, x)).to(x.dtype)
    y = y if mask is None else torch.where(mask, y, 0)
    squares = squares.detach()
    # A mean that is not finite leaves no deviation that is: the variance tells of both.
    statistics = BatchStatistics(total, mean.detach(), squares / (total - 1).clamp(min=1), squares.isfinite().all())
    return y, statistics


def _gather(own: Tensor, group: "dist.ProcessGroup | None") -> Tensor:
    """Every process's tensor in the order of their ranks, (processes, *own.shape)."""
    empty = own.new_zeros(dist.get_world_size(group), *own.shape)
    return _Sum.apply(torch.select_scatter(empty, own, 0, dist.get_rank(group)), group)


class _Sum(Function):
    """The sum over all processes. Each has the result, so the gradient is the sum of theirs: to any order itself."""

    @staticmethod
    def forward(own: Tensor, group: "dist.ProcessGroup | None") -> Tensor:
        total = own.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, "dist.ProcessGroup | None"], output: Tensor) -> None:
        ctx.group = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Sum.apply(gradients[0], ctx.group), None


class _SyncBatchNorm(_BatchNorm):
    """Batch norm's arguments and state_dict, and `process_group`: who shares a batch, None for all processes.

    Runs on any backend, gloo on CPUs included, and as BatchNorm where torch.distributed is not initialized.
    Only training asks the other processes.
    """

    def __init__(self, *args: Any, process_group: "dist.ProcessGroup | None" = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.process_group = process_group

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalizes x (N, C, *spatial); `mask` as in `functional.batch_norm`."""
        if isinstance(input, fx.Proxy) or not self.training or is_alone(self.process_group):
            return super().forward(input, mask)
        self._check_input_dim(input)
        y, batch = normalize_by_all(input, self.weight, self.bias, mask, self.eps, self.process_group)
        self._track(batch)
        return y

    def __deepcopy__(self, memo: dict[int, Any]) -> "_SyncBatchNorm":
        memo[id(self.process_group)] = self.process_group  # cannot be copied: the copy belongs to the same group
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        other.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return other


class SyncBatchNorm1d(_SyncBatchNorm, BatchNorm1d):
    """Of (N, C) or (N, C, L); arguments and state_dict as of BatchNorm1d, and `process_group`."""


class SyncBatchNorm2d(_SyncBatchNorm, BatchNorm2d):
    """Of (N, C, H, W); arguments and state_dict as of BatchNorm2d, and `process_group`."""


class SyncBatchNorm3d(_SyncBatchNorm, BatchNorm3d):
    """Of (N, C, D, H, W); arguments and state_dict as of BatchNorm3d, and `process_group`."""


FAMILY = {"sync": {1: SyncBatchNorm1d, 2: SyncBatchNorm2d, 3: SyncBatchNorm3d}}
