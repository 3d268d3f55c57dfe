"""A checkpoint is whole or refused; a folder that cannot take one is found out; earlier ones stay."""

import contextlib
import os
import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from normlab.errors import NormlabError
from normlab.store import Recipe
from normlab.train import Interrupted, Observer, checkpoint, train
from normlab.train.state import put_back, tensors

RECIPE = Recipe(
    data="users_zoo:tensors",
    model="users_zoo:plain",
    batch_size=32,
    epochs=2,
    lr=0.1,
    optimizer="momentum",
    threads=1,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    train(RECIPE, checkpoints=folder)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run's folder."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def refused(folder: Path, message: str, recipe: Recipe = RECIPE) -> None:
    with pytest.raises(NormlabError, match=message) as caught:
        train(recipe, checkpoints=folder, resume=True)
    assert "\n" not in str(caught.value)


# --- what is damaged -----------------------------------------------------------------------------------------------

DAMAGED = r"a whole checkpoint at .*epoch-0002.safetensors, got a damaged one \(.*\); delete it to go on"


@settings(deadline=None, max_examples=60)
@given(share=st.floats(0, 1, exclude_max=True))
def test_one_that_was_cut_off(share: float, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = Path(shutil.copytree(finished, tmp_path_factory.mktemp("cut") / "run"))
    newest = folder / "epoch-0002.safetensors"
    os.truncate(newest, int(newest.stat().st_size * share))
    refused(folder, DAMAGED)


@settings(deadline=None, max_examples=120)
@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), in_header=st.booleans())
def test_one_bit_of_it_is_enough(
    share: float, bit: int, in_header: bool, finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In the tensors, in their names, in the progress that lies beside them."""
    folder = Path(shutil.copytree(finished, tmp_path_factory.mktemp("flip") / "run"))
    newest = folder / "epoch-0002.safetensors"
    content = bytearray(newest.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    content[int((header if in_header else len(content)) * share)] ^= 1 << bit
    newest.write_bytes(content)
    refused(folder, DAMAGED)


def test_after_its_deletion_the_one_before_serves(folder: Path) -> None:
    whole = train(RECIPE).result
    (folder / "epoch-0002.safetensors").unlink()
    assert train(RECIPE, checkpoints=folder, resume=True).result == whole
    assert (folder / "epoch-0002.safetensors").is_file()


class Bomb:
    def __reduce__(self) -> tuple:
        return (sys.exit, ("it was unpickled",))


@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps(Bomb()), b"\xff" * 64])
def test_what_was_never_one(content: bytes, folder: Path) -> None:
    (folder / "epoch-0003.safetensors").write_bytes(content)
    refused(folder, "a whole checkpoint at .*epoch-0003.safetensors, got a damaged one")


def test_a_tensor_file_of_someone_elses(folder: Path) -> None:
    safetensors.torch.save_file({"x": torch.zeros(3)}, folder / "epoch-0003.safetensors")
    refused(folder, "got a damaged one")


def test_files_with_other_names_do_not_matter(folder: Path) -> None:
    for name in (
        "epoch-0009.safetensors.bak",
        "epoch-notes.txt",
        ".epoch-0009.safetensors-1a2b",
        "epoch-9.safetensor",
    ):
        (folder / name).write_bytes(b"x")
    assert train(RECIPE, checkpoints=folder, resume=True).result == train(RECIPE).result


def test_the_newest_is_the_one_with_the_highest_numbers(tmp_path: Path) -> None:
    names = [
        "epoch-0002",
        "epoch-0002-step-000003",
        "epoch-0002-step-000010",
        "epoch-0010",
        "epoch-9999",
        "epoch-10000",
    ]
    for name in reversed(names):
        (tmp_path / f"{name}.safetensors").touch()
    assert [path.name.split(".")[0] for path in checkpoint._found(tmp_path)] == names


# --- what belongs to another run -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lr": 0.2}, r"\(lr 0.1 there, 0.2 here\); give its recipe, or another --checkpoints folder"),
        ({"seed": 3}, r"\(seed 0 there, 3 here\)"),
        ({"epochs": 9}, r"\(epochs 2 there, 9 here\)"),
        ({"threads": 2}, r"\(threads 1 there, 2 here\)"),
        ({"optimizer": "sgd", "lr": 1}, r"\(optimizer 'momentum' there, 'sgd' here, lr 0.1 there, 1.0 here\)"),
        ({"model": "users_zoo:without_norms"}, r"\(model 'users_zoo:plain' there, 'users_zoo:without_norms' here\)"),
        ({"dtype": "float64"}, r"\(dtype 'float32' there, 'float64' here(, lanes True there, False here)?\)"),
        ({"lanes": False}, r"\(lanes True there, False here\)"),
    ],
    ids=str,
)  # fmt: skip
def test_another_recipe_is_named_by_its_differences(changes: dict, named: str, folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    refused(folder, "a checkpoint of this recipe at .*, got one of another " + named, RECIPE.replace(**changes))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_another_program_is_another_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same recipe, after the user has changed the model's source."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    source = Path("users_changing_model.py")
    source.write_text("from torch import nn\ndef make(): return nn.Linear(6, 3)\n")
    recipe = RECIPE.replace(model="users_changing_model:make", epochs=1)
    train(recipe, checkpoints=tmp_path / "run")
    source.write_text(source.read_text() + "# changed\n")
    refused(
        tmp_path / "run", r"a checkpoint of trial \w+ at .*, got trial \w+: torch, normlab or your source", recipe
    )


# --- where none can be written -------------------------------------------------------------------------------------


class Begun(Observer):
    def begin(self, *_: object) -> None:
        raise AssertionError("the training began")


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_in_the_folders_place(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NormlabError, match=r"to write a checkpoint into .*; free the disk, or name another folder"):
        train(RECIPE, checkpoints=tmp_path / "file" / below, observer=Begun())


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="takes a folder that not even root may write")
def test_a_folder_that_may_not_be_written() -> None:
    with pytest.raises(NormlabError, match=r"to write a checkpoint into /proc, got"):
        train(RECIPE, checkpoints=Path("/proc"), observer=Begun())


@contextlib.contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """As on a disk with so much left: the system refuses what is written beyond."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("stopped", [False, True], ids=["after an epoch", "on an interruption"])
def test_a_full_disk(stopped: bool, tmp_path: Path) -> None:
    """It is told in one line, the checkpoints before stay whole, and once there is room the run goes on."""
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(RECIPE, checkpoints=run, stop=iter([False] * 9 + [True]).__next__)
    before = {path: path.read_bytes() for path in run.iterdir()}
    assert len(before) == 1 + 1
    with (
        no_file_beyond(1000),
        pytest.raises(NormlabError, match=r"to write a checkpoint into .*run, got OSError: .*large"),
    ):
        train(RECIPE, checkpoints=run, resume=True, stop=lambda: stopped)
    assert {path: path.read_bytes() for path in run.iterdir()} == before
    assert train(RECIPE, checkpoints=run, resume=True).result == train(RECIPE).result


# --- what is in one ------------------------------------------------------------------------------------------------


class Everything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.tied = self.linear
        self.register_buffer("counted", torch.tensor(3))
        self.register_buffer("passing", torch.rand(2), persistent=False)
        self.register_buffer("empty", torch.zeros(0, 2))
        self.register_buffer("absent", None)
        self.attribute = torch.rand(3)
        self.inner = nn.Sequential(nn.BatchNorm1d(2).to(torch.bfloat16))
        self.inner[0].flag = torch.tensor(True)


def test_a_models_memory_is_all_of_its_tensors_once() -> None:
    model = Everything()
    assert set(tensors(model)) == {
        "linear.weight", "linear.bias", "counted", "passing", "empty", "attribute", "inner.0.weight", "inner.0.bias",
        "inner.0.running_mean", "inner.0.running_var", "inner.0.num_batches_tracked", "inner.0.flag",
    }  # fmt: skip


def test_it_can_be_put_back_into_another() -> None:
    model, other = Everything(), Everything()
    model.empty, model.absent, model.counted = torch.rand(4, 2), torch.rand(2), torch.tensor(7)
    model.inner[0].flag = torch.tensor(False)
    parameters = [*other.parameters()]
    put_back(other, {name: value.detach().clone() for name, value in tensors(model).items()})
    assert tensors(other).keys() == tensors(model).keys()
    assert all(torch.equal(value, tensors(model)[name]) for name, value in tensors(other).items())
    assert all(a is b for a, b in zip(other.parameters(), parameters, strict=True)), "those that the optimizer moves"
    assert "absent" in dict(other.named_buffers())
    assert other.tied is other.linear
