"""variance_ratio: the theory of Li et al. 2018, and that dropout alone makes it."""

import math

import pytest
import torch
from looks import look
from torch import nn

from normlab.measure import variance_ratio

NORMAL = torch.randn(20_000, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kept", [0.9, 0.5, 0.2])
def test_of_centered_values_it_is_the_kept_fraction(kept: float) -> None:
    found = variance_ratio(1)(look(nn.Sequential(nn.Dropout(1 - kept), nn.BatchNorm1d(8)), NORMAL))
    assert found == pytest.approx({"1": kept}, rel=0.01)


@pytest.mark.parametrize("kept", [0.8, 0.5])
def test_behind_a_relu_the_mean_adds_to_it(kept: float) -> None:
    model = nn.Sequential(nn.ReLU(), nn.Dropout(1 - kept), nn.BatchNorm1d(8))
    mean_square = 1 / (2 * math.pi)
    theory = (0.5 - mean_square) / (0.5 / kept - mean_square)
    assert variance_ratio(1)(look(model, NORMAL)) == pytest.approx({"2": theory}, rel=0.01)


def test_without_dropout_it_is_one_whatever_the_running_statistics() -> None:
    model = nn.Sequential(nn.BatchNorm1d(8), nn.Sigmoid(), nn.BatchNorm1d(8))
    model[0].running_var.fill_(1e4)
    assert variance_ratio(1)(look(model, NORMAL)) == pytest.approx({"0": 1, "2": 1}, rel=1e-12)


def test_norms_before_it_use_the_batch_in_both() -> None:
    model = nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.5), nn.BatchNorm1d(8))
    model[0].running_var.fill_(1e4)
    assert variance_ratio(1)(look(model, 3 * NORMAL + 5)) == pytest.approx({"0": 1, "2": 0.5}, rel=0.01)


def test_images_and_draws() -> None:
    x = NORMAL.reshape(-1, 2, 4, 4)
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(2))
    many = [variance_ratio(1, draws=16)(look(model, x[:20]))["1"] for _ in range(20)]
    single = [variance_ratio(1, draws=1)(look(model, x[:20]))["1"] for _ in range(20)]
    spread = [torch.tensor(values).std().item() for values in (many, single)]
    assert spread[0] < 0.6 * spread[1]
    assert sum(many) / len(many) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("shape", [(-1, 2), (-1, 2, 4, 4)])
def test_a_variance_is_of_one_channel_over_all_else(shape: tuple[int, ...]) -> None:
    """Where channels have means m, the square of each adds to the variance that dropout makes."""
    x = NORMAL.reshape(shape)
    x = x + torch.tensor([0.0, 3.0]).reshape(2, *[1] * (x.dim() - 2))
    norm = nn.BatchNorm1d(2) if x.dim() == 2 else nn.BatchNorm2d(2)
    kept, mean_square = 0.8, 9 / 2
    theory = 1 / ((1 + mean_square) / kept - mean_square)
    assert variance_ratio(1)(look(nn.Sequential(nn.Dropout(1 - kept), norm), x)) == pytest.approx(
        {"1": theory}, rel=0.01
    )
