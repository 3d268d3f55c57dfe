"""The sharpness of the loss: the largest eigenvalues of its Hessian, in train or in evaluation mode.

Cohen et al. 2021, arXiv 2103.00065, section 2; LeCun et al. 1998, "Efficient BackProp", section 4.6. With batch
normalization the two modes are two functions: batch statistics move with the weights, running ones stand still.
"""

import dataclasses
import math

from torch import Tensor, nn

from normlab.errors import choose
from normlab.measure.asking import Loss, asking, trained, without_dropout
from normlab.measure.hessian import central_difference, hessian_vector_product, largest_eigenvalues
from normlab.measure.reading import in_float64

MODES = {"train": True, "eval": False}


@dataclasses.dataclass(frozen=True)
class Sharpness:
    """What Lanczos' iteration found."""

    mode: str
    """"train": with the statistics of the batch; "eval": with running statistics."""
    eigenvalues: tuple[float, ...]
    """The algebraically largest, in descending order; NaN where the iteration does not find them."""
    self_check: float
    """How far the product of the Hessian with the first eigenvector is from the central difference of the gradient
    along it, relative: about 1e-8, far more where a kink (ReLU, max pooling) lies between its points."""

    @property
    def two_over_largest(self) -> float:
        """The learning rate above which gradient descent does not settle in a quadratic bowl of this curvature; inf
        where nothing curves upwards.
        """
        largest = self.eigenvalues[0]
        return 2 / largest if largest > 0 else math.inf if largest <= 0 else math.nan


def sharpness(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss, *, mode: str = "train", count: int = 1, iterations: int = 100
) -> Sharpness:
    """Of the loss of the batch (x, y) as a function of all trained parameters, in float64 and without dropout.

    Works on a copy, the whole of it in this mode. `iterations` are restarts of Lanczos' method.

    Raises NormlabError on another mode, and unless 1 <= count < the number of parameters.
    """
    training = choose(MODES, mode, "mode")
    with asking(model) as copy:
        copy, x, y = in_float64(copy, x, y)
        copy.train(training)
        without_dropout(copy)  # a new mask at every pass would be another loss
        parameters = trained(copy)

        def value() -> Tensor:
            return loss(copy(x), y)

        product = hessian_vector_product(value, parameters)
        eigenvalues, vectors = largest_eigenvalues(product, parameters, count, iterations)
        if not math.isfinite(eigenvalues[0]):
            return Sharpness(mode, tuple(eigenvalues), math.nan)
        first = vectors[:, 0]
        exact, differences = product(first), central_difference(value, parameters, first)
        return Sharpness(mode, tuple(eigenvalues), ((exact - differences).norm() / exact.norm()).item())
