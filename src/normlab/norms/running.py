"""The running statistics of norms over a batch: how a batch moves them, and what such norms accept."""

import torch
from torch import Tensor

from normlab.errors import NormlabError
from normlab.norms.shapes import check_eps, check_tensors
from normlab.norms.standardize import BatchStatistics


def next_running(
    running_mean: Tensor | None, running_var: Tensor | None, batch: BatchStatistics, momentum: float | Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """`update_running`, or nothing where nothing is kept."""
    if running_mean is None or running_var is None:
        return None, None
    return update_running(running_mean, running_var, batch, momentum)


def update_running(
    running_mean: Tensor, running_var: Tensor, batch: BatchStatistics, momentum: float | Tensor
) -> tuple[Tensor, Tensor]:
    """The next running statistics (C,), (C,): the old ones where the batch has no finite answer, or, for
    the variance, fewer than two values.
    """
    batch = batch.stored_as(running_mean.dtype)

    def average(running: Tensor, value: Tensor, enough: bool | Tensor) -> Tensor:
        running = running.detach()
        share = momentum.detach().to(running.dtype) if isinstance(momentum, Tensor) else momentum
        moves = batch.finite if enough is True else batch.finite & enough
        if moves is False:
            return running
        moved = torch.lerp(running, value, share)
        return moved if moves is True else torch.where(moves, moved, running)

    return (
        average(running_mean, batch.mean, batch.count > 0),
        average(running_var, batch.unbiased_var, batch.count > 1),
    )


def check_arguments(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    momentum: float | Tensor,
) -> None:
    """Raises NormlabError on what no pure function with running statistics takes."""
    check_tensors(x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    if (running_mean is None) != (running_var is None):
        raise NormlabError("running_mean and running_var, both or neither", "one of them")
    if momentum is None:
        raise NormlabError("momentum as a number or a tensor", None, "the layer turns None into 1 / batches so far")
    check_settings(eps, momentum)


def check_settings(eps: float, momentum: float | Tensor | None) -> None:
    """Raises NormlabError on an eps below 0 or infinite, and on a momentum outside [0, 1]."""
    check_eps(eps)
    if isinstance(momentum, float | int) and not 0 <= momentum <= 1:
        raise NormlabError(
            "momentum in [0, 1]",
            momentum,
            "it is the batch's share in the running statistics, 1 minus Keras's",
        )
