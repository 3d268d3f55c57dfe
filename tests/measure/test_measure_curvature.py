"""curvature: against a dense Hessian, central differences and a form whose eigenvalues are known."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from looks import look
from torch import Tensor, nn

from compare import assert_close
from normlab import nn as ours
from normlab.measure import Look, curvature
from normlab.measure.curvature import STEP, central_difference, gradient, hessian_vector_product, largest_eigenvalue

X = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.arange(20) % 3


def tiny(norm: Callable[[int], nn.Module] = ours.BatchNorm1d, activation: type[nn.Module] = nn.Sigmoid) -> Look:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = nn.Sequential(nn.Linear(4, 5), norm(5), activation(), nn.Linear(5, 3)).double()
    return look(model, X, Y)


def loss_of(asked: Look) -> Callable[[], Tensor]:
    return lambda: asked.loss(asked.model(asked.x), asked.y)


def dense(asked: Look) -> Tensor:
    """The Hessian (P, P) by torch.func, which composes the norm of plain operations."""
    names = [name for name, _ in asked.model.named_parameters()]
    shapes = [parameter.shape for parameter in asked.model.parameters()]

    def loss(flat: Tensor) -> Tensor:
        pieces = flat.split([shape.numel() for shape in shapes])
        values = {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
        return asked.loss(torch.func.functional_call(asked.model, values, (asked.x,)), asked.y)

    flat = nn.utils.parameters_to_vector(asked.model.parameters()).detach()
    return torch.func.jacfwd(torch.func.grad(loss))(flat)


def without_statistics(width: int) -> nn.Module:
    return ours.BatchNorm1d(width, track_running_stats=False)  # torch.func updates no buffer


@pytest.mark.parametrize("norm", [without_statistics, lambda _: nn.Identity()], ids=["ours", "none"])
def test_it_is_the_dense_hessians(norm: Callable[[int], nn.Module]) -> None:
    asked = tiny(norm)
    hessian = dense(asked)
    product = hessian_vector_product(loss_of(asked), list(asked.model.parameters()))
    columns = torch.stack([product(unit) for unit in torch.eye(len(hessian), dtype=torch.float64)])
    assert_close(columns, hessian, what="H v")
    found = curvature(1)(asked)
    largest = torch.linalg.eigvalsh(hessian)[-1].item()
    assert found["largest"] == pytest.approx(largest, rel=1e-7)
    assert found["two_over_largest"] == 2 / found["largest"]


@pytest.mark.parametrize("norm", [ours.BatchNorm1d, nn.BatchNorm1d])
@pytest.mark.parametrize("activation", [nn.Sigmoid, nn.ReLU])
def test_central_differences_agree(norm: type[nn.Module], activation: type[nn.Module]) -> None:
    assert curvature(1)(tiny(norm, activation))["self_check"] < 1e-6


def test_the_self_check_sees_a_derivative_that_is_wrong() -> None:
    class Wrong(torch.autograd.Function):
        """x^2, whose derivative claims to be constant once it is derived again."""

        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 2 * x.detach() * g

    class Square(nn.Module):
        def forward(self, x):
            return Wrong.apply(x)

    asked = tiny(lambda _: Square())
    found = curvature(1)(asked)["self_check"]
    assert found > 1e-3
    scaled = dataclasses.replace(asked, loss=lambda logits, y: 100 * asked.loss(logits, y))
    assert curvature(1)(scaled)["self_check"] == pytest.approx(found, rel=1e-4), "it is relative"


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
    value, vector = largest_eigenvalue(product, parameters)
    assert value == pytest.approx(max(eigenvalues), rel=1e-9)
    assert vector.norm().item() == pytest.approx(1)
    assert_close(matrix @ vector, value * vector, scale=1e4)
    assert_close(central_difference(loss, parameters, vector), matrix @ vector, scale=1e6)
    assert all(torch.equal(parameter, torch.ones_like(parameter)) for parameter in parameters), "they go back"


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


def test_a_loss_that_is_linear_has_no_curvature_and_one_that_is_none_has_nan() -> None:
    weights = [torch.ones(3, dtype=torch.float64, requires_grad=True)]
    assert torch.equal(
        hessian_vector_product(lambda: weights[0].sum(), weights)(torch.ones(3)), torch.zeros(3).double()
    )
    asked = tiny()
    with torch.no_grad():
        asked.model[0].weight[0, 0] = torch.nan
    assert all(math.isnan(value) for value in curvature(1)(asked).values())


def test_iterations_that_do_not_suffice_give_nan() -> None:
    loss, parameters, _ = quadratic([float(index) for index in range(300)])
    value, vector = largest_eigenvalue(hessian_vector_product(loss, parameters), parameters, iterations=1)
    assert math.isnan(value)
    assert vector.shape == (300,)


def test_what_curves_downwards_allows_any_rate() -> None:
    class Hill(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return -self.weight.square().sum() + 0 * x.sum()

    asked = look(Hill(), X, Y)
    found = curvature(1)(dataclasses.replace(asked, loss=lambda logits, _: logits))
    assert found["largest"] == pytest.approx(-2)
    assert found["two_over_largest"] == math.inf


def test_at_most_256_examples_and_no_dropout() -> None:
    x, y = X.repeat(20, 1) + torch.arange(400)[:, None] / 400, Y.repeat(20)
    model = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    plain = nn.Sequential(model[0], nn.Identity(), model[2], model[3])
    first = curvature(1)(look(model, x, y))
    assert curvature(1)(look(plain, x[:256], y[:256])) == first
    assert curvature(1)(look(plain, x[:255], y[:255])) != first


def test_frozen_parameters_do_not_count() -> None:
    asked = tiny()
    asked.model[0].requires_grad_(False)
    whole, part = curvature(1)(tiny())["largest"], curvature(1)(asked)["largest"]
    assert 0 < part < whole
    assert gradient(loss_of(asked), [asked.model[3].bias]).shape == (3,)
