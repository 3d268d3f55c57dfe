"""torchrun, for real: two processes over gloo that train one network."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from normlab.store import Recipe, Runs
from normlab.train import train

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="torchrun's signals are Unix's")]

DIGITS = ("--data", "digits", "--lr", 0.1, "--threads", 1)
# Twenty steps of 25, the last of 15: parts of 13 and 12, of 8 and 7.
UNEVEN = (*DIGITS, "--train-examples", 490, "--batch-size", 25, "--epochs", 1, "--no-lanes")
RECIPE = Recipe(data="digits", lr=0.1, threads=1, train_examples=490, batch_size=25, epochs=1, lanes=False)


@pytest.fixture
def torchrun(users):
    """Start `torchrun ... -m normlab train ...` in the working directory; all of it ends with the test."""
    started = []

    def start(processes: int, *arguments: object) -> subprocess.Popen:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes]
        command = [*map(str, (*command, "-m", "normlab", "train", *arguments))]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        started.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def sentences(err: str) -> list[str]:
    """What we say; torchrun says more."""
    return [line for line in err.splitlines() if line.startswith("normlab: ")]


def last(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(max(folder.glob("epoch-*")))


THREADS = """
import os
import torch
from normlab.train.parallel import joined

def threads():
    return [open(f"/proc/self/task/{each}/comm").read().strip() for each in os.listdir("/proc/self/task")]

with joined():
    import torch.distributed.nn.functional  # as parts of torch do, some time
    torch.distributed.broadcast(torch.zeros(2), 0)
    assert any("gloo" in name for name in threads()), threads()
assert not any("gloo" in name for name in threads()), threads()
"""


def test_no_thread_outlives_the_group(tmp_path):
    """One that did would be killed by the end of the interpreter, and at times the process with it."""
    script = tmp_path / "threads.py"
    script.write_text(THREADS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_two_processes_give_the_parameters_of_one_and_one_record(torchrun, users, dtype, tolerance):
    process = torchrun(2, *UNEVEN, "--dtype", dtype, "--checkpoints", "two")
    out, err = process.communicate(timeout=300)
    assert (process.returncode, sentences(err)) == (0, []), err
    one = train(RECIPE.replace(dtype=dtype), checkpoints=users / "one")
    found = last(users / "two")
    for name, expected in last(users / "one").items():
        torch.testing.assert_close(found[name], expected, rtol=0, atol=tolerance, msg=name)
    [(_, record)] = Runs().list()
    assert record.recipe.shares == (1, 1)
    assert record.trial != one.trial
    assert record.last.train_loss == pytest.approx(one.last.train_loss, rel=tolerance)
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["lenet on digits", "epoch 1/1"]
    assert sum(line.startswith(("epoch", "record", "loss")) for line in lines) == 3, "from the first process alone"


def test_one_process_is_no_torchrun_at_all(torchrun):
    plain = train(Recipe(data="digits", lr=0.1, threads=1, train_examples=200, epochs=1, batch_size=50))
    process = torchrun(1, *DIGITS, "--train-examples", 200, "--epochs", 1, "--batch-size", 50)
    _, err = process.communicate(timeout=300)
    assert (process.returncode, sentences(err)) == (0, [])
    [(_, record)] = Runs().list()
    assert (record.trial, record.recipe, record.result) == (plain.trial, plain.recipe, plain.result)


def workers(process: subprocess.Popen) -> list[int]:
    """The ids of torchrun's processes, the first first."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return sorted(int(child) for child in children if b"normlab" in Path(f"/proc/{child}/cmdline").read_bytes())


def until(process: subprocess.Popen, text: str) -> None:
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"ended before it said {text!r}: {process.communicate()[1]}")


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_is_killed_ends_the_other_with_a_sentence(torchrun, victim):
    process = torchrun(2, *DIGITS, "--epochs", 1000)
    until(process, "epoch 1/1000")
    os.kill(workers(process)[victim], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert len(sentences(err)) == 1, err
    assert "all processes to stay to the end, got one that ended before" in sentences(err)[0]
    assert Runs().list() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_goes_on_where_it_stopped(torchrun, number):
    few = ("--train-examples", 400, "--batch-size", 50, "--epochs", 8)
    arguments = (*DIGITS, *few, "--model-options", "dropout=0.2")
    process = torchrun(2, *arguments, "--resume")
    until(process, "epoch 2/8")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    [told] = sentences(err)
    assert told.startswith("normlab: stopped; the checkpoint is ")
    assert Runs().list() == []
    process = torchrun(2, *arguments, "--resume")
    out, err = process.communicate(timeout=300)
    assert (process.returncode, sentences(err)) == (0, []), err
    assert out.startswith("resumed after ")
    [(_, resumed)] = Runs().list()
    process = torchrun(2, *arguments)
    process.communicate(timeout=300)
    [(_, whole)] = Runs().list()
    assert whole.result == resumed.result


def test_a_mistake_is_one_sentence_of_each(torchrun, left):
    process = torchrun(2, "--data", "users:data_raises")
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    expected = "normlab: expected data users:data_raises to return its splits, got KeyError"
    assert all(line.startswith(expected) for line in sentences(err)), err
    assert 1 <= len(sentences(err)) <= 2
    assert left() == set()


def test_processes_of_different_commands_are_told_apart(users):
    """As on two machines with two versions of a script."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    script = f"{sys.executable} -m normlab train --data digits --train-examples 200 --seed $RANK"
    done = subprocess.run([*command, "bash", "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert any("process 1 to stand where the first does" in line for line in sentences(done.stderr)), done.stderr


def test_shares_need_processes(normlab):
    outcome = normlab("train", "--data", "digits", "--shares", 100, 156)
    assert outcome.code == 2
    assert outcome.err == (
        "normlab: expected 2 processes for the shares (100, 156), got 1; "
        "start them with torchrun --nproc-per-node 2 -m normlab train\n"
    )
