"""Ctrl-C and SIGTERM, sent to a real process."""

import signal
import subprocess
import sys

import pytest

from normlab.store import Runs
from normlab.store.home import home

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows sends other signals")

DIGITS = (
    "train",
    "--data",
    "digits",
    "--batch-size",
    64,
    "--epochs",
    5,
    "--threads",
    1,
    "--model-options",
    "dropout=0.2",
)

SWALLOWS = """
import time

try:
    print("importing", flush=True)
    time.sleep(60)
except BaseException:
    pass

data = None
"""


def until(process, text):
    """Read lines up to one with that text."""
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"ended before it said {text!r}: {process.communicate()[1]}")


def test_interrupted_twice_a_run_goes_on_where_it_stopped(spawn, normlab):
    for number, code, epoch in ((signal.SIGINT, 130, 1), (signal.SIGTERM, 143, 3)):
        process = spawn(*DIGITS, "--resume")
        until(process, f"epoch {epoch}/5")
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        assert process.returncode == code
        assert err.startswith("normlab: stopped; the checkpoint is ")
        assert err.endswith("; the same command with --resume goes on from there\n")
        assert len(err.splitlines()) == 1
        assert "epoch 5/5" not in out
        assert Runs().list() == []
    resumed = normlab(*DIGITS, "--resume", "--json")
    assert (resumed.code, resumed.err) == (0, "")
    assert resumed.out.startswith("resumed after ")
    assert "epoch 3/5" not in resumed.out
    assert [*(home() / "checkpoints").iterdir()] == [], "what the interruptions left has served"
    [(_, record)] = Runs().list()
    again = normlab(*DIGITS, "--json")
    [(_, whole)] = Runs().list()
    assert resumed.json["trial"] == again.json["trial"] == record.trial
    assert record.result == whole.result


@pytest.mark.parametrize(
    ("number", "code", "checkpoints"),
    [(signal.SIGINT, 130, ()), (signal.SIGTERM, 143, ("--checkpoints", "checkpoints"))],
)
def test_before_the_first_step_it_ends_at_once(spawn, left, number, code, checkpoints):
    process = spawn("train", "--data", "users:slow_data", *checkpoints)
    until(process, "waiting for data")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (code, "", "normlab: interrupted\n")
    assert left() == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_within_an_import_that_swallows_it(spawn, users, number):
    (users / "swallows.py").write_text(SWALLOWS)
    process = spawn("train", "--data", "swallows:data")
    until(process, "importing")
    process.send_signal(number)
    assert process.communicate(timeout=30) == ("", "normlab: interrupted\n")
    assert process.returncode == 128 + number


def test_while_torch_is_imported(spawn):
    process = spawn("train", "--data", "users:slow_data")
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=0.8)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "normlab: interrupted\n")
    assert process.returncode == 130


def test_a_second_one_ends_it_at_once(spawn):
    process = spawn("train", "--data", "users:data", "--model", "users:Slow", "--batch-size", 8)
    until(process, "waiting in a step")
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):  # the first waits for the end of the step
        process.communicate(timeout=0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=5)
    assert (process.returncode, err) == (130, "normlab: interrupted\n")
    assert Runs().list() == []
