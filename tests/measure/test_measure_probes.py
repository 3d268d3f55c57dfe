"""What holds for every probe: its plain form, and that it looks without touching."""

import dataclasses
import json

import pytest
import torch
from looks import book_net, look
from torch import nn
from users_probes import count

from normlab import measure, models
from normlab.errors import NormlabError
from normlab.measure import PROBES, from_plain, to_plain
from normlab.store import Recipe

PROBES_MADE = [
    measure.activations(every=1, of=("leaf",), at=(50,), examples=8),
    measure.affine(every=10, channels=2),
    measure.angular(every=1),
    measure.bias_gradient(every=1),
    measure.curvature(every=0, iterations=30, count=2, mode="eval", examples=16),
    measure.drift(every=2),
    measure.fit(every=2),
    measure.gap(every=5, of=("norm", "affine")),
    measure.ics(every=3),
    measure.landscape(every=5, factors=(1, 2), examples=16),
    measure.optimizer_equation(every=5),
    measure.percentiles(every=10, of="norm", at=(5, 50)),
    measure.signal(every=1, of=("affine", "norm"), skip=1, examples=16),
    measure.statistics_graph(every=0, steps=3),
    measure.under_statistics(every=4),
    measure.uniformity(every=3, channels=2, values=100),
    measure.variance_ratio(every=7, draws=2),
]
each_probe = pytest.mark.parametrize("probe", PROBES_MADE, ids=lambda probe: type(probe).__name__)


def net(**options: object) -> nn.Module:
    return models.mlp((1, 28, 28), widths=[6, 5], dropout=0.3, seed=0, **options)


def test_every_probe_is_tested_here() -> None:
    assert {type(probe).__name__ for probe in PROBES_MADE} == PROBES.keys()
    assert PROBES.keys() <= set(measure.__all__)


@each_probe
def test_a_recipe_keeps_it_as_plain_data(probe: measure.Probe) -> None:
    plain = Recipe(probes=(to_plain(probe),)).probes[0]
    assert plain == json.loads(json.dumps(plain))
    assert plain["name"] == type(probe).__name__
    assert from_plain(plain) == probe
    assert hash(from_plain(plain)) == hash(probe)


def test_the_users_own() -> None:
    probe = from_plain({"name": "users_probes:count", "every": 3, "scale": 2.0})
    assert probe == count(3, 2.0)
    assert from_plain(to_plain(probe)) == probe
    assert probe(look(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))) == {"parameters": 2 * 7850}


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"name": "percentile", "every": 1}, r"a known probe, got 'percentile'; did you mean percentiles\?"),
        ({"every": 1}, "a known probe, got None.*as pkg.module:callable"),
        ({"name": "affine"}, "arguments of affine, got TypeError.*every"),
        ({"name": "affine", "every": 1, "chanels": 3}, "arguments of affine, got TypeError.*chanels"),
        ({"name": "affine", "every": -1}, "every as a number of steps, .*got -1"),
        ({"name": "curvature", "every": 1.5}, "every as a number of steps, .*got 1.5"),
        ({"name": "bias_gradient", "every": True}, "every as a number of steps, .*got True"),
        ({"name": "affine", "every": 1, "channels": -1}, "channels as a whole number of at least 0, got -1"),
        ({"name": "variance_ratio", "every": 1, "draws": 0}, "draws as a whole number of at least 1, got 0"),
        ({"name": "curvature", "every": 1, "iterations": 0}, "iterations as a whole number of at least 1, got 0"),
        ({"name": "statistics_graph", "every": 1, "steps": "2"}, "steps as a whole number of at least 1, got '2'"),
        ({"name": "uniformity", "every": 1, "channels": 0}, "channels as a whole number of at least 1, got 0"),
        ({"name": "uniformity", "every": 1, "values": 1}, "values as a whole number of at least 2, got 1"),
        ({"name": "percentiles", "every": 1, "of": "activations"}, "a known kind of layer, got 'activations'"),
        ({"name": "percentiles", "every": 1, "at": [15, 101]}, r"percentiles from 0 to 100, got \(15, 101\)"),
        ({"name": "percentiles", "every": 1, "at": []}, "percentiles from 0 to 100"),
        ({"name": "percentiles", "every": 1, "at": 15}, "arguments of percentiles"),
        ({"name": "activations", "every": 1, "of": ["relu"]}, "a known kind of layer, got 'relu'"),
        ({"name": "activations", "every": 1, "of": []}, "kinds of layers, one at least, got none"),
        ({"name": "activations", "every": 1, "at": [-1]}, r"percentiles from 0 to 100, got \(-1,\)"),
        ({"name": "signal", "every": 1, "skip": -1}, "skip as a whole number of at least 0, got -1"),
        ({"name": "signal", "every": 1, "of": "convolution"}, "a known kind of layer, got 'convolution'"),
        ({"name": "landscape", "every": 1, "factors": []}, "factors of the learning rate above 0, one at least"),
        ({"name": "landscape", "every": 1, "factors": [1, 0]}, r"factors of the learning rate above 0.*\(1, 0\)"),
        ({"name": "curvature", "every": 1, "mode": "test"}, "a known mode, got 'test'"),
        ({"name": "curvature", "every": 1, "count": 0}, "count as a whole number of at least 1, got 0"),
        ({"name": "gap", "every": 1, "of": ["norms"]}, "a known kind of layer, got 'norms'; did you mean norm"),
        ({"name": "users_probes:counts", "every": 1}, r"did you mean count\?"),
        ({"name": "users_probes:without_every"}, "users_probes:without_every to give a probe.*got a function"),
        ({"name": "users_probes:number", "every": 1}, "users_probes:number to give a probe.*got a int"),
        ({"name": "users_probes:count", "every": "1"}, "every as a number of steps, .*got '1'"),
        ({"name": "users_probes:fails", "every": 1}, "arguments of users_probes:fails, got OSError: no such thing"),
    ],
    ids=str,
)
def test_what_is_no_probe(plain: dict, message: str) -> None:
    with pytest.raises(NormlabError, match=message):
        from_plain(plain)


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@each_probe
def test_it_leaves_parameters_gradients_modes_and_hooks(probe: measure.Probe) -> None:
    asked = look(net(), lr=0.3)
    asked.model.norm1.eval()
    asked.model.dropout1.eval()
    modes = [module.training for module in asked.model.modules()]
    before = [(parameter, parameter.detach().clone()) for parameter in asked.model.parameters()]
    asked.model.linear1.weight.grad = gradient = torch.ones_like(asked.model.linear1.weight)
    assert probe(asked)
    assert all(torch.equal(parameter, value) for parameter, value in before)
    assert asked.model.linear1.weight.grad is gradient
    assert asked.model.output.weight.grad is None
    assert [module.training for module in asked.model.modules()] == modes
    assert hooks(asked.model) == 0


@each_probe
def test_the_same_again_gives_the_same_numbers(probe: measure.Probe) -> None:
    asked = look(net(), lr=0.3)
    torch.manual_seed(1)
    first = probe(asked)
    torch.manual_seed(1)
    assert probe(asked) == first
    assert all(type(value) is float for value in first.values())


@each_probe
def test_it_answers_where_there_is_no_norm_and_where_a_tensor_has_a_past(probe: measure.Probe) -> None:
    if isinstance(probe, measure.percentiles):
        probe = dataclasses.replace(probe, of="activation")
    if isinstance(probe, measure.gap):
        probe = dataclasses.replace(probe, of=("affine",))
    assert isinstance(probe(look(net(norms="none"))), dict)
    book = look(book_net(detached=False))
    book.model(book.x)
    assert isinstance(probe(book), dict)


class Failing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ArithmeticError


@pytest.mark.parametrize("probe", [measure.percentiles(1), measure.variance_ratio(1), measure.gap(1)])
def test_hooks_and_modes_go_back_where_the_model_raises(probe: measure.Probe) -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.ReLU(), nn.BatchNorm2d(1), Failing())
    with pytest.raises(ArithmeticError):
        probe(look(model))
    assert hooks(model) == 0
    assert model[0].training
