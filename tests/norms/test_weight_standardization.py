"""Layers with standardized weights, against torch's layers with weights standardized by hand."""

import copy
import pickle

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from compare import assert_close
from normlab import nn
from normlab.functional import standardize_weight

CASES = [
    (nn.StandardizedLinear, torch.nn.Linear, (6, 5), {}, (3, 6)),
    (nn.StandardizedConv1d, torch.nn.Conv1d, (4, 6, 3), {"groups": 2}, (3, 4, 8)),
    (nn.StandardizedConv2d, torch.nn.Conv2d, (4, 6, 3), {"padding": 1, "padding_mode": "reflect"}, (3, 4, 6, 6)),
    (nn.StandardizedConv3d, torch.nn.Conv3d, (4, 6, 2), {"bias": False}, (3, 4, 3, 3, 3)),
]


def by_hand(weight, eps=1e-5):
    rows = [(row - row.mean()) / (((row - row.mean()) ** 2).mean() + eps).sqrt() for row in weight]
    return torch.stack(rows)


@pytest.mark.parametrize(("ours", "theirs", "sizes", "options", "shape"), CASES)
def test_is_torchs_layer_with_standardized_weights(ours, theirs, sizes, options, shape):
    layer, twin = ours(*sizes, **options, eps=0.01).double(), theirs(*sizes, **options).double()
    twin.load_state_dict(layer.state_dict())
    layer.load_state_dict(twin.state_dict())
    assert isinstance(layer, theirs)
    x = torch.randn(shape, dtype=torch.float64)
    leaf = layer.weight.detach().clone().requires_grad_()
    parameters = {name: value.detach() for name, value in twin.named_parameters()} | {"weight": by_hand(leaf, 0.01)}
    expected = torch.func.functional_call(twin, parameters, (x,))
    y = layer(x)
    y.pow(3).sum().backward()
    expected.pow(3).sum().backward()
    assert_close(y, expected, scale=8)
    assert_close(layer.weight.grad, leaf.grad, scale=100)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), y)


def test_a_channels_weights_may_be_scaled_and_shifted_without_effect():
    weight = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    assert_close(standardize_weight(3 * weight + 7, eps=0), standardize_weight(weight, eps=0))


def test_constant_weights_give_zeros():
    assert_close(standardize_weight(torch.full((2, 3), 0.25)), torch.zeros(2, 3))


def test_derivatives_of_first_and_second_order():
    weight = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(standardize_weight, weight)
    assert gradgradcheck(standardize_weight, weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_half_precision(dtype):
    layer = nn.StandardizedConv2d(2, 3, 3)
    x = torch.randn(2, 2, 5, 5)
    with torch.autocast("cpu", dtype=dtype):
        assert layer(x).dtype == dtype
    assert layer.to(dtype)(x.to(dtype)).dtype == dtype
