"""signal: how activations and gradients grow or shrink with depth, and whether two inputs stay apart.

Poole et al. 2016, arXiv 1606.05340, section 2 (the length and the correlation of inputs); Schoenholz et al. 2017,
arXiv 1611.01232, section 4 (gradients); Yang et al. 2019, arXiv 1902.08129: with batch normalization gradients
grow by pi / (pi - 1) a layer in mean square for ReLU in the limit of wide layers and large batches, and by
(B - 2) / (B - 3) in linear networks at batch size B.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from normlab.errors import NormlabError
from normlab.measure.asking import Loss
from normlab.measure.layers import check_kinds
from normlab.measure.passing import forward_backward
from normlab.measure.probe import Look
from normlab.measure.reading import Reading, at_least


@dataclasses.dataclass(frozen=True)
class Propagation:
    """By depth: entry l is the l-th use of a layer, in order of execution."""

    layers: tuple[str, ...]
    activations: tuple[float, ...]
    """Mean square of the outputs."""
    gradients: tuple[float, ...]
    """Mean square of the gradients with respect to the outputs; NaN where they do not reach the loss."""
    correlations: tuple[float, ...]
    """Mean cosine of the outputs of two inputs: of the examples i and N // 2 + i of the batch. Without an example
    more than one NaN."""

    def activation_rate(self, skip: int = 0) -> float:
        """Factor of the mean square of activations from a layer to the next, as `rate` fits it."""
        return rate(self.activations[skip:-1])

    def gradient_rate(self, skip: int = 0) -> float:
        """Likewise of gradients, from a layer to the one before it: above 1 they explode."""
        return rate(self.gradients[skip:-1][::-1])

    def decorrelation_rate(self, skip: int = 0) -> float:
        """Likewise of 1 - correlation, from a layer to the next: above 1 two inputs part, below they become one."""
        return rate([1 - each for each in self.correlations[skip:-1]])


def signal_propagation(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss, *, of: str | Sequence[str] = "affine"
) -> Propagation:
    """What a batch x (N, ...) becomes layer by layer, in the modes that the model is in; it stays as it is.

    Rates leave out the last layer, whose width is the number of classes, and the first `skip`, in which the
    batch still has its own correlations. `paired` makes a batch of two inputs of a known correlation.

    Raises NormlabError where the model has no layer of the kinds `of`.
    """
    found = forward_backward(model, x, y, loss, of)
    return Propagation(
        tuple(each.name for each in found),
        tuple(_mean_square(each.output) for each in found),
        tuple(math.nan if each.gradient is None else _mean_square(each.gradient) for each in found),
        tuple(_correlation(each.output) for each in found),
    )


def rate(values: Sequence[float]) -> float:
    """The factor r of the least-squares line log(value) = a + l log(r), l = 0, 1, ...

    NaN with fewer than two values, and where one is not above 0 or not finite.
    """
    if len(values) < 2 or not all(0 < value < math.inf for value in values):
        return math.nan
    slope = np.polynomial.Polynomial.fit(np.arange(len(values)), np.log(values), 1).convert().coef[1]
    return math.exp(slope)


def paired(x: Tensor, correlation: float, generator: torch.Generator | None = None) -> Tensor:
    """The examples x (N, ...) and, below them, for each another one of its length at this cosine: (2N, ...).

    Raises NormlabError on a correlation outside -1 to 1.
    """
    if not -1 <= correlation <= 1:
        raise NormlabError("a correlation from -1 to 1", correlation)
    rows = x.flatten(1).double()
    noise = torch.randn(rows.shape, dtype=torch.float64, generator=generator).to(rows.device)
    direction = normalize(rows)
    across = normalize(noise - (noise * direction).sum(1, keepdim=True) * direction)
    partner = rows.norm(dim=1, keepdim=True) * (correlation * direction + math.sqrt(1 - correlation**2) * across)
    return torch.cat([x, partner.view_as(x).to(x)])


def _mean_square(values: Tensor) -> float:
    return values.double().square().mean().item()


def _correlation(values: Tensor) -> float:
    half = len(values) // 2
    if not half:
        return math.nan
    rows = values.flatten(1).double()
    return cosine_similarity(rows[:half], rows[half : 2 * half]).mean().item()


@dataclasses.dataclass(frozen=True)
class signal(Reading):
    """Of the first `examples` of the batch: `{path} activation`, `{path} gradient` (mean squares) and
    `{path} correlation` (of two examples) for every layer of a kind, and the three rates: `activation rate`,
    `gradient rate`, `decorrelation rate`, fitted without the first `skip` layers and the last.
    """

    of: tuple[str, ...] = ("affine",)
    skip: int = 0
    examples: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "of", check_kinds(self.of))  # from JSON it comes as a list
        at_least(0, self.skip, "skip")
        at_least(1, self.examples, "examples")

    def __call__(self, look: Look) -> dict[str, float]:
        x, y = look.x[: self.examples], look.y[: self.examples]
        found = signal_propagation(look.model, x, y, look.loss, of=self.of)
        columns = {"activation": found.activations, "gradient": found.gradients, "correlation": found.correlations}
        read = {f"{path} {name}": value for name, column in columns.items()
                for path, value in zip(found.layers, column, strict=True)}  # fmt: skip
        return read | {
            "activation rate": found.activation_rate(self.skip),
            "gradient rate": found.gradient_rate(self.skip),
            "decorrelation rate": found.decorrelation_rate(self.skip),
        }
