"""gap and under_statistics: what each kind of statistics does to what a network gives in evaluation."""

import math

import pytest
import torch
from looks import look
from torch import nn

from normlab import models
from normlab.measure import gap, statistics_gap, under_statistics

X = 3 * torch.randn(200, 4, generator=torch.Generator().manual_seed(0)) + 2


def rms(values: torch.Tensor) -> float:
    return values.double().square().mean().sqrt().item()


def test_stale_statistics_by_hand() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4))
    found = statistics_gap(model, X, lambda: (X[:50],))
    trained = (X - X.mean(0)) / (X.var(0, correction=0) + 1e-5).sqrt()
    recomputed = (X - X[:50].mean(0)) / (X[:50].var(0, correction=0) + 1e-5).sqrt()
    stale = X / math.sqrt(1 + 1e-5)
    assert found["0"]["running"] == pytest.approx(rms(stale - trained) / rms(trained), rel=1e-4)
    assert found["0"]["recomputed"] == pytest.approx(rms(recomputed - trained) / rms(trained), rel=1e-4)
    assert found["0"]["batch"] < 1e-6


def test_what_dropout_does_is_left_under_batch_statistics() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.BatchNorm1d(4))
    found = statistics_gap(model, X, lambda: (X,))
    assert found["0"]["batch"] < 1e-6
    assert found["2"]["batch"] > 0.5


def test_of_any_layers_and_the_model_stays_as_it_is() -> None:
    model = models.lenet(dropout=0.2, seed=0)
    model.norm2.eval()
    x = torch.randn(12, 1, 28, 28)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, draws = [module.training for module in model.modules()], torch.get_rng_state()
    found = statistics_gap(model, x, lambda: (x, x + 1), of=("affine", "norm"))
    looked_at = ("conv", "norm", "linear", "output")
    assert [*found] == [name for name, _ in model.named_children() if name.startswith(looked_at)]
    assert found["conv1"] == {"running": 0, "recomputed": 0, "batch": 0}, "nothing before it depends on statistics"
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), draws)


def test_the_probe_recomputes_over_the_first_half() -> None:
    asked = look(nn.Sequential(nn.BatchNorm1d(4)), X)
    by_hand = statistics_gap(asked.model, X[100:], lambda: (X[:100],))["0"]
    assert gap(1)(asked) == {f"0 {name}": value for name, value in by_hand.items()}


def test_accuracies_of_the_second_half_by_hand() -> None:
    """A norm that nothing follows: which of the two outputs is larger is the class."""
    x = torch.randn(80, 2, generator=torch.Generator().manual_seed(1)) + torch.tensor([5.0, 0.0])
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(2))
    y = (x - x[40:].mean(0)).div(x[40:].std(0)).argmax(1)
    found = under_statistics(1)(look(model, x, y))
    recomputed = (x - x[:40].mean(0)).div(x[:40].std(0)).argmax(1)
    assert found["batch"] == 1, "and dropout is off"
    assert found["running"] == pytest.approx((y[40:] == 0).float().mean().item())
    assert found["recomputed"] == pytest.approx((recomputed == y)[40:].float().mean().item())
