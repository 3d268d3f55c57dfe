"""resnet8 and its deeper kin: their sizes, their modules, their options."""

import functools
from collections import Counter

import pytest
import torch
from torch import nn

from normlab.errors import NormlabError
from normlab.models import MODELS, build, parameter_count, resnet8, resnet20, resnet56
from normlab.models.parts import ACTIVATIONS
from normlab.nn import BatchNorm2d

COLOURS = (3, 32, 32)


def kinds(model: nn.Module) -> Counter:
    return Counter(type(module) for module in model.modules())


@pytest.mark.parametrize(("network", "depth"), [(resnet8, 8), (resnet20, 20), (resnet56, 56)])
def test_as_many_layers_as_the_name_says(network: functools.partial, depth: int) -> None:
    assert MODELS[f"resnet{depth}"] is network
    found = kinds(network())
    shortcuts = 2
    assert found[nn.Conv2d] - shortcuts + found[nn.Linear] == depth
    assert found[BatchNorm2d] == found[nn.Conv2d]
    assert found[nn.ReLU] == depth - 1


def test_parameters() -> None:
    assert parameter_count(resnet8()) == 77_754
    assert parameter_count(resnet8(bias=True)) - parameter_count(resnet8()) == 16 * 3 + 32 * 3 + 64 * 3
    # 0.27 and 0.85 million in the paper's table 6, where shortcuts have no parameters.
    shortcuts = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert parameter_count(resnet20(COLOURS)) - shortcuts == 269_722
    assert parameter_count(resnet56(COLOURS)) - shortcuts == 853_018


def test_a_block_is_the_papers_written_out() -> None:
    model = resnet8(seed=1).eval()
    x = torch.randn(2, 16, 28, 28)
    block = model.stage2_block1
    inner, outer = block.residual, block.shortcut
    y = torch.relu(inner.norm1(inner.conv1(x)))
    y = torch.relu(inner.norm2(inner.conv2(y)) + outer.norm1(outer.conv1(x)))
    assert torch.equal(block(x), y)
    assert y.shape == (2, 32, 14, 14)
    same = model.stage1_block1
    assert isinstance(same.shortcut, nn.Identity)
    assert torch.equal(same(x), torch.relu(same.residual(x) + x))


@pytest.mark.parametrize(("norms", "bias", "biases"), [("all", False, 0), ("all", True, 9), ("none", False, 9)])
def test_norms_and_biases(norms: str, bias: bool, biases: int) -> None:
    model = resnet8(norms=norms, bias=bias)
    found = kinds(model)
    assert found[BatchNorm2d] == (9 if norms == "all" else 0)
    assert sum(layer.bias is not None for layer in model.modules() if isinstance(layer, nn.Conv2d)) == biases
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize(("name", "layer"), ACTIVATIONS.items())
def test_the_activation_is_everywhere(name: str, layer: type[nn.Module]) -> None:
    assert kinds(resnet8(activation=name))[layer] == 7


def test_it_is_told_the_data_and_the_seed() -> None:
    built = build("resnet8", {"width": 4}, input_shape=[3, 9, 8], classes=7, seed=5)
    assert built(torch.zeros(2, 3, 9, 8)).shape == (2, 7)
    twin = resnet8((3, 9, 8), 7, width=4, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(built.parameters(), twin.parameters(), strict=True))
    assert {norm.eps for norm in resnet8(eps=0.5).modules() if isinstance(norm, BatchNorm2d)} == {0.5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 10}, "depth as 8, 14, 20 and so on by 6, got 10"),
        ({"depth": 2}, "depth as 8"),
        ({"depth": True}, "depth as 8"),
        ({"width": 0}, "width as a number of channels, got 0"),
        ({"norms": "13"}, "a known placement of norms"),
        ({"bias": "no"}, "bias as true or false"),
        ({"activation": "swish"}, "a known activation"),
        ({"input_shape": (1, 7, 28)}, r"images \(C, H, W\) of at least 8 x 8 for resnet, got \(1, 7, 28\); take mlp"),
    ],
)
def test_options_that_it_does_not_have(options: dict, message: str) -> None:
    with pytest.raises(NormlabError, match=message):
        resnet8(**options)
