"""drift and ics: moments and gradients before and after a step that is taken by hand."""

import copy
import math

import pytest
import torch
from looks import look
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy

from normlab import models
from normlab.measure import drift, gradient_shift, ics, input_drift, input_moments
from normlab.measure.drift import Moments
from normlab.nn import make_norm
from normlab.surgery import swap

X = torch.rand(24, 1, 28, 28, generator=torch.Generator().manual_seed(0)).double()
Y = torch.arange(24) % 10


def double(*pair: float) -> torch.Tensor:
    return torch.tensor(pair, dtype=torch.float64)


def test_the_distance_is_that_of_wasserstein() -> None:
    one, other = Moments(double(0, 1), double(1, 2)), Moments(double(3, 1), double(5, 2))
    assert one.distance(other) == pytest.approx(math.sqrt((9 + 16) / 2))
    assert one.distance(one) == 0
    assert one.spread == pytest.approx(math.sqrt(2.5))


def test_moments_of_every_channel_that_a_layer_reads() -> None:
    model = models.lenet(norms="none", seed=0).double()
    found = input_moments(model, X)
    assert [*found] == ["conv2", "linear3", "linear4", "output"], "the first reads the data"
    maps = model.pool1(model.activation1(model.conv1(X)))
    assert torch.allclose(found["conv2"].mean, maps.mean((0, 2, 3)), rtol=1e-12)
    assert torch.allclose(found["conv2"].std, maps.std((0, 2, 3), correction=0), rtol=1e-9)
    units = model[:-1](X)
    assert torch.allclose(found["output"].mean, units.mean(0), rtol=1e-12)
    assert found["output"].std.shape == (84,)


def test_channels_of_a_linear_layer_are_its_last_axis() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    x = torch.randn(5, 6, 3)
    assert torch.allclose(input_moments(model, x)["1"].mean.float(), model[0](x).mean((0, 1)), atol=1e-6)


def test_a_step_by_hand() -> None:
    model = models.lenet(seed=0).double()
    found = input_drift(model, X, Y, cross_entropy, lr=0.5, weight_decay=0.1)
    stepped = copy.deepcopy(model)
    cross_entropy(stepped(X), Y).backward()
    torch.optim.SGD(stepped.parameters(), lr=0.5, weight_decay=0.1).step()
    before, after = input_moments(model, X), input_moments(stepped, X)
    for path, (far, relative) in found.items():
        assert far == pytest.approx(before[path].distance(after[path]), rel=1e-9)
        assert relative == pytest.approx(far / before[path].spread, rel=1e-9)
    assert found.keys() == before.keys()


def test_noise_behind_a_norm_moves_its_layers() -> None:
    """What Santurkar et al. make of it: the inputs drift more, however small the step."""
    quiet, noisy = models.mlp(widths=[30, 30], seed=0), models.mlp(widths=[30, 30], seed=0)
    assert swap("batch", "noisy")(noisy)
    still, moved = (
        input_drift(model, X.float(), Y, cross_entropy, lr=1e-6)["linear2"][0] for model in (quiet, noisy)
    )
    assert still < 1e-5
    assert moved > 0.05


def test_the_shift_of_a_gradient_by_hand() -> None:
    """Layer i's gradient once the layers before it, norms included, stand where the step takes them."""
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 6), make_norm("batch", 6, 1), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(),
        nn.Linear(5, 10),
    ).double()  # fmt: skip
    found = gradient_shift(model, X, Y, cross_entropy, lr=2.0)
    stepped = copy.deepcopy(model)
    cross_entropy(stepped(X), Y).backward()
    now = {path: own(stepped, path) for path in ("4", "6")}
    torch.optim.SGD(stepped.parameters(), lr=2.0).step()
    for path in ("4", "6"):
        mixed = nn.Sequential(*stepped[: int(path)], *copy.deepcopy(model)[int(path) :])
        mixed.zero_grad()
        cross_entropy(mixed(X), Y).backward()
        later = own(mixed, path)
        assert found[path].distance == pytest.approx((later - now[path]).norm().item(), rel=1e-9)
        assert found[path].relative == pytest.approx(found[path].distance / now[path].norm().item(), rel=1e-9)
        assert found[path].cosine == pytest.approx(cosine_similarity(now[path], later, dim=0).item(), rel=1e-9)
    assert [*found] == ["4", "6"], "no layer stands before the first"


def own(model: nn.Sequential, path: str) -> torch.Tensor:
    layer = model[int(path)]
    return torch.cat([layer.weight.grad.flatten(), layer.bias.grad])


def test_without_a_step_nothing_shifts_though_dropout_draws() -> None:
    model = models.mlp(widths=[8, 8], dropout=0.5, seed=0).double()
    found = gradient_shift(model, X, Y, cross_entropy, lr=1e-300)
    assert all(each.distance == 0 for each in found.values())
    assert all(each.cosine == pytest.approx(1) for each in found.values())


def test_frozen_layers_have_no_gradient_to_shift() -> None:
    model = models.mlp(widths=[8, 7], seed=0).double()
    model.linear2.requires_grad_(False)
    assert [*gradient_shift(model, X, Y, cross_entropy, lr=1.0)] == ["output"]


def test_the_model_stays_as_it_is() -> None:
    model = models.lenet(dropout=0.2, seed=0).double()
    before, draws = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    gradient_shift(model, X, Y, cross_entropy, lr=1.0)
    input_drift(model, X, Y, cross_entropy, lr=1.0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), draws)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_probes_step_as_the_recipe_does() -> None:
    asked = look(models.mlp(widths=[6, 5], seed=0).double(), X, Y, lr=0.3, weight_decay=0.2, batch_size=9)
    settings = {"lr": 0.3, "weight_decay": 0.2}
    moved = input_drift(asked.model, X[:9], Y[:9], asked.loss, **settings)
    found = drift(1)(asked)
    assert (found["linear2"], found["linear2 relative"]) == moved["linear2"]
    assert len(found) == 4
    shifted = gradient_shift(asked.model, X[:9], Y[:9], asked.loss, **settings)
    assert ics(1)(asked)["output cosine"] == shifted["output"].cosine
