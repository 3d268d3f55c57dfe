"""curvature: the largest eigenvalue of the Hessian of the training loss.

Gradient descent with the rate 2/eigenvalue or above does not settle in a quadratic bowl (LeCun et al. 1998,
"Efficient BackProp"; Cohen et al. 2021, arXiv 2103.00065). The product of the Hessian with a vector costs two
gradients (Pearlmutter 1994); Lanczos' iteration needs some tens of them.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse.linalg as sparse
import torch
from torch import Tensor

from normlab.measure.probe import Look
from normlab.measure.reading import Reading, at_least, in_float64, without_dropout

EXAMPLES = 256
"""Of the batch, at most: in float64, with a graph of the gradient, more take long."""

TOLERANCE = 1e-4
"""Of the residual, relative: the eigenvalue's own error is about the square of it."""

STEP = 1e-8
"""Of the central difference, relative to the length of the parameters. At 1e-6 some unit of a ReLU network changes
sides between the two points, and the gradient jumps: the difference is then a hundred times the derivative."""


@dataclasses.dataclass(frozen=True)
class curvature(Reading):
    """Of the loss on at most 256 examples with batch statistics and without dropout, in float64:

    - `largest`: the largest eigenvalue of its Hessian; NaN if `iterations` restarts of Lanczos do not find it.
    - `two_over_largest`: the learning rate that it allows; inf where nothing curves upwards.
    - `self_check`: how far the product of the Hessian with that eigenvector is from the central difference of the
      gradient along it, relative: about 1e-8, far more where a kink (ReLU, max pooling) lies between its points.
    """

    iterations: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.iterations, "iterations")

    def __call__(self, look: Look) -> dict[str, float]:
        model, x, y = in_float64(look, EXAMPLES)
        model.train()
        without_dropout(model)  # a new mask at every pass would be another loss
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

        def loss() -> Tensor:
            return look.loss(model(x), y)

        product = hessian_vector_product(loss, parameters)
        value, vector = largest_eigenvalue(product, parameters, self.iterations)
        if not math.isfinite(value):
            return {"largest": math.nan, "two_over_largest": math.nan, "self_check": math.nan}
        exact, differences = product(vector), central_difference(loss, parameters, vector)
        return {
            "largest": value,
            "two_over_largest": 2 / value if value > 0 else math.inf,
            "self_check": ((exact - differences).norm() / exact.norm()).item(),
        }


def gradient(loss: Callable[[], Tensor], parameters: Sequence[Tensor], *, graph: bool = False) -> Tensor:
    """Of `loss()` with respect to all P numbers of the parameters, (P,); with a graph, to be derived again."""
    return _flat(torch.autograd.grad(loss(), parameters, create_graph=graph, materialize_grads=True))


def hessian_vector_product(loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
    """The map of v (P,) to H v (P,), H the Hessian of `loss()` at the parameters as they are; calls `loss` once."""
    first = gradient(loss, parameters, graph=True)

    def product(vector: Tensor) -> Tensor:
        if not first.requires_grad:  # of a loss that is linear in everything
            return torch.zeros_like(vector)
        return _flat(
            torch.autograd.grad(first, parameters, vector.to(first), retain_graph=True, materialize_grads=True)
        )

    return product


def largest_eigenvalue(
    product: Callable[[Tensor], Tensor], parameters: Sequence[Tensor], iterations: int = 100
) -> tuple[float, Tensor]:
    """The algebraically largest eigenvalue of a symmetric operator on (P,), and its eigenvector of length 1.

    ARPACK's restarted Lanczos iteration from a fixed start. NaN, and a vector of NaN, where it does not converge
    in so many restarts or the operator gives what is no number.
    """
    size, like = sum(parameter.numel() for parameter in parameters), parameters[0]

    def matvec(vector: np.ndarray) -> np.ndarray:
        return product(torch.from_numpy(np.ascontiguousarray(vector).reshape(-1)).to(like)).cpu().double().numpy()

    start = np.random.default_rng(0).standard_normal(size)
    if np.isfinite(matvec(start)).all():
        operator = sparse.LinearOperator((size, size), matvec=matvec, dtype=np.float64)
        try:
            values, vectors = sparse.eigsh(operator, k=1, which="LA", v0=start, tol=TOLERANCE, maxiter=iterations)
        except sparse.ArpackNoConvergence:
            pass
        else:
            return float(values[0]), torch.from_numpy(vectors[:, 0].copy()).to(like)
    return math.nan, torch.full((size,), math.nan).to(like)


def central_difference(loss: Callable[[], Tensor], parameters: Sequence[Tensor], vector: Tensor) -> Tensor:
    """(gradient(p + h v) - gradient(p - h v)) / 2h, (P,): H v without a second derivative; the parameters go back."""
    before = [parameter.detach().clone() for parameter in parameters]
    step = STEP * max(1.0, _flat(before).norm().item()) / vector.norm().item()

    def beside(sign: int) -> Tensor:
        pieces = vector.split([parameter.numel() for parameter in parameters])
        with torch.no_grad():
            for parameter, value, piece in zip(parameters, before, pieces, strict=True):
                parameter.copy_(value + sign * step * piece.view_as(value))
        return gradient(loss, parameters)

    try:
        return (beside(1) - beside(-1)) / (2 * step)
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
