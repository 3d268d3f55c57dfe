"""Ghost batch normalization: a large batch is normalized in small parts, each by its own statistics.

    y = weight * (x - mean_g) / sqrt(var_g + eps) + bias      for the examples of part g

    g = 1 .. max(1, N // ghost_size), parts of equal size as far as N allows
    running <- (1 - momentum) * running + momentum * part g, for each part in turn

The mean and variance of a small batch are a little off, each time in another way, and this noise acts against
overfitting. A large batch loses it. Ghost batch normalization keeps the small batch's noise with the large
batch's speed: it pretends that the batch is several small ones ("ghosts"). No part is smaller than
`ghost_size`, unless the whole batch is: a rest that does not fill a part is spread over the others, so that
no variance is ever taken from one or two left-over examples. The running averages take up the parts one
after the other, as if they had come as batches of their own.

Over: the examples of a part and all positions; each channel by itself.
Cost: that of batch normalization, and 1 reading and 1 writing of y to join the parts.
When: for large batches (hundreds or more) that generalize worse than small ones. Not where the batch is small
    already: the parts' statistics become too noisy.
Source: Hoffer, Hubara & Soudry 2017, arXiv 1705.08741, section 4, algorithm 1.
"""

import dataclasses
import functools
import operator
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from normlab.errors import NormlabError
from normlab.norms.batch import BatchNorm1d, BatchNorm2d, BatchNorm3d, Channels, _BatchNorm
from normlab.norms.channels import cut
from normlab.norms.running import check_arguments, next_running
from normlab.norms.standardize import BatchStatistics, normalize_by, normalize_by_batch

GHOST_SIZE = 32


def ghost_batch_norm(
    x: Float[Tensor, "N C *spatial"],
    running_mean: Channels | None = None,
    running_var: Channels | None = None,
    weight: Channels | None = None,
    bias: Channels | None = None,
    *,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
    ghost_size: int = GHOST_SIZE,
    mask: Bool[Tensor, "..."] | None = None,
) -> tuple[Float[Tensor, "N C *spatial"], Channels | None, Channels | None]:
    """Ghost batch normalization as a pure function; nothing that is passed in is changed.

    Args, returned values and errors are those of `batch_norm`, and:
        ghost_size: the examples that are normalized together, at least 1. A batch with fewer than twice as many
            is one part.

    An inf or NaN anywhere in the batch leaves the running statistics as they were.
    """
    check_arguments(x, running_mean, running_var, weight, bias, eps, momentum)
    _check_size(ghost_size)
    if training or running_mean is None or running_var is None:
        y, ghosts = _by_ghosts(x, weight, bias, mask, eps, ghost_size)
        for ghost in ghosts:
            running_mean, running_var = next_running(running_mean, running_var, ghost, momentum)
        return y, running_mean, running_var
    y = normalize_by(x, running_mean, running_var, weight, bias, mask, eps)
    return y, running_mean.detach(), running_var.detach()


def _by_ghosts(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mask: Tensor | None, eps: float, ghost_size: int
) -> tuple[Tensor, list[BatchStatistics]]:
    """y, and the statistics of each part, which all say whether the whole batch is finite."""
    parts = max(1, x.shape[0] // ghost_size)
    if parts == 1:
        y, batch = normalize_by_batch(x, weight, bias, mask, eps)
        return y, [batch]
    masks: Any = [None] * parts
    if mask is not None:
        x, mask = cut(x, mask)
        masks = mask.expand(x.shape[0], *mask.shape[1:]).tensor_split(parts)
    normalized = [
        normalize_by_batch(part, weight, bias, kept, eps)
        for part, kept in zip(x.tensor_split(parts), masks, strict=True)
    ]
    finite = functools.reduce(operator.and_, (ghost.finite for _, ghost in normalized))
    ghosts = [dataclasses.replace(ghost, finite=finite) for _, ghost in normalized]
    return torch.cat([y for y, _ in normalized]), ghosts


def _check_size(ghost_size: int) -> None:
    if ghost_size < 1:
        raise NormlabError("ghost_size of 1 or more", ghost_size, "it is the number of examples in a part")


class _Ghost(_BatchNorm):
    """As BatchNorm, with `ghost_size` (32). Every part counts as a batch, in `num_batches_tracked`, for
    momentum=None, and, all of them at once, in `nonfinite_batches`.
    """

    kind: ClassVar = "ghost"

    def __init__(self, num_features: int, *args: Any, ghost_size: int = GHOST_SIZE, **kwargs: Any) -> None:
        super().__init__(num_features, *args, **kwargs)
        _check_size(ghost_size)
        self.ghost_size = ghost_size

    def _by_batch(self, input: Tensor, mask: Tensor | None) -> Tensor:
        y, ghosts = _by_ghosts(input, self.weight, self.bias, mask, self.eps, self.ghost_size)
        for ghost in ghosts:
            self._track(ghost)
        return y

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, ghost_size={self.ghost_size}"


class GhostBatchNorm1d(_Ghost, BatchNorm1d):
    """Of (N, C) or (N, C, L); see `functional.ghost_batch_norm`."""


class GhostBatchNorm2d(_Ghost, BatchNorm2d):
    """Of (N, C, H, W); see `functional.ghost_batch_norm`."""


class GhostBatchNorm3d(_Ghost, BatchNorm3d):
    """Of (N, C, D, H, W); see `functional.ghost_batch_norm`."""


FAMILY = {"ghost": {1: GhostBatchNorm1d, 2: GhostBatchNorm2d, 3: GhostBatchNorm3d}}
