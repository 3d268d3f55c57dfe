"""The Hessian of a loss, through its products with vectors.

A product costs two gradients (Pearlmutter 1994, "Fast exact multiplication by the Hessian"); Lanczos' iteration
finds the largest eigenvalues in some tens of products.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse.linalg as sparse
import torch
from torch import Tensor

from normlab.errors import NormlabError
from normlab.measure.asking import flat

Product = Callable[[Tensor], Tensor]
"""Of a symmetric operator with a vector: (P,) to (P,)."""

TOLERANCE = 1e-4
"""Of the residual, relative: the eigenvalue's own error is about the square of it."""

STEP = 1e-8
"""Of the central difference, relative to the length of the parameters. At 1e-6 some unit of a ReLU network changes
sides between the two points, and the gradient jumps: the difference is then a hundred times the derivative."""


def gradient(loss: Callable[[], Tensor], parameters: Sequence[Tensor], *, graph: bool = False) -> Tensor:
    """Of `loss()` with respect to all P numbers of the parameters, (P,); with a graph, to be derived again."""
    return flat(torch.autograd.grad(loss(), parameters, create_graph=graph, materialize_grads=True))


def hessian_vector_product(loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
    """The map of v (P,) to H v (P,), H the Hessian of `loss()` at the parameters as they are; calls `loss` once."""
    first = gradient(loss, parameters, graph=True)

    def product(vector: Tensor) -> Tensor:
        if not first.requires_grad:  # of a loss that is linear in everything
            return torch.zeros_like(vector)
        return flat(
            torch.autograd.grad(first, parameters, vector.to(first), retain_graph=True, materialize_grads=True)
        )

    return product


def largest_eigenvalues(
    product: Product, parameters: Sequence[Tensor], count: int = 1, iterations: int = 100
) -> tuple[list[float], Tensor]:
    """The `count` algebraically largest eigenvalues of an operator on (P,), the largest first, and their
    eigenvectors, of length 1: (P, count).

    ARPACK's restarted Lanczos iteration from a fixed start. All NaN where it does not converge in so many restarts
    or the operator gives what is no number. Raises NormlabError unless 1 <= count < P.
    """
    size, like = sum(parameter.numel() for parameter in parameters), parameters[0]
    if not 1 <= count < size:
        raise NormlabError(f"a count of eigenvalues from 1 to {size - 1}, below that of the parameters", count)

    def matvec(vector: np.ndarray) -> np.ndarray:
        return product(torch.from_numpy(np.ascontiguousarray(vector).reshape(-1)).to(like)).cpu().double().numpy()

    start = np.random.default_rng(0).standard_normal(size)
    if np.isfinite(matvec(start)).all():
        operator = sparse.LinearOperator((size, size), matvec=matvec, dtype=np.float64)
        try:
            values, vectors = sparse.eigsh(operator, k=count, which="LA", v0=start, tol=TOLERANCE, maxiter=iterations)
        except sparse.ArpackNoConvergence:
            pass
        else:
            order = np.argsort(values)[::-1]
            return values[order].tolist(), torch.from_numpy(vectors[:, order].copy()).to(like)
    return [math.nan] * count, torch.full((size, count), math.nan).to(like)


def central_difference(loss: Callable[[], Tensor], parameters: Sequence[Tensor], vector: Tensor) -> Tensor:
    """(gradient(p + h v) - gradient(p - h v)) / 2h, (P,): H v without a second derivative; the parameters go back."""
    before = [parameter.detach().clone() for parameter in parameters]
    step = STEP * max(1.0, flat(before).norm().item()) / vector.norm().item()

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
