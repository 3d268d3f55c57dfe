"""angular: angles that are known, and what theory says of scale-invariant weights."""

import math

import pytest
import torch
from looks import look
from torch import nn
from torch.nn.functional import cross_entropy

from normlab import models
from normlab.measure import angular, angular_updates, effective_rate, scale_invariant
from normlab.measure.angular import angle


@pytest.mark.parametrize("radians", [0.0, 1e-9, 1e-4, 0.3, math.pi / 2, math.pi])
def test_angles_small_ones_too(radians: float) -> None:
    one = torch.tensor([3.0, 0.0], dtype=torch.float64)
    other = 0.2 * torch.tensor([math.cos(radians), math.sin(radians)], dtype=torch.float64)
    assert angle(one, other) == pytest.approx(radians, rel=1e-6)
    assert angle(other, 7 * one) == pytest.approx(radians, rel=1e-6)


def test_of_nothing_there_is_no_angle() -> None:
    assert math.isnan(angle(torch.zeros(3), torch.ones(3)))


def test_weights_whose_length_does_not_matter() -> None:
    model = models.lenet(norms=[1, 4], seed=0).double()
    found = scale_invariant(model)
    assert [*found] == ["conv1", "linear4"]
    assert found["conv1"] is model.conv1.weight
    for norm in (model.norm1, model.norm4):
        norm.eps = 0.0
    x, y = torch.rand(16, 1, 28, 28, dtype=torch.float64), torch.arange(16) % 10

    def loss_with(scale: float, weight: torch.Tensor) -> float:
        with torch.no_grad():
            weight.mul_(scale)
            value = cross_entropy(model(x), y).item()
            weight.div_(scale)
        return value

    for path in ("conv1", "linear4"):
        assert loss_with(3.0, found[path]) == pytest.approx(loss_with(1.0, found[path]), rel=1e-12)
    assert loss_with(3.0, model.conv2.weight) != pytest.approx(loss_with(1.0, model.conv2.weight), rel=1e-6)


def test_the_angle_depends_on_rate_over_squared_length_alone() -> None:
    """Twice the length at four times the rate turns the weight by the same angle (eps = 0)."""
    x = torch.rand(32, 1, 28, 28, generator=torch.Generator().manual_seed(0)).double()
    found = []
    for scale, lr in ((1.0, 0.01), (2.0, 0.04), (2.0, 0.01)):
        model = models.mlp(widths=[6], eps=0.0, seed=0).double()
        with torch.no_grad():
            model.linear1.weight.mul_(scale)
        found.append(angular(1)(look(model, x, lr=lr))["linear1 angle"])
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    assert found[0] != pytest.approx(found[2], rel=0.1)


def test_a_step_by_hand_on_as_many_examples_as_a_batch() -> None:
    model = models.mlp(widths=[6], seed=0).double()
    asked = look(model, torch.rand(32, 1, 28, 28).double(), lr=0.5, weight_decay=0.1, batch_size=8)
    found = angular(1)(asked)
    loss = asked.loss(model(asked.x[:8]), asked.y[:8])
    (gradient,) = torch.autograd.grad(loss, [model.linear1.weight])
    weight = model.linear1.weight.detach()
    after = weight - 0.5 * (gradient + 0.1 * weight)
    assert found["linear1 angle"] == pytest.approx(angle(weight, after), rel=1e-9)
    assert found["linear1 effective rate"] == pytest.approx(0.5 / weight.square().sum().item(), rel=1e-12)
    assert effective_rate(weight, 0.5) == found["linear1 effective rate"]
    assert angular_updates({"linear1": weight}, {"linear1": after}) == {"linear1": found["linear1 angle"]}
    assert len(found) == 2


def test_a_norm_that_shares_its_input_makes_nothing_invariant() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x)
            return self.norm(y) + y

    assert scale_invariant(Shared()) == {}
