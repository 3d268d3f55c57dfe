"""One stage of a small network on lane tensors:

    y = pool(mask * activation(norm(before(head(x))) + residual))

with a convolution or linear layer as the head, batch normalization, an activation before or after it, a dropout's
mask, and pooling; each of them may be missing. What a network spends its time on is one of these, forward and
backward.
"""

import dataclasses
import functools
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from normlab.kernels.lanes import Lanes, native, pack_reference, unpack_reference

Activation = Literal["none", "relu", "sigmoid", "tanh", "gelu", "gelu-tanh", "silu"]
Pair = tuple[int, int]

ACTIVATIONS = {
    "none": lambda x: x,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": functional.gelu,
    "gelu-tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
}


@dataclasses.dataclass(frozen=True)
class Pool:
    """Pooling over windows, as torch's AvgPool2d and MaxPool2d without dilation and ceil mode."""

    kind: Literal["avg", "max"]
    size: Pair
    stride: Pair
    padding: Pair = (0, 0)
    count_padding: bool = True
    """Whether an average counts the zeros around the image (`count_include_pad`)."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """All of a stage that is no tensor."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    before: Activation = "none"
    """Activation between the head and the norm."""
    norm: Literal["none", "batch", "fixed"] = "none"
    """By the batch's statistics, by given ones, or not at all."""
    eps: float = 1e-5
    activation: Activation = "none"
    pool: Pool | None = None

    @functools.cached_property
    def geometry(self) -> list[int]:
        """As the native convolution takes it."""
        return [*self.stride, *self.padding]

    @functools.cached_property
    def numbers(self) -> list[int]:
        """As the native epilogue takes it."""
        pool = self.pool
        shape = (*pool.size, *pool.stride, *pool.padding, int(pool.count_padding)) if pool else (0,) * 7
        kind = ("avg", "max").index(pool.kind) + 1 if pool else 0
        codes = list(ACTIVATIONS)
        return [codes.index(self.before), codes.index(self.activation), int(self.norm == "batch"), kind, *shape]

    @functools.cached_property
    def only_head(self) -> bool:
        """Whether nothing but a mask or a residual can follow the head."""
        return self == Settings(self.stride, self.padding, eps=self.eps)


def stage(
    x: Lanes,
    settings: Settings,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    mean: Tensor | None = None,
    var: Tensor | None = None,
    residual: Lanes | None = None,
    mask: Lanes | None = None,
) -> tuple[Lanes, Tensor | None, Tensor | None]:
    """One stage, natively where the kernels serve x, else by `stage_reference`; differentiable twice.

    Args:
        x: N examples (C, H, W) or (F,).
        settings: all that is no tensor.
        weight: of the head, (out, C, kh, kw) or (out, F); none is no head.
        bias: of the head, (out,).
        gamma, beta: of the norm, (out,).
        mean, var: what norm "fixed" normalizes by, (out,); no gradient flows there.
        residual: added before the activation, of the same shape.
        mask: multiplies what the activation gives: a dropout's, of the same shape.

    Returns:
        The result; mean and biased variance of the batch where norm is "batch", without autograd history.

    """
    if not native(x.data):
        return stage_reference(x, settings, weight, bias, gamma, beta, mean, var, residual, mask)
    others = (weight, bias, gamma, beta, mean, var, residual and residual.data, mask and mask.data)
    plain = (each if each is None else each.contiguous() for each in others)  # a weight may be channels-last
    out, batch_mean, batch_var = _Stage.apply(x.data.contiguous(), *plain, x.count, settings)
    return Lanes(out, x.count), batch_mean, batch_var


class _Stage(Function):
    """The native stage; where somebody differentiates its backward, that is the reference's."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        gamma: Tensor | None,
        beta: Tensor | None,
        mean: Tensor | None,
        var: Tensor | None,
        residual: Tensor | None,
        mask: Tensor | None,
        count: int,
        settings: Settings,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        ops = torch.ops.normlab
        if weight is None:
            y = x
        elif weight.dim() == 4:
            y = ops.conv2d.default(x, weight, bias, settings.geometry)
        else:
            y = ops.linear.default(x, weight, bias)
        if settings.norm == "batch":
            mean, var = ops.statistics.default(y, count, settings.numbers[0])
        if settings.only_head and residual is None and mask is None:
            out = y if weight is not None else y.clone()
        else:
            out = ops.epilogue.default(y, mean, var, gamma, beta, settings.eps, residual, mask, settings.numbers)
        ctx.save_for_backward(
            x, weight, bias, gamma, beta, mean, var, residual, mask, y if weight is not None else None
        )
        ctx.count, ctx.settings = count, settings
        ctx.set_materialize_grads(False)
        if settings.norm != "batch":
            return out, None, None
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        g = gradients[0]
        if g is None:
            return (None,) * 11
        if torch.is_grad_enabled():
            return _differentiable_gradients(ctx, g)
        ops = torch.ops.normlab
        x, weight, _, gamma, beta, mean, var, residual, mask, y = ctx.saved_tensors
        settings, needed = ctx.settings, ctx.needs_input_grad
        g = g.contiguous()
        dresidual = dgamma = dbeta = dweight = dbias = None
        if not (settings.only_head and residual is None and mask is None):
            g, dresidual, dgamma, dbeta = ops.epilogue_backward.default(
                g, x if y is None else y, ctx.count, mean, var, gamma, beta, settings.eps, residual, mask,
                settings.numbers,
            )  # fmt: skip
        dx: Tensor | None = g
        if weight is not None:
            dx = None
            if weight.dim() == 4:
                if needed[0]:
                    dx = ops.conv2d_backward_input.default(g, weight, settings.geometry, *x.shape[2:4])
                if needed[1] or needed[2]:
                    dweight, dbias = ops.conv2d_backward_weight.default(g, x, settings.geometry, *weight.shape[2:])
            else:
                if needed[0]:
                    dx = ops.linear_backward_input.default(g, weight)
                if needed[1] or needed[2]:
                    dweight, dbias = ops.linear_backward_weight.default(g, x)
        found = (dx, dweight, dbias, dgamma, dbeta, None, None, dresidual, None, None, None)
        return tuple(each if need else None for each, need in zip(found, needed, strict=True))


def _differentiable_gradients(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients as a composition that can be differentiated again."""
    x, *others, _ = ctx.saved_tensors
    given = [x, *others]
    wanted = [each for each, need in zip(given, ctx.needs_input_grad, strict=False) if need]
    weight, bias, gamma, beta, mean, var, residual, mask = others
    statistics = (None, None) if ctx.settings.norm == "batch" else (mean, var)
    lanes = [None if each is None else Lanes(each, ctx.count) for each in (residual, mask)]
    out, _, _ = stage_reference(Lanes(x, ctx.count), ctx.settings, weight, bias, gamma, beta, *statistics, *lanes)
    found = iter(torch.autograd.grad(out.data, wanted, g, create_graph=True, allow_unused=True))
    return (*(next(found) if need else None for need in ctx.needs_input_grad[:9]), None, None)


def stage_reference(
    x: Lanes,
    settings: Settings,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    mean: Tensor | None = None,
    var: Tensor | None = None,
    residual: Lanes | None = None,
    mask: Lanes | None = None,
) -> tuple[Lanes, Tensor | None, Tensor | None]:
    """`stage` in plain torch: any floating dtype, differentiable to any order."""
    y = unpack_reference(x)
    if weight is not None:
        if weight.dim() == 4:
            y = functional.conv2d(y, weight, bias, settings.stride, settings.padding)
        else:
            y = functional.linear(y, weight, bias)
    y = ACTIVATIONS[settings.before](y)
    if settings.norm == "batch":
        others = [0, *range(2, y.dim())]
        mean = y.mean(others)
        var = (y - _column(mean, y)).square().mean(others)
    if settings.norm != "none":
        assert mean is not None
        assert var is not None
        y = (y - _column(mean, y)) * _column((var + settings.eps).rsqrt(), y)
        y = y if gamma is None else y * _column(gamma, y)
        y = y if beta is None else y + _column(beta, y)
    y = y if residual is None else y + unpack_reference(residual)
    y = ACTIVATIONS[settings.activation](y)
    y = y if mask is None else y * unpack_reference(mask)
    if pool := settings.pool:
        if pool.kind == "avg":
            y = functional.avg_pool2d(y, pool.size, pool.stride, pool.padding, count_include_pad=pool.count_padding)
        else:
            y = functional.max_pool2d(y, pool.size, pool.stride, pool.padding)
    out = pack_reference(y, width=x.data.shape[-1])
    if settings.norm != "batch":
        return out, None, None
    assert mean is not None
    assert var is not None
    return out, mean.detach(), var.detach()


def _column(per_channel: Tensor, x: Tensor) -> Tensor:
    return per_channel.reshape(1, -1, *[1] * (x.dim() - 2))
