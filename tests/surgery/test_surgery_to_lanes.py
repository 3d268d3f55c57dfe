"""to_lanes: a network in lanes is the network, to rounding."""

import contextlib
import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lanes_twins import (
    ILL,
    REFERENCE,
    SCALE,
    assert_same_state,
    assert_same_step,
    assert_same_training,
    images,
    twins,
)
from lanes_zoo import IMAGE, ZOO
from torch import Tensor, nn

from compare import assert_close
from normlab import nn as ours
from normlab.kernels import pack, serving
from normlab.models import lenet
from normlab.norms.frozen import FrozenBatchNorm2d
from normlab.surgery import to_lanes

pytestmark = pytest.mark.usefixtures("reference")


@pytest.mark.parametrize("name", ZOO)
def test_it_trains_and_evaluates_as_before(name: str, counted: list[int]) -> None:
    plain, fast, changes = twins(ZOO[name])
    assert_same_training(fast, plain)
    passes = 4
    stages = sum(what.count("in lanes") for what in changes.done.values())
    assert len(counted) == passes * stages, "every stage ran in lanes every time"


def test_what_is_in_a_stage() -> None:
    assert twins(ZOO["lenet-relu"])[2].done == {
        "conv1": "conv 5x5, batch norm, relu, max pool 2x2 in lanes",
        "conv2": "conv 5x5, relu, max pool 2x2 in lanes",
        "linear3": "linear, batch norm, relu, dropout in lanes",
        "linear4": "linear, relu, dropout in lanes",
        "output": "linear in lanes",
    }
    assert twins(ZOO["resnet"])[2].done == {
        "conv1": "conv 3x3, batch norm, relu, max pool 3x3 in lanes",
        "layer1.0.conv1": "conv 3x3, batch norm, relu in lanes",
        "layer1.0.conv2": "conv 3x3, batch norm, add, relu in lanes",
        "layer1.1.conv1": "conv 3x3, batch norm, relu in lanes",
        "layer1.1.conv2": "conv 3x3, batch norm, add, relu in lanes",
        "layer2.0.conv1": "conv 3x3, batch norm, relu in lanes",
        "layer2.0.conv2": "conv 3x3, batch norm, add, relu in lanes",
        "layer2.0.downsample.0": "conv 1x1, batch norm in lanes",
        "layer2.1.conv1": "conv 3x3, batch norm, relu in lanes",
        "layer2.1.conv2": "conv 3x3, batch norm, add, relu, global avg pool in lanes",
        "fc": "linear in lanes",
    }
    assert list(twins(ZOO["ordered"])[2].done.values()) == [
        "conv 3x3, relu, batch norm, avg pool 2x2 in lanes",
        "batch norm, tanh in lanes",
        "conv 3x3, sigmoid, max pool 2x2 in lanes",
        "batch norm, dropout in lanes",
        "linear in lanes",
    ]


def test_what_torch_runs_is_named() -> None:
    _, _, changes = twins(ZOO["partly"])
    assert list(changes.done) == ["0", "14", "17"]
    assert list(changes.left) == [*map(str, range(1, 12)), "13", "15", "16"]
    assert changes.left["3"] == (
        "torch runs Conv2d(4, 4, kernel_size=(3, 3), stride=(1, 1), groups=2), it has no place in a stage"
    )
    assert changes.left["4"] == "torch runs ReLU(), as what feeds it"
    for name in ZOO.keys() - {"partly", "draws"}:
        assert not twins(ZOO[name])[2].left, name


@pytest.mark.parametrize("size", [1, 2, 3, 8, 17, 257])
@pytest.mark.parametrize("name", ["lenet-none", "resnet", "functional"])
def test_any_batch_size(name: str, size: int) -> None:
    plain, fast, _ = twins(ZOO[name])
    assert_same_step(fast, plain, images(size))
    assert_close(fast.eval()(images(size)), plain.eval()(images(size)), scale=SCALE)


def test_one_value_per_channel_is_refused_in_the_layers_own_words() -> None:
    for make in (lenet, lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 3), nn.BatchNorm1d(3))):
        plain, fast, _ = twins(make)
        x = torch.randn(1, 1, 28, 28, dtype=torch.float64)
        with pytest.raises(ValueError, match="more than 1 value per channel") as expected:
            plain(x)
        with pytest.raises(ValueError, match="more than 1 value per channel") as caught:
            fast(x)
        assert str(caught.value) == str(expected.value)
        assert_same_state(fast, plain)
        assert_close(fast.eval()(x), plain.eval()(x), scale=SCALE)


def test_errors_are_the_layers_own() -> None:
    plain, fast, _ = twins(ZOO["lenet"])
    empty = images(0)
    for x in (
        images(3)[:, :, :3],
        images(3).expand(3, 2, 16, 16),
        images(3)[0, 0],
        images(3).float(),
        images(3)[None],
    ):
        with pytest.raises(Exception, match=r".") as expected:
            plain(x)
        with pytest.raises(type(expected.value)) as caught:
            fast(x)
        assert str(caught.value) == str(expected.value)
    assert fast.eval()(empty).shape == plain.eval()(empty).shape == (0, 5)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, ours.BatchNorm2d, FrozenBatchNorm2d])
@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"momentum": 0.7, "affine": False, "eps": 0.1}], ids=str)
def test_a_norms_own_ways(norm: type[nn.Module], options: dict) -> None:
    plain, fast, _ = twins(
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), norm(4, **options), nn.ReLU(), nn.Conv2d(4, 5, 14), nn.Flatten())
    )
    assert_same_training(fast, plain)
    spoilt = images(4)
    spoilt[1, 0, 2, 2] = torch.nan
    for model in (fast, plain):
        assert model(spoilt).isnan().any()
    for (name, value), expected in zip(fast.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(value, expected, equal_nan=True, msg=name)
    for model in (fast, plain):
        model[1].eval()
        with torch.no_grad():
            for value in model[1].buffers():
                value.fill_(2)
    assert_same_step(fast, plain, images(5))


def test_second_derivatives() -> None:
    plain, fast, _ = twins(lambda: lenet(IMAGE, 5, activation="tanh"))
    norms = []
    for model in (fast, plain):
        y = model(images(6)).square().sum()
        gradients = torch.autograd.grad(y, list(model.parameters()), create_graph=True)
        sum(gradient.square().sum() for gradient in gradients).backward()
        norms.append([value.grad for value in model.parameters()])
    for value, expected in zip(*norms, strict=True):
        assert_close(value, expected, scale=1e5)


def test_lanes_may_be_given() -> None:
    plain, fast, _ = twins(ZOO["resnet"])
    assert_close(fast(pack(images(5))), plain(images(5)), scale=SCALE)
    fast.layer1.register_forward_hook(lambda *_: None)
    assert_close(fast(pack(images(5))), plain(images(5)), scale=SCALE)


class Around(nn.Module):
    """A sum of what goes through the layers and what goes by them."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


Layer = Callable[[int, int], nn.Module]
"""Of a number of channels or features, and a number to choose by."""

ANYWHERE: list[Layer] = [
    lambda width, choice: [nn.ReLU(), nn.Sigmoid(), nn.Tanh(), nn.GELU(), nn.SiLU(), nn.Hardtanh()][choice % 6],
    lambda width, choice: nn.Dropout([0.0, 0.3, 0.5][choice % 3]),
    lambda width, choice: nn.Identity(),
]
ON_IMAGES: list[Layer] = [
    *ANYWHERE,
    lambda width, choice: nn.Conv2d(
        width, 1 + choice % 4, 1 + choice % 3, 1 + choice % 2, choice % 3, bias=choice % 5 > 0
    ),
    lambda width, choice: nn.Conv2d(width, width, 3, padding="same"),
    lambda width, choice: [nn.BatchNorm2d, ours.BatchNorm2d, FrozenBatchNorm2d][choice % 3](width),
    lambda width, choice: nn.AvgPool2d(1 + choice % 3, 1 + choice % 2, count_include_pad=choice % 2 > 0),
    lambda width, choice: nn.MaxPool2d(2 + choice % 2, 1 + choice % 3, padding=choice % 2),
    lambda width, choice: Around(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)),
    lambda width, choice: Around(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 1), nn.Dropout(0.2)),
    lambda width, choice: nn.GroupNorm(1, width),
]
ON_ROWS: list[Layer] = [
    *ANYWHERE,
    lambda width, choice: nn.Linear(width, 1 + choice % 4, bias=choice % 5 > 0),
    lambda width, choice: [nn.BatchNorm1d, ours.BatchNorm1d][choice % 2](width),
    lambda width, choice: Around(nn.Linear(width, width), nn.Tanh()),
    lambda width, choice: nn.LayerNorm(width),
]
picks = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=9)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(picks, picks, st.integers(3, 9), st.booleans())
@example([(14, 0)], [(0, 41), (1, 1)], 3, False)  # a dropout of a plain tensor, behind lanes
@example([(0, 0), (69, 21)], [(74, 0), (0, 0)], 3, False)  # a constant channel, normalized
def test_any_chain(images_part: list, rows_part: list, size: int, everywhere: bool) -> None:
    torch.manual_seed(1)
    x = torch.randn(2, 1, 9, 8)
    layers: list[nn.Module] = [nn.Conv2d(1, 2, 3)] * everywhere
    x = nn.Sequential(*layers)(x).detach()

    def add(makers: list[Layer], which: int, choice: int) -> None:
        nonlocal x
        layer = makers[which % len(makers)](x.shape[1], choice)
        with contextlib.suppress(RuntimeError):  # the image is too small for it by now
            x = layer.eval()(x).detach()
            layers.append(layer.train())

    for pick in images_part:
        add(ON_IMAGES, *pick)
    layers.append(nn.Flatten())
    x = x.flatten(1)
    for pick in rows_part:
        add(ON_ROWS, *pick)
    layers.append(nn.Linear(x.shape[1], 5))
    plain = nn.Sequential(*layers).double()
    with torch.no_grad():  # no gamma and beta of 1 and 0: behind a constant channel a ReLU would be at its kink
        for value in plain.parameters():
            value.add_(torch.randn_like(value) / 3)
    fast = copy.deepcopy(plain)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "path", lambda: REFERENCE)
        assert to_lanes(fast)
        for step in range(2):
            batch = torch.randn(size, 1, 9, 8, dtype=torch.float64)
            try:
                copy.deepcopy(plain)(batch)
            except ValueError:  # a norm with one value per channel
                with pytest.raises(ValueError, match="more than 1 value"):
                    fast(batch)
                return
            assert_same_step(fast, plain, batch, step, ILL)
        assert_close(fast.eval()(batch), plain.eval()(batch), scale=ILL)
