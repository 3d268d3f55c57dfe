"""Mean-only batch normalization: each channel gets mean 0 over the batch; its scale stays as it is.

    y = weight * (x - mean) + bias

Half of batch normalization: the mean of each channel is taken off, the division by the deviation left out.
The noise that a batch's statistics bring is then smaller, and there is no division by something near 0. The
scale of x is not looked after: in the paper weight normalization does that, which keeps the length of each
neuron's weights apart from their direction, and takes the place of `weight` here (which starts at 1).
In evaluation the running mean takes the place of the batch's. The running variance is kept up, though nothing
uses it, so that parameters and statistics are those of a batch norm and either can take over from the other.

Over: the batch and all positions; each channel by itself.
Cost: forward 2 readings of x and 1 writing of y, with 1 reading of the deviations for the variance that is kept;
    backward 2 readings of the gradient and 1 writing, and with a trained weight 1 reading of x.
When: together with weight normalization, or to see what the mean alone does for training. Not alone in deep networks:
    nothing keeps the scale.
Source: Salimans & Kingma 2016, arXiv 1602.07868, section 4.
"""

from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from normlab.norms.batch import BatchNorm1d, BatchNorm2d, BatchNorm3d, Channels, _BatchNorm
from normlab.norms.channels import affine, blank, cast, column
from normlab.norms.running import check_arguments, next_running
from normlab.norms.standardize import BatchStatistics, measure


def mean_only_batch_norm(
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
    """Mean-only batch normalization as a pure function; nothing that is passed in is changed. `eps` has no effect.

    Args, returned values and errors are those of `batch_norm`.
    """
    check_arguments(x, running_mean, running_var, weight, bias, eps, momentum)
    if training or running_mean is None or running_var is None:
        y, batch = _by_batch(x, weight, bias, mask)
        return y, *next_running(running_mean, running_var, batch, momentum)
    return _by_running(x, running_mean, weight, bias, mask), running_mean.detach(), running_var.detach()


def _by_batch(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, BatchStatistics]:
    centered, _, batch = measure(x, mask)
    return blank(affine(centered, weight, bias).to(x.dtype), mask), batch


def _by_running(x: Tensor, mean: Tensor, weight: Tensor | None, bias: Tensor | None, mask: Tensor | None) -> Tensor:
    x = blank(x, mask)
    return blank(affine(x - column(cast(mean, x), x), weight, bias).to(x.dtype), mask)


class _MeanOnly(_BatchNorm):
    """As BatchNorm; `eps` has no effect."""

    kind: ClassVar = "mean-only"
    exchangeable: ClassVar = True

    def _by_batch(self, input: Tensor, mask: Tensor | None) -> Tensor:
        y, batch = _by_batch(input, self.weight, self.bias, mask)
        self._track(batch)
        return y

    def _by_running(self, input: Tensor, running_mean: Tensor, running_var: Tensor, mask: Tensor | None) -> Tensor:
        return _by_running(input, running_mean, self.weight, self.bias, mask)


class MeanOnlyBatchNorm1d(_MeanOnly, BatchNorm1d):
    """Of (N, C) or (N, C, L); see `functional.mean_only_batch_norm`."""


class MeanOnlyBatchNorm2d(_MeanOnly, BatchNorm2d):
    """Of (N, C, H, W); see `functional.mean_only_batch_norm`."""


class MeanOnlyBatchNorm3d(_MeanOnly, BatchNorm3d):
    """Of (N, C, D, H, W); see `functional.mean_only_batch_norm`."""


FAMILY = {"mean-only": {1: MeanOnlyBatchNorm1d, 2: MeanOnlyBatchNorm2d, 3: MeanOnlyBatchNorm3d}}
