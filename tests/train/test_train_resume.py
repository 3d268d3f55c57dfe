"""A run that is stopped anywhere, as often as you like, and resumed gives what it gives in one piece, bit for bit."""

import itertools
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normlab.errors import NormlabError
from normlab.store import Epoch, Recipe, Record, Result
from normlab.train import Interrupted, Observer, train

BASE = {
    "data": "users_zoo:tensors",
    "model": "users_zoo:plain",
    "batch_size": 32,
    "epochs": 2,
    "lr": 0.05,
    "threads": 1,
}
CASES = {
    "sgd": {},
    "momentum": {"optimizer": "momentum"},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
    "float64": {"optimizer": "adamw", "dtype": "float64"},
    "bfloat16": {"optimizer": "adamw", "dtype": "bfloat16", "model": "users_zoo:without_norms"},
    "cosine": {"optimizer": "momentum", "schedule": "cosine"},
    "one-cycle": {"schedule": "one-cycle", "batch_size": 64},
    "our dropout": {"model": "mlp", "model_options": {"dropout": 0.3, "widths": [9]}},
    "a surgery": {"model": "mlp", "surgeries": ({"name": "swap", "source": "batch", "target": "none"},)},
    "every kind of noise": {"model": "users_zoo:Dropouts"},
    "lazy": {"model": "users_zoo:lazy", "optimizer": "momentum"},
    "lazy in bfloat16": {"model": "users_zoo:lazy", "dtype": "bfloat16"},
    "the book's own norm": {"model": "users_zoo:book"},
    "buffers of every kind": {"model": "users_zoo:Remembering"},
    "frozen": {"model": "users_zoo:Frozen", "optimizer": "adamw"},
    "draws in evaluation": {"model": "users_zoo:Drawing"},
    "overflowing gradients": {"model": "users_zoo:Steep", "lr": 1e-35},
    "an end without a number": {"model": "users_zoo:Exploding", "model_options": {"at": 7}},
    **{
        data: {"data": f"users_zoo:{data}", "model": "users_zoo:Dropouts"}
        for data in ("shuffled", "shuffled_by_its_own", "drawn_with_replacement", "augmented", "streamed")
    },
}  # fmt: skip


def recipe_of(case: str) -> Recipe:
    return Recipe(**BASE | CASES[case])


class Asked:
    """`stop` that says no `times` times."""

    def __init__(self, times: float) -> None:
        self.left = times

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def piece(recipe: Recipe, folder: Path, stop: Callable[[], bool], observer: Observer | None = None) -> Record | None:
    """What a process of its own does: resume, go on until it is stopped or done."""
    torch.manual_seed(random.getrandbits(63))
    try:
        return train(recipe, checkpoints=folder, resume=True, stop=stop, observer=observer)
    except Interrupted:
        return None


@pytest.fixture(scope="module")
def whole() -> Callable[[str], Result]:
    """The result in one piece, of each case once."""
    results: dict[str, Result] = {}

    def of(case: str) -> Result:
        if case not in results:
            results[case] = train(recipe_of(case)).result
        return results[case]

    return of


@pytest.mark.parametrize("case", CASES)
@settings(deadline=None, max_examples=8)
@given(pieces=st.lists(st.integers(0, 14), min_size=1, max_size=4))
def test_stopped_anywhere_any_number_of_times(case: str, pieces: list[int], whole, tmp_path_factory) -> None:
    recipe, folder = recipe_of(case), tmp_path_factory.mktemp("run")
    for times in pieces:
        record = piece(recipe, folder, Asked(times))
        if record is not None:
            break
    record = piece(recipe, folder, lambda: False)
    assert record is not None
    assert record.result == whole(case)
    shutil.rmtree(folder)


class Phase(Observer):
    """Which part of a run is under way."""

    def __init__(self) -> None:
        self.now = "training"

    def epoch(self, epoch: Epoch, examples_per_s: float) -> None:
        self.now = "after an epoch"

    def step(self, sums: object) -> None:
        self.now = "training"

    def recalibrating(self) -> None:
        self.now = "recomputing"


@pytest.mark.parametrize("case", ["adamw", "every kind of noise", "shuffled"])
def test_stopped_once_at_every_point_there_is(case: str, whole, tmp_path: Path) -> None:
    recipe = recipe_of(case)
    phases: list[str] = []
    for times in itertools.count():
        phase, folder = Phase(), tmp_path / str(times)
        if piece(recipe, folder, Asked(times), phase) is not None:
            break
        phases.append(phase.now)
        record = piece(recipe, folder, lambda: False)
        assert record is not None
        assert record.result == whole(case), f"stopped at point {times}, {phase.now}"
    assert phases[0] == "training"
    assert phases.count("training") >= 2 * 5
    assert phases.count("recomputing") >= 3
    assert "after an epoch" in phases


def test_stopped_after_every_single_step(tmp_path: Path, whole) -> None:
    """As many processes as points; each gets one further than the last."""
    recipe, record = recipe_of("every kind of noise"), None
    asked = itertools.count(1)
    while record is None:
        record = piece(recipe, tmp_path, Asked(1 if next(asked) < 9 else 15))
    assert record.result == whole("every kind of noise")


def test_a_finished_run_is_resumed_to_the_same_record(tmp_path: Path, whole) -> None:
    recipe = recipe_of("adamw")
    first = train(recipe, checkpoints=tmp_path)
    again = train(recipe, checkpoints=tmp_path, resume=True)
    assert first.result == again.result == whole("adamw")
    assert again.trial == first.trial
    assert again.timing.seconds > first.timing.seconds, "the clocks of every process add up"
    assert again.timing.examples_per_s == first.timing.examples_per_s


def test_checkpoints_do_not_change_the_result(tmp_path: Path, whole) -> None:
    assert train(recipe_of("every kind of noise"), checkpoints=tmp_path).result == whole("every kind of noise")


def test_one_checkpoint_for_every_epoch_and_one_in_the_middle_while_it_is_the_newest(tmp_path: Path) -> None:
    recipe = recipe_of("sgd")
    names = []
    for times in (7, 1, 0):
        piece(recipe, tmp_path, Asked(times))
        names.append(sorted(path.name for path in tmp_path.iterdir()))
    # 5 steps, the question after them, and one batch of the validation and of the test split.
    assert names == [
        ["epoch-0000-step-000005.safetensors"],
        ["epoch-0000-step-000005.safetensors"],
        ["epoch-0000-step-000005.safetensors"],
    ]
    piece(recipe, tmp_path, Asked(5))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "epoch-0001-step-000002.safetensors",
        "epoch-0001.safetensors",
    ]
    piece(recipe, tmp_path, lambda: False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-0001.safetensors", "epoch-0002.safetensors"]


def test_without_a_folder_of_its_own_a_stopped_run_leaves_its_checkpoint_under_its_trial(
    tmp_path: Path, whole
) -> None:
    recipe, said = recipe_of("adamw"), []
    with pytest.raises(Interrupted, match="the checkpoint is") as caught:
        train(recipe, interrupted_to=tmp_path, stop=Asked(3))
    record = train(recipe, interrupted_to=tmp_path, resume=True, say=said.append)
    assert caught.value.checkpoint == tmp_path / record.trial / "epoch-0000-step-000003.safetensors"
    assert said == ["resumed after 0 of 2 epochs and 3 steps"]
    assert record.result == whole("adamw")
    assert [path.name for path in (tmp_path / record.trial).iterdir()] == [caught.value.checkpoint.name]


def test_a_run_with_no_checkpoint_yet_begins_and_says_so(tmp_path: Path, whole) -> None:
    said: list[str] = []
    record = train(recipe_of("sgd"), checkpoints=tmp_path / "new", resume=True, say=said.append)
    assert record.result == whole("sgd")
    assert said == [f"no checkpoint in {tmp_path / 'new'} yet: starting at the beginning"]


def test_without_resume_a_run_begins_anew(tmp_path: Path) -> None:
    recipe = recipe_of("sgd")
    assert piece(recipe, tmp_path, Asked(3)) is None
    steps = []

    class Listening(Observer):
        def step(self, sums: object) -> None:
            steps.append(sums.steps)  # type: ignore[attr-defined]

    train(recipe, checkpoints=tmp_path, observer=Listening())
    assert steps == [1, 2, 3, 4, 5] * 2


def test_nowhere_to_leave_a_checkpoint() -> None:
    with pytest.raises(KeyboardInterrupt):
        train(recipe_of("sgd"), stop=Asked(3))
    with pytest.raises(NormlabError, match="a folder of checkpoints to resume from, got none; give checkpoints="):
        train(recipe_of("sgd"), resume=True)
