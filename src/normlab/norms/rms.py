"""RMS normalization: each example is divided by its root mean square; no mean is taken off.

    y = weight * x / sqrt(mean(x^2) + eps)

    mean(x^2)     of one example, over its channels and positions

Layer normalization without its subtraction. The root mean square is the deviation from 0 instead of that from
the mean, so that one sum is enough, and an example keeps its mean. Multiplying an input by a number changes
nothing, adding one does. Large language models use it: there it is as good as layer normalization, and cheaper.

Over: all channels and positions; each example by itself.
Cost: forward 2 readings of x and 1 writing of y; backward 2 readings of x and of the gradient and 1 writing; one
    reading and one sum fewer than layer normalization.
When: in transformers, in place of layer normalization. Where inputs have a large common mean it spends the scale on
    that mean.
Source: Zhang & Sennrich 2019, arXiv 1910.07467, section 4.
"""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from normlab.norms.batch import Channels
from normlab.norms.channels import accumulator, affine, inverse_std
from normlab.norms.shapes import Shaped1d, Shaped2d, Shaped3d, check_eps, check_tensors
from normlab.norms.stateless import ExampleNorm


def rms_norm(
    x: Float[Tensor, "N C *spatial"],
    weight: Channels | None = None,
    *,
    eps: float = 1e-5,
) -> Float[Tensor, "N C *spatial"]:
    """RMS normalization over (C, *spatial), in float32 or better. Zeros give zeros, at eps = 0 too."""
    check_tensors(x, weight=weight)
    check_eps(eps)
    accumulated = x.to(accumulator(x))
    square = accumulated.square().mean(list(range(1, x.dim())), keepdim=True)
    return affine(accumulated * inverse_std(square, eps), weight, None).to(x.dtype)


class _RMSNorm(ExampleNorm):
    """See `functional.rms_norm`; weight (C,), none without `affine`."""

    kind: ClassVar = "rms"
    has_bias: ClassVar = False

    def _normalize(self, input: Tensor) -> Tensor:
        return rms_norm(input, self.weight, eps=self.eps)


class RMSNorm1d(_RMSNorm, Shaped1d):
    """Of (N, C) or (N, C, L)."""


class RMSNorm2d(_RMSNorm, Shaped2d):
    """Of (N, C, H, W)."""


class RMSNorm3d(_RMSNorm, Shaped3d):
    """Of (N, C, D, H, W)."""


FAMILY = {"rms": {1: RMSNorm1d, 2: RMSNorm2d, 3: RMSNorm3d}}
