"""percentiles: those of the very numbers that enter the layer."""

import numpy as np
import pytest
import torch
from looks import look
from torch import nn

from normlab.errors import NormlabError
from normlab.measure import percentiles

X = torch.arange(-50.0, 51.0).reshape(101, 1)


def test_they_are_numpys_over_the_batch_and_all_channels() -> None:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    model = nn.Sequential(nn.Linear(3, 7), nn.Sigmoid(), nn.Linear(7, 2))
    expected = np.percentile(model[0](x).detach().numpy(), [2.5, 50])
    found = percentiles(1, at=(2.5, 50))(look(model, x))
    assert list(found) == ["1 p2.5", "1 p50"]
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-6)


def test_the_default_is_the_papers() -> None:
    assert percentiles(1)(look(nn.Sequential(nn.Sigmoid()), X)) == {"0 p15": -35, "0 p50": 0, "0 p85": 35}


def test_an_activation_in_place_does_not_change_what_was_seen() -> None:
    x = X.clone()
    assert percentiles(1, at=(0, 100))(look(nn.Sequential(nn.Identity(), nn.ReLU(inplace=True)), x)) == {
        "1 p0": -50,
        "1 p100": 50,
    }


class Twice(nn.Module):
    """One activation under two names, used twice, once by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.one = self.other = nn.Tanh()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.one(x)
        return self.other(input=x + 1000)


def test_a_layer_used_twice_pools_both() -> None:
    assert percentiles(1, at=(0, 100))(look(Twice(), X)) == {"one p0": -50, "one p100": 1050}


def test_norms_and_dropout_too() -> None:
    model = nn.Sequential(nn.BatchNorm1d(1), nn.Dropout(0.5))
    assert percentiles(1, of="norm", at=(100,))(look(model, X)) == {"0 p100": 50}
    assert list(percentiles(1, of="dropout")(look(model, X))) == ["1 p15", "1 p50", "1 p85"]


def test_a_number_that_is_none_shows() -> None:
    x = X.clone()
    x[3] = torch.nan
    assert np.isnan(percentiles(1)(look(nn.Sequential(nn.ReLU()), x))["0 p50"])


def test_no_such_layer_is_no_silent_nothing() -> None:
    with pytest.raises(NormlabError, match=r"layers that are modules \(Sigmoid, ReLU.*got none"):
        percentiles(1)(look(nn.Sequential(nn.Linear(1, 2)), X))
