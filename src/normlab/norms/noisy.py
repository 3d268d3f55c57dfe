"""Noisy batch normalization: batch normalization, and then noise that undoes it in each training step.

    y = s * batch_norm(x) + m

    mu ~ U(-shift, shift), sigma ~ U(1, scale)                   for each channel, anew in each step
    m ~ U(mu - jitter, mu + jitter), s ~ Normal(sigma, jitter)   for each element

Batch normalization was first explained by what it does to the inputs of the next layer: their distribution
stays put while the layers before it learn. This layer is the control for that explanation. It normalizes, then
gives every channel a random mean other than 0 and a random deviation other than 1, different ones in each step,
so that the next layer's inputs wander more than without any normalization. Networks train nearly as well with
it, so that the steady distribution cannot be the reason. The noise comes after weight and bias, where the
layer cannot learn to take it back. Evaluation is without noise. The draws come from torch's generator:
`torch.manual_seed` repeats them.

Over: the batch and all positions; each channel by itself; the noise for each channel and each element.
Cost: that of batch normalization, 2 random numbers an element, and 1 reading and 1 writing of y.
When: as a control in an experiment. Not to make a network better.
Source: Santurkar, Tsipras, Ilyas & Madry 2018, arXiv 1805.11604, section 2.1 and appendix.
"""

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from normlab.errors import NormlabError
from normlab.norms.batch import BatchNorm1d, BatchNorm2d, BatchNorm3d, Channels, _BatchNorm, batch_norm
from normlab.norms.channels import accumulator, blank, column

SHIFT, SCALE, JITTER = 0.5, 1.25, 0.1


def noisy_batch_norm(
    x: Float[Tensor, "N C *spatial"],
    running_mean: Channels | None = None,
    running_var: Channels | None = None,
    weight: Channels | None = None,
    bias: Channels | None = None,
    *,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
    shift: float = SHIFT,
    scale: float = SCALE,
    jitter: float = JITTER,
    generator: torch.Generator | None = None,
    mask: Bool[Tensor, "..."] | None = None,
) -> tuple[Float[Tensor, "N C *spatial"], Channels | None, Channels | None]:
    """Noisy batch normalization as a pure function but for its draws; nothing that is passed in is changed.

    Args, returned values and errors are those of `batch_norm`, and:
        shift: >= 0, the largest mean of a channel's noise.
        scale: >= 1, the largest factor of a channel.
        jitter: >= 0, how far an element's shift and factor lie from its channel's.
        generator: where the noise is drawn from in training; None is torch's own.
    """
    _check_noise(shift, scale, jitter)
    y, running_mean, running_var = batch_norm(
        x, running_mean, running_var, weight, bias, training=training, momentum=momentum, eps=eps, mask=mask
    )
    if training:
        y = blank(_add_noise(y, shift, scale, jitter, generator), mask)
    return y, running_mean, running_var


def _add_noise(y: Tensor, shift: float, scale: float, jitter: float, generator: torch.Generator | None) -> Tensor:
    def draw(source: Any, *shape: int) -> Tensor:
        return source(shape, generator=generator, device=y.device, dtype=accumulator(y))

    mean = (2 * draw(torch.rand, y.shape[1]) - 1) * shift
    std = 1 + draw(torch.rand, y.shape[1]) * (scale - 1)
    m = column(mean, y) + (2 * draw(torch.rand, *y.shape) - 1) * jitter
    s = column(std, y) + draw(torch.randn, *y.shape) * jitter
    return (y * s + m).to(y.dtype)


def _check_noise(shift: float, scale: float, jitter: float) -> None:
    if not (0 <= shift < math.inf and 1 <= scale < math.inf and 0 <= jitter < math.inf):
        raise NormlabError("shift >= 0, scale >= 1 and jitter >= 0", f"{shift}, {scale} and {jitter}")


class _Noisy(_BatchNorm):
    """As BatchNorm, with `shift` (0.5), `scale` (1.25) and `jitter` (0.1), the paper's values."""

    kind: ClassVar = "noisy"

    def __init__(
        self,
        num_features: int,
        *args: Any,
        shift: float = SHIFT,
        scale: float = SCALE,
        jitter: float = JITTER,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_features, *args, **kwargs)
        _check_noise(shift, scale, jitter)
        self.shift, self.scale, self.jitter = shift, scale, jitter

    def _by_batch(self, input: Tensor, mask: Tensor | None) -> Tensor:
        y = super()._by_batch(input, mask)
        if not self.training:
            return y
        return blank(_add_noise(y, self.shift, self.scale, self.jitter, None), mask)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, shift={self.shift}, scale={self.scale}, jitter={self.jitter}"


class NoisyBatchNorm1d(_Noisy, BatchNorm1d):
    """Of (N, C) or (N, C, L); see `functional.noisy_batch_norm`."""


class NoisyBatchNorm2d(_Noisy, BatchNorm2d):
    """Of (N, C, H, W); see `functional.noisy_batch_norm`."""


class NoisyBatchNorm3d(_Noisy, BatchNorm3d):
    """Of (N, C, D, H, W); see `functional.noisy_batch_norm`."""


FAMILY = {"noisy": {1: NoisyBatchNorm1d, 2: NoisyBatchNorm2d, 3: NoisyBatchNorm3d}}
