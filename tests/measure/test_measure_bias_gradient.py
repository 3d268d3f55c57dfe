"""bias_gradient: zero to rounding before a batch norm, and not where the norm does not use its batch."""

import torch
from looks import look
from torch import nn

from normlab.measure import bias_gradient
from normlab.models import lenet
from normlab.surgery import freeze, remove_bias


def test_it_is_zero_in_float64() -> None:
    found = bias_gradient(1)(look(lenet(seed=0)))
    assert found["biases"] == 226
    assert 0 < found["bias"] < 1e-13, "rounding leaves something: an exact zero would be no gradient at all"
    assert found["relative"] < 1e-12


def test_relative_is_to_the_largest_gradient_of_the_same_layers_weights() -> None:
    model = lenet(seed=0).double()
    freeze("statistics")(model)
    asked = look(model, torch.randn(32, 1, 28, 28, dtype=torch.float64))
    found = bias_gradient(1)(asked)
    assert found["relative"] > 1e-3, "running statistics absorb no bias"
    asked.loss(model(asked.x), asked.y).backward()
    layers = [model.conv1, model.conv2, model.linear3, model.linear4]
    bias, weight = (
        max(getattr(layer, name).grad.abs().max().item() for layer in layers) for name in ("bias", "weight")
    )
    assert found["bias"] == bias
    assert found["relative"] == bias / weight


def test_none_is_no_nan() -> None:
    nothing = {"bias": 0.0, "relative": 0.0, "biases": 0.0}
    assert bias_gradient(1)(look(lenet(norms="none"))) == nothing
    lean = lenet()
    remove_bias()(lean)
    assert bias_gradient(1)(look(lean)) == nothing


def test_a_layer_without_bias_does_not_lend_its_weights() -> None:
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 5), nn.BatchNorm1d(5),
    ).double()  # fmt: skip
    asked = look(model, torch.randn(32, 784, dtype=torch.float64), torch.zeros(32, dtype=torch.int64))
    found = bias_gradient(1)(asked)
    asked.loss(model(asked.x), asked.y).backward()
    assert found["biases"] == 5
    assert found["relative"] == found["bias"] / model[4].weight.grad.abs().max().item()
