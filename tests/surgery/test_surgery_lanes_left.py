"""to_lanes: what it does not serve is left to torch, and named."""

import copy
import random
import sys
import threading
from collections.abc import Callable

import pytest
import torch
from lanes_twins import SCALE, assert_same_state, assert_same_training, images, twins
from lanes_zoo import IMAGE, ConvBlock, ResNet
from torch import Tensor, nn

import normlab
from compare import assert_close
from normlab import surgery
from normlab.models import lenet, mlp
from normlab.surgery import Changes, to_lanes
from normlab.surgery.to_lanes import LanesForward

pytestmark = pytest.mark.usefixtures("reference")


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
