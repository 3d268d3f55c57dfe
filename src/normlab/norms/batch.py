"""Batch normalization (Ioffe & Szegedy 2015, arXiv 1502.03167, algorithms 1 and 2).

    y = weight * (x - mean) / sqrt(var + eps) + bias

with mean and (biased) variance of each channel over the batch and all positions in training, and their
running averages in evaluation. The variance is two-pass: E[x^2] - E[x]^2 cancels where |mean| >> sigma.
"""

import dataclasses
import inspect
import math
from typing import Any, ClassVar, overload

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd import Function

from normlab.errors import NormlabError

Channels = Float[Tensor, " C"]


def batch_norm(
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
) -> tuple[Float[Tensor, "N C *spatial"], Channels | None, Channels | None]:
    """Batch normalization as a pure function; nothing that is passed in is changed.

    Args:
        x: (N, C, *spatial), floating, any layout; moments are accumulated in float32 or better.
        running_mean: (C,), or None with batch statistics only.
        running_var: (C,), likewise; holds the unbiased variance, as in torch.
        weight: (C,), gamma; None is 1.
        bias: (C,), beta; None is 0.
        training: normalize with the batch's statistics and average them into the running ones.
            Without running statistics the batch's serve in evaluation too.
        momentum: the batch's share in the new running statistics, in [0, 1] (torch's convention).
        eps: added to the variance, >= 0. A constant channel at eps = 0 gives `bias`.
        mask: (N, *spatial) or broadcastable to x; False elements enter no statistic and no gradient,
            and are 0 in y.

    Returns:
        y, with the dtype and shape of x, and the running statistics that follow: those of a batch with an
        inf or NaN are the old ones. They carry no autograd history: an average of averages computed inside
        the graph would keep every earlier step's graph alive.

    Raises:
        NormlabError: a shape, dtype or value that fits none of the above.

    """
    _check(x, running_mean, running_var, weight, bias, momentum, eps)
    if training or running_mean is None or running_var is None:
        y, batch = normalize_by_batch(x, weight, bias, mask, eps)
        if running_mean is None or running_var is None:
            return y, running_mean, running_var
        return y, *update_running(running_mean, running_var, batch, momentum)
    return (
        normalize_by_running(x, running_mean, running_var, weight, bias, mask, eps),
        running_mean,
        running_var,
    )


@dataclasses.dataclass(frozen=True)
class BatchStatistics:
    """Of one batch, each of shape (C,), float32 or better, without autograd history."""

    count: int | Tensor
    """Elements of a channel: a number, or (1,) or (C,) under a mask."""
    mean: Tensor
    unbiased_var: Tensor
    finite: Tensor
    """Whether they are all numbers: a bool of shape ()."""


def normalize_by_batch(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mask: Tensor | None, eps: float
) -> tuple[Tensor, BatchStatistics]:
    """Training's y (N, C, *spatial), and the statistics that gave it."""
    normalize = _Normalize if torch.compiler.is_compiling() else _ForwardMode
    if mask is None:
        y, mean, _, unbiased_var = normalize.apply(x, weight, bias, None, eps)
        return y, BatchStatistics(_per_channel(x), mean, unbiased_var, torch.isfinite(mean + unbiased_var).all())
    mask = _broadcastable(mask, x)
    # Masked elements are cut out before and after: whatever they hold, NaN included, has no way in.
    kept = mask.to(_accumulator(x))
    y, mean, _, unbiased_var = normalize.apply(torch.where(mask, x, 0), weight, bias, kept, eps)
    statistics = BatchStatistics(_count(x, kept), mean, unbiased_var, torch.isfinite(mean + unbiased_var).all())
    return torch.where(mask, y, 0), statistics


def moments(x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Count ((), (1,) or (C,)), mean (C,) and sum of squared deviations (C,) of each channel of
    x (N, C, *spatial), in float32 or better, without autograd history.
    """
    x = x.detach()
    if mask is None:
        kept = None
    else:
        mask = _broadcastable(mask, x)
        x, kept = torch.where(mask, x, 0), mask.to(_accumulator(x))
    mean, squares, _ = _moments(x, kept)
    return _count(x, kept), mean, squares


def normalize_by_running(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    eps: float,
) -> Tensor:
    """Evaluation's y (N, C, *spatial): an affine map that no other row of the batch enters."""
    if eps == 0:
        # As in training, a channel without variance gives `bias`: 1/sqrt(inf) = 0.
        running_var = torch.where(running_var == 0, torch.inf, running_var)
    if mask is not None:
        mask = _broadcastable(mask, x)
        x = torch.where(mask, x, 0)
    mean, var = _cast(running_mean, x), _cast(running_var, x)
    y = nn.functional.batch_norm(x, mean, var, _cast(weight, x), _cast(bias, x), training=False, eps=eps)
    return y if mask is None else torch.where(mask, y, 0)


def update_running(
    running_mean: Tensor, running_var: Tensor, batch: BatchStatistics, momentum: float | Tensor
) -> tuple[Tensor, Tensor]:
    """The next running statistics (C,), (C,): the old ones where the batch has no finite answer, or, for
    the variance, fewer than two values.
    """

    def average(running: Tensor, value: Tensor, enough: bool | Tensor) -> Tensor:
        running = running.detach()
        share = momentum.to(running.dtype) if isinstance(momentum, Tensor) else momentum
        average = torch.lerp(running, value.to(running.dtype), share)
        return torch.where(batch.finite if enough is True else batch.finite & enough, average, running)

    return (
        average(running_mean, batch.mean, batch.count > 0),
        average(running_var, batch.unbiased_var, batch.count > 1),
    )


class _Normalize(Function):
    """x (N, C, *spatial), weight (C,), bias (C,), kept (1 or 0 per element) -> y, mean, 1/std, unbiased var.

    The backward is written by hand and made of differentiable operations: a second backward (and any
    higher one) differentiates through it, with the statistics taken from x anew. Plain layouts take
    torch's own operator, which is 2 to 3 times faster than a composition; channels-last ones do not: there
    its float32 sums are off (at mean/sigma = 1e4 it gives 20 times the variance).
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, kept: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if _operator_serves(x, kept):
            zero = x.new_zeros(x.shape[1], dtype=_accumulator(x))
            # With momentum 1 the operator's "running" statistics are the batch's own, unrounded by eps.
            y, mean, inverse_std, _, unbiased_var = torch.ops.aten._native_batch_norm_legit_functional(
                x, _cast(weight, x), _cast(bias, x), zero, zero, True, 1.0, eps
            )
            return y, mean, inverse_std, unbiased_var
        count = _count(x, kept)
        mean, squares, centered = _moments(x, kept)
        inverse_std = _inverse_std(squares / count.clamp(min=1), eps)
        y = centered * _column(inverse_std, x)
        if weight is not None:
            y = y * _column(_cast(weight, x), x)
        if bias is not None:
            y = y + _column(_cast(bias, x), x)
        return y.to(x.dtype), mean, inverse_std, squares / (count - 1).clamp(min=1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, bias, kept, eps = inputs
        _, mean, inverse_std, unbiased_var = output
        ctx.mark_non_differentiable(mean, inverse_std, unbiased_var)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, kept, mean, inverse_std)
        ctx.save_for_forward(x, weight, kept)
        ctx.eps = eps
        ctx.bias_dtype = None if bias is None else bias.dtype

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if g is None:
            return None, None, None, None, None
        x, weight, kept, mean, inverse_std = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        if not torch.is_grad_enabled() and _operator_serves(x, kept):
            dx, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
                # A gradient in another layout than x's takes a path that is ten times slower.
                g.contiguous(), x, _cast(weight, x), None, None, mean, inverse_std, True, ctx.eps,
                [needs_x, needs_weight, needs_bias],
            )  # fmt: skip
        else:
            count = _count(x, kept).clamp(min=1)
            normalized, inverse_std = _normalized(x, kept, ctx.eps)
            g = g.to(_accumulator(x))
            dbias = g.sum(_reduced(x))
            dweight = (g * normalized).sum(_reduced(x))
            scale = inverse_std if weight is None else inverse_std * _cast(weight, x)
            dx = g - _column(dbias / count, x) - normalized * _column(dweight / count, x)
            dx = (dx * _column(scale, x)).to(x.dtype)
        return (
            dx if needs_x else None,
            dweight.to(weight.dtype) if needs_weight else None,
            dbias.to(ctx.bias_dtype) if needs_bias else None,
            None,
            None,
        )


# `apply` asks for the signature at every call, which takes as long as the operator unless it is kept.
_Normalize.forward.__signature__ = inspect.signature(_Normalize.forward)  # type: ignore[attr-defined]


class _ForwardMode(_Normalize):
    """With forward-mode derivatives too, in a class apart: torch.compile takes no function that has them."""

    @staticmethod
    def jvp(ctx: Any, dx: Tensor | None, dweight: Tensor | None, dbias: Tensor | None, *_: None) -> tuple[Any, ...]:
        x, weight, kept = ctx.saved_tensors
        count = _count(x, kept).clamp(min=1)
        normalized, inverse_std = _normalized(x, kept, ctx.eps)
        dy = torch.zeros_like(normalized)
        if dx is not None:
            dx = dx.to(_accumulator(x))
            along = (normalized * dx).sum(_reduced(x)) / count
            dy = dx - _column(dx.sum(_reduced(x)) / count, x) - normalized * _column(along, x)
            dy = dy * _column(inverse_std if weight is None else inverse_std * _cast(weight, x), x)
        if dweight is not None:
            dy = dy + normalized * _column(dweight, x)
        if dbias is not None:
            dy = dy + _column(dbias, x)
        return dy.to(x.dtype), None, None, None


def _normalized(x: Tensor, kept: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """(x - mean) / std and 1 / std as differentiable functions of x."""
    _, squares, centered = _moments(x, kept)
    inverse_std = _inverse_std(squares / _count(x, kept).clamp(min=1), eps)
    return centered * _column(inverse_std, x), inverse_std


def _moments(x: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), sum of squared deviations (C,), and the deviations (N, C, *spatial), 0 where masked.

    Two plain reductions: `var_mean` over non-adjacent dimensions is twenty times slower on a CPU.
    """
    accumulated = x.to(_accumulator(x))
    mean = accumulated.sum(_reduced(x)) / _count(x, kept).clamp(min=1)  # masked elements are 0 already
    centered = accumulated - _column(mean, x)
    if kept is not None:
        centered = centered * kept
    return mean, (centered * centered).sum(_reduced(x)), centered


def _inverse_std(var: Tensor, eps: float) -> Tensor:
    """1 / sqrt(var + eps), and 0 (with gradient 0) where that is 1 / 0; NaN stays NaN."""
    shifted = var + eps
    constant = shifted == 0
    return torch.where(constant, 0, torch.where(constant, 1, shifted).rsqrt())


def _operator_serves(x: Tensor, kept: Tensor | None) -> bool:
    """Whether torch's operator may: it knows no mask, no transform of torch.func, no variance of one value."""
    transformed = not torch.compiler.is_compiling() and torch._C._functorch.maybe_current_level() is not None
    return kept is None and x.is_contiguous() and _per_channel(x) > 1 and not transformed


def _per_channel(x: Tensor) -> int:
    return x.shape[0] * math.prod(x.shape[2:])


def _count(x: Tensor, kept: Tensor | None) -> Tensor:
    """Elements of a channel, of shape (), or (1,) or (C,) under a mask."""
    if kept is None:
        return x.new_tensor(_per_channel(x), dtype=_accumulator(x))
    return kept.expand(x.shape[0], -1, *x.shape[2:]).sum(_reduced(x))


def _reduced(x: Tensor) -> list[int]:
    return [0, *range(2, x.dim())]


def _column(per_channel: Tensor, x: Tensor) -> Tensor:
    """(C,) or () as something that broadcasts against (N, C, *spatial)."""
    return per_channel.reshape(1, -1, *[1] * (x.dim() - 2))


def _accumulator(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


@overload
def _cast(per_channel: Tensor, x: Tensor) -> Tensor: ...
@overload
def _cast(per_channel: None, x: Tensor) -> None: ...
def _cast(per_channel: Tensor | None, x: Tensor) -> Tensor | None:
    return None if per_channel is None else per_channel.to(_accumulator(x))


def _broadcastable(mask: Tensor, x: Tensor) -> Tensor:
    """The mask as a bool tensor of x's dimensions: (N, *spatial) gets its channel dimension."""
    shape = (x.shape[0], *x.shape[2:])
    full = mask.unsqueeze(1) if mask.dim() == x.dim() - 1 else mask
    try:
        torch.broadcast_shapes(full.shape, x.shape)
        fits = full.dim() == x.dim() and full.dtype == torch.bool
    except RuntimeError:
        fits = False
    if not fits:
        raise NormlabError(
            f"a bool mask of shape (N, *spatial) = {shape} or broadcastable to x {tuple(x.shape)}",
            f"{mask.dtype} of shape {tuple(mask.shape)}",
            "True marks the elements that count",
        )
    return full


def _check(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float | Tensor,
    eps: float,
) -> None:
    if x.dim() < 2 or not x.is_floating_point():
        raise NormlabError("floating x of shape (N, C, *spatial)", f"{x.dtype} of shape {tuple(x.shape)}")
    named = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for name, value in named.items():
        if value is not None and value.shape != (x.shape[1],):
            raise NormlabError(
                f"{name} of shape ({x.shape[1]},) for x {tuple(x.shape)}",
                tuple(value.shape),
                "channels are dimension 1 of x",
            )
    if (running_mean is None) != (running_var is None):
        raise NormlabError("running_mean and running_var, both or neither", "one of them")
    check_settings(eps, momentum)


def check_settings(eps: float, momentum: float | Tensor | None) -> None:
    """Raises NormlabError on an eps below 0 or a momentum outside [0, 1]."""
    if not eps >= 0:
        raise NormlabError("eps >= 0", eps)
    if isinstance(momentum, float | int) and not 0 <= momentum <= 1:
        raise NormlabError(
            "momentum in [0, 1]",
            momentum,
            "it is the batch's share in the running statistics, 1 minus Keras's",
        )


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    """What the three layers share: torch's signature, defaults, parameters, buffers and state_dict.

    Deliberate differences from torch.nn: eps = 0 is accepted; negative settings are refused; a batch with an
    inf or NaN moves no buffer and is counted in `nonfinite_batches` (int64 of shape (), not in the
    state_dict); `forward` takes a mask.
    """

    layouts: ClassVar[dict[int, str]]
    sibling: ClassVar[str]
    nonfinite_batches: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        check_settings(eps, momentum)
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype, **kwargs
        )
        self.register_buffer("nonfinite_batches", torch.zeros((), dtype=torch.int64, device=device), persistent=False)

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalizes x (N, C, *spatial); `mask` as in `functional.batch_norm`.

        Raises ValueError where training statistics would come from one value per channel, as torch does.
        """
        self._check_input_dim(input)
        _check(input, self.running_mean, self.running_var, self.weight, self.bias, self.momentum or 0.0, self.eps)
        if not self.training and self.running_mean is not None and self.running_var is not None:
            return normalize_by_running(
                input, self.running_mean, self.running_var, self.weight, self.bias, mask, self.eps
            )
        if _per_channel(input) == 1:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got input size {tuple(input.shape)}; "
                "use larger batches, drop the last one, or call eval() on this layer"
            )
        y, batch = normalize_by_batch(input, self.weight, self.bias, mask, self.eps)
        if self.training and self.track_running_stats:
            self._track(batch)
        return y

    def _track(self, batch: BatchStatistics) -> None:
        self.nonfinite_batches.add_(~batch.finite)
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(batch.finite)
        momentum: float | Tensor | None = self.momentum
        if momentum is None:  # the cumulative mean
            momentum = self.num_batches_tracked.clamp(min=1).reciprocal()
        running_mean, running_var = update_running(self.running_mean, self.running_var, batch, momentum)
        self.running_mean.copy_(running_mean)
        self.running_var.copy_(running_var)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in self.layouts:
            wanted = " or ".join(f"{dims}D input {layout}" for dims, layout in self.layouts.items())
            raise NormlabError(wanted, f"{input.dim()}D input {tuple(input.shape)}", self.sibling)


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    """Batch normalization of (N, C) or (N, C, L); see `functional.batch_norm` and `torch.nn.BatchNorm1d`.

    Ioffe & Szegedy 2015, arXiv 1502.03167. Differs from torch's in: eps = 0 is accepted; negative settings
    are refused; an inf or NaN batch moves no buffer and is counted in `nonfinite_batches`; takes a mask.
    """

    layouts: ClassVar = {2: "(N, C)", 3: "(N, C, L)"}
    sibling = "use BatchNorm2d for images"


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """Batch normalization of (N, C, H, W); see `functional.batch_norm` and `torch.nn.BatchNorm2d`.

    Ioffe & Szegedy 2015, arXiv 1502.03167. Differs from torch's in: eps = 0 is accepted; negative settings
    are refused; an inf or NaN batch moves no buffer and is counted in `nonfinite_batches`; takes a mask.
    """

    layouts: ClassVar = {4: "(N, C, H, W)"}
    sibling = "use BatchNorm1d after linear layers, BatchNorm3d for volumes"


class BatchNorm3d(_BatchNorm, nn.BatchNorm3d):
    """Batch normalization of (N, C, D, H, W); see `functional.batch_norm` and `torch.nn.BatchNorm3d`.

    Ioffe & Szegedy 2015, arXiv 1502.03167. Differs from torch's in: eps = 0 is accepted; negative settings
    are refused; an inf or NaN batch moves no buffer and is counted in `nonfinite_batches`; takes a mask.
    """

    layouts: ClassVar = {5: "(N, C, D, H, W)"}
    sibling = "use BatchNorm2d for images"


FAMILY = {"batch": {1: BatchNorm1d, 2: BatchNorm2d, 3: BatchNorm3d}}
