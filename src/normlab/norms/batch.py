"""Batch normalization: each channel gets mean 0 and variance 1 over the batch, then a scale and a shift of its own.

    y = weight * (x - mean) / sqrt(var + eps) + bias

    mean, var     of the batch in training, running averages of them in evaluation
    running <- (1 - momentum) * running + momentum * batch

A layer's outputs drift and stretch while the layers before it learn. Here every channel is brought back to
mean 0 and variance 1 in each training step; two learned numbers a channel, weight (gamma) and bias (beta),
then choose the scale and the shift that the next layer gets. In training the other examples of the batch take
part in what happens to one example. In evaluation they must not, so that averages collected in training take
the place of the batch's statistics.

The batch is normalized by the biased variance (divided by the number of values N), the average keeps the
unbiased one (divided by N - 1), as in torch. The variance is the mean of squared deviations from the mean:
E[x^2] - E[x]^2 would cancel where the mean is large beside the deviation.

Over: the batch and all positions; each channel by itself.
Cost: forward 3 readings of x (mean, variance, result) and 1 writing of y; backward 2 readings of x and of the
    gradient and 1 writing.
When: in convolutional and fully connected networks with batches of about 16 or more. Not where batches are tiny,
    examples of a batch resemble each other, or lengths vary: there take group or layer norm, or renormalization.
Source: Ioffe & Szegedy 2015, arXiv 1502.03167, section 3, algorithms 1 and 2.
"""

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, fx, nn

from normlab.norms.channels import values_per_channel
from normlab.norms.running import check_arguments, check_settings, next_running, update_running
from normlab.norms.shapes import Shaped, as_one_call
from normlab.norms.standardize import BatchStatistics, normalize_by, normalize_by_batch, transformed

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
        momentum: the batch's share in the new running statistics, in [0, 1] (torch's convention); that of
            a tensor is taken on trust.
        eps: added to the variance, finite and >= 0. A constant channel at eps = 0 gives `bias`.
        mask: (N, *spatial), or of x's number of dimensions and broadcastable to it; False elements enter no
            statistic and no gradient, and are 0 in y. A channel of which it leaves one element gives `bias`.

    Returns:
        y, with the dtype and shape of x, and the running statistics that follow: after a batch with an inf
        or NaN, and in evaluation, the old ones. They carry no autograd history: an average of averages
        computed inside the graph would keep every earlier step's graph alive.

    Raises:
        NormlabError: a shape, dtype or value that fits none of the above.

    """
    check_arguments(x, running_mean, running_var, weight, bias, eps, momentum)
    if training or running_mean is None or running_var is None:
        y, batch = normalize_by_batch(x, weight, bias, mask, eps)
        return y, *next_running(running_mean, running_var, batch, momentum)
    y = normalize_by(x, running_mean, running_var, weight, bias, mask, eps)
    return y, running_mean.detach(), running_var.detach()


def check_spread(input: Tensor) -> None:
    """Raises torch's ValueError where statistics would come from one value per channel."""
    if values_per_channel(input) == 1:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {tuple(input.shape)}; "
            "use larger batches, drop the last one, or call eval() on this layer"
        )


class _BatchNorm(Shaped, nn.modules.batchnorm._BatchNorm):
    """What the three layers share: torch's signature, defaults, parameters, buffers and state_dict.

    Deliberate differences from torch.nn: eps = 0 is accepted; negative settings are refused; a batch with an
    inf or NaN moves no buffer and is counted in `nonfinite_batches` (int64 of shape (), not in the
    state_dict); `forward` takes a mask; parameters of a higher precision than x are accepted; a batch that a
    mask empties does not count for momentum=None. `torch.jit.script`, deprecated, does not take the layer.
    """

    kind: ClassVar = "batch"
    absorbs_bias: ClassVar[bool] = True
    """Whether a constant added to a channel of x, and to its running mean, changes nothing."""
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
        if isinstance(input, fx.Proxy):
            return as_one_call(self, input) if mask is None else as_one_call(self, input, mask)
        self._check_input_dim(input)
        running_mean, running_var = self.running_mean, self.running_var
        if not self.training and running_mean is not None and running_var is not None:
            return self._by_running(input, running_mean, running_var, mask)
        check_spread(input)
        return self._by_batch(input, mask)

    def _by_running(self, input: Tensor, running_mean: Tensor, running_var: Tensor, mask: Tensor | None) -> Tensor:
        return normalize_by(input, running_mean, running_var, self.weight, self.bias, mask, self.eps)

    def _by_batch(self, input: Tensor, mask: Tensor | None) -> Tensor:
        y, batch = normalize_by_batch(input, self.weight, self.bias, mask, self.eps)
        self._track(batch)
        return y

    def _track(self, batch: BatchStatistics) -> None:
        """In training, moves the buffers by a batch's statistics."""
        if not self.training:
            return
        # Each buffer is looked up once: in an nn.Module a look-up costs as much as a small tensor operation.
        running_mean, running_var, tracked = self.running_mean, self.running_var, self.num_batches_tracked
        if not self.track_running_stats or running_mean is None or running_var is None:
            if not transformed():  # torch.func changes no state, and a layer that has none should serve it
                self._count(batch)
            return
        batch = batch.stored_as(running_mean.dtype)
        self._count(batch)
        momentum: float | Tensor | None = self.momentum
        if tracked is not None:
            counts = batch.finite
            if isinstance(batch.count, Tensor):
                counts = counts & (batch.count > 0).any()
            tracked.add_(counts)
            if momentum is None:  # the cumulative mean
                momentum = tracked.clamp(min=1).to(batch.mean.dtype).reciprocal()
        momentum = 0.0 if momentum is None else momentum
        if batch.finite is True and isinstance(batch.count, int) and batch.count > 1 and isinstance(momentum, float):
            running_mean.lerp_(batch.mean, momentum)
            running_var.lerp_(batch.unbiased_var, momentum)
            return
        new_mean, new_var = update_running(running_mean, running_var, batch, momentum)
        running_mean.copy_(new_mean)
        running_var.copy_(new_var)

    def _count(self, batch: BatchStatistics) -> None:
        if batch.finite is not True:
            self.nonfinite_batches.add_(1 if batch.finite is False else ~batch.finite)

    def reset_running_stats(self) -> None:
        """The statistics of a new layer, as in torch, and no batch counted."""
        super().reset_running_stats()
        if "nonfinite_batches" in self._buffers:  # torch resets in its constructor too, before there is one
            self.nonfinite_batches.zero_()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        loaded = next((value for value in (self.running_mean, self.weight) if value is not None), None)
        if self.nonfinite_batches.is_meta and loaded is not None and not loaded.is_meta:
            # load_state_dict(..., assign=True) gives a layer on "meta" all but what no state_dict holds.
            self.nonfinite_batches = torch.zeros((), dtype=torch.int64, device=loaded.device)


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    """Batch normalization of (N, C) or (N, C, L); see `functional.batch_norm` and `torch.nn.BatchNorm1d`.

    Ioffe & Szegedy 2015, arXiv 1502.03167. Differs from torch's: an inf or NaN batch moves no buffer and is
    counted in `nonfinite_batches`; it takes a mask, and eps = 0; negative settings are refused.
    """

    layouts: ClassVar = {2: "(N, C)", 3: "(N, C, L)"}
    sibling = "use BatchNorm2d for images"


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """Batch normalization of (N, C, H, W); see `functional.batch_norm` and `torch.nn.BatchNorm2d`.

    Ioffe & Szegedy 2015, arXiv 1502.03167. Differs from torch's: an inf or NaN batch moves no buffer and is
    counted in `nonfinite_batches`; it takes a mask, and eps = 0; negative settings are refused.
    """

    layouts: ClassVar = {4: "(N, C, H, W)"}
    sibling = "use BatchNorm1d after linear layers, BatchNorm3d for volumes"


class BatchNorm3d(_BatchNorm, nn.BatchNorm3d):
    """Batch normalization of (N, C, D, H, W); see `functional.batch_norm` and `torch.nn.BatchNorm3d`.

    Ioffe & Szegedy 2015, arXiv 1502.03167. Differs from torch's: an inf or NaN batch moves no buffer and is
    counted in `nonfinite_batches`; it takes a mask, and eps = 0; negative settings are refused.
    """

    layouts: ClassVar = {5: "(N, C, D, H, W)"}
    sibling = "use BatchNorm2d for images"


FAMILY = {"batch": {1: BatchNorm1d, 2: BatchNorm2d, 3: BatchNorm3d}}
