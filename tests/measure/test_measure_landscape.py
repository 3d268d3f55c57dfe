"""landscape: a bowl whose losses and gradients are known, and a network stepped by hand."""

import copy
import math

import pytest
import torch
from looks import look
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from normlab import models
from normlab.errors import NormlabError
from normlab.measure import along_gradient, landscape

CURVATURES = torch.tensor([4.0, 1.0], dtype=torch.float64)


class Bowl(nn.Module):
    """0.5 sum of c w^2, from w = (1, 2): the gradient is c w, and along it everything is known."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (CURVATURES * self.weight.square()).sum() / 2


def test_a_quadratic_bowl() -> None:
    model = Bowl()
    found = along_gradient(model, torch.zeros(1), torch.zeros(1), lambda output, _: output, (0.25, 0.5, 1.0))
    slope = torch.tensor([4.0, 2.0], dtype=torch.float64)
    points = [torch.tensor([1.0, 2.0]) - rate * slope for rate in (0.25, 0.5, 1.0)]
    losses = [(CURVATURES * point.square()).sum().item() / 2 for point in points]
    assert found.loss == 4
    assert found.gradient_norm == pytest.approx(math.sqrt(20))
    assert found.losses == pytest.approx(losses)
    assert found.loss_range == pytest.approx(max(losses) - min(losses))
    changes = [rate * (CURVATURES * slope).norm().item() for rate in (0.25, 0.5, 1.0)]
    assert found.gradient_changes == pytest.approx(changes)
    assert found.predictiveness == pytest.approx((changes[0], changes[2]))
    assert found.smoothness == pytest.approx((CURVATURES * slope).norm().item() / slope.norm().item())
    assert torch.equal(model.weight, torch.tensor([1.0, 2.0], dtype=torch.float64))


def test_a_network_stepped_by_hand() -> None:
    model = models.mlp(widths=[7], activation="relu", seed=0).double()
    x, y = torch.rand(12, 1, 28, 28, dtype=torch.float64), torch.arange(12) % 10
    found = along_gradient(model, x, y, cross_entropy, (0.3, 2.0))
    for index, rate in enumerate((0.3, 2.0)):
        stepped = copy.deepcopy(model)
        cross_entropy(stepped(x), y).backward()
        before = [parameter.grad.clone() for parameter in stepped.parameters()]
        torch.optim.SGD(stepped.parameters(), lr=rate).step()
        stepped.zero_grad()
        after = cross_entropy(stepped(x), y)
        after.backward()
        squares = [(new.grad - old).square().sum() for new, old in zip(stepped.parameters(), before, strict=True)]
        assert found.losses[index] == pytest.approx(after.item(), rel=1e-12)
        assert found.gradient_changes[index] == pytest.approx(math.sqrt(sum(squares)), rel=1e-9)


def test_dropout_draws_the_same_masks_at_every_point_and_nothing_is_left_behind() -> None:
    model = models.lenet(dropout=0.5, seed=0)
    x, y = torch.rand(16, 1, 28, 28), torch.arange(16) % 10
    before = {name: value.clone() for name, value in model.state_dict().items()}
    draws = torch.get_rng_state()
    found = along_gradient(model, x, y, cross_entropy, (1e-12,))
    assert found.losses[0] == pytest.approx(found.loss, abs=1e-6), "another mask would be another loss"
    assert found.gradient_changes[0] < 1e-5
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), draws)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_loss_that_is_no_number_stays_visible() -> None:
    model = Bowl()
    with torch.no_grad():
        model.weight[0] = math.inf
    found = along_gradient(model, torch.zeros(1), torch.zeros(1), lambda output, _: output, (1.0, 2.0))
    assert math.isnan(found.smoothness)
    assert math.isnan(found.loss_range)


def test_where_it_is_flat_there_is_no_smoothness() -> None:
    found = along_gradient(Bowl(), torch.zeros(1), torch.zeros(1), lambda output, _: 0 * output, (1.0,))
    assert (found.gradient_norm, found.loss_range) == (0, 0)
    assert math.isnan(found.smoothness)


@pytest.mark.parametrize("rates", [(), (0.0,), (1.0, -1.0), (math.inf,)])
def test_rates_that_are_none(rates: tuple) -> None:
    with pytest.raises(NormlabError, match="learning rates above 0, one at least"):
        along_gradient(Bowl(), torch.zeros(1), torch.zeros(1), lambda output, _: output, rates)


def test_the_probe_steps_by_the_recipes_rate() -> None:
    asked = look(models.mlp(widths=[5], seed=0), lr=0.2)
    found = landscape(1, factors=(1, 3), examples=20)(asked)
    by_hand = along_gradient(asked.model, asked.x[:20], asked.y[:20], asked.loss, (0.2, 0.6000000000000001))
    assert found == {
        "loss": by_hand.loss, "loss range": by_hand.loss_range, "gradient norm": by_hand.gradient_norm,
        "predictiveness min": min(by_hand.gradient_changes), "predictiveness max": max(by_hand.gradient_changes),
        "smoothness": by_hand.smoothness,
    }  # fmt: skip
