"""Instance normalization: each channel of each example gets mean 0 and variance 1 over its positions.

    y = weight * (x - mean) / sqrt(var + eps) + bias

    mean, var     of one channel of one example, over its positions

The contrast and brightness of a single image, channel by channel, are taken away: what is left is the pattern.
This was found for the transfer of style, where the result should not depend on the contrast of the content
image. For recognition it often throws away what matters: how strongly a feature is present is lost. No other
example takes part, and training and evaluation are the same.

Over: all positions; each channel of each example by itself.
Cost: forward 3 readings of x and 1 writing of y; backward 2 readings of x and of the gradient and 1 writing.
When: for style transfer and image generation. Not for classification, and not without positions: inputs (N, C) have
    one value in each channel.
Source: Ulyanov, Vedaldi & Lempitsky 2016, arXiv 1607.08022, section 2.
"""

from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, fx, nn

from normlab.errors import NormlabError
from normlab.norms.batch import Channels
from normlab.norms.group import group_norm
from normlab.norms.shapes import Shaped, Shaped2d, Shaped3d, as_one_call, check_eps


def instance_norm(
    x: Float[Tensor, "N C *spatial"],
    weight: Channels | None = None,
    bias: Channels | None = None,
    *,
    eps: float = 1e-5,
) -> Float[Tensor, "N C *spatial"]:
    """Group normalization with every channel a group of its own; where there is one position, `bias`."""
    return group_norm(x, x.shape[1], weight, bias, eps=eps)


class _InstanceNorm(Shaped, nn.modules.instancenorm._InstanceNorm):
    """As torch.nn's, affine=False by default; a batch only, and one position gives `bias`.

    Raises NormlabError for track_running_stats=True: then evaluation is another function than training.
    """

    kind: ClassVar = "instance"

    def __init__(self, num_features: int, eps: float = 1e-5, *args: Any, **kwargs: Any) -> None:
        check_eps(eps)
        super().__init__(num_features, eps, *args, **kwargs)
        if self.track_running_stats:
            raise NormlabError(
                "an instance norm by its own statistics", "track_running_stats=True", "use BatchNorm for running ones"
            )

    def forward(self, input: Tensor) -> Tensor:
        """Of x (N, C, *spatial), the same in training and in evaluation."""
        if isinstance(input, fx.Proxy):
            return as_one_call(self, input)
        self._check_input_dim(input)
        return instance_norm(input, self.weight, self.bias, eps=self.eps)


class InstanceNorm1d(_InstanceNorm, nn.InstanceNorm1d):
    """Of (N, C, L)."""

    layouts: ClassVar = {3: "(N, C, L)"}
    sibling = "it needs positions: use layer norm for (N, C)"


class InstanceNorm2d(_InstanceNorm, Shaped2d, nn.InstanceNorm2d):
    """Of (N, C, H, W)."""


class InstanceNorm3d(_InstanceNorm, Shaped3d, nn.InstanceNorm3d):
    """Of (N, C, D, H, W)."""


FAMILY = {"instance": {1: InstanceNorm1d, 2: InstanceNorm2d, 3: InstanceNorm3d}}
