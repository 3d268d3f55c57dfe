"""Variance-only batch normalization: each channel gets variance 1 over the batch; its mean is only scaled with it.

    y = weight * x / sqrt(var + eps) + bias

The other half of batch normalization: x is divided by the deviation from its mean, but the mean itself is not
taken off. What batch normalization does by centring and what it does by scaling can so be told apart. Where the
mean is large beside the deviation, so is y. And since the mean stays, the bias of a layer before this one
matters: it must not be removed as it may be before batch normalization.
In evaluation the running variance takes the place of the batch's. The running mean is kept up, though nothing
uses it, so that parameters and statistics are those of a batch norm and either can take over from the other.

Over: the batch and all positions; each channel by itself.
Cost: that of batch normalization: the variance needs the mean too.
When: as a control, to see what the scale alone does for training. Not in place of batch normalization.
Source: Ioffe & Szegedy 2015, arXiv 1502.03167, algorithm 1 without its subtraction; the counterpart of mean-only
    batch normalization (Salimans & Kingma 2016, arXiv 1602.07868, section 4).
"""

from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from normlab.norms.batch import BatchNorm1d, BatchNorm2d, BatchNorm3d, Channels, _BatchNorm
from normlab.norms.channels import affine, blank, cast, column, inverse_std
from normlab.norms.running import check_arguments, next_running
from normlab.norms.standardize import BatchStatistics, measure


def variance_only_batch_norm(
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
    """Variance-only batch normalization as a pure function; nothing that is passed in is changed.

    Args, returned values and errors are those of `batch_norm`.
    """
    check_arguments(x, running_mean, running_var, weight, bias, eps, momentum)
    if training or running_mean is None or running_var is None:
        y, batch = _by_batch(x, weight, bias, mask, eps)
        return y, *next_running(running_mean, running_var, batch, momentum)
    return _scale(x, running_var, weight, bias, mask, eps), running_mean.detach(), running_var.detach()


def _by_batch(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mask: Tensor | None, eps: float
) -> tuple[Tensor, BatchStatistics]:
    _, var, batch = measure(x, mask, exact=eps == 0)
    return _scale(x, var, weight, bias, mask, eps), batch


def _scale(
    x: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, mask: Tensor | None, eps: float
) -> Tensor:
    x = blank(x, mask)
    scaled = x * column(inverse_std(cast(var, x), eps), x)
    return blank(affine(scaled, weight, bias).to(x.dtype), mask)


class _VarianceOnly(_BatchNorm):
    """As BatchNorm."""

    kind: ClassVar = "variance-only"
    exchangeable: ClassVar = True
    absorbs_bias: ClassVar = False

    def _by_batch(self, input: Tensor, mask: Tensor | None) -> Tensor:
        y, batch = _by_batch(input, self.weight, self.bias, mask, self.eps)
        self._track(batch)
        return y

    def _by_running(self, input: Tensor, running_mean: Tensor, running_var: Tensor, mask: Tensor | None) -> Tensor:
        return _scale(input, running_var, self.weight, self.bias, mask, self.eps)


class VarianceOnlyBatchNorm1d(_VarianceOnly, BatchNorm1d):
    """Of (N, C) or (N, C, L); see `functional.variance_only_batch_norm`."""


class VarianceOnlyBatchNorm2d(_VarianceOnly, BatchNorm2d):
    """Of (N, C, H, W); see `functional.variance_only_batch_norm`."""


class VarianceOnlyBatchNorm3d(_VarianceOnly, BatchNorm3d):
    """Of (N, C, D, H, W); see `functional.variance_only_batch_norm`."""


FAMILY = {"variance-only": {1: VarianceOnlyBatchNorm1d, 2: VarianceOnlyBatchNorm2d, 3: VarianceOnlyBatchNorm3d}}
