"""landscape: the loss and its gradient along the gradient.

Santurkar et al. 2018, arXiv 1805.11604, section 3.2 and figure 4: the range of the loss over steps of several sizes
(a), how far the gradient has moved there, its predictiveness (b), and the effective beta-smoothness: the largest
such move over the distance that was gone (c).
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from normlab.errors import NormlabError
from normlab.measure.asking import Loss, asking, flat, same_draws, trained
from normlab.measure.probe import Look
from normlab.measure.reading import Reading, at_least

FACTORS = (0.5, 1.0, 2.0, 4.0)
"""Of the learning rate: the paper's range."""


@dataclasses.dataclass(frozen=True)
class Landscape:
    """Entry i is the point that a step of gradient descent with the learning rate `rates[i]` reaches."""

    loss: float
    """Before any step."""
    gradient_norm: float
    """Likewise; of all parameters together."""
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    gradient_changes: tuple[float, ...]
    """l2 distance between the gradients before and after the step: small where the gradient predicts."""

    @property
    def loss_range(self) -> float:
        """Largest minus smallest loss after a step."""
        return float(np.ptp(self.losses))

    @property
    def predictiveness(self) -> tuple[float, float]:
        """The smallest and the largest change of the gradient."""
        return float(np.min(self.gradient_changes)), float(np.max(self.gradient_changes))

    @property
    def smoothness(self) -> float:
        """Effective beta-smoothness: the largest change of the gradient per distance; NaN where there is no slope."""
        if not self.gradient_norm:
            return math.nan
        return float(np.max(np.divide(self.gradient_changes, np.multiply(self.rates, self.gradient_norm))))


def along_gradient(model: nn.Module, x: Tensor, y: Tensor, loss: Loss, rates: Sequence[float]) -> Landscape:
    """Loss and gradient of the batch (x, y) after a step with each of the learning rates, always from here.

    All in the modes that the model is in, and with the same dropout masks and noise at every point. Works on a
    copy: the parameters stay, to the last bit. Costs a forward and a backward pass a rate, and one.

    Raises NormlabError unless the rates are above 0, and one at least.
    """
    _check_positive(rates, "learning rates")
    with asking(model) as copy, same_draws(copy) as again:
        parameters = trained(copy)
        start = [parameter.detach().clone() for parameter in parameters]

        def at_this_point() -> tuple[float, tuple[Tensor, ...]]:
            again()
            value = loss(copy(x), y)
            return value.item(), torch.autograd.grad(value, parameters, materialize_grads=True)

        first, slope = at_this_point()
        losses, changes = [], []
        for rate in rates:
            with torch.no_grad():
                for parameter, origin, direction in zip(parameters, start, slope, strict=True):
                    parameter.copy_(origin - rate * direction)
            value, gradient = at_this_point()
            losses.append(value)
            changes.append((flat(gradient).double() - flat(slope).double()).norm().item())
    norm = flat(slope).double().norm().item()
    return Landscape(first, norm, tuple(rates), tuple(losses), tuple(changes))


def _check_positive(numbers: Sequence[float], what: str) -> None:
    if not numbers or not all(isinstance(number, int | float) and 0 < number < math.inf for number in numbers):
        raise NormlabError(f"{what} above 0, one at least", tuple(numbers))


@dataclasses.dataclass(frozen=True)
class landscape(Reading):
    """Along the gradient of the first `examples` of the batch, over `factors` of the recipe's learning rate: `loss`,
    `loss range`, `gradient norm`, `predictiveness min` and `max` (distances of gradients) and `smoothness`.
    """

    factors: tuple[float, ...] = FACTORS
    examples: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "factors", tuple(self.factors))  # from JSON it comes as a list
        _check_positive(self.factors, "factors of the learning rate")
        at_least(1, self.examples, "examples")

    def __call__(self, look: Look) -> dict[str, float]:
        x, y = look.x[: self.examples], look.y[: self.examples]
        rates = [factor * look.recipe.lr for factor in self.factors]
        found = along_gradient(look.model, x, y, look.loss, rates)
        least, most = found.predictiveness
        return {
            "loss": found.loss,
            "loss range": found.loss_range,
            "gradient norm": found.gradient_norm,
            "predictiveness min": least,
            "predictiveness max": most,
            "smoothness": found.smoothness,
        }
