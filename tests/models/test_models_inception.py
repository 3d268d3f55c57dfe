"""inception: its size, its modules, its options, and that surgeries find every norm in it."""

import copy
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from normlab import surgery
from normlab.errors import NormlabError
from normlab.models import build, inception, lenet, parameter_count
from normlab.models.parts import ACTIVATIONS
from normlab.nn import BatchNorm2d
from normlab.surgery.flow import fed_by

CONVOLUTIONS = 1 + 4 * 7
X = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def kinds(model: nn.Module) -> Counter:
    return Counter(type(module) for module in model.modules())


def test_its_parameters_and_the_704_too_many() -> None:
    whole, lean, none = inception(), inception(bias=False), inception(norms="none")
    assert parameter_count(whole) == 104_042
    assert parameter_count(whole) - parameter_count(lean) == 704
    assert parameter_count(none) == parameter_count(whole) - 2 * 704
    missing = dict(whole.named_parameters()).keys() - dict(lean.named_parameters()).keys()
    assert len(missing) == CONVOLUTIONS
    assert all(path.split(".")[-2].startswith("conv") and path.endswith("bias") for path in missing)


def multiplications(model: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(X[:1])
    return counter.get_total_flops() // 2


def test_it_is_cheap() -> None:
    assert multiplications(inception()) == 2_414_464
    assert multiplications(lenet()) == 281_640


def test_every_convolution_has_a_norm_and_an_activation_behind_it() -> None:
    found = kinds(inception())
    assert (found[nn.Conv2d], found[BatchNorm2d], found[nn.ReLU]) == (CONVOLUTIONS,) * 3
    pairs, left = fed_by(inception())
    assert len(pairs) == CONVOLUTIONS
    assert not left
    assert {norm.replace("norm", "conv") for norm in pairs} == set(pairs.values())
    behind = {link.source: link.target for link in surgery.flow.links(inception())}
    assert {behind[norm] for norm in pairs} == {norm.replace("norm", "activation") for norm in pairs}


def test_a_block_is_the_papers_written_out() -> None:
    block = inception(norms="none", seed=0).block2
    x = torch.randn(2, 64, 7, 7)

    def conv(path: str, x: torch.Tensor) -> torch.Tensor:
        layer = block.get_submodule(path)
        return nn.functional.conv2d(x, layer.weight, layer.bias, padding=layer.kernel_size[0] // 2).relu()

    expected = [
        conv("one.conv1", x),
        conv("three.conv2", conv("three.conv1", x)),
        conv("five.conv3", conv("five.conv2", conv("five.conv1", x))),
        conv("pooled.conv1", nn.functional.avg_pool2d(x, 3, 1, 1)),
    ]
    sides = [block.get_submodule(f"five.conv{index}").kernel_size for index in (1, 2, 3)]
    assert sides == [(1, 1), (3, 3), (3, 3)]
    assert torch.equal(block(x), torch.cat(expected, 1))


def test_the_sizes_from_block_to_block() -> None:
    model, sizes = inception().eval(), {}
    for name, layer in model.named_children():
        layer.register_forward_hook(lambda _, __, y, name=name: sizes.update({name: tuple(y.shape[1:])}))
    model(X)
    assert sizes == {
        "stem": (32, 14, 14), "pool1": (32, 7, 7), "block1": (64, 7, 7), "block2": (64, 7, 7),
        "pool2": (64, 4, 4), "block3": (128, 4, 4), "block4": (128, 4, 4), "pool3": (128, 1, 1), "flatten": (128,),
        "output": (10,),
    }  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (2, 9, 31)])
def test_any_image_of_8_by_8_or_more(shape: tuple[int, ...]) -> None:
    model = build("inception", {}, input_shape=shape, classes=7, seed=5)
    assert model(torch.zeros(2, *shape)).shape == (2, 7)
    twin = inception(shape, 7, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize(("name", "layer"), ACTIVATIONS.items())
def test_the_activation_is_everywhere(name: str, layer: type[nn.Module]) -> None:
    found = kinds(inception(activation=name))
    assert {kind: found[kind] for kind in ACTIVATIONS.values() if found[kind]} == {layer: CONVOLUTIONS}


def test_settings_reach_every_norm_and_every_block() -> None:
    model = inception(eps=0.5, momentum=None, width=3)
    norms = [module for module in model.modules() if isinstance(module, BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(0.5, None)}
    assert {norm.num_features for norm in norms} == {3, 6}


@pytest.mark.parametrize("init", ["torch", "xavier"])
@pytest.mark.parametrize("options", [{"norms": "none"}, {"bias": False}, {"activation": "sigmoid"}], ids=str)
def test_two_share_every_weight_that_both_have(init: str, options: dict) -> None:
    one = dict(inception(seed=7, init=init).named_parameters())
    other = dict(inception(seed=7, init=init, **options).named_parameters())
    assert {path for path in other if path.endswith("weight")} <= one.keys()
    assert sum("conv" in path and path.endswith("weight") for path in other) == CONVOLUTIONS
    for path in one.keys() & other.keys():
        assert torch.equal(one[path], other[path]), path


def test_every_layer_and_every_seed_has_draws_of_its_own() -> None:
    drawn = [
        tuple((value.flatten()[:4] / value.abs().max()).tolist())
        for seed in (0, 1)
        for path, value in inception(seed=seed).named_parameters()
        if path.endswith("weight") and "norm" not in path
    ]
    assert len(set(drawn)) == len(drawn) == 2 * (CONVOLUTIONS + 1)


def test_surgeries_work_in_it() -> None:
    model = inception(seed=0)
    model(X)
    model.eval()
    expected = model(X)
    lean = copy.deepcopy(model)
    assert len(surgery.remove_bias()(lean).done) == CONVOLUTIONS
    torch.testing.assert_close(lean(X), expected, rtol=1e-4, atol=1e-5)
    bare = copy.deepcopy(model)
    assert len(surgery.swap("batch", "none")(bare).done) == CONVOLUTIONS
    assert torch.equal(bare(X), inception(norms="none", seed=0)(X))
    assert len(surgery.keep((0,))(model).done) == CONVOLUTIONS - 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "rely"}, r"a known activation, got 'rely'; did you mean relu\?"),
        ({"norms": "conv"}, "a known placement of norms, got 'conv'.*there are all, none"),
        ({"norms": [1]}, r"a known placement of norms, got \[1\]"),
        ({"bias": "no"}, "bias as true or false, got 'no'"),
        ({"init": "he"}, "a known initialization"),
        ({"width": 0}, "width as a number of channels, got 0"),
        ({"width": 1.5}, "width as a number of channels, got 1.5"),
        ({"width": True}, "width as a number of channels, got True"),
        ({"eps": -1e-5}, "eps >= 0"),
        ({"dropout": 0.5}, "a known option of model inception, got 'dropout'"),
        ({"input_shape": [1, 7, 28]}, r"at least 8 x 8 for inception, got \(1, 7, 28\); take mlp"),
        ({"input_shape": [64]}, r"got \(64,\); take mlp"),
    ],
    ids=str,
)
def test_options_that_it_does_not_have(options: dict, message: str) -> None:
    with pytest.raises(NormlabError, match=message):
        build("inception", options, input_shape=(1, 28, 28), classes=10, seed=0)
