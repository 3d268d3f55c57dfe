"""activations: how the outputs of layers, and the gradients that come back to them, are distributed.

Glorot & Bengio 2010 ("Understanding the difficulty of training deep feedforward neural networks", section 3) read
means, deviations and gradients layer by layer; Bjorck et al. 2018, arXiv 1806.02375, section 3, their heavy tails.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from normlab.measure.asking import Loss
from normlab.measure.layers import check_kinds
from normlab.measure.passing import forward_backward
from normlab.measure.probe import Look
from normlab.measure.reading import Reading, at_least, check_percentiles

TOP = 0.01
"""Of all numbers, the share that counts as the top."""


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Of all numbers of x (N, ...), in float64."""

    mean: float
    variance: float
    """Biased."""
    kurtosis: float
    """The fourth central moment over the squared variance: 3 of normal numbers; NaN of a constant."""
    dead: float
    """The share of units, numbers of one example, that are 0 in every example, as those of a dead ReLU."""
    top_share: float
    """How much of the sum of |x| the largest hundredth of the numbers has: 0.01 where all are equally large, NaN
    where all are 0."""
    percentiles: dict[float, float]

    def plain(self) -> dict[str, float]:
        """By name, a percentile as `p50`."""
        numbers = {name: value for name, value in vars(self).items() if name != "percentiles"}
        return numbers | {f"p{q:g}": value for q, value in self.percentiles.items()}


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer's output in one pass, described, and the gradient of the loss with respect to it."""

    output: Statistics
    gradient: Statistics | None
    """None where the output does not reach the loss."""

    def plain(self) -> dict[str, float]:
        """The output's statistics by name, and the gradient's as `gradient mean`."""
        back = {} if self.gradient is None else self.gradient.plain()
        return self.output.plain() | {f"gradient {name}": value for name, value in back.items()}


def activation_statistics(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: Loss,
    *,
    of: str | Sequence[str] = ("norm", "activation"),
    at: Sequence[float] = (15, 50, 85),
) -> dict[str, Layer]:
    """By path and in order of execution, of every layer of the kinds `of` ("leaf" takes all) in the model's modes.

    `at` are percentiles. A second use of a layer is `path (2)`. Raises NormlabError where there is no such layer.
    """
    check_percentiles(at)
    return {
        each.name: Layer(describe(each.output, at), None if each.gradient is None else describe(each.gradient, at))
        for each in forward_backward(model, x, y, loss, of)
    }


def describe(x: Tensor, at: Sequence[float]) -> Statistics:
    """The statistics of x (N, ...), with the percentiles `at`."""
    values = x.detach().cpu().double().numpy()
    dead = float((values == 0).all(0).mean())
    values = values.reshape(-1)
    mass = np.sort(np.abs(values))[::-1]
    top = mass[: math.ceil(TOP * len(mass))].sum()
    with np.errstate(invalid="ignore"):  # of infinite values most of it is NaN, and may be
        deviations = values - values.mean()
        variance = float((deviations**2).mean())
        return Statistics(
            mean=float(values.mean()),
            variance=variance,
            kurtosis=float(((deviations / math.sqrt(variance)) ** 4).mean()) if variance else math.nan,
            dead=dead,
            top_share=float(top / mass.sum()) if mass.any() else math.nan,
            percentiles=dict(zip(at, map(float, np.percentile(values, at)), strict=True)),
        )


@dataclasses.dataclass(frozen=True)
class activations(Reading):
    """`{path} {statistic}` and `{path} gradient {statistic}` of the first `examples` of the batch, for the layers
    of the kinds `of`, "leaf" for all: mean, variance, kurtosis, dead, top_share, and a percentile as p50.
    """

    of: tuple[str, ...] = ("norm", "activation")
    at: tuple[float, ...] = (15, 50, 85)
    examples: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "of", check_kinds(self.of))  # from JSON they come as lists
        object.__setattr__(self, "at", tuple(self.at))
        check_percentiles(self.at)
        at_least(1, self.examples, "examples")

    def __call__(self, look: Look) -> dict[str, float]:
        x, y = look.x[: self.examples], look.y[: self.examples]
        found = activation_statistics(look.model, x, y, look.loss, of=self.of, at=self.at)
        return {f"{path} {name}": value for path, layer in found.items() for name, value in layer.plain().items()}
