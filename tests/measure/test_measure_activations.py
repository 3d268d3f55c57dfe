"""activations: against numbers that are known, and plain formulas of numpy and scipy."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from looks import look
from torch import nn
from torch.nn.functional import cross_entropy

from normlab import models
from normlab.errors import NormlabError
from normlab.measure import activation_statistics, activations
from normlab.measure.activations import describe
from normlab.nn import make_norm

X = torch.randn(40, 3, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 10


def test_numbers_by_hand() -> None:
    found = describe(torch.tensor([[0.0, 1.0], [0.0, -3.0]]), (0, 50, 100))
    assert found.plain() == pytest.approx({
        "mean": -0.5, "variance": 2.25, "kurtosis": (2 * 0.5**4 + 1.5**4 + 2.5**4) / 4 / 2.25**2,
        "dead": 0.5, "top_share": 0.75, "p0": -3, "p50": 0, "p100": 1,
    })  # fmt: skip


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_moments_are_numpys_and_scipys(offset: float) -> None:
    values = (X.double() + offset).numpy()
    found = describe(torch.from_numpy(values), (15, 85))
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.variance == pytest.approx(values.var(), rel=1e-6)
    assert found.kurtosis == pytest.approx(scipy.stats.kurtosis(values, axis=None, fisher=False), rel=1e-6)
    assert found.percentiles == {15: np.percentile(values, 15), 85: np.percentile(values, 85)}


def test_the_top_is_a_hundredth_of_the_numbers() -> None:
    values = torch.ones(300)
    values[7], values[8], values[9], values[10] = 50, -60, 70, 5
    assert describe(values, (50,)).top_share == pytest.approx(180 / (180 + 5 + 296))
    assert describe(torch.ones(200), (50,)).top_share == pytest.approx(0.01)


def test_a_unit_is_dead_if_it_is_zero_in_every_example() -> None:
    values = torch.relu(X)
    values[:, 1] = 0
    values[1:, 2, 0] = 0  # it was not, in the first example
    assert describe(values, (50,)).dead == pytest.approx(1 / 3 + (values[0, 2, 0] == 0).sum().item() / 48)


def test_what_has_no_spread_and_what_is_not_finite() -> None:
    zero = describe(torch.zeros(4, 3), (50,))
    assert (zero.mean, zero.variance, zero.dead) == (0, 0, 1)
    assert math.isnan(zero.kurtosis)
    assert math.isnan(zero.top_share)
    wild = describe(torch.tensor([1.0, math.inf, -math.inf]), (50,))
    assert math.isnan(wild.mean)
    assert describe(torch.full((3,), 1e200, dtype=torch.float64), (50,)).variance == 0


class Twice(nn.Module):
    """A layer used twice, the second time on what an in-place ReLU has written over."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.act, self.head = nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Linear(48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.act(self.norm(x))).flatten(1))


def test_outputs_and_gradients_of_each_use_before_what_works_in_place() -> None:
    model = Twice()
    found = activation_statistics(model, X, Y, cross_entropy, at=(50,))
    assert [*found] == ["norm", "act", "norm (2)"]
    first = nn.functional.batch_norm(X, None, None, training=True).requires_grad_()
    second = torch.relu(first)
    second.retain_grad()
    third = nn.functional.batch_norm(second, None, None, training=True)
    third.retain_grad()
    cross_entropy(model.head(third.flatten(1)), Y).backward()
    for name, values in zip(found, (first, second, third), strict=True):
        assert found[name].output.plain() == pytest.approx(describe(values, (50,)).plain(), rel=1e-5, abs=1e-6)
        assert found[name].gradient.plain() == pytest.approx(describe(values.grad, (50,)).plain(), rel=1e-4, abs=1e-7)


def test_what_does_not_reach_the_loss_has_no_gradient() -> None:
    class Beside(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self[0](x)
            return self[2](x.flatten(1))

    found = activation_statistics(Beside(nn.Tanh(), nn.Tanh(), nn.Linear(48, 10)), X, Y, cross_entropy, of="leaf")
    assert [*found] == ["0", "2"]
    assert found["0"].gradient is None
    assert found["2"].gradient is not None
    assert "gradient mean" not in found["0"].plain()


@pytest.mark.parametrize("norm", ["batch", "group", "layer", "rms", "zca", "tanh", "instance", "frozen"])
def test_every_norm_of_ours_is_one(norm: str) -> None:
    model = nn.Sequential(make_norm(norm, 3, 2), nn.Hardswish(), nn.Flatten(), nn.Linear(48, 10))
    assert [*activation_statistics(model, X, Y, cross_entropy)] == ["0", "1"]
    assert [*activation_statistics(model, X, Y, cross_entropy, of="norm")] == ["0"]
    assert [*activation_statistics(model, X, Y, cross_entropy, of=["affine", "activation"])] == ["1", "3"]


def test_a_users_norm_is_known_by_its_name() -> None:
    class MyNorm(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / x.std()

    model = nn.Sequential(MyNorm(), nn.Flatten(), nn.Linear(48, 10))
    assert [*activation_statistics(model, X, Y, cross_entropy, of="norm")] == ["0"]


def test_no_layer_of_the_kind() -> None:
    with pytest.raises(NormlabError, match=r"layers that are modules \(norm\), got none; write functions as layers"):
        activation_statistics(nn.Sequential(nn.Flatten(), nn.Linear(48, 10)), X, Y, cross_entropy, of="norm")


def test_the_modes_are_the_models_and_it_stays_as_it_is() -> None:
    model = models.lenet((3, 28, 28), seed=0).eval()
    x = torch.randn(4, 3, 28, 28)
    model.norm1.running_var.fill_(100.0)
    before, draws = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    evaluated = activation_statistics(model, x, Y[:4], cross_entropy)["norm1"].output.variance
    trained = activation_statistics(model.train(), x, Y[:4], cross_entropy)["norm1"].output.variance
    assert evaluated < 0.05
    assert trained == pytest.approx(1, abs=0.01)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), draws)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_the_probe_reads_the_first_examples() -> None:
    asked = look(models.lenet(seed=0))
    found = activations(1, at=(5,), examples=8)(asked)
    by_hand = activation_statistics(asked.model, asked.x[:8], asked.y[:8], asked.loss, at=(5,))
    assert found["norm1 gradient p5"] == by_hand["norm1"].gradient.percentiles[5]
    assert found["activation4 top_share"] == by_hand["activation4"].output.top_share
    assert len(found) == 8 * 2 * 6
