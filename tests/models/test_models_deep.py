"""deep: its layers, its weights, its options."""

import math
from collections import Counter

import pytest
import torch
from torch import nn

from normlab.errors import NormlabError
from normlab.models import MODELS, build, deep, parameter_count
from normlab.nn import BatchNorm1d
from normlab.surgery import swap


def test_its_layers_and_none_with_a_bias() -> None:
    model = deep((2, 3), 4, depth=3, width=5)
    assert [type(layer) for layer in model] == [
        nn.Flatten, *(nn.Linear, BatchNorm1d, nn.ReLU) * 3, nn.Linear]  # fmt: skip
    assert [tuple(layer.weight.shape) for layer in model if isinstance(layer, nn.Linear)] == [
        (5, 6), (5, 5), (5, 5), (4, 5)]  # fmt: skip
    assert all(layer.bias is None for layer in model if isinstance(layer, nn.Linear))
    assert parameter_count(model) == 30 + 25 + 25 + 20 + 3 * 10
    assert model(torch.randn(7, 2, 3)).shape == (7, 4)


def test_a_linear_network_is_the_product_of_its_weights() -> None:
    model = deep((6,), 4, depth=3, width=5, activation="none", norms="none", seed=1).double()
    x = torch.randn(7, 6, dtype=torch.float64)
    product = torch.linalg.multi_dot([x, *(layer.weight.T for layer in model if isinstance(layer, nn.Linear))])
    assert torch.allclose(model(x), product, rtol=1e-12)
    assert Counter(map(type, model)) == {nn.Flatten: 1, nn.Linear: 4}


@pytest.mark.parametrize("gain", [1.0, math.sqrt(2), 3])
def test_weights_are_normal_of_their_gain(gain: float) -> None:
    weight = deep((400,), depth=1, width=500, gain=gain, seed=0).linear1.weight.detach() * 20 / gain
    assert weight.std().item() == pytest.approx(1, rel=0.01)
    assert weight.mean().abs() < 0.01
    assert (weight.abs() > 3).float().mean().item() == pytest.approx(0.0027, abs=0.0005), "no uniform numbers"


def test_the_weights_are_the_seeds_and_a_norm_shifts_none() -> None:
    one, other = deep(depth=2, width=4, seed=3), deep(depth=2, width=4, norms="none", seed=3)
    assert torch.equal(one.linear2.weight, other.linear2.weight)
    assert torch.equal(one.output.weight, other.output.weight)
    assert not torch.equal(one.linear2.weight, deep(depth=2, width=4, seed=4).linear2.weight)


def test_by_name_and_for_any_norm() -> None:
    assert MODELS["deep"] is deep
    model = build("deep", {"depth": 2, "width": 4}, input_shape=[1, 8, 8], classes=3, seed=0)
    assert swap("batch", "layer")(model)
    assert model(torch.randn(5, 1, 8, 8)).shape == (5, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth as a number of layers, got 0"),
        ({"depth": True}, "depth as a number of layers, got True"),
        ({"width": 1.5}, "width as a number of units, got 1.5"),
        ({"gain": 0}, "a gain above 0, got 0"),
        ({"gain": "2"}, "a gain above 0, got '2'"),
        ({"norms": "13"}, "a known placement of norms"),
        ({"activation": "linear"}, "a known activation, got 'linear'.*none"),
    ],
)
def test_options_that_it_does_not_have(options: dict, message: str) -> None:
    with pytest.raises(NormlabError, match=message):
        deep(**options)
