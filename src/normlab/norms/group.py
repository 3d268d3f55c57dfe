"""Group normalization: each example gets mean 0 and variance 1 over groups of its channels.

    y = weight * (x - mean) / sqrt(var + eps) + bias

    mean, var     of one example, over the channels of a group and all positions

Between layer normalization (all channels in one group) and instance normalization (each channel a group of its
own). Channels that see similar things share their statistics, others do not disturb them. No other
example takes part, so that training and evaluation are the same and the batch may be of any size: with 2
images a step it does about as well as with 32.

Over: the channels of a group and all positions; each example by itself.
Cost: forward 3 readings of x and 1 writing of y; backward 2 readings of x and of the gradient and 1 writing.
When: in convolutional networks with small batches, for detection and video. With large batches batch normalization is
    a little better. Not with one channel a group behind a linear layer: one value has no variance.
Source: Wu & He 2018, arXiv 1803.08494, section 3.
"""

from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, fx, nn

from normlab.errors import NormlabError
from normlab.norms.batch import Channels
from normlab.norms.channels import cast, laid_out_as
from normlab.norms.shapes import as_one_call, check_eps, check_tensors

GROUPS = 32


def group_norm(
    x: Float[Tensor, "N C *spatial"],
    num_groups: int,
    weight: Channels | None = None,
    bias: Channels | None = None,
    *,
    eps: float = 1e-5,
) -> Float[Tensor, "N C *spatial"]:
    """Group normalization. A group of equal values gives `bias` for eps > 0; for eps = 0 it has no answer (NaN)."""
    check_tensors(x, weight=weight, bias=bias)
    check_eps(eps)
    if num_groups < 1 or x.shape[1] % num_groups:
        raise NormlabError(f"a number of groups that divides {x.shape[1]} channels", num_groups)
    # In channels-last torch's operator computes E[x^2] - E[x]^2: at mean/sigma = 1e4 off by 1000 times the result.
    y = nn.functional.group_norm(x.contiguous(), num_groups, cast(weight, x), cast(bias, x), eps)
    return laid_out_as(x, y)


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm`, right in channels-last too; see `functional.group_norm`."""

    kind: ClassVar = "group"

    def forward(self, input: Tensor) -> Tensor:
        """Of x (N, num_channels, *spatial), the same in training and in evaluation."""
        if isinstance(input, fx.Proxy):
            return as_one_call(self, input)
        if input.dim() < 2 or input.shape[1] != self.num_channels:
            raise NormlabError(f"input (N, {self.num_channels}, *spatial)", f"input {tuple(input.shape)}")
        return group_norm(input, self.num_groups, self.weight, self.bias, eps=self.eps)


def groups_for(num_features: int) -> int:
    """The largest number of groups, up to the paper's 32, that divides the channels with two or more in each."""
    return max(n for n in range(1, GROUPS + 1) if num_features % n == 0 and (n == 1 or num_features >= 2 * n))


def _of_width(num_features: int, num_groups: int | None = None, **options: Any) -> GroupNorm:
    return GroupNorm(num_groups or groups_for(num_features), num_features, **options)


_of_width.kind = GroupNorm.kind  # type: ignore[attr-defined]

FAMILY = {"group": dict.fromkeys((1, 2, 3), _of_width)}
