"""A run in lanes beside the same run in plain torch."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from normlab import surgery
from normlab.data import load
from normlab.kernels import pack, serving
from normlab.models import build
from normlab.store import Recipe
from normlab.train import train

pytestmark = pytest.mark.skipif(serving.looked_up().name != "native", reason="there are no native kernels here")

STEPS, BATCH = 50, 64
NETWORKS = {
    "lenet": {},
    "lenet-relu": {"activation": "relu", "pooling": "max"},
    "lenet-none": {"norms": "none"},
    "mlp": {"widths": [100, 100, 100]},
    "resnet8": {"width": 4},
}


def trained(name: str, *, lanes: bool, autograd: bool = True, nudge: bool = False) -> Tensor:
    """All parameters after fifty steps; with `nudge` from initial weights one ulp away."""
    examples = load("digits", say=lambda _: None).train
    model = build(name.partition("-")[0], NETWORKS[name], input_shape=examples.shape, classes=10, seed=0)
    if nudge:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.nextafter(parameter, torch.full_like(parameter, torch.inf)))
    if lanes:
        assert surgery.to_lanes(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(0)).repeat(3)
    step = None if autograd else surgery.lanes_step(model)
    assert autograd or step is not None
    for x, y in list(examples.batches(BATCH, order[: STEPS * BATCH])):
        optimizer.zero_grad()
        if step is None:
            cross_entropy(model(x), y).backward()
        else:
            assert step(pack(x), y) is not None
        optimizer.step()
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach().double()


@pytest.mark.parametrize("name", NETWORKS)
def test_lanes_round_like_a_change_in_the_last_place(name: str) -> None:
    plain = trained(name, lanes=False)
    noise = (trained(name, lanes=False, nudge=True) - plain).norm()
    for autograd in (True, False):
        assert (trained(name, lanes=True, autograd=autograd) - plain).norm() <= 4 * noise


def test_lanes_by_default_and_two_trials() -> None:
    recipe = Recipe(data="digits", model="lenet", batch_size=64, epochs=2, train_examples=500, threads=1)
    fast, plain = train(recipe), train(recipe.replace(lanes=False))
    assert (fast.recipe.lanes, plain.recipe.lanes) == (True, False)
    assert fast.trial != plain.trial
    assert fast.result != plain.result, "another order of sums"
    assert fast.last.train_loss == pytest.approx(plain.last.train_loss, rel=1e-2)


def test_no_thread_count_changes_a_bit() -> None:
    recipe = Recipe(data="digits", model="lenet", batch_size=100, epochs=2, train_examples=500)
    assert train(recipe.replace(threads=1)).result == train(recipe.replace(threads=2)).result


@pytest.mark.parametrize("changes", [{"dtype": "float64"}, {"dtype": "bfloat16"}])
def test_lanes_are_float32(changes: dict) -> None:
    recipe = Recipe(data="digits-8x8", model="mlp", batch_size=64, epochs=1, train_examples=200)
    assert not train(recipe.replace(**changes)).recipe.lanes
