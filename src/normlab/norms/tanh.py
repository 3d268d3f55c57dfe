"""Dynamic tanh: each value is squashed between -1 and 1 by itself; nothing is measured.

    y = weight * tanh(alpha * x) + bias

No normalization, but in its place. In trained transformers what layer normalization does to a token's values looks
much like an S-shaped curve: values near 0 pass, extreme ones are squashed. Dynamic tanh takes this curve without
the statistics. alpha, one learned number for the whole layer (it starts at 0.5), does the work of the deviation:
it decides which values count as extreme. No example and no channel knows of another, and training and evaluation
are the same.

Over: nothing; each value by itself.
Cost: forward 1 reading of x and 1 writing of y, with a tanh an element; backward 1 reading of x and of the gradient
    and 1 writing.
When: in transformers, in place of layer or RMS normalization. Not in place of batch normalization in convolutional
    networks: there the paper finds it worse.
Source: Zhu, Chen, He, LeCun & Liu 2025, arXiv 2503.10622, section 4.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from normlab.norms.batch import Channels
from normlab.norms.channels import accumulator, affine
from normlab.norms.shapes import Shaped1d, Shaped2d, Shaped3d, check_tensors
from normlab.norms.stateless import StatelessNorm


def dynamic_tanh(
    x: Float[Tensor, "N C *spatial"],
    alpha: float | Tensor,
    weight: Channels | None = None,
    bias: Channels | None = None,
) -> Float[Tensor, "N C *spatial"]:
    """Dynamic tanh, in float32 or better; alpha is a number or of shape (1,)."""
    check_tensors(x, weight=weight, bias=bias)
    return affine(torch.tanh(alpha * x.to(accumulator(x))), weight, bias).to(x.dtype)


class _DynamicTanh(StatelessNorm):
    """See `functional.dynamic_tanh`; alpha (1,) starts at the given number, weight and bias are (C,)."""

    kind: ClassVar = "tanh"
    exchangeable: ClassVar = True

    def __init__(
        self,
        num_features: int,
        alpha: float = 0.5,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features, affine, device=device, dtype=dtype)
        self.alpha = nn.Parameter(torch.full((1,), alpha, device=device, dtype=dtype))

    def _normalize(self, input: Tensor) -> Tensor:
        return dynamic_tanh(input, self.alpha, self.weight, self.bias)


class DynamicTanh1d(_DynamicTanh, Shaped1d):
    """Of (N, C) or (N, C, L)."""


class DynamicTanh2d(_DynamicTanh, Shaped2d):
    """Of (N, C, H, W)."""


class DynamicTanh3d(_DynamicTanh, Shaped3d):
    """Of (N, C, D, H, W)."""


FAMILY = {"tanh": {1: DynamicTanh1d, 2: DynamicTanh2d, 3: DynamicTanh3d}}
