"""optimizer_equation: zero for torch's SGD, and not for an optimizer that does anything else."""

import functools

import pytest
import torch
from looks import look
from torch import nn

from normlab.measure import optimizer_equation
from normlab.measure.optimizer_equation import mismatches
from normlab.models import lenet

KINDS = ("gamma", "beta", "weight")


@pytest.mark.parametrize("lr", [1.0, 0.3, 0.1, 10**-0.5, 1e-3])
def test_not_a_bit_differs_for_any_kind(lr: float) -> None:
    found = optimizer_equation(1)(look(lenet(seed=0), lr=lr))
    assert [found[f"{kind} elements"] for kind in KINDS] == [226, 226, 44_190]
    assert [found[f"{kind} mismatches"] for kind in KINDS] == [0, 0, 0]


def test_weight_decay_would_be_seen_in_weights_and_gamma(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim, "SGD", functools.partial(torch.optim.SGD, weight_decay=1e-2))
    found = optimizer_equation(1)(look(lenet(seed=0), lr=0.3))
    assert found["gamma mismatches"] > 200
    assert found["weight mismatches"] > 40_000
    assert found["beta mismatches"] == 0, "a beta of 0 has nothing to decay"


def test_one_bit_is_a_mismatch() -> None:
    before, gradient = torch.linspace(1, 2, 50), torch.linspace(-1, 3, 50)
    after = torch.add(before, gradient, alpha=-0.3)
    assert mismatches(before, gradient, after, 0.3) == 0
    after[7] = torch.nextafter(after[7], torch.tensor(9.0))
    assert mismatches(before, gradient, after, 0.3) == 1
    assert mismatches(before, gradient, after * torch.nan, 0.3) == 50


def test_what_takes_no_gradient_is_not_counted() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 3), nn.BatchNorm1d(3), nn.Linear(3, 10))
    model[2].weight.requires_grad_(False)
    found = optimizer_equation(1)(look(model))
    assert [found[f"{kind} elements"] for kind in KINDS] == [0, 3, 784 * 3 + 30]
