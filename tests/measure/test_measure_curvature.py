"""curvature and sharpness: against a dense Hessian and central differences."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from looks import look
from torch import Tensor, nn

from compare import assert_close
from normlab import nn as ours
from normlab.errors import NormlabError
from normlab.measure import Look, curvature, sharpness
from normlab.measure.hessian import central_difference, gradient, hessian_vector_product, largest_eigenvalues
from normlab.models import lenet

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


def test_a_loss_that_is_no_number_has_nan() -> None:
    asked = tiny()
    with torch.no_grad():
        asked.model[0].weight[0, 0] = torch.nan
    assert all(math.isnan(value) for value in curvature(1)(asked).values())


def test_the_largest_of_bn_lenet_in_train_mode_is_that_of_central_differences() -> None:
    """An operator without any second derivative, through the same Lanczos iteration."""
    asked = look(lenet(seed=0).double(), torch.rand(24, 1, 28, 28, dtype=torch.float64))
    found = sharpness(asked.model, asked.x, asked.y, asked.loss)
    parameters = list(asked.model.parameters())
    (largest,), _ = largest_eigenvalues(lambda v: central_difference(loss_of(asked), parameters, v), parameters)
    assert found.mode == "train"
    assert found.eigenvalues[0] == pytest.approx(largest, rel=1e-6)
    assert found.self_check < 1e-6


def test_evaluation_mode_is_another_function() -> None:
    asked = tiny()
    with torch.no_grad():
        asked.model[1].running_var.fill_(4.0)
    evaluated = sharpness(asked.model, asked.x, asked.y, asked.loss, mode="eval", count=3)
    norm = asked.model[1]
    fixed = nn.Sequential(asked.model[0], Fixed(norm), *asked.model[2:])
    by_hand = torch.linalg.eigvalsh(dense(look(fixed, X, Y))).flip(0)
    assert evaluated.mode == "eval"
    assert evaluated.eigenvalues == pytest.approx(by_hand[:3].tolist(), rel=1e-6)
    assert sharpness(asked.model, asked.x, asked.y, asked.loss).eigenvalues[0] != pytest.approx(by_hand[0].item())
    assert asked.model.training


class Fixed(nn.Module):
    """What a batch norm does in evaluation, of plain operations."""

    def __init__(self, norm: nn.BatchNorm1d) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        self.mean, self.scale = norm.running_mean.clone(), (norm.running_var + norm.eps).sqrt()

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale * self.weight + self.bias


def test_the_probe_names_what_follows_the_largest() -> None:
    asked = tiny()
    found = curvature(1, count=3)(asked)
    by_hand = sharpness(asked.model, X, Y, asked.loss, count=3).eigenvalues
    assert (found["largest"], found["eigenvalue 2"], found["eigenvalue 3"]) == by_hand
    assert (
        curvature(1, mode="eval")(asked)["largest"]
        == sharpness(asked.model, X, Y, asked.loss, mode="eval").eigenvalues[0]
    )


def test_a_mode_that_there_is_not() -> None:
    with pytest.raises(NormlabError, match="a known mode, got 'test'"):
        curvature(1, mode="test")
