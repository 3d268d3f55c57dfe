"""The Hessian's products and eigenvalues: against a quadratic form whose eigenvalues are known."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from compare import assert_close
from normlab.errors import NormlabError
from normlab.measure.hessian import STEP, central_difference, hessian_vector_product, largest_eigenvalues


def quadratic(eigenvalues: list[float]) -> tuple[Callable[[], Tensor], list[Tensor], Tensor]:
    """0.5 p' A p over two parameters, its parameters, and A."""
    size = len(eigenvalues)
    basis = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))[
        0
    ]
    matrix = basis @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ basis.T
    parameters = [
        torch.ones(1, 2, dtype=torch.float64, requires_grad=True),
        torch.ones(size - 2, dtype=torch.float64, requires_grad=True),
    ]

    def loss() -> Tensor:
        flat = torch.cat([parameter.flatten() for parameter in parameters])
        return flat @ matrix @ flat / 2

    return loss, parameters, matrix


@pytest.mark.parametrize("eigenvalues", [[3.0, 1.0, 0.5, -7.0], [-1.0, -2.0, -3.0, -9.0], [2.0, 2.0, 2.0, 2.0]])
def test_the_largest_is_that_of_the_highest_value_not_of_the_greatest_size(eigenvalues: list[float]) -> None:
    loss, parameters, matrix = quadratic(eigenvalues)
    product = hessian_vector_product(loss, parameters)
    (value,), vectors = largest_eigenvalues(product, parameters)
    vector = vectors[:, 0]
    assert value == pytest.approx(max(eigenvalues), rel=1e-9)
    assert vector.norm().item() == pytest.approx(1)
    assert_close(matrix @ vector, value * vector, scale=1e4)
    assert_close(central_difference(loss, parameters, vector), matrix @ vector, scale=1e6)
    assert all(torch.equal(parameter, torch.ones_like(parameter)) for parameter in parameters), "they go back"


def test_several_come_in_descending_order_with_their_vectors() -> None:
    loss, parameters, matrix = quadratic([-9.0, 5.0, 1.0, 3.0, 2.0])
    values, vectors = largest_eigenvalues(hessian_vector_product(loss, parameters), parameters, count=3)
    assert values == pytest.approx([5, 3, 2], rel=1e-7)
    assert_close(matrix @ vectors, vectors * torch.tensor(values), scale=1e8)
    assert_close(vectors.T @ vectors, torch.eye(3, dtype=torch.float64), scale=1e3)


@pytest.mark.parametrize("count", [0, 4, 5])
def test_no_more_than_there_are(count: int) -> None:
    loss, parameters, _ = quadratic([1.0, 2.0, 3.0, 4.0])
    with pytest.raises(NormlabError, match=f"a count of eigenvalues from 1 to 3, .*got {count}"):
        largest_eigenvalues(hessian_vector_product(loss, parameters), parameters, count)


@pytest.mark.parametrize("size", [0.01, 100.0])
def test_the_differences_step_is_a_share_of_the_parameters_length(size: float) -> None:
    weights = torch.full((4,), size / 2, dtype=torch.float64, requires_grad=True)
    seen = []

    def loss() -> Tensor:
        seen.append(weights.detach().clone())
        return weights.square().sum()

    found = central_difference(loss, [weights], torch.full((4,), 3.0, dtype=torch.float64))
    assert (seen[0] - seen[1]).norm().item() == pytest.approx(2 * STEP * max(1.0, size), rel=1e-6)
    assert_close(found, torch.full((4,), 6.0, dtype=torch.float64), scale=1e6)


def test_a_loss_that_is_linear_has_no_curvature() -> None:
    weights = [torch.ones(3, dtype=torch.float64, requires_grad=True)]
    product = hessian_vector_product(lambda: weights[0].sum(), weights)
    assert torch.equal(product(torch.ones(3)), torch.zeros(3).double())


def test_iterations_that_do_not_suffice_give_nan() -> None:
    loss, parameters, _ = quadratic([float(index) for index in range(300)])
    product = hessian_vector_product(loss, parameters)
    values, vectors = largest_eigenvalues(product, parameters, count=2, iterations=1)
    assert all(map(math.isnan, values))
    assert vectors.shape == (300, 2)
    assert vectors.isnan().all()
