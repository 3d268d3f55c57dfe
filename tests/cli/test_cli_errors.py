"""Every mistake: exit code 2, one line on standard error, nothing half-written. A mistake a row."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from normlab.store import Runs

TINY = ("train", "--data", "users:data", "--batch-size", 20, "--epochs", 1)

PARSED = [
    (["trian"], 'Unknown command "trian". Did you mean "train"?'),
    (["train", "--modle", "lenet"], "Unknown option: --modle. Did you mean --model?"),
    (["train", "digits", "more"], "expected options as --name value, got digits more; see --help"),
    (["train", "--lr"], "--lr requires an argument"),
    (["train", "--lr", 1, "--lr", 2], "--lr specified multiple times"),
    (["train", "--surgeries", "x"], "Unknown option: --surgeries"),
    (["train", "--batch-size", 0], "expected --batch-size to be greater than or equal to 1, got '0'"),
    (["train", "--batch-size", 1.5], "expected --batch-size to be a valid integer, got '1.5'"),
    (["train", "--lr", "nan"], "expected --lr to be a finite number, got 'nan'"),
    (["train", "--lr", "inf"], "expected --lr to be a finite number, got 'inf'"),
    (["train", "--lr", -1], "expected --lr to be greater than 0, got '-1'"),
    (["train", "--lr", "abc"], "expected --lr to be a valid number, got 'abc'"),
    (["train", "--lr", "1\n2"], "expected --lr to be a valid number, got '1\\n2'"),
    (["train", "--momentum", -0.5], "expected --momentum to be greater than or equal to 0, got '-0.5'"),
    (["train", "--epochs", "1e3"], "expected --epochs to be a valid integer, got '1e3'"),
    (["train", "--seed", 2**63], "expected --seed to be less than 9223372036854775808"),
    (["train", "--optimizer", "sdg"], "expected --optimizer to be 'sgd', 'momentum' or 'adamw', got 'sdg'"),
    (["train", "--data="], "expected --data to have at least 1 character, got ''"),
    (["train", "--lr", -1, "--batch-size", 0], "got '-1'; expected --batch-size to be"),
    (["train", "--model-options"], "--model-options requires at least 1 element"),
    (["train", "--model-options", "eps"], "expected an option as k=v, got 'eps'"),
    (["train", "--model-options", "eps=1", "eps=2"], "expected each option once, got eps twice"),
    (["train", "--model-options", "eps=NaN"], "expected --model-options to be what JSON can hold: finite numbers"),
    (["train", "--model-options", "eps=1e999"], "expected --model-options to be what JSON can hold"),
    (["train", "--model-options", "text=\udcff"], "expected --model-options to be what JSON can hold"),
    (["train", "--plot", "x.gif"], "expected a figure as .png, .svg, .html or .json, got 'x.gif'"),
    (["train", "--plot", "."], "expected a figure as .png, .svg, .html or .json, got '.'"),
    (["train", "--plot", "nowhere/x.png"], "expected a figure in a folder that is there, got nowhere; make it first"),
    (["train", "--plot", "two\nlines/x.png"], "a folder that is there, got two lines; make it first"),
    (["runs", "lst"], 'Unknown command "lst". Did you mean "list"?'),
    (["runs", "show"], "TRIAL requires an argument"),
    (["runs", "show", "zzz"], "expected one run whose id begins with 'zzz', got none"),
    (["runs", "show", "two\nlines"], "begins with 'two\\nlines', got none"),
    (["runs", "export", "--format", "xml"], 'Invalid value "xml" for --format. Choose from: "csv", "jsonl"'),
    (["data", "mnist"], "did you mean fashion-mnist?"),
    (["data", "users:data_raises"], "got KeyError"),
]


@pytest.mark.parametrize(("arguments", "message"), PARSED, ids=lambda value: None if isinstance(value, str) else "")
def test_before_anything_is_done(normlab, users, left, arguments, message):
    outcome = normlab(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("normlab: ")
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert "bug" not in outcome.err
    assert left() == set()
    assert not Runs().path.parent.exists(), "not even a store"


NAMED = [
    (
        ["--model", "lenett"],
        "did you mean lenet? there are deep, inception, lenet, mlp, resnet8, resnet20, resnet56, or your own as pkg",
    ),
    (["--norm", "bacht"], "did you mean batch?"),
    (["--data", "digit"], "did you mean digits?"),
    (["--device", "cdua"], "got 'cdua' ("),
    (["--model-options", "biass=true"], "did you mean bias?"),
    (["--model-options", "activation=relo"], "did you mean relu?"),
    (["--model-options", "eps=-1"], "expected eps >= 0, got -1"),
    (["--model-options", "norms=9"], "positions out of 1 to 4"),
    (["--model", "users:nothing_there"], "'nothing_there' in users, got no such name"),
    (["--model", "users_not_there:model"], "no module named 'users_not_there'"),
    (["--model", "users.py:model"], "name the module, not its file"),
    (["--model", "users:thing"], "expected a callable as a model, got users:thing"),
    (["--model", "users:model_raises"], "got RuntimeError: first line; "),
    (["--model", "users:model_none"], "expected model users:model_none to return an nn.Module, got a NoneType"),
    (["--model", "users:model_shape"], "logits of shape (N, classes) = (20, 10), got (20, 3)"),
    (["--model", "users:model", "--model-options", "txt=x"], "did you mean text?"),
    (["--norm", "users:norm_none"], "expected users:norm_none to make an nn.Module, got a NoneType"),
    (["--norm", "users:norm_no_argument"], "takes 0 positional arguments"),
    (["--data", "users:data_raises"], "expected data users:data_raises to return its splits, got KeyError"),
    (["--data", "users:data_list"], "to return a dict, got a list of 1"),
    (["--data", "users:data_empty"], "an empty dict"),
    (["--data", "users:odd", "--batch-size", 8], "more than 1 value per channel"),
    (["--validation", 40], "expected validation from 0 to 39"),
    (["--train-examples", 41], "expected train_examples from 1 to 40"),
]


@pytest.mark.parametrize(("arguments", "message"), NAMED, ids=lambda value: None if isinstance(value, str) else "")
def test_before_the_first_step(normlab, users, left, arguments, message):
    given = [*map(str, TINY)]
    for name in arguments[::2]:  # one that is named twice would be a mistake of its own
        if name in given:
            del given[given.index(name) : given.index(name) + 2]
    outcome = normlab(*given, *arguments, "--plot", "curve.html", "--checkpoints", "checkpoints")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("normlab: expected ")
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert left() == set()
    assert Runs().list() == []


def newer_store(path):
    Runs(path).prepare()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()


def no_store(path):
    path.write_text("my notes\n")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (newer_store, "expected a runs store of version 2 or older at runs.db, got version 99; update normlab"),
        (no_store, "expected a runs store at runs.db, got file is not a database; "),
        (lambda path: path.mkdir(), "expected a runs store at runs.db, got unable to open database file; "),
    ],
)
@pytest.mark.parametrize("command", [TINY, ["runs", "list"], ["runs", "show", "0"], ["runs", "export"]])
def test_a_store_that_is_none(normlab, users, left, make, message, command):
    make(users / "runs.db")
    before = left()
    outcome = normlab(*command, "--store", "runs.db")
    assert (outcome.code, outcome.out) == (2, ""), "before the training, not after it"
    assert outcome.err.startswith(f"normlab: {message}")
    assert len(outcome.err.splitlines()) == 1
    assert left() == before


@pytest.fixture
def checkpoints(normlab, users, left):
    """A folder with the checkpoint of a finished run of one epoch, and the store that has its record."""
    assert normlab(*TINY, "--checkpoints", "checkpoints").code == 0
    assert left() == {"checkpoints/epoch-0001.safetensors"}
    return users / "checkpoints"


def test_a_checkpoint_of_another_recipe(normlab, checkpoints):
    outcome = normlab(*TINY, "--lr", 0.5, "--checkpoints", "checkpoints", "--resume")
    assert outcome.code == 2
    assert "lr 1.0 there, 0.5 here" in outcome.err
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "text"])
def test_a_damaged_checkpoint(normlab, checkpoints, damage):
    path = checkpoints / "epoch-0001.safetensors"
    whole = path.read_bytes()
    noise = bytearray(whole)
    noise[-100] ^= 1
    path.write_bytes({"cut": whole[:-10], "empty": b"", "noise": bytes(noise), "text": b"x" * 5000}[damage])
    outcome = normlab(*TINY, "--checkpoints", "checkpoints", "--resume")
    assert outcome.code == 2
    assert outcome.err.startswith("normlab: expected a whole checkpoint at checkpoints/epoch-0001.safetensors, got ")
    assert len(outcome.err.splitlines()) == 1


def test_resume_without_a_checkpoint_begins_at_the_beginning(normlab, users):
    outcome = normlab(*TINY, "--resume")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("no checkpoint in ")
    assert "starting at the beginning" in outcome.out.splitlines()[0]


def test_debug_shows_the_traceback_above_the_line(normlab, users):
    for arguments in (["--debug", *TINY, "--model", "lenett"], [*TINY, "--model", "lenett", "--debug"]):
        outcome = normlab(*arguments)
        assert outcome.code == 2
        assert outcome.err.startswith("Traceback (most recent call last):")
        assert (
            outcome.err.splitlines()[-1] == f"normlab: {outcome.err.splitlines()[-2].partition('NormlabError: ')[2]}"
        )


def test_what_nobody_foresaw_is_told_as_a_bug_in_one_line(normlab, monkeypatch):
    def broken(self):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(Runs, "list", broken)
    outcome = normlab("runs", "list")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("normlab: this is a bug of normlab: RuntimeError: first line; please report it")
    assert len(outcome.err.splitlines()) == 1


FULL = """
import resource, sys
size = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
from normlab.cli import main
main(sys.argv[2:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_full_disk_in_the_middle_of_a_run(users, left):
    """A store of 20 kB fits, a checkpoint of 180 kB does not."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, "50000", *map(str, TINY), "--checkpoints", "checkpoints"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("normlab: expected to write a checkpoint into checkpoints, got OSError: ")
    assert len(done.stderr.splitlines()) == 1
    assert left() == set()
    assert Runs().list() == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_full_disk_under_the_store_is_known_before_the_training(users):
    done = subprocess.run(
        [sys.executable, "-c", FULL, "100", *map(str, TINY)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("normlab: expected a runs store at ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has /dev/full")
@pytest.mark.parametrize("command", [["runs", "list"], ["--help"], ["runs", "export"]])
def test_standard_output_on_a_full_disk(command):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "normlab", *command], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.returncode == 2
    assert done.stderr == "normlab: OSError: [Errno 28] No space left on device\n"
