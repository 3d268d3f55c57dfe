"""angular: how far a step turns each scale-invariant weight, and the learning rate that it feels.

Where a batch norm follows directly the loss does not change with the length of a weight: only its direction learns.
Wan et al. 2021, arXiv 2006.08419, section 3 (the angular update, which comes to rest near sqrt(2 lr weight_decay));
Li & Arora 2020, arXiv 1910.07454, section 2 (the effective learning rate lr / ||w||^2).
"""

import dataclasses
import math
from collections.abc import Mapping

from torch import Tensor, nn

from normlab.measure.asking import asking
from normlab.measure.probe import Look
from normlab.measure.reading import Reading
from normlab.measure.stepping import descend
from normlab.surgery.flow import fed_by


def scale_invariant(model: nn.Module) -> dict[str, Tensor]:
    """Path to weight of every linear or convolutional layer that a batch norm, and nothing else, follows directly.

    Found by tracing the data flow. With batch statistics the loss does not change with the length of the weight,
    exactly at eps = 0 (that of each of its channels, even).
    """
    return {path: model.get_submodule(path).weight for path in fed_by(model)[0].values()}  # type: ignore[misc]


def angle(before: Tensor, after: Tensor) -> float:
    """Between two weights of one shape, taken as vectors, in radians; NaN where one is 0.

    Exact for small angles too (Kahan 2006), where the arc cosine is not.
    """
    one, other = before.detach().double(), after.detach().double()
    one, other = one / one.norm(), other / other.norm()
    return 2 * math.atan2((one - other).norm().item(), (one + other).norm().item())


def angular_updates(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, float]:
    """`angle` of each weight by its path, between two moments of training."""
    return {path: angle(weight, after[path]) for path, weight in before.items()}


def effective_rate(weight: Tensor, lr: float) -> float:
    """The rate over ||w||^2: what the direction of a scale-invariant weight feels of it."""
    return lr / weight.detach().double().square().sum().item()


@dataclasses.dataclass(frozen=True)
class angular(Reading):
    """Of every scale-invariant weight, by its layer's path:

    - `{path} angle`: radians that a step of gradient descent turns it, without momentum, by the recipe's learning
      rate and weight decay, on as many examples as a batch of the recipe has.
    - `{path} effective rate`: the learning rate over its squared length.
    """

    def __call__(self, look: Look) -> dict[str, float]:
        size, recipe = look.recipe.batch_size, look.recipe
        with asking(look.model) as copy:
            weights = scale_invariant(copy)
            before = {path: weight.detach().clone() for path, weight in weights.items()}
            descend(copy, look.x[:size], look.y[:size], look.loss, lr=recipe.lr, weight_decay=recipe.weight_decay)
            turned = angular_updates(before, weights)
        return {f"{path} angle": value for path, value in turned.items()} | {
            f"{path} effective rate": effective_rate(weight, recipe.lr) for path, weight in before.items()
        }
