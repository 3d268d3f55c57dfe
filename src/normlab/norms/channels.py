"""Per-channel arithmetic of x (N, C, *spatial) that norms over a batch share.

`kept` is a mask as numbers: 1 or 0 for each element, broadcastable to x; None keeps all. Where it is given,
x must be 0 at what it drops.
"""

import math
from typing import overload

import torch
from torch import Tensor

from normlab.errors import NormlabError


def cut(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """X with 0 where the mask is False, and the mask with x's dimensions: (N, *spatial) gets its channel's.

    Raises NormlabError where it is no bool mask that broadcasts to x.
    """
    shape = (x.shape[0], *x.shape[2:])
    full = mask.unsqueeze(1) if mask.dim() == x.dim() - 1 else mask
    try:
        torch.broadcast_shapes(full.shape, x.shape)
        fits = full.dim() == x.dim() and full.dtype == torch.bool
    except RuntimeError:
        fits = False
    if not fits:
        raise NormlabError(
            f"a bool mask of shape (N, *spatial) = {shape}, or one of {x.dim()} dimensions for {tuple(x.shape)}",
            f"{mask.dtype} of shape {tuple(mask.shape)}",
            "True marks the elements that count",
        )
    return torch.where(full, x, 0), full


def blank(x: Tensor, mask: Tensor | None) -> Tensor:
    """X with 0 where there is a mask and it is False."""
    return x if mask is None else cut(x, mask)[0]


def deviations(x: Tensor, kept: Tensor | None, exact: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), sum of squared deviations (C,), and the deviations (N, C, *spatial), 0 where masked.

    Plain reductions: `var_mean` over non-adjacent dimensions is twenty times slower on a CPU.
    """
    mean, centered = center(x, kept, exact)
    return mean, (centered * centered).sum(reduced(x)), centered


def center(x: Tensor, kept: Tensor | None, exact: bool = False) -> tuple[Tensor, Tensor]:
    """Mean (C,) and the deviations from it (N, C, *spatial), 0 where masked.

    With `exact` the mean of the deviations, which is what the rounding of a long sum left, goes into the mean:
    a constant channel then has deviations of 0, not of 1e-17.
    """
    accumulated = x.to(accumulator(x))
    elements = count(x, kept).clamp(min=1)

    def subtract(mean: Tensor) -> Tensor:
        centered = accumulated - column(mean, x)
        return centered if kept is None else centered * kept

    mean = accumulated.sum(reduced(x)) / elements  # masked elements are 0 already
    centered = subtract(mean)
    if exact:
        mean = mean + centered.sum(reduced(x)) / elements
        centered = subtract(mean)
    return mean, centered


def moments(x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Count ((), (1,) or (C,)), mean (C,) and sum of squared deviations (C,), without autograd history."""
    x = x.detach()
    kept = None
    if mask is not None:
        x, mask = cut(x, mask)
        kept = mask.to(accumulator(x))
    mean, squares, _ = deviations(x, kept)
    return count(x, kept), mean, squares


def inverse_std(var: Tensor, eps: float | Tensor) -> Tensor:
    """1 / sqrt(var + eps), and 0 (with gradient 0) where that is 1 / 0; NaN stays NaN."""
    shifted = var + eps
    constant = shifted == 0
    return torch.where(constant, 0, torch.where(constant, 1, shifted).rsqrt())


def count(x: Tensor, kept: Tensor | None) -> Tensor:
    """Elements of a channel, of shape (), or (1,) or (C,) under a mask."""
    if kept is None:
        return x.new_tensor(values_per_channel(x), dtype=accumulator(x))
    return kept.expand(x.shape[0], -1, *x.shape[2:]).sum(reduced(x))


def values_per_channel(x: Tensor) -> int:
    """Elements of each channel, masked ones included."""
    return x.shape[0] * math.prod(x.shape[2:])


def reduced(x: Tensor) -> list[int]:
    """All dimensions but that of the channels."""
    return [0, *range(2, x.dim())]


def column(per_channel: Tensor, x: Tensor) -> Tensor:
    """(C,) or () as something that broadcasts against (N, C, *spatial)."""
    return per_channel.reshape(1, -1, *[1] * (x.dim() - 2))


def affine(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Weight (C,) times y (N, C, *spatial) plus bias (C,); None is 1 and 0. In the accumulator's dtype."""
    if weight is not None:
        y = y * column(cast(weight, y), y)
    return y if bias is None else y + column(cast(bias, y), y)


def laid_out_as(x: Tensor, y: Tensor) -> Tensor:
    """Y in channels-last where x is."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if x.is_contiguous() or x.dim() not in formats or not x.is_contiguous(memory_format=formats[x.dim()]):
        return y
    return y.contiguous(memory_format=formats[x.dim()])


def accumulator(x: Tensor) -> torch.dtype:
    """What sums over x are kept in: float32 or better."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


@overload
def cast(per_channel: Tensor, x: Tensor) -> Tensor: ...
@overload
def cast(per_channel: None, x: Tensor) -> None: ...
def cast(per_channel: Tensor | None, x: Tensor) -> Tensor | None:
    """A (C,) parameter or statistic in the accumulator's dtype."""
    if per_channel is None or per_channel.dtype == accumulator(x):  # even a `to` that changes nothing takes its time
        return per_channel
    return per_channel.to(accumulator(x))
