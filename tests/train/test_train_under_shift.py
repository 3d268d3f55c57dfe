"""under_shift: accuracies by a formula of their own, the run left as it is, and what it refuses."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from normlab import data, models
from normlab.data.corruptions import corrupt
from normlab.errors import NormlabError
from normlab.measure import Look, from_plain, to_plain
from normlab.store import Recipe
from normlab.train import train
from normlab.train.under_shift import WAYS, under_shift

RECIPE = Recipe(
    model="mlp",
    model_options={"widths": [8], "activation": "relu", "dropout": 0.4},
    data="digits",
    train_examples=130,
    batch_size=32,
    epochs=2,
    lr=0.1,
    precise_examples=40,
    seed=3,
    device="cpu",
)
KINDS = ("gaussian-noise", "contrast")


def network() -> nn.Sequential:
    """With statistics, gamma and beta that are not those of a new one."""
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784), nn.Linear(784, 10))
    draw = torch.Generator().manual_seed(0)
    norm = model[1]
    for tensor in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        tensor.copy_(torch.rand(784, generator=draw) + 0.1)
    return model


def look(model: nn.Module, step: int = 10, **changes: object) -> Look:
    x, y = torch.rand(4, 1, 28, 28), torch.zeros(4, dtype=torch.int64)
    return Look(model.train(), x, y, cross_entropy, RECIPE.replace(**changes), step)


def held_out(examples: int) -> tuple[Tensor, Tensor]:
    test = data.load("digits").test
    order = torch.randperm(len(test), generator=models.generator(RECIPE.seed, "shift"))[:examples]
    return test.x[order].float() / 255, test.y[order]


def logits(model: nn.Sequential, x: Tensor, source_count: float) -> Tensor:
    """Plainly, in float64: stored and own statistics in the proportion of their examples."""
    _, norm, linear = copy.deepcopy(model).double()
    x = x.double().flatten(1)
    own = 1.0 if source_count == 0 else len(x) / (len(x) + source_count)
    mean = own * x.mean(0) + (1 - own) * norm.running_mean
    var = own * x.var(0, correction=0) + (1 - own) * norm.running_var
    return linear((x - mean) / (var + norm.eps).sqrt() * norm.weight + norm.bias)


def accuracy(batches: list[Tensor], x: Tensor, y: Tensor, model: nn.Sequential, source_count: float) -> float:
    right = [logits(model, x[each], source_count).argmax(1) == y[each] for each in batches]
    return torch.cat(right).double().mean().item()


def test_by_a_plain_formula() -> None:
    model = network()
    found = under_shift(every=10, corruptions=KINDS, severity=3, examples=61)(look(model))
    clean, y = held_out(61)
    whole, eights, twos = [torch.arange(61)], [*torch.arange(56).split(8)], [*torch.arange(60).split(2)]
    classes = [(y == label).nonzero().flatten() for label in range(10)]
    by_class = [each for each in classes if len(each) > 1]
    ways = {
        "stored": (whole, 1e30),
        "batch": (whole, 0),
        "one class a batch": (by_class, 0),
        "batches of 8": (eights, 0),
        "batches of 2": (twos, 0),
        "batches of 8, mixed": (eights, 16),
    }
    images = {"clean": clean} | {kind: corrupt(clean, kind, 3, seed=RECIPE.seed) for kind in KINDS}
    expected = {
        f"{kind}: {way}": accuracy(batches, x, y, model, source_count)
        for kind, x in images.items()
        for way, (batches, source_count) in ways.items()
    }
    assert found == pytest.approx(expected, abs=1e-6)
    assert len(set(found.values())) > 6


def test_classes_of_one_example_are_in_no_batch() -> None:
    found = under_shift(every=1, corruptions=(), examples=2)(look(network()))
    assert found["clean: batches of 8"] != found["clean: batches of 8"]  # NaN: there are but two
    assert found["clean: batch"] in (0.0, 0.5, 1.0)


def test_before_the_first_step_nothing_is_read() -> None:
    probe = under_shift(every=10, corruptions=KINDS)
    found = probe(look(network(), step=0))
    assert set(found) == {f"{kind}: {way}" for kind in ("clean", *KINDS) for way in WAYS}
    assert all(value != value for value in found.values())


def test_a_recipe_keeps_it_as_plain_data() -> None:
    probe = under_shift(every=7, corruptions=KINDS, severity=2)
    plain = json.loads(json.dumps(to_plain(probe)))
    assert from_plain(plain) == probe


def test_a_run_with_it_is_the_run_without() -> None:
    probe = to_plain(under_shift(every=5, corruptions=KINDS, examples=20))
    result = train(RECIPE.replace(probes=(probe,))).result
    without = train(RECIPE).result
    assert (result.epochs, result.precise) == (without.epochs, without.precise)
    read = result.probes[str(probe["name"])]
    assert read.steps == (0, 5, 10)
    assert {line[0] for line in read.values.values()} == {None}
    assert all(line[-1] is not None for line in read.values.values())


DATA = """
import torch
from torch.utils.data import DataLoader, TensorDataset
x, y = torch.rand(60, 1, 28, 28), torch.arange(60) % 10
def loader(): return {"train": (x, y), "test": DataLoader(TensorDataset(x, y), batch_size=30)}
def validated(): return {"train": (x, y), "validation": (x, y)}
def alone(): return {"train": (x, y)}
def scaled(): return {"train": (x, y), "test": (2 * x - 1, y)}
def table(): return {"train": (x.flatten(1), y), "test": (x.flatten(1), y)}
"""


@pytest.fixture
def users_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_images.py").write_text(DATA)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("users_data")
@pytest.mark.parametrize("name", ["loader", "validated"])
def test_of_a_loader_and_of_data_that_validate(name: str) -> None:
    found = under_shift(every=1, corruptions=KINDS)(look(network(), data=f"users_images:{name}", train_examples=None))
    assert 0 <= found["contrast: batch"] <= 1


@pytest.mark.usefixtures("users_data")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("alone", "expected a test or a validation split of users_images:alone, to corrupt, got neither"),
        ("scaled", r"expected images in \[0, 1\], got from -.*; corrupt them before you scale them"),
        ("table", r"expected images \(N, C, H, W\)"),
    ],
)
@pytest.mark.parametrize("step", [0, 10])
def test_data_that_it_cannot_ask(name: str, message: str, step: int) -> None:
    asked = look(network(), step, data=f"users_images:{name}", train_examples=None)
    with pytest.raises(NormlabError, match=message):
        under_shift(every=1)(asked)


@pytest.mark.parametrize("step", [0, 10])
def test_a_network_whose_statistics_nothing_replaces(step: int) -> None:
    model = nn.Sequential(nn.Flatten(), nn.LayerNorm(784), nn.Linear(784, 10))
    with pytest.raises(NormlabError, match="expected a batch norm with running statistics"):
        under_shift(every=1, corruptions=())(look(model, step))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"corruptions": ["gausian-noise"]}, "did you mean gaussian-noise"),
        ({"severity": 6}, "a severity from 1 to 5, got 6"),
        ({"examples": 1}, "examples as a whole number of at least 2, got 1"),
        ({"every": -1}, "every as a number of steps"),
    ],
    ids=str,
)
def test_what_is_no_probe(arguments: dict, message: str) -> None:
    with pytest.raises(NormlabError, match=message):
        from_plain({"name": "normlab.train.under_shift:under_shift", "every": 1} | arguments)
