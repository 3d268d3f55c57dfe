"""Layer normalization: each example gets mean 0 and variance 1 over all its channels and positions.

    y = weight * (x - mean) / sqrt(var + eps) + bias

    mean, var     of one example, over its channels and positions

What batch normalization does for a channel over many examples is done here for an example over its channels.
No other example takes part, so that training and evaluation are the same and the batch may be of any size. The
price: channels are no longer brought to a common scale, only the example as a whole is. Weight and bias are one
number for each channel, as in batch normalization. (`torch.nn.LayerNorm` normalizes the last dimensions and has
one number for each position there too; for inputs (N, C) the two are the same.)

Over: all channels and positions; each example by itself.
Cost: forward 3 readings of x and 1 writing of y; backward 2 readings of x and of the gradient and 1 writing.
When: in transformers and recurrent networks, with small batches or sequences of different lengths. In convolutional
    networks batch and group normalization mostly do better.
Source: Ba, Kiros & Hinton 2016, arXiv 1607.06450, section 3; over positions too, section 6.7.
"""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from normlab.norms.batch import Channels
from normlab.norms.group import group_norm
from normlab.norms.shapes import Shaped1d, Shaped2d, Shaped3d
from normlab.norms.stateless import ExampleNorm


def layer_norm(
    x: Float[Tensor, "N C *spatial"],
    weight: Channels | None = None,
    bias: Channels | None = None,
    *,
    eps: float = 1e-5,
) -> Float[Tensor, "N C *spatial"]:
    """Layer normalization over (C, *spatial): group normalization with all channels in one group."""
    return group_norm(x, 1, weight, bias, eps=eps)


class _LayerNorm(ExampleNorm):
    """See `functional.layer_norm`; weight and bias (C,), none without `affine`."""

    kind: ClassVar = "layer"

    def _normalize(self, input: Tensor) -> Tensor:
        return layer_norm(input, self.weight, self.bias, eps=self.eps)


class LayerNorm1d(_LayerNorm, Shaped1d):
    """Of (N, C) or (N, C, L)."""


class LayerNorm2d(_LayerNorm, Shaped2d):
    """Of (N, C, H, W)."""


class LayerNorm3d(_LayerNorm, Shaped3d):
    """Of (N, C, D, H, W)."""


FAMILY = {"layer": {1: LayerNorm1d, 2: LayerNorm2d, 3: LayerNorm3d}}
