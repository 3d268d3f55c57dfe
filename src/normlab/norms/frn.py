"""Filter response normalization: each channel of each example is divided by its root mean square, then cut below.

    y = weight * x / sqrt(mean(x^2) + eps) + bias
    z = max(y, threshold)

    mean(x^2)     of one channel of one example, over its positions

Instance normalization without its subtraction, and an activation with it. Since no mean is taken off, y may lie
far from 0, where a ReLU would cut everything or nothing; the threshold of each channel is therefore learned (the
"thresholded linear unit", TLU; it starts at 0, as ReLU). It takes the place of the activation behind the norm;
where the network has another one there, leave it out with `tlu=False`. No other example takes part, and
training and evaluation are the same.

Where there is one position only, as behind a linear layer, x / sqrt(x^2 + eps) is nearly the sign of x. There a
larger eps helps; with `learn_eps` it is 1e-6 plus the size of a learned number that starts at 1e-4.

Over: all positions; each channel of each example by itself.
Cost: forward 2 readings of x and 1 writing of z, the activation included; backward 2 readings of x and of the
    gradient and 1 writing.
When: in convolutional networks with small batches, in place of batch normalization and ReLU together. Not behind
    linear layers without a learned eps.
Source: Singh & Krishnan 2019, arXiv 1911.09737, section 3.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from normlab.norms.batch import Channels
from normlab.norms.channels import accumulator, affine, cast, column, inverse_std
from normlab.norms.shapes import Shaped1d, Shaped2d, Shaped3d, check_eps, check_tensors
from normlab.norms.stateless import ExampleNorm


def filter_response_norm(
    x: Float[Tensor, "N C *spatial"],
    weight: Channels | None = None,
    bias: Channels | None = None,
    threshold: Channels | None = None,
    *,
    eps: float | Tensor = 1e-6,
) -> Float[Tensor, "N C *spatial"]:
    """Filter response normalization, in float32 or better; without a threshold nothing is cut.

    eps: a number >= 0, or a tensor that broadcasts to (N, C, *1), taken on trust, if it is learned.
    """
    check_tensors(x, weight=weight, bias=bias, threshold=threshold)
    if not isinstance(eps, Tensor):
        check_eps(eps)
    accumulated = x.to(accumulator(x))
    square = accumulated.square()
    if x.dim() > 2:
        square = square.mean(list(range(2, x.dim())), keepdim=True)
    y = affine(accumulated * inverse_std(square, eps), weight, bias)
    if threshold is not None:
        y = torch.maximum(y, column(cast(threshold, x), x))
    return y.to(x.dtype)


class _FilterResponseNorm(ExampleNorm):
    """See `functional.filter_response_norm`; weight, bias and, with `tlu`, threshold are (C,)."""

    kind: ClassVar = "response"

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-6,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        tlu: bool = True,
        learn_eps: bool = False,
    ) -> None:
        super().__init__(num_features, eps, affine, device=device, dtype=dtype)
        self.threshold = nn.Parameter(torch.zeros(num_features, device=device, dtype=dtype)) if tlu else None
        self.learned_eps = nn.Parameter(torch.full((1,), 1e-4, device=device, dtype=dtype)) if learn_eps else None

    def _normalize(self, input: Tensor) -> Tensor:
        eps = self.eps if self.learned_eps is None else self.eps + self.learned_eps.abs()
        return filter_response_norm(input, self.weight, self.bias, self.threshold, eps=eps)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, tlu={self.threshold is not None}"


class FilterResponseNorm1d(_FilterResponseNorm, Shaped1d):
    """Of (N, C) or (N, C, L)."""


class FilterResponseNorm2d(_FilterResponseNorm, Shaped2d):
    """Of (N, C, H, W)."""


class FilterResponseNorm3d(_FilterResponseNorm, Shaped3d):
    """Of (N, C, D, H, W)."""


FAMILY = {"filter-response": {1: FilterResponseNorm1d, 2: FilterResponseNorm2d, 3: FilterResponseNorm3d}}
