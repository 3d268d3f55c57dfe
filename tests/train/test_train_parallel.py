"""Several processes that share every batch are one process, to rounding; here in two of them, over gloo."""

import hashlib
import itertools
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn

from normlab import models
from normlab.errors import NormlabError
from normlab.store import Recipe, Record
from normlab.train import Interrupted, state, train
from normlab.train.parallel import divided
from processes import Processes

DIGITS = {"data": "digits", "lr": 0.1, "threads": 1, "lanes": False, "evaluate": ("test",), "precise_examples": 100}
USERS = {"data": "users_zoo:tensors", "batch_size": 40, "epochs": 5, "lr": 0.05, "threads": 1, "weight_decay": 0.1}
UNEVEN = {"train_examples": 998, "batch_size": 256, "epochs": 5, "shares": (100, 156)}
EMPTY = {"train_examples": 130, "batch_size": 40, "epochs": 5, "shares": (15, 1)}
ADAMW = {"optimizer": "adamw", "schedule": "one-cycle"}
RESNET = {"model": "resnet8", "model_options": {"width": 4}, "epochs": 2, "lr": 0.01}
# Twenty steps, and eight of the residual network, in which rounding grows fastest.
# Of 40 examples (15, 1) gives 38 and 2; of 10, the last, all and none.
CASES = {
    "100 and 156 images": DIGITS | UNEVEN | {"optimizer": "momentum"},
    "halves, the last batch odd": DIGITS | {"train_examples": 490, "batch_size": 25, "epochs": 1},
    "a residual network": DIGITS | UNEVEN | RESNET,
    "images, an empty part": DIGITS | EMPTY | {"model_options": {"pooling": "max"}},
    # No bias before a norm: its gradient is rounding alone, which AdamW makes steps of.
    "adamw": USERS | ADAMW | {"model": "mlp", "model_options": {"bias": False}},
    "an empty part": USERS | {"model": "users_zoo:plain", "shares": (15, 1)},
    "a frozen part": USERS | {"model": "users_zoo:Frozen", "shares": (1, 3)},
    "lazy": USERS | {"model": "users_zoo:lazy", "shares": (3, 2), "surgeries": ({"name": "dropout", "p": 0.0},)},
    "no norms": USERS | {"model": "users_zoo:without_norms", "shares": (15, 1)},
    "no norms, not synchronized": USERS | {"model": "users_zoo:without_norms", "shares": (15, 1), "sync": False},
    "a layer that nothing uses": USERS | {"model": "users_zoo:Idle", "optimizer": "momentum", "shares": (15, 1)},
    "a loader": USERS | {"model": "users_zoo:plain", "data": "users_zoo:augmented", "shares": (2, 3)},
}  # fmt: skip
TOLERANCE = {"float64": 1e-10, "float32": 1e-4}


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    started = Processes(tmp_path_factory.mktemp("group") / "store", 2)
    yield started
    started.end()


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Parameters and buffers after the last epoch."""
    saved = load_file(max(folder.glob("epoch-*")))
    # Torch's batch norm, which becomes ours, has no count of batches that are not finite.
    return {n: value for n, value in saved.items() if n.startswith("model/") and "nonfinite" not in n}


def run(rank: int, recipe: Recipe, folder: Path | None = None) -> Record:
    return train(recipe, checkpoints=folder)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(processes: Processes, case: str, dtype: str, tmp_path: Path) -> None:
    recipe = Recipe(**CASES[case] | {"dtype": dtype})
    first, second = processes.ask(run, recipe, tmp_path / "two")
    one = train(recipe.replace(shares=(1,)), checkpoints=tmp_path / "one")
    assert first == second
    assert len(first.recipe.shares) == 2
    assert first.trial != one.trial
    assert len(one.result.epochs) == len(first.result.epochs) == recipe.epochs
    found, expected = tensors(tmp_path / "two"), tensors(tmp_path / "one")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=TOLERANCE[dtype], msg=name)
    assert first.last.train_loss == pytest.approx(one.last.train_loss, rel=TOLERANCE[dtype])
    assert first.last.gradient_norm == pytest.approx(one.last.gradient_norm, rel=100 * TOLERANCE[dtype])
    assert first.last.train_accuracy == pytest.approx(one.last.train_accuracy, abs=0.002)
    assert first.last.test_accuracy == pytest.approx(one.last.test_accuracy, abs=0.03)
    assert first.result.precise.test_accuracy == pytest.approx(one.result.precise.test_accuracy, abs=0.03)


def test_training_moves_what_is_compared(tmp_path: Path) -> None:
    recipe = Recipe(**CASES["adamw"])
    train(recipe, checkpoints=tmp_path / "one")
    train(recipe.replace(seed=1), checkpoints=tmp_path / "other")
    other = tensors(tmp_path / "other")
    for name, value in tensors(tmp_path / "one").items():
        assert not value.dim() or (value - other[name]).abs().max() > 1e-3, name


@pytest.mark.parametrize(
    ("size", "shares", "sizes"),
    [(256, (100, 156), [100, 156]), (7, (1, 1), [4, 3]), (1, (1, 1, 1), [1, 0, 0]), (2, (1, 1, 1), [1, 1, 0]),
     (10, (15, 1), [10, 0]), (5, (1,), [5]), (100, (1, 2, 3, 4), [10, 20, 30, 40])],
)  # fmt: skip
def test_a_batch_is_divided_without_gap_or_repeat(size: int, shares: tuple[int, ...], sizes: list[int]) -> None:
    parts = divided(size, shares)
    assert [len(range(size)[part]) for part in parts] == sizes
    assert [number for part in parts for number in range(size)[part]] == [*range(size)]


# --- norms that keep to their own part -----------------------------------------------------------------------------


def test_without_sync_batch_norm_of_two_halves_is_ghost_batch_norm(processes: Processes, tmp_path: Path) -> None:
    recipe = Recipe(**USERS | {"model": "mlp", "dtype": "float64", "lanes": False, "batch_size": 26})
    ghost = {"name": "swap", "source": "batch", "target": "ghost", "options": {"ghost_size": 13}}
    first, second = processes.ask(run, recipe.replace(sync=False), tmp_path / "two")
    train(recipe.replace(surgeries=(ghost,)), checkpoints=tmp_path / "one")
    assert first == second
    found, expected = tensors(tmp_path / "two"), tensors(tmp_path / "one")
    for name in expected.keys() - {each for each in expected if "running" in each or "batches" in each}:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-10, msg=name)


def trained(recipe: Recipe) -> tuple[Record, nn.Module]:
    """The record, and the network that it is of."""
    networks: list[nn.Module] = []
    build = models.build
    models.build = lambda *given, **options: networks.append(build(*given, **options)) or networks[-1]
    try:
        record = train(recipe)
    finally:
        models.build = build
    return record, networks[-1]


def digest(rank: int, recipe: Recipe) -> tuple[Record, str]:
    """The record, and a hash of all that the process's network holds in the end."""
    record, network = trained(recipe)
    held = sorted(state.tensors(network).items())
    return record, hashlib.sha256(b"".join(value.detach().numpy().tobytes() for _, value in held)).hexdigest()


def drawn(rank: int, recipe: Recipe) -> list[float]:
    """What the process's network drew in the steps of its training."""
    steps = recipe.epochs * -(-recipe.train_examples // recipe.batch_size)
    return trained(recipe)[1].drawn[-steps:]


def test_the_first_process_draws_as_one_alone_would_and_the_other_for_itself(processes: Processes) -> None:
    recipe = Recipe(**USERS | {"model": "users_zoo:Diary", "train_examples": 100, "lanes": False})
    first, second = processes.ask(drawn, recipe)
    assert first == drawn(0, recipe)
    assert len({*first, *second}) == 30, "15 steps, in which two processes draw"


KINDS = {
    "synchronized": {"model": "users_zoo:plain"},
    "not synchronized": {"model": "users_zoo:plain", "sync": False},
    "in lanes": {"model": "mlp", "model_options": {"widths": [9], "dropout": 0.2}, "sync": False, "lanes": True},
    "ghosts": {"model": "mlp", "surgeries": ({"name": "swap", "source": "batch", "target": "ghost"},)},
    "every kind of noise": {"model": "users_zoo:Dropouts"},
    "an order of its own": {"model": "users_zoo:plain", "data": "users_zoo:drawn_with_replacement"},
    "no length": {"model": "users_zoo:plain", "data": "users_zoo:streamed"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_processes_end_with_the_same_network_and_twice_the_same(processes: Processes, kind: str) -> None:
    recipe = Recipe(**USERS | {"epochs": 2, "shares": (3, 2)} | KINDS[kind])
    (first, network), (second, other) = processes.ask(digest, recipe)
    assert network == other
    assert first == second
    again, _ = processes.ask(digest, recipe)
    assert (again[1], again[0].result) == (network, first.result)


def test_probes_read_what_one_process_reads(processes: Processes) -> None:
    probe = {"name": "percentiles", "every": 2}
    recipe = Recipe(**USERS | {"model": "mlp", "dtype": "float64", "epochs": 1, "probes": (probe,), "shares": (3, 2)})
    first, second = processes.ask(run, recipe)
    one = train(recipe.replace(shares=(1,)))
    assert first == second
    for name, expected in one.result.probes["percentiles"].values.items():
        assert first.result.probes["percentiles"].values[name] == pytest.approx(expected, rel=1e-8)


# --- stops, errors -------------------------------------------------------------------------------------------------


def piece(rank: int, recipe: Recipe, folder: Path, told: int, times: int) -> Record | str:
    """Resume, and go on until the process `told` has been asked `times` times whether to stop."""
    asked = itertools.count()
    try:
        return train(recipe, checkpoints=folder, resume=True, stop=lambda: rank == told and next(asked) >= times)
    except Interrupted as interrupted:
        return interrupted.checkpoint.name


@pytest.mark.parametrize("told", [0, 1])
def test_a_wish_to_stop_in_one_process_stops_all(processes: Processes, told: int, tmp_path: Path) -> None:
    """The first is asked in evaluation too."""
    recipe = Recipe(**USERS | {"model": "users_zoo:Dropouts", "epochs": 2, "shares": (2, 1)})
    names = []
    for times in itertools.count(1, 2):
        first, second = processes.ask(piece, recipe, tmp_path, told, times)
        if isinstance(first, Record):
            break
        names.append(first)
        assert second == tmp_path.name
    assert len(names) >= 2
    assert first == second
    assert first.result == processes.ask(run, recipe)[0].result


class OneSided(nn.Module):
    """Its loss is no number in the second process, from the third step on."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
        self.steps = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += self.training and dist.is_initialized()
        bad = dist.is_initialized() and dist.get_rank() == 1 and self.steps == 4  # one of them is the rehearsal
        return self.layers(x) * (torch.nan if bad else 1.0)


def test_a_loss_that_is_no_number_in_one_process_ends_all(processes: Processes) -> None:
    first, second = processes.ask(run, Recipe(**USERS | {"model": "test_train_parallel:OneSided"}))
    assert first == second
    assert (first.result.nonfinite.epoch, first.result.nonfinite.step) == (1, 3)
    assert first.result.precise is None


def mistake(rank: int, recipe: Recipe) -> str:
    with pytest.raises(NormlabError) as error:
        train(recipe)
    return str(error.value)


REFUSED = {
    "shares for others": ({"shares": (1, 1, 1)}, "3 processes for the shares"),
    "one device for all": ({"device": "cuda:0"}, "a device of which each process has its own"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_shared(processes: Processes, case: str) -> None:
    changes, message = REFUSED[case]
    for told in processes.ask(mistake, Recipe(**USERS | {"model": "users_zoo:plain"} | changes)):
        assert message in told


def test_shares_without_processes() -> None:
    with pytest.raises(NormlabError, match=r"2 processes for the shares \(1, 2\), got 1; start them with torchrun"):
        train(Recipe(**USERS | {"model": "users_zoo:plain", "shares": (1, 2)}))


def test_one_example_for_one_process_is_refused_where_it_normalizes_alone(processes: Processes) -> None:
    recipe = Recipe(**USERS | {"model": "users_zoo:plain", "batch_size": 2})
    for told in processes.ask(mistake, recipe.replace(sync=False)):
        assert "more than 1 value per channel" in told
    first, _ = processes.ask(run, recipe.replace(epochs=1))
    assert first.result.nonfinite is None
