"""Facts of a training: what it optimizes and how, and what gradients it gets."""

import math
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from normlab.measure.norms import Norm
from normlab.measure.passes import Pass
from normlab.rules.facts import Unknown


def optimized(optimizer: Optimizer | None) -> dict[Tensor, dict[str, Any]]:
    """Parameter to the settings of its group."""
    if optimizer is None:
        raise Unknown("needs the optimizer")
    return {parameter: group for group in optimizer.param_groups for parameter in group["params"]}


def gradient_sizes(backward: Pass, norms: dict[str, Norm]) -> dict[str, float]:
    """Path to the Euclidean norm of the gradient by a norm's output, all calls taken together, in their order."""
    squares: dict[str, float] = {}
    for use in backward.uses:
        gradient = use.gradient
        if use.path in norms and gradient is not None and gradient.mean is not None and gradient.var is not None:
            values = math.prod(gradient.shape) / len(gradient.mean)
            here = values * (gradient.var + gradient.mean.square()).sum().item()
            squares[use.path] = squares.get(use.path, 0.0) + here
    return {path: math.sqrt(square) for path, square in squares.items()}
