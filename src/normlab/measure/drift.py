"""drift: how far the distribution of each layer's inputs moves when the network learns.

"Internal covariate shift" in the sense of Ioffe & Szegedy 2015, arXiv 1502.03167, section 2; by mean and variance as
in Santurkar et al. 2018, arXiv 1805.11604, section 2.1. Their other sense of it, of gradients, is `ics`.
"""

import dataclasses
import math

import torch
from torch import Tensor, nn

from normlab.measure.asking import Loss, asking
from normlab.measure.layers import layers
from normlab.measure.probe import Look
from normlab.measure.reading import Reading, inputs_of
from normlab.measure.stepping import descend


@dataclasses.dataclass(frozen=True)
class Moments:
    """Of each channel of a layer's inputs, over a batch: (C,), in float64."""

    mean: Tensor
    std: Tensor
    """Biased."""

    def distance(self, other: "Moments") -> float:
        """The root mean square over channels of the 2-Wasserstein distance between the normal distributions of these
        moments: sqrt((mean - mean')^2 + (std - std')^2).
        """
        squares = (self.mean - other.mean).square() + (self.std - other.std).square()
        return squares.mean().sqrt().item()

    @property
    def spread(self) -> float:
        """The root mean square of the standard deviations."""
        return self.std.square().mean().sqrt().item()


def input_moments(model: nn.Module, x: Tensor) -> dict[str, Moments]:
    """Path to the moments of the inputs, for a batch x (N, ...), of every affine layer but the first, which reads the
    data. The model is asked on a copy, in its modes; it draws dropout masks and noise of its own.

    Raises NormlabError where there is no affine layer.
    """
    with asking(model) as copy, torch.no_grad():
        return _moments(copy, x)


def input_drift(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss, *, lr: float, weight_decay: float = 0.0
) -> dict[str, tuple[float, float]]:
    """Path to how far the moments of a layer's inputs for x move in a step of gradient descent on (x, y), as
    `Moments.distance` and relative to their spread before; the model stays as it is.

    Each pass draws its own dropout masks and noise: what they move counts, as it does in training.

    Raises NormlabError as `input_moments` does.
    """
    with asking(model) as copy:
        before = _moments(copy, x)
        descend(copy, x, y, loss, lr=lr, weight_decay=weight_decay)
        after = _moments(copy, x)
    distances = {path: moments.distance(after[path]) for path, moments in before.items()}
    return {path: (far, far / (before[path].spread or math.nan)) for path, far in distances.items()}


def _moments(model: nn.Module, x: Tensor) -> dict[str, Moments]:
    affine = layers(model, "affine")
    with torch.no_grad(), inputs_of(affine, lambda each: each.double().clone()) as inputs:
        model(x)
    first = next(iter(inputs))
    return {path: _of_channels(affine[path], uses) for path, uses in inputs.items() if path != first}


def _of_channels(layer: nn.Module, uses: list[Tensor]) -> Moments:
    """Over all that is no channel: the last axis of a linear layer's input, the second of a convolution's."""
    axis = -1 if isinstance(layer, nn.Linear) else 1
    values = torch.cat([use.movedim(axis, 0).flatten(1) for use in uses], 1)
    return Moments(values.mean(1), values.std(1, correction=0))


@dataclasses.dataclass(frozen=True)
class drift(Reading):
    """`{path}` and `{path} relative`: how far the moments of a layer's inputs move in a step of gradient descent
    by the recipe's learning rate and weight decay, without momentum, on as many examples as a batch of it has.
    """

    def __call__(self, look: Look) -> dict[str, float]:
        size, recipe = look.recipe.batch_size, look.recipe
        found = input_drift(
            look.model, look.x[:size], look.y[:size], look.loss, lr=recipe.lr, weight_decay=recipe.weight_decay
        )
        return {path: far for path, (far, _) in found.items()} | {
            f"{path} relative": relative for path, (_, relative) in found.items()
        }
