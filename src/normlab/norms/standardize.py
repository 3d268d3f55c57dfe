"""x (N, C, *spatial) with mean 0 and variance 1 in each channel, by its own statistics or by given ones, then
scaled and shifted: the operation that batch norms are made of, and its derivatives.
"""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function, forward_ad

from normlab.norms.channels import (
    accumulator,
    cast,
    column,
    count,
    cut,
    deviations,
    inverse_std,
    reduced,
    values_per_channel,
)


@dataclasses.dataclass(frozen=True)
class BatchStatistics:
    """Of one batch, each of shape (C,), float32 or better, without autograd history."""

    count: int | Tensor
    """Elements of a channel: a number, or (1,) or (C,) under a mask."""
    mean: Tensor
    unbiased_var: Tensor
    finite: bool | Tensor
    """Whether they are all numbers: a bool where that is known without waiting for a device, else of shape ()."""

    def stored_as(self, dtype: torch.dtype) -> "BatchStatistics":
        """In the dtype of running statistics, whose range may be smaller: what overflows there is not finite."""
        if self.mean.dtype == dtype:
            return self
        mean, unbiased_var = self.mean.to(dtype), self.unbiased_var.to(dtype)
        finite = self.finite & is_finite(torch.stack((mean, unbiased_var)))
        return BatchStatistics(self.count, mean, unbiased_var, finite)


def normalize_by_batch(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mask: Tensor | None, eps: float
) -> tuple[Tensor, BatchStatistics]:
    """Training's y (N, C, *spatial), and the statistics that gave it."""
    kept = None
    if mask is not None:
        # Masked elements are cut out before and after: whatever they hold, NaN included, has no way in.
        x, mask = cut(x, mask)
        kept = mask.to(accumulator(x))
    if transformed():
        y, mean, _, unbiased_var = _compose(x, weight, bias, kept, eps)
        mean, unbiased_var = mean.detach(), unbiased_var.detach()
    else:
        y, mean, unbiased_var = _Normalize.apply(x, weight, bias, kept, eps)
    elements = values_per_channel(x) if kept is None else count(x, kept)
    y = y if mask is None else torch.where(mask, y, 0)
    # A mean that is not finite leaves no deviation that is: the variance tells of both.
    return y, BatchStatistics(elements, mean, unbiased_var, is_finite(unbiased_var))


def measure(x: Tensor, mask: Tensor | None, exact: bool = False) -> tuple[Tensor, Tensor, BatchStatistics]:
    """The deviations of x (N, C, *spatial), 0 where masked, and its biased variance (C,), for compositions that
    autograd differentiates; and the statistics. `exact` as in `deviations`.
    """
    kept = None
    if mask is not None:
        x, mask = cut(x, mask)
        kept = mask.to(accumulator(x))
    mean, squares, centered = deviations(x, kept, exact)
    elements = count(x, kept)
    unbiased_var = (squares / (elements - 1).clamp(min=1)).detach()
    known = values_per_channel(x) if kept is None else elements
    batch = BatchStatistics(known, mean.detach(), unbiased_var, is_finite(unbiased_var))
    return centered, squares / elements.clamp(min=1), batch


def normalize_by(
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    eps: float,
) -> Tensor:
    """Evaluation's y (N, C, *spatial): an affine map that no other row of the batch enters."""
    if mask is not None:
        x, mask = cut(x, mask)
    mean, var, weight, bias = cast(mean, x), cast(var, x), cast(weight, x), cast(bias, x)
    if mean.requires_grad or var.requires_grad:  # which torch's operator does not differentiate
        y = (x - column(mean, x)) * column(inverse_std(var, eps), x)
        y = y if weight is None else y * column(weight, x)
        y = (y if bias is None else y + column(bias, x)).to(x.dtype)
    else:
        if eps == 0:
            # As in training, a channel without variance gives `bias`: 1/sqrt(inf) = 0.
            var = torch.where(var == 0, torch.inf, var)
        y = nn.functional.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)
    return y if mask is None else torch.where(mask, y, 0)


def transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is at work, which a backward by hand knows nothing of."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._functorch.maybe_current_level() is not None or forward_ad._current_level >= 0


class _Normalize(Function):
    """x (N, C, *spatial), weight (C,), bias (C,), kept (1 or 0 per element) -> y, mean, unbiased variance.

    The backward is written by hand and made of differentiable operations: a second backward (and any
    higher one) differentiates through it, with the statistics taken from x anew. Plain layouts take
    torch's own operator, which is 2 to 3 times faster than the composition; channels-last ones do not:
    there its float32 sums are off (at mean/sigma = 1e4 it gives 20 to 100 times the variance). Nor does
    eps = 0, where a rounded mean would make a channel that is constant vary.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, kept: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        if _operator_serves(x, kept, eps):
            zero = x.new_zeros(x.shape[1], dtype=accumulator(x))
            # With momentum 1 the operator's "running" statistics are the batch's own, unrounded by eps.
            y, mean, inverse, _, unbiased_var = torch.ops.aten._native_batch_norm_legit_functional(
                x, cast(weight, x), cast(bias, x), zero, zero, True, 1.0, eps
            )
        else:
            y, mean, inverse, unbiased_var = _compose(x, weight, bias, kept, eps)
        ctx.mark_non_differentiable(mean, unbiased_var)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, kept, mean, inverse)
        ctx.eps = eps
        return y, mean, unbiased_var

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        g = gradients[0]
        if g is None:
            return None, None, None, None, None
        x, weight, kept, mean, inverse = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        if not torch.is_grad_enabled() and _operator_serves(x, kept, ctx.eps):
            dx, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
                # A gradient in another layout than x's takes a path that is ten times slower.
                g.contiguous(), x, cast(weight, x), None, None, mean, inverse, True, ctx.eps,
                [needs_x, needs_weight, needs_bias],
            )  # fmt: skip
        else:
            elements = count(x, kept).clamp(min=1)
            if torch.is_grad_enabled():
                _, squares, centered = deviations(x, kept, exact=ctx.eps == 0)
                inverse = inverse_std(squares / elements, ctx.eps)
            else:
                centered = x.to(accumulator(x)) - column(mean, x)
                centered = centered if kept is None else centered * kept
            normalized = centered * column(inverse, x)
            g = g.to(accumulator(x))
            dbias = g.sum(reduced(x))
            dweight = (g * normalized).sum(reduced(x))
            scale = inverse if weight is None else inverse * cast(weight, x)
            dx = torch.addcmul(g - column(dbias / elements, x), normalized, column(dweight / elements, x), value=-1)
            dx = (dx * column(scale, x)).to(x.dtype)
        return (
            dx if needs_x else None,
            dweight if needs_weight else None,  # autograd gives it the parameter's dtype
            dbias if needs_bias else None,
            None,
            None,
        )


def _compose(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, kept: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, mean, 1/std and unbiased variance as a plain composition, differentiable in every way torch has."""
    elements = count(x, kept)
    mean, squares, centered = deviations(x, kept, exact=eps == 0)
    inverse = inverse_std(squares / elements.clamp(min=1), eps)
    scale = inverse if weight is None else inverse * cast(weight, x)
    y = centered * column(scale, x)
    if bias is not None:
        y = y + column(cast(bias, x), x)
    return y.to(x.dtype), mean, inverse, squares / (elements - 1).clamp(min=1)


def _operator_serves(x: Tensor, kept: Tensor | None, eps: float) -> bool:
    """Whether torch's operator may: it knows no mask, no variance of one value, and rounds too much for eps = 0."""
    return kept is None and eps > 0 and x.is_contiguous() and values_per_channel(x) > 1


def is_finite(values: Tensor) -> bool | Tensor:
    """Whether all are numbers: a bool where that is known without waiting for a device, else of shape ()."""
    total = values.sum(dtype=torch.float64 if values.device.type == "cpu" else None)
    if total.device.type != "cpu" or torch.compiler.is_compiling() or transformed():
        return torch.isfinite(total)
    return math.isfinite(total.item())
