"""More that rules about structure and settings must find, and more that they must let pass."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import normlab.nn as ours
from models import Build, ByHand, Places, batch, by_hand, changed, conv, gamma, network
from normlab import check
from normlab.errors import NormlabError
from normlab.rules import all_rules
from normlab.rules.mending import at
from normlab.surgery import adjust, freeze


class Twins(nn.Module):
    """One convolution and one norm, for two inputs in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv(), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) - self.norm(self.conv(x.flip(0)))


class Fork(nn.Module):
    """A norm whose output goes to another norm, and past it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return x + self.second(x)


class Acting(nn.BatchNorm2d):
    """A norm that holds its activation, as those of some libraries."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.act = nn.ReLU()

    def forward(self, input: Tensor) -> Tensor:
        return self.act(super().forward(input))


class Branching(nn.Module):
    """Its control flow depends on the data: only its parts can be traced."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) if x.sum() > 0 else x


def sequence(*layers: nn.Module) -> Build:
    return lambda: nn.Sequential(*layers)


def half(dtype: torch.dtype) -> Build:
    return lambda: batch()().to(dtype)


def with_history() -> nn.Module:
    return network(ByHand("buffer", torch.zeros(4, requires_grad=True) * 0.9))


def frozen_by_ours() -> nn.Module:
    model = batch(momentum=0.99)()
    freeze("statistics")(model)
    return model


FOUND: list[tuple[str, Build, tuple[str, ...]]] = [
    ("NL102", sequence(conv(), nn.Dropout2d(0.05), nn.BatchNorm2d(4)), ("2",)),
    ("NL102", lambda: Branching(nn.Sequential(nn.Dropout(), nn.Identity(), nn.BatchNorm1d(4))), ("body.2",)),
    ("NL103", lambda: nn.Sequential(Places(shared=True)), ("0.norm1",)),
    ("NL104", sequence(conv(), nn.BatchNorm2d(4), ours.BatchNorm2d(4)), ("2",)),
    ("NL105", sequence(nn.Linear(6, 8), nn.LayerNorm(4)), ("1",)),
    ("NL105", sequence(conv(8), nn.GroupNorm(2, 4)), ("1",)),
    ("NL106", sequence(gamma(nn.BatchNorm2d(4, affine=True), 0.0), nn.ReLU6()), ("0",)),
    ("NL108", sequence(nn.Linear(3, 4, bias=False), nn.Identity(), nn.Tanh()), ("0",)),
    ("NL201", lambda: network(ours.BatchNorm2d(4, momentum=0.9)), ("1",)),
    ("NL204", batch(momentum=-0.1), ("1",)),
    ("NL205", lambda: network(nn.GroupNorm(2, 4, eps=0.8)), ("1",)),
    ("NL207", lambda: Branching(changed(lambda norm: norm.eval())()), ("body.1",)),
    ("NL211", changed(lambda norm: norm.running_var.fill_(-1.0)), ("1",)),
    ("NL211", changed(lambda norm: norm.running_mean.fill_(float("inf"))), ("1",)),
    ("NL213", half(torch.bfloat16), ("1",)),
    ("NL214", with_history, ("1",)),
]
SPARED: list[tuple[str, Build, str]] = [
    ("NL101", sequence(nn.Conv2d(3, 4, 3), ours.FrozenBatchNorm2d(4)), "a frozen norm takes off no batch's mean"),
    ("NL101", sequence(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).eval()), "the running mean stays, whatever the bias"),
    ("NL102", sequence(conv(), nn.Dropout(0.0), nn.BatchNorm2d(4)), "drops nothing"),
    ("NL102", sequence(conv(), nn.AlphaDropout(0.5), nn.BatchNorm2d(4)), "keeps the variance"),
    ("NL102", sequence(nn.Dropout(), nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4)), "a layer mixes its inputs"),
    ("NL102", sequence(nn.Dropout(), nn.LayerNorm(4)), "no statistics of training are kept"),
    ("NL103", Twins, "the same layer feeds it each time"),
    ("NL104", sequence(nn.BatchNorm2d(4), nn.GroupNorm(1, 4)), "over the channels of an example"),
    ("NL104", Fork, "the first is used apart from the second"),
    ("NL104", sequence(Acting(4), nn.BatchNorm2d(4)), "an activation stands between"),
    ("NL105", sequence(nn.Linear(6, 8), nn.BatchNorm1d(5)), "of (N, L, C) it takes the second dimension"),
    ("NL105", sequence(conv(8), nn.LazyBatchNorm2d()), "has no number yet"),
    ("NL105", sequence(nn.LazyConv2d(8, 3), nn.BatchNorm2d(8)), "has no number yet"),
    ("NL106", sequence(gamma(nn.BatchNorm2d(4), 0.0), nn.SiLU()), "lets a gradient back at 0"),
    ("NL106", sequence(nn.BatchNorm2d(4, affine=False), nn.ReLU()), "has no gamma"),
    ("NL107", sequence(nn.utils.spectral_norm(conv()), ours.FrozenBatchNorm2d(4)), "divides by what it was given"),
    ("NL108", sequence(conv(), nn.Identity(), nn.BatchNorm2d(4)), "beta shifts"),
    ("NL201", frozen_by_ours, "no statistics move"),
    ("NL202", lambda: network(ours.FrozenBatchNorm2d(4, momentum=0.0)), "training uses the running ones"),
    ("NL205", lambda: network(nn.BatchNorm2d(4, eps=0.01)), "the largest that is let pass"),
    ("NL206", lambda: batch()().requires_grad_(False).eval(), "nothing moves under evaluation"),
    ("NL206", changed(lambda norm: norm.weight.requires_grad_(False)), "beta is trained"),
    ("NL207", lambda: batch()().eval(), "the whole model is under evaluation"),
    ("NL208", lambda: network(nn.BatchNorm2d(4, track_running_stats=False)).eval(), "has no statistics to move"),
    ("NL211", lambda: network(nn.BatchNorm2d(4, device="meta")), "holds no numbers"),
    ("NL212", lambda: batch()().eval(), "is as new"),
    ("NL214", lambda: network(ByHand("buffer", torch.zeros(4, requires_grad=True))).eval(), "a leaf has no history"),
    ("NL215", lambda: network(ours.BatchNorm2d(4)), "keeps buffers"),
]


@pytest.mark.parametrize(("rule", "build", "paths"), FOUND, ids=lambda value: value if isinstance(value, str) else "")
def test_found(rule: str, build: Build, paths: tuple[str, ...]) -> None:
    diagnosis = check(build(), select=[rule])
    assert diagnosis.found == {rule: list(paths)}
    assert not diagnosis.unasked


@pytest.mark.parametrize(("rule", "build", "why"), SPARED, ids=lambda value: value if isinstance(value, str) else "")
def test_spared(rule: str, build: Build, why: str) -> None:
    diagnosis = check(build(), select=[rule])
    assert not diagnosis.findings, why
    assert not diagnosis.unasked


@pytest.mark.parametrize("kept", ["parameter", "buffer", "attribute"])
def test_where_hand_written_statistics_are_kept_decides_what_is_said(kept: str) -> None:
    said = {"parameter": ["NL214"], "buffer": [], "attribute": ["NL215"]}
    assert list(check(by_hand(kept)()).found) == said[kept]


def test_keras_momentum_is_turned_for_each_norm_on_its_own() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4, momentum=0.99), nn.ReLU(), nn.BatchNorm2d(4, momentum=0.9), nn.ReLU())
    changes = check(model).fix()
    assert [model[0].momentum, model[2].momentum] == [0.01, 0.1]
    changes.undo()
    assert [model[0].momentum, model[2].momentum] == [0.99, 0.9]


def test_only_the_norms_that_were_found_are_frozen() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4).requires_grad_(False), nn.ReLU(), nn.BatchNorm2d(4), nn.ReLU())
    model[0].running_mean.fill_(0.5)
    changes = check(model).fix()
    assert list(changes.done) == ["NL206 0"]
    assert type(model[0]) is ours.FrozenBatchNorm2d
    assert type(model[2]) is nn.BatchNorm2d


def test_a_surgery_that_fails_at_one_place_is_taken_back_at_the_others() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())
    with pytest.raises(NormlabError):
        at(("0", "1"), lambda module: adjust(("",), {"momentum": 0.5}))(model)
    assert model[0].momentum == 0.1


def test_a_surgery_at_places_tells_their_paths() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4, momentum=0.5))
    changes = at(("0", "1"), lambda module: adjust(("",), {"momentum": 0.5}))(model)
    assert list(changes.done) == ["0"]
    assert list(changes.left) == ["1"]


@pytest.mark.parametrize(
    "model",
    [
        network(nn.LazyBatchNorm2d()),
        network(nn.LazyInstanceNorm2d(affine=True, track_running_stats=True)),
        network(nn.BatchNorm2d(4, affine=False, track_running_stats=False)),
        *(network(ours.make_norm(name, 4, 2)) for name in ("mean-only", "zca", "ghost", "domain")),
    ],
    ids=lambda model: type(model[1]).__name__,
)
@pytest.mark.parametrize("training", [True, False])
def test_every_rule_can_be_asked_of_any_norm(model: Any, training: bool) -> None:
    asked = [name for name in all_rules() if name[:3] in ("NL1", "NL2")]
    assert not check(model.train(training), select=asked).unasked
