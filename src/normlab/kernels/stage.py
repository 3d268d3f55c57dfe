"""One stage of a small network on lane tensors:

    y = pool(mask * activation(norm(before(head(x))) + residual))

with a convolution or linear layer as the head, batch normalization, an activation before or after it, a dropout's
mask, and pooling; each of them may be missing. What a network spends its time on is one of these, forward and
backward.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from normlab.kernels.lanes import Lanes, pack_reference, unpack_reference
from normlab.kernels.settings import Activation, Settings

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": functional.gelu,
    "gelu-tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
}


def stage_reference(
    x: Lanes,
    settings: Settings,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    mean: Tensor | None = None,
    var: Tensor | None = None,
    residual: Lanes | None = None,
    mask: Lanes | None = None,
) -> tuple[Lanes, Tensor | None, Tensor | None]:
    """`stage` in plain torch: any floating dtype, differentiable to any order."""
    y = unpack_reference(x)
    if weight is not None:
        if weight.dim() == 4:
            y = functional.conv2d(y, weight, bias, settings.stride, settings.padding)
        else:
            y = functional.linear(y, weight, bias)
    y = ACTIVATIONS[settings.before](y)
    if settings.norm == "batch":
        others = [0, *range(2, y.dim())]
        mean = y.mean(others)
        var = (y - _column(mean, y)).square().mean(others)
    if settings.norm != "none":
        assert mean is not None
        assert var is not None
        y = y if settings.part == "variance" else y - _column(mean, y)
        y = y if settings.part == "mean" else y * _column((var + settings.eps).rsqrt(), y)
        y = y if gamma is None else y * _column(gamma, y)
        y = y if beta is None else y + _column(beta, y)
    y = y if residual is None else y + unpack_reference(residual)
    y = ACTIVATIONS[settings.activation](y)
    y = y if mask is None else y * unpack_reference(mask)
    if pool := settings.pool:
        if pool.kind == "avg":
            y = functional.avg_pool2d(y, pool.size, pool.stride, pool.padding, count_include_pad=pool.count_padding)
        else:
            y = functional.max_pool2d(y, pool.size, pool.stride, pool.padding)
    out = pack_reference(y, width=x.data.shape[-1])
    if settings.norm != "batch":
        return out, None, None
    assert mean is not None
    assert var is not None
    return out, mean.detach(), var.detach()


def _column(per_channel: Tensor, x: Tensor) -> Tensor:
    return per_channel.reshape(1, -1, *[1] * (x.dim() - 2))
