"""normalized: whose statistics a batch norm took, read off what went in and what came out."""

import torch
from torch import Tensor, nn

from normlab.measure.passes import Use
from normlab.surgery.find import BatchNorm


def distance(use: Use, mean: Tensor, var: Tensor) -> float:
    """How far the output of a call is from the input normalized by this mean and variance, both (C,).

    The largest error of a channel's mean, in standard deviations of the output that the batch's own statistics would
    give, and likewise of its variance, whichever is larger; NaN where the call tells nothing.
    """
    norm, x, y = use.module, use.input, use.output
    if x is None or y is None or x.mean is None or x.var is None or y.mean is None or y.var is None:
        return float("nan")
    assert isinstance(norm, BatchNorm)
    gamma, beta = _column(norm.weight, 1.0, x.mean), _column(norm.bias, 0.0, x.mean)
    mean, var = mean.to(x.mean), var.to(x.var)
    expected_mean = gamma * (x.mean - mean) / (var + norm.eps).sqrt() + beta
    expected_var = gamma.square() * x.var / (var + norm.eps)
    scale = (gamma.square() * x.var / (x.var + norm.eps)).mean()
    errors = torch.stack(
        [(y.mean - expected_mean).abs().max() / scale.sqrt(), (y.var - expected_var).abs().max() / scale]
    )
    return errors.max().item()


def _column(parameter: nn.Parameter | None, default: float, like: Tensor) -> Tensor:
    return torch.full_like(like, default) if parameter is None else parameter.detach().to(like)
