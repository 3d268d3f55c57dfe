"""Weight standardization: the weights of each output channel get mean 0 and variance 1, instead of its outputs.

    w_hat = (w - mean) / sqrt(var + eps),     y = conv(x, w_hat) + bias

    mean, var     of the weights that lead to one output channel

Batch normalization makes the loss smoother by what it does to activations; the same can be had from the weights,
which do not depend on any batch. The stored weights stay free; each forward pass standardizes them first, and the
gradient goes through that. A channel's weights can then be multiplied by a number, or have one added, without any
change. It does not look after the scale of the outputs, which grows with the number of inputs: a normalization
that needs no batch, mostly group normalization, is to follow.

It comes as layers and not as a parametrization of any layer: they can be pickled, which parametrized ones cannot,
and they load and save the state_dict of torch's own layers.

Over: the weights of one output channel; no activation.
Cost: forward 3 readings and 1 writing of the weights, backward 2 readings of them and of their gradient and
    1 writing; nothing for each example.
When: before group normalization, with small batches. Not alone, and not for transposed convolutions, whose weights
    are laid out in another order.
Source: Qiao, Wang, Liu, Shen & Yuille 2019, arXiv 1903.10520, section 3.
"""

from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from normlab.norms.group import group_norm


def standardize_weight(weight: Float[Tensor, "out in *kernel"], *, eps: float = 1e-5) -> Tensor:
    """The weights (out, in, *kernel) of a linear or convolutional layer, standardized for each output channel."""
    return group_norm(weight, 1, eps=eps)


class _Standardized(nn.Module):
    """As torch's layer, with `eps` of the standardization."""

    kind: ClassVar = "weights"

    def __init__(self, *args: Any, eps: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.eps = eps


class _StandardizedConv(_Standardized, nn.modules.conv._ConvNd):
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, standardize_weight(self.weight, eps=self.eps), self.bias)


class StandardizedConv1d(_StandardizedConv, nn.Conv1d):
    """`torch.nn.Conv1d` with standardized weights."""


class StandardizedConv2d(_StandardizedConv, nn.Conv2d):
    """`torch.nn.Conv2d` with standardized weights."""


class StandardizedConv3d(_StandardizedConv, nn.Conv3d):
    """`torch.nn.Conv3d` with standardized weights."""


class StandardizedLinear(_Standardized, nn.Linear):
    """`torch.nn.Linear` with standardized weights."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, standardize_weight(self.weight, eps=self.eps), self.bias)
