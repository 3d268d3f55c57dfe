"""to_lanes: a network in lanes is the network, to rounding, whatever is done to it later."""

import contextlib
import copy
import io
import random
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lanes_zoo import IMAGE, ZOO, BasicBlock, ConvBlock, OwnPool, ResNet
from torch import Tensor, nn

import normlab
from compare import assert_close
from normlab import nn as ours
from normlab import surgery
from normlab.kernels import pack, serving
from normlab.models import DropoutStreams, lenet, mlp
from normlab.norms.frozen import FrozenBatchNorm2d
from normlab.surgery import Changes, to_lanes
from normlab.surgery.to_lanes import LanesForward

ILL = 1e7  # norms of norms: each multiplies what is left of a channel's variance by up to 1 / sqrt(eps)
SCALE = 1e3  # float64 sums in another order, through a network and some steps of training


REFERENCE = serving.Serving("reference", "as these tests ask")


@pytest.fixture(autouse=True)
def reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "path", lambda: REFERENCE)


def twins(make: Callable[[], nn.Module]) -> tuple[nn.Module, nn.Module, Changes]:
    """A network, the same in lanes, and what was changed."""
    torch.manual_seed(0)
    plain = make().double()
    with torch.no_grad():
        for name, value in plain.named_buffers():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + ("var" in name))
    fast = copy.deepcopy(plain)
    changes = to_lanes(fast)
    assert changes
    return plain, fast, changes


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *IMAGE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_same_state(fast: nn.Module, plain: nn.Module, scale: float = SCALE) -> None:
    for (name, value), (its, expected) in zip(
        (*fast.named_parameters(), *fast.named_buffers()),
        (*plain.named_parameters(), *plain.named_buffers()),
        strict=True,
    ):
        assert name == its
        assert_close(value.detach(), expected.detach(), scale=scale, what=name)


def assert_same_step(fast: nn.Module, plain: nn.Module, x: Tensor, seed: int = 0, scale: float = SCALE) -> None:
    """Outputs, gradients (of the input too) and buffers after one pass each way."""
    results = []
    for model in (fast, plain):
        model.zero_grad()
        own = x.clone().requires_grad_()
        torch.manual_seed(seed)
        y = model(own)
        nn.functional.cross_entropy(y, torch.arange(len(y)) % 5).backward()
        results.append((y.detach(), own.grad, torch.get_rng_state()))
    (y, dx, rng), (expected, its_dx, its_rng) = results
    assert_close(y, expected, scale=scale, what="y")
    assert_close(dx, its_dx, scale=scale, what="dx")
    assert torch.equal(rng, its_rng), "each drew as much as the other"
    for (name, value), expected in zip(fast.named_parameters(), plain.parameters(), strict=True):
        assert (value.grad is None) == (expected.grad is None), name
        if value.grad is not None:
            assert_close(value.grad, expected.grad, scale=scale, what=f"gradient of {name}")
    assert_same_state(fast, plain, scale)


def assert_same_training(fast: nn.Module, plain: nn.Module, sizes: tuple[int, ...] = (17, 9, 3)) -> None:
    optimizers = [torch.optim.SGD(model.parameters(), 0.1, momentum=0.9) for model in (fast, plain)]
    for step, size in enumerate(sizes):
        assert_same_step(fast, plain, images(size, step), step)
        for optimizer in optimizers:
            optimizer.step()
    modes = [module.training for module in fast.modules()]
    with torch.no_grad():
        assert_close(fast.eval()(images(7)), plain.eval()(images(7)), scale=SCALE, what="in evaluation")
    for model in (fast, plain):
        for module, mode in zip(model.modules(), modes, strict=True):
            module.training = mode


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Grows by one with every stage that runs in lanes."""
    calls: list[int] = []
    run = surgery.lanes_stage.stage

    def count(*args: object) -> object:
        calls.append(1)
        return run(*args)

    monkeypatch.setattr(surgery.lanes_stage, "stage", count)
    return calls


# --- the same network ----------------------------------------------------------------------------------------------


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


# --- what is done to it later --------------------------------------------------------------------------------------


def test_the_state_dict_and_an_optimizer_built_before() -> None:
    torch.manual_seed(0)
    plain = ZOO["lenet"]().double()
    fast = copy.deepcopy(plain)
    optimizers = [torch.optim.Adam(model.parameters(), 0.01) for model in (fast, plain)]
    keys = list(fast.state_dict())
    to_lanes(fast)
    assert list(fast.state_dict()) == keys == list(plain.state_dict())
    for step in range(3):
        assert_same_step(fast, plain, images(8, step))
        for optimizer in optimizers:
            optimizer.step()
    fresh = ZOO["lenet"]().double()
    to_lanes(fresh)
    fresh.load_state_dict(plain.state_dict())
    assert_same_step(fresh, plain, images(8))
    plain.load_state_dict(fresh.state_dict())


@pytest.mark.parametrize("name", ["lenet-relu", "resnet", "shared"])
def test_a_deep_copy_runs_on_its_own(name: str, counted: list[int]) -> None:
    plain, fast, _ = twins(ZOO[name])
    fast(images(3)), plain(images(3))
    other, before = copy.deepcopy(fast), copy.deepcopy(fast.state_dict())
    counted.clear()
    assert_same_training(other, copy.deepcopy(plain))
    assert counted
    assert all(torch.equal(value, before[key]) for key, value in fast.state_dict().items())
    assert all(parameter.grad is None for parameter in fast.parameters())
    assert vars(other)["forward"]._owner is other


def test_saved_whole_and_loaded(counted: list[int]) -> None:
    plain, fast, _ = twins(ZOO["resnet"])
    file = io.BytesIO()
    torch.save(fast, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert_same_training(loaded, plain)
    assert counted


def test_undo_leaves_nothing(counted: list[int]) -> None:
    for name in ZOO:
        plain, fast, changes = twins(ZOO[name])
        before = [dict(vars(module)) for module in plain.modules()]
        changes.undo()
        assert [list(vars(module)) for module in fast.modules()] == [list(kept) for kept in before]
        torch.manual_seed(1)
        y = fast(images(3))
        torch.manual_seed(1)
        assert torch.equal(y, plain(images(3)))
        changes.undo()
    assert not counted


def test_undo_leaves_the_forward_of_somebody_else() -> None:
    _, fast, changes = twins(ZOO["mlp"])
    fast.forward = mine = lambda x: x
    changes.undo()
    assert fast.forward is mine


def test_a_second_time_changes_nothing() -> None:
    _, fast, _ = twins(ZOO["mlp"])
    again = to_lanes(fast)
    assert not again
    assert again.left == {"": "its forward is replaced already"}


def test_hooks_see_plain_tensors(counted: list[int]) -> None:
    plain, fast, changes = twins(ZOO["lenet"])
    seen: dict[nn.Module, list[Tensor]] = {plain: [], fast: []}
    handles = []
    for model in (plain, fast):
        keep = seen[model].append
        handles += [
            model.norm1.register_forward_hook(lambda _, x, y, keep=keep: keep(y.detach())),
            model.conv2.register_forward_pre_hook(lambda _, x, keep=keep: keep(x[0].detach())),
            model.activation3.register_full_backward_hook(lambda _, dx, dy, keep=keep: keep(dy[0])),
            model.linear4.register_forward_hook(lambda _, x, y: y * 2),
        ]
    assert_same_step(fast, plain, images(5))
    assert len(seen[fast]) == 3
    for value, expected in zip(seen[fast], seen[plain], strict=True):
        assert type(value) is Tensor
        assert_close(value, expected, scale=SCALE)
    for handle in handles:
        handle.remove()
    counted.clear()
    assert_same_step(fast, plain, images(5))
    assert len(counted) == len(changes.done), "and without them all is as before"


def test_hooks_on_what_is_traced_through_and_on_everything(counted: list[int]) -> None:
    plain, fast, _ = twins(ZOO["resnet"])
    shapes = []
    handle = fast.layer1[0].register_forward_hook(lambda _, x, y: shapes.append(y.shape))
    assert_same_step(fast, plain, images(5))
    handle.remove()
    assert shapes == [(5, 4, 8, 8)]
    assert not counted
    calls = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: calls.append(module))
    try:
        fast(images(5))
    finally:
        handle.remove()
    plain(images(5))
    assert fast.layer1[0].bn1 in calls
    assert not counted
    assert_same_step(fast, plain, images(5))
    assert counted


def test_the_models_own_hooks() -> None:
    plain, fast, _ = twins(ZOO["mlp"])
    for model in (plain, fast):
        model.register_forward_hook(lambda _, x, y: y * 3)
        model.register_full_backward_hook(lambda _, dx, dy: None)
    assert_same_step(fast, plain, images(5))


def test_dropout_streams_stay_in_lanes(counted: list[int]) -> None:
    plain, fast, changes = twins(ZOO["lenet-relu"])
    for model in (plain, fast):
        with DropoutStreams(model, 7, torch.device("cpu")) as streams:
            for step in range(2):
                streams.at(0, step)
                y = model(images(6, step))
                streams.at(1, step)
                model(images(6, step))
        model.result = y.detach()
    assert_close(fast.result, plain.result, scale=SCALE)
    assert_same_state(fast, plain)
    assert len(counted) == 4 * len(changes.done)


def test_a_hook_that_reads_a_dropout_gets_what_goes_through() -> None:
    _, fast, _ = twins(ZOO["lenet-relu"])
    seen = []
    fast.dropout3.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    fast(images(4))
    assert seen[0].unique().numel() > 2


def test_modules_that_are_exchanged() -> None:
    plain, fast, _ = twins(ZOO["resnet"])
    fast(images(3)), plain(images(3))
    for model in (plain, fast):
        torch.manual_seed(5)
        model.fc = nn.Linear(8, 7).double()
        model.layer1[1] = BasicBlock(4, 4).double()
        model.layer2[0].downsample[1] = nn.Identity()
    assert_same_step(fast, plain, images(4))
    for model in (plain, fast):
        surgery.swap("batch", "none")(model)
    assert_same_step(fast, plain, images(4))
    for model in (plain, fast):
        model.layer1.append(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sigmoid()).double())
        torch.manual_seed(2)
        model.layer1[2][0].reset_parameters()
        model.layer2 = nn.Sequential(*model.layer2, nn.Hardtanh())
    assert_same_step(fast, plain, images(4))


def test_settings_that_are_changed() -> None:
    plain, fast, _ = twins(ZOO["resnet"])
    fast(images(3)), plain(images(3))

    def change(name: str, value: object, *paths: str) -> None:
        for model in (plain, fast):
            for path in paths:
                setattr(model.get_submodule(path), name, value)
        assert_same_step(fast, plain, images(4))

    change("eps", 0.5, "bn1")
    change("momentum", None, "bn1")
    change("kernel_size", 4, "maxpool")
    change("padding", (2, 2), "conv1")
    change("stride", 1, "layer2.0.conv1", "layer2.0.downsample.0")
    change("downsample", None, "layer1.0")
    plain, fast, _ = twins(ZOO["nested"])
    change("activate", False, "features.init_block")
    change("activate", True, "features.init_block")
    change("p", 0.0, "features")
    plain, fast, _ = twins(ZOO["lenet-relu"])
    change("p", 0.9, "dropout3")


def test_other_parameters_modes_and_precisions() -> None:
    plain, fast, _ = twins(ZOO["lenet"])
    for model in (plain, fast):
        model.conv1.requires_grad_(False)
        model.norm3.weight.requires_grad_(False)
        model.norm2.eval()
        model.linear4.bias = None
        model.linear3.weight = nn.Parameter(model.linear3.weight.detach() * 2)
    assert_same_training(fast, plain)
    plain.float(), fast.float()
    assert torch.allclose(fast(images(4).float()), plain(images(4).float()), atol=1e-5)
    fast.linear3.double()
    with pytest.raises(RuntimeError, match="mat1 and mat2 must have the same dtype, but got Float and Double"):
        fast(images(4).float())


def test_a_layer_that_becomes_another_class() -> None:
    plain, fast, _ = twins(ZOO["lenet"])
    for model in (plain, fast):
        nn.utils.parametrizations.weight_norm(model.conv2)
        model.pool1.__class__ = OwnPool
    assert_same_step(fast, plain, images(4))
    for model in (plain, fast):
        nn.utils.parametrize.remove_parametrizations(model.conv2, "weight")
        model.pool1.__class__ = nn.AvgPool2d
    assert_same_step(fast, plain, images(4))


def test_freeze_and_recalibrate(counted: list[int]) -> None:
    plain, fast, _ = twins(ZOO["lenet-tanh"])
    for model in (plain, fast):
        surgery.recalibrate(model, lambda: [images(8), images(5, 1)])
    assert_same_state(fast, plain)
    assert counted
    for model in (plain, fast):
        surgery.freeze("statistics")(model)
    assert_same_step(fast, plain, images(4))


# --- what it does not serve ----------------------------------------------------------------------------------------


def test_transforms_and_tracers_take_the_forward_of_the_class(counted: list[int], no_type_checks: None) -> None:
    plain, fast, _ = twins(lambda: lenet(IMAGE, 5, activation="tanh"))
    plain.eval(), fast.eval()
    x = images(3)
    state = dict(plain.named_parameters())
    for model in (fast, plain):
        model.results = [
            torch.func.vmap(lambda x, model=model: model(x[None]))(x),
            torch.func.jvp(model, (x,), (x,))[1],
            torch.func.grad(lambda state, model=model: torch.func.functional_call(model, state, (x,)).sum())(state)[
                "conv1.weight"
            ],
        ]
        with torch.autocast("cpu", torch.bfloat16):
            model.results.append(model(x.float().double()).double())
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, x)
            model.results.append(torch.autograd.forward_ad.unpack_dual(model(dual)).tangent)
    for value, expected in zip(fast.results, plain.results, strict=True):
        assert torch.equal(value, expected)
    assert not counted
    graph = torch.fx.symbolic_trace(fast)
    assert torch.equal(graph(x), plain(x))
    assert not counted


class Choosing(nn.Module):
    """Its control flow depends on data; its parts do not."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.parts = nn.ModuleList([nn.Sequential(nn.Flatten(), nn.Linear(784, 5)), nn.ReLU()])

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return self.parts[0](x) if x.sum() > 0 else self.parts[0](-x)


class Strange(nn.Module):
    """One convolution, and whatever `does` adds to it."""

    def __init__(self, does: Callable[["Strange", Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 5, 16)
        self.relu = nn.ReLU(inplace=True)
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("calls", torch.zeros(()))
        self.count, self.seen = 0, []
        self.does = does

    def forward(self, x: Tensor) -> Tensor:
        return self.does(self, x).flatten(1)


def counts(model: Strange, x: Tensor) -> Tensor:
    model.count += 1
    return model.conv(x)


def counts_in_a_buffer(model: Strange, x: Tensor) -> Tensor:
    model.calls += 1
    return model.conv(x)


def remembers(model: Strange, x: Tensor) -> Tensor:
    model.seen.append(x)
    return model.conv(x)


def draws(model: Strange, x: Tensor) -> Tensor:
    return model.conv(x) if torch.rand(()) < 2 else x


def adds_noise(model: Strange, x: Tensor) -> Tensor:
    return model.conv(x) + torch.randn_like(x[:, :, :1, :1])


def scales(model: Strange, x: Tensor) -> Tensor:
    return model.conv(x) * model.scale


def depends_on_the_mode(model: Strange, x: Tensor) -> Tensor:
    return model.conv(x) if model.training else torch.relu(model.conv(x))


def drops(model: Strange, x: Tensor) -> Tensor:
    return nn.functional.dropout(model.conv(x), 0.5, model.training)


def writes_into_its_input(model: Strange, x: Tensor) -> Tensor:
    return model.conv(model.relu(x))


def writes_into_what_it_needs(model: Strange, x: Tensor) -> Tensor:
    y = model.conv(x)
    return y + model.relu(y)


def adds_into_what_it_needs(model: Strange, x: Tensor) -> Tensor:
    y = z = model.conv(x)
    z += torch.tanh(y)
    return y + torch.sigmoid(z)


def adds_a_number(model: Strange, x: Tensor) -> Tensor:
    return model.conv(x) + 1


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        (counts, "its forward writes into the model"),
        (counts_in_a_buffer, "its forward writes into the model"),
        (remembers, "its forward writes into the model"),
        (draws, "its forward draws random numbers"),
        (adds_noise, "its forward calls getitem"),
        (scales, "its forward computes with scale itself"),
        (depends_on_the_mode, "its forward is another in evaluation mode"),
        (drops, "its forward is another in evaluation mode"),
        (writes_into_its_input, "relu writes into a tensor that is used elsewhere too"),
        (writes_into_what_it_needs, "relu writes into a tensor that is used elsewhere too"),
        (adds_into_what_it_needs, "iadd writes into a tensor that is used elsewhere too"),
        (adds_a_number, "its forward calls add"),
    ],
)
def test_a_forward_of_which_a_trace_does_not_tell_all(does: Callable, reason: str) -> None:
    model = Strange(does)
    model.relu.eval()
    before = [dict(vars(module)) for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    generator = torch.get_rng_state()
    changes = to_lanes(model)
    assert not changes
    assert changes.left == {"": reason}
    assert [dict(vars(module)) for module in model.modules()] == before
    assert (model.count, model.seen) == (0, [])
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


def test_the_parts_of_what_cannot_be_traced(counted: list[int]) -> None:
    plain, fast, changes = twins(Choosing)
    assert changes.left[""].startswith("its forward cannot be traced: TraceError")
    assert list(changes.left) == [""]
    assert changes.done == {"body.0": "conv 3x3, batch norm, relu in lanes", "parts.0.1": "linear in lanes"}
    assert_same_training(fast, plain)
    assert counted
    changes.undo()
    assert not any("forward" in vars(module) for module in fast.modules())


def test_nothing_to_gain() -> None:
    changes = to_lanes(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(2, 2, 3, groups=2)))
    assert not changes
    assert changes.left == {"": "no convolution or linear layer in it that lanes would serve"}


def test_a_single_layer_is_left() -> None:
    model = nn.Linear(3, 3)
    assert to_lanes(model).left == {"": "it is a single layer, and packing would cost what lanes gain"}
    assert "forward" not in vars(model)


def test_a_result_that_is_used_and_a_layer_that_nobody_needs() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.spare = nn.Conv2d(1, 5, 16), nn.BatchNorm2d(5), nn.BatchNorm2d(5)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            self.spare(self.norm(y))
            return y

    plain, fast, _ = twins(Spare)
    assert torch.equal(fast(images(4)), plain(images(4)))
    assert_same_state(fast, plain)


def test_several_arguments_and_results_and_hooks_before() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = ConvBlock(1, 2, 3)

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return self.block(x), self.block(y)

    plain, fast, changes = twins(Two)
    assert changes.left == {"": "its forward takes more than one argument"}
    for value, expected in zip(fast(images(3), images(4)), plain(images(3), images(4)), strict=True):
        assert_close(value, expected, scale=SCALE)
    assert_close(fast(y=images(3), x=images(4))[1], plain(y=images(3), x=images(4))[1], scale=SCALE)
    model = ResNet()
    model.layer1[1].register_forward_hook(lambda *_: None)
    changes = to_lanes(model)
    assert changes.left[""] == changes.left["layer1"] == "hooks watch a BasicBlock in it"
    assert isinstance(vars(model.layer1[1])["forward"], LanesForward)


def test_where_there_are_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["normlab.surgery.to_lanes"], "missing", lambda: "no compiler")
    model = mlp()
    changes = to_lanes(model)
    assert not changes
    assert changes.left == {"": "no compiler"}
    assert "forward" not in vars(model)


def test_the_name_at_the_top() -> None:
    assert normlab.to_lanes is to_lanes
    assert isinstance(to_lanes(mlp()), Changes)


def test_another_threads_random_numbers_are_not_the_models() -> None:
    """As in a cluster's worker, whose event loop draws some now and then."""
    over = threading.Event()

    def draw() -> None:
        while not over.wait(0.05):
            random.random()

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        assert all(surgery.to_lanes(lenet(IMAGE, 5, seed=seed)) for seed in range(40))
    finally:
        over.set()
        thread.join()
