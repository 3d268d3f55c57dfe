"""lenet and mlp: their sizes, their options, and the draws that two of them share."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compare import assert_close
from normlab.errors import NormlabError
from normlab.models import build, lenet, mlp, parameter_count
from normlab.models.parts import ACTIVATIONS
from normlab.nn import BatchNorm1d, BatchNorm2d

SHAPE, CLASSES = (1, 28, 28), 10
MODELS = {"lenet": lenet, "mlp": mlp}


def make(name: str, seed: int | None = 0, **options: object) -> nn.Module:
    return MODELS[name](SHAPE, CLASSES, seed=seed, **options)


def standing(model: nn.Module) -> list[str]:
    return [path for path, module in model.named_modules() if isinstance(module, (BatchNorm1d, BatchNorm2d))]


def test_lenet_has_the_books_parameters_and_226_too_many() -> None:
    whole, lean = make("lenet"), make("lenet", bias=False)
    assert parameter_count(whole) == 44_878
    missing = dict(whole.named_parameters()).keys() - dict(lean.named_parameters()).keys()
    assert missing == {"conv1.bias", "conv2.bias", "linear3.bias", "linear4.bias"}
    assert parameter_count(whole) - parameter_count(lean) == 226


def test_lenet_is_the_books_layer_by_layer() -> None:
    kinds = [type(layer).__name__ for layer in make("lenet", dropout=0.5).children()]
    conv = ["Conv2d", "BatchNorm2d", "Sigmoid", "AvgPool2d"]
    linear = ["Linear", "BatchNorm1d", "Sigmoid", "Dropout"]
    assert kinds == [*conv, *conv, "Flatten", *linear, *linear, "Linear"]


def test_the_plain_lenet_equals_torchs_layers_written_out() -> None:
    torch.manual_seed(3)
    plain = nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Sigmoid(), nn.AvgPool2d(2, 2), nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.AvgPool2d(2, 2),
        nn.Flatten(), nn.Linear(256, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10),
    )  # fmt: skip
    torch.manual_seed(3)
    ours = make("lenet", norms="none", seed=None)
    x = torch.randn(5, *SHAPE)
    assert torch.equal(ours(x), plain(x))
    assert parameter_count(ours) == 44_426


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("name", "layer"), ACTIVATIONS.items())
def test_the_activation_is_everywhere(model: str, name: str, layer: type[nn.Module]) -> None:
    found = [
        type(module) for module in make(model, activation=name).modules() if type(module) in ACTIVATIONS.values()
    ]
    assert found == [layer] * (4 if model == "lenet" else 3)


@pytest.mark.parametrize(("name", "layer"), [("avg", nn.AvgPool2d), ("max", nn.MaxPool2d)])
def test_the_pooling_is_everywhere(name: str, layer: type[nn.Module]) -> None:
    pools = [
        module for module in make("lenet", pooling=name).modules() if isinstance(module, nn.AvgPool2d | nn.MaxPool2d)
    ]
    assert [(type(pool), pool.kernel_size, pool.stride) for pool in pools] == [(layer, 2, 2)] * 2


@pytest.mark.parametrize(
    ("norms", "positions"),
    [
        ("all", "1234"), ("none", ""), ("conv", "12"), ("linear", "34"), (13, "13"), ("13", "13"), ("1,3", "13"),
        ("3, 1", "13"), ([1, 3], "13"), ((4,), "4"), (["2"], "2"), ([], ""), (2, "2"), (4321, "1234"), ("", ""),
    ],
)  # fmt: skip
def test_which_norms_stand(norms: object, positions: str) -> None:
    model = make("lenet", norms=norms, bias=False)
    assert standing(model) == [f"norm{position}" for position in positions]
    without_bias = [path for path in ("conv1", "conv2", "linear3", "linear4") if getattr(model, path).bias is None]
    assert "".join(path[-1] for path in without_bias) == positions, "a layer without a norm behind it keeps its bias"


def test_the_mlps_layers_before_a_norm_may_do_without_bias() -> None:
    model = make("mlp", norms=13, bias=False)
    assert [getattr(model, f"linear{index}").bias is None for index in (1, 2, 3)] == [True, False, True]
    assert model.output.bias is not None


def test_norms_beyond_the_ninth_are_named_with_commas() -> None:
    deep = make("mlp", widths=[4] * 12, norms="1,10,12")
    assert standing(deep) == ["norm1", "norm10", "norm12"]


@pytest.mark.parametrize(
    "norms", ["some", 5, 0, "0", "1,5", "1;3", True, None, 1.5, [5], ["all"], [[1]], [","], {}.keys]
)
def test_norms_that_are_none(norms: object) -> None:
    with pytest.raises(NormlabError, match=r"expected norms as all, none, conv, linear or positions out of 1 to 4"):
        make("lenet", norms=norms)
    with pytest.raises(NormlabError, match=r"norms as all, none or positions out of 1 to 3, as 13, got 'conv'"):
        make("mlp", norms="conv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "sigmoit"}, r"a known activation, got 'sigmoit'; did you mean sigmoid\?"),
        ({"activation": ["relu"]}, "a known activation"),
        ({"pooling": "mean"}, "a known pooling, got 'mean'; .*there are avg, max"),
        ({"init": "he"}, "a known initialization, got 'he'.*there are torch, xavier"),
        ({"bias": "no"}, "bias as true or false, got 'no'"),
        ({"bias": "False"}, "bias as true or false, got 'False'"),
        ({"eps": -1e-5}, "eps >= 0, got -1e-05"),
        ({"momentum": 1.5}, r"momentum in \[0, 1\], got 1.5"),
        ({"dropout": 1.5}, "to build, got ValueError: dropout probability"),
        ({"dropout": "much"}, "to build, got TypeError"),
        ({"drpout": 0.5}, r"a known option of model lenet, got 'drpout'; did you mean dropout\?"),
        (
            {"input_shape": [1, 15, 28]},
            r"images \(C, H, W\) of at least 16 x 16 for lenet, got \(1, 15, 28\); take mlp",
        ),
        ({"input_shape": [64]}, r"got \(64,\); take mlp$"),
        ({"input_shape": [28, 28]}, r"got \(28, 28\); take mlp, or give x its axis of channels, as x\[:, None\]"),
    ],
)
def test_options_that_lenet_does_not_have(options: dict, message: str) -> None:
    with pytest.raises(NormlabError, match=message):
        build("lenet", options, input_shape=SHAPE, classes=CLASSES, seed=0)


@pytest.mark.parametrize("widths", ["wide", [1.5], [0], [[3]], ["3"], -1])
def test_widths_that_are_none(widths: object) -> None:
    with pytest.raises(NormlabError, match="widths of hidden layers"):
        make("mlp", widths=widths)


@pytest.mark.parametrize(("widths", "sizes"), [([], [784, 10]), (7, [784, 7, 10]), ([5, 1], [784, 5, 1, 10])])
def test_the_widths_of_the_mlp(widths: object, sizes: list[int]) -> None:
    linear = [layer for layer in make("mlp", widths=widths).modules() if isinstance(layer, nn.Linear)]
    assert [linear[0].in_features, *(layer.out_features for layer in linear)] == sizes


def test_the_mlp_is_that_of_the_paper() -> None:
    kinds = [type(layer).__name__ for layer in make("mlp", dropout=0.1).children()]
    assert kinds == ["Flatten", *["Linear", "BatchNorm1d", "Sigmoid", "Dropout"] * 3, "Linear"]


@pytest.mark.parametrize(
    ("network", "parameters"), [(lenet, 44_878), (mlp, 784 * 100 + 2 * 100 * 100 + 100 * 9 + 1010)]
)
def test_bare_they_are_the_books_and_the_papers(network: Callable[..., nn.Module], parameters: int) -> None:
    bare = network()
    assert parameter_count(bare) == parameters
    assert {(getattr(bare, path).eps, getattr(bare, path).momentum) for path in standing(bare)} == {(1e-5, 0.1)}
    assert not any(isinstance(module, nn.Dropout) for module in bare.modules())
    assert bare(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize("model", MODELS)
def test_ours_are_told_the_data_and_the_seed(model: str) -> None:
    built = build(model, {}, input_shape=[3, 20, 18], classes=7, seed=5)
    assert built(torch.zeros(2, 3, 20, 18)).shape == (2, 7)
    twin = MODELS[model]((3, 20, 18), 7, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(built.parameters(), twin.parameters(), strict=True))


def test_settings_reach_every_norm() -> None:
    for name in MODELS:
        model = make(name, eps=0.5, momentum=None)
        assert {(getattr(model, path).eps, getattr(model, path).momentum) for path in standing(model)} == {
            (0.5, None)
        }


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 4), st.integers(16, 40), st.integers(16, 40), st.integers(1, 12), st.integers(1, 4))
def test_any_image_of_16_by_16_or_more(channels: int, height: int, width: int, classes: int, count: int) -> None:
    for network in (lenet, mlp):
        model = network((channels, height, width), classes)
        assert model.eval()(torch.zeros(count, channels, height, width)).shape == (count, classes)


# --- draws ---------------------------------------------------------------------------------------------------------

VARIANTS = [
    {"norms": "none"},
    {"norms": "13"},
    {"bias": False},
    {"dropout": 0.5},
    {"activation": "relu"},
    {"norms": "1", "bias": False, "dropout": 0.2},
]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("init", ["torch", "xavier"])
@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_two_networks_share_every_weight_that_both_have(model: str, init: str, options: dict) -> None:
    one = dict(make(model, seed=7, init=init).named_parameters())
    other = dict(make(model, seed=7, init=init, **options).named_parameters())
    shared = one.keys() & other.keys()
    assert {path for path in other if path.endswith("weight")} <= shared
    for path in shared:
        assert torch.equal(one[path], other[path]), path


@pytest.mark.parametrize("init", ["torch", "xavier"])
def test_every_layer_and_every_seed_has_draws_of_its_own(init: str) -> None:
    drawn = [
        value.flatten()[:4]
        for seed in (0, 1, 2**40)
        for path, value in make("mlp", seed=seed, init=init, widths=[784, 784]).named_parameters()
        if "linear" in path
    ]
    assert len({tuple((each / each.abs().max()).tolist()) for each in drawn}) == len(drawn) == 12


def test_a_seeded_network_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    make("lenet", seed=1)
    assert not torch.equal(torch.get_rng_state(), before), "torch's own constructors draw"
    torch.manual_seed(5)
    first = make("lenet", seed=1)
    torch.manual_seed(6)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), make("lenet", seed=1).parameters(), strict=True))


@pytest.mark.parametrize("seed", [0, None])
def test_xavier_has_the_books_bounds(seed: int | None) -> None:
    torch.manual_seed(0)
    fans = {"conv1": (25, 150), "conv2": (150, 400), "linear3": (256, 120), "linear4": (120, 84), "output": (84, 10)}
    model = make("lenet", seed=seed, init="xavier")
    for path, (fan_in, fan_out) in fans.items():
        bound = math.sqrt(6 / (fan_in + fan_out))
        weight = getattr(model, path).weight
        assert weight.abs().max() <= bound
        assert weight.abs().max() > 0.95 * bound
        assert abs(weight.std().item() / (bound / math.sqrt(3)) - 1) < 0.1
        assert getattr(model, path).bias.abs().max() <= 1 / math.sqrt(fan_in), "biases are torch's"


def test_xavier_is_torchs_default_on_another_scale() -> None:
    default, xavier = make("lenet"), make("lenet", init="xavier")
    for path in ("conv1", "conv2", "linear3", "linear4", "output"):
        weight, scaled = getattr(default, path).weight, getattr(xavier, path).weight
        assert_close(scaled / scaled.norm(), weight / weight.norm(), what=path)


def test_a_parameter_counts_once_however_often_it_is_held() -> None:
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    assert parameter_count(tied) == 9 + 3 + 3
