"""uniformity: each fit is scipy's, the distance is that of scipy's test, and what is known of it holds."""

import numpy as np
import pytest
import torch
from looks import look
from scipy import stats
from torch import nn

from normlab.measure import uniformity
from normlab.measure.uniformity import FITS, NORMAL, distance, gaussian, kernel, ranks

DRAW = torch.Generator().manual_seed(0)
SAMPLES = {
    "normal": torch.randn(3, 40, generator=DRAW, dtype=torch.float64),
    "skewed": torch.randn(3, 40, generator=DRAW, dtype=torch.float64).exp() + 5,
    "with ties": torch.randint(5, (3, 40), generator=DRAW).double(),
    "two": torch.tensor([[0.0, 1.0]], dtype=torch.float64),
}
each_sample = pytest.mark.parametrize("x", SAMPLES.values(), ids=SAMPLES.keys())


def by_scipy(name: str, x: np.ndarray) -> np.ndarray:
    if name == "gaussian":
        return stats.norm.cdf(stats.zscore(x))
    if name == "ranks":
        return (stats.rankdata(x) - 0.5) / len(x)
    density = stats.gaussian_kde(x)
    return np.array([density.integrate_box_1d(-np.inf, value) for value in x])


@each_sample
@pytest.mark.parametrize("fit", [gaussian, kernel, ranks])
def test_a_fit_and_its_distance_are_scipys(fit, x: torch.Tensor) -> None:
    u = fit(x)
    assert torch.isfinite(u).all()
    for channel, values, found in zip(x.numpy(), u.numpy(), distance(u), strict=True):
        np.testing.assert_allclose(values, by_scipy(fit.__name__, channel), atol=1e-12)
        assert found.item() == pytest.approx(stats.kstest(values, "uniform").statistic, abs=1e-14)


def test_every_fit_is_tested_here() -> None:
    assert {"gaussian": gaussian, "kernel": kernel, "ranks": ranks} == FITS


def test_ranks_are_as_near_as_so_many_values_can_be() -> None:
    assert distance(ranks(SAMPLES["skewed"])).tolist() == pytest.approx([1 / 80] * 3)


def test_it_reads_every_norms_inputs_in_four_sizes() -> None:
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(1))
    model = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 2), nn.BatchNorm1d(2))
    found = uniformity(1, channels=2, values=200)(look(model, x))
    sizes = {"0": (4, 16, 64), "2": (4, 16, 64), NORMAL: (3, 12, 50, 200)}
    assert {*found} == {f"{path} {fit} {n}" for path, of in sizes.items() for fit in FITS for n in of}
    whole = distance(gaussian(x.T[:2].double())).mean().item()
    assert found["0 gaussian 64"] == pytest.approx(whole, rel=1e-12)


def test_positions_and_uses_are_pooled() -> None:
    images = torch.arange(24.0).reshape(2, 3, 2, 2).exp()
    norm = nn.BatchNorm2d(3)
    found = uniformity(1, channels=3)(look(nn.Sequential(norm, norm), images))
    assert "0 ranks 16" in found


def test_the_distance_of_gaussian_data_halves_and_that_of_others_stays() -> None:
    x = torch.randn(2_000, 4, generator=torch.Generator().manual_seed(2)).exp()
    found = uniformity(1)(look(nn.Sequential(nn.BatchNorm1d(4)), x))
    left = {path: found[f"{path} gaussian 2000"] / found[f"{path} gaussian 500"] for path in (NORMAL, "0")}
    assert left[NORMAL] == pytest.approx(0.5, abs=0.15)
    assert left["0"] > 0.9
