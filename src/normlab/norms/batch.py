"""Batch normalization (Ioffe & Szegedy 2015, arXiv 1502.03167, algorithms 1 and 2).

    y = weight * (x - mean) / sqrt(var + eps) + bias

with mean and (biased) variance of each channel over the batch and all positions in training, and their
running averages in evaluation. The variance is two-pass: E[x^2] - E[x]^2 cancels where |mean| >> sigma.
"""

import dataclasses
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd import Function, forward_ad

from normlab.errors import NormlabError
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
    kept = None
    if mask is not None:
        # Masked elements are cut out before and after: whatever they hold, NaN included, has no way in.
        x, mask = cut(x, mask)
        kept = mask.to(accumulator(x))
    if _transformed():
        y, mean, _, unbiased_var = _compose(x, weight, bias, kept, eps)
        mean, unbiased_var = mean.detach(), unbiased_var.detach()
    else:
        y, mean, unbiased_var = _Normalize.apply(x, weight, bias, kept, eps)
    finite = torch.isfinite(torch.stack((mean, unbiased_var))).all()
    if mask is None:
        return y, BatchStatistics(values_per_channel(x), mean, unbiased_var, finite)
    return torch.where(mask, y, 0), BatchStatistics(count(x, kept), mean, unbiased_var, finite)


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
        x, mask = cut(x, mask)
    mean, var = cast(running_mean, x), cast(running_var, x)
    y = nn.functional.batch_norm(x, mean, var, cast(weight, x), cast(bias, x), training=False, eps=eps)
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
        moved = torch.lerp(running, value.to(running.dtype), share)
        return torch.where(batch.finite if enough is True else batch.finite & enough, moved, running)

    return (
        average(running_mean, batch.mean, batch.count > 0),
        average(running_var, batch.unbiased_var, batch.count > 1),
    )


class _Normalize(Function):
    """x (N, C, *spatial), weight (C,), bias (C,), kept (1 or 0 per element) -> y, mean, unbiased variance.

    The backward is written by hand and made of differentiable operations: a second backward (and any
    higher one) differentiates through it, with the statistics taken from x anew. Plain layouts take
    torch's own operator, which is 2 to 3 times faster than the composition; channels-last ones do not:
    there its float32 sums are off (at mean/sigma = 1e4 it gives 20 times the variance).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, kept: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        if _operator_serves(x, kept):
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
        ctx.bias_dtype = None if bias is None else bias.dtype
        return y, mean, unbiased_var

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        g = gradients[0]
        if g is None:
            return None, None, None, None, None
        x, weight, kept, mean, inverse = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        if not torch.is_grad_enabled() and _operator_serves(x, kept):
            dx, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
                # A gradient in another layout than x's takes a path that is ten times slower.
                g.contiguous(), x, cast(weight, x), None, None, mean, inverse, True, ctx.eps,
                [needs_x, needs_weight, needs_bias],
            )  # fmt: skip
        else:
            elements = count(x, kept).clamp(min=1)
            _, squares, centered = deviations(x, kept)
            inverse = inverse_std(squares / elements, ctx.eps)
            normalized = centered * column(inverse, x)
            g = g.to(accumulator(x))
            dbias = g.sum(reduced(x))
            dweight = (g * normalized).sum(reduced(x))
            scale = inverse if weight is None else inverse * cast(weight, x)
            dx = g - column(dbias / elements, x) - normalized * column(dweight / elements, x)
            dx = (dx * column(scale, x)).to(x.dtype)
        return (
            dx if needs_x else None,
            dweight.to(weight.dtype) if needs_weight else None,
            dbias.to(ctx.bias_dtype) if needs_bias else None,
            None,
            None,
        )


def _compose(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, kept: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, mean, 1/std and unbiased variance as a plain composition, differentiable in every way torch has."""
    elements = count(x, kept)
    mean, squares, centered = deviations(x, kept)
    inverse = inverse_std(squares / elements.clamp(min=1), eps)
    y = centered * column(inverse, x)
    if weight is not None:
        y = y * column(cast(weight, x), x)
    if bias is not None:
        y = y + column(cast(bias, x), x)
    return y.to(x.dtype), mean, inverse, squares / (elements - 1).clamp(min=1)


def _operator_serves(x: Tensor, kept: Tensor | None) -> bool:
    """Whether torch's operator may: it knows no mask, and no variance of one value."""
    return kept is None and x.is_contiguous() and values_per_channel(x) > 1


def _transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is at work, which a backward by hand knows nothing of."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._functorch.maybe_current_level() is not None or forward_ad._current_level >= 0


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
        if values_per_channel(input) == 1:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got input size {tuple(input.shape)}; "
                "use larger batches, drop the last one, or call eval() on this layer"
            )
        y, batch = normalize_by_batch(input, self.weight, self.bias, mask, self.eps)
        if self.training:
            self._track(batch)
        return y

    def _track(self, batch: BatchStatistics) -> None:
        self.nonfinite_batches.add_(~batch.finite)
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(batch.finite)
        momentum: float | Tensor | None = self.momentum
        if momentum is None:  # the cumulative mean
            momentum = self.num_batches_tracked.clamp(min=1).to(batch.mean.dtype).reciprocal()
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
