"""Twenty SIGKILLs at random moments: what is left goes on, and ends with the record of an untouched run."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from normlab.store import Recipe, Runs
from normlab.train import train

KILLS = 20
RECIPE = Recipe(
    data="digits",
    train_examples=200,
    batch_size=32,
    epochs=40,
    lr=0.05,
    optimizer="adamw",
    schedule="one-cycle",
    weight_decay=0.01,
    model_options={"dropout": 0.3, "activation": "relu"},
    threads=1,
)


def arguments(folder: Path) -> list[str]:
    given = RECIPE.model_dump(exclude_defaults=True, exclude={"model_options"})
    options = [f"{name}={value}" for name, value in RECIPE.model_options.items()]
    fields = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return ["train", *fields, "--model-options", *options, "--checkpoints", str(folder), "--resume"]


class Forked:
    """Processes of `python -m normlab`, one at a time."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.parent = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forked.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def start(self, folder: Path) -> int:
        """Begins one; returns its id."""
        self.output.write_text("")
        self.parent.stdin.write(json.dumps({"arguments": arguments(folder), "output": str(self.output)}) + "\n")
        self.parent.stdin.flush()
        return int(self.parent.stdout.readline())

    def status(self) -> int:
        """Waits for its end: the negative signal that killed it, or its exit code."""
        return os.waitstatus_to_exitcode(int(self.parent.stdout.readline()))

    def has_said(self, text: str) -> bool:
        return text in self.output.read_text()


@pytest.fixture
def forked(tmp_path: Path) -> Iterator[Forked]:
    processes = Forked(tmp_path / "output.txt")
    try:
        yield processes
    finally:
        processes.parent.communicate()


def wait_until(true: Callable[[], bool]) -> None:
    """Raises TimeoutError after a minute."""
    deadline = time.monotonic() + 60
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.001)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="takes fork, to start a process in no time")
def test_twenty_kills_at_random_moments(forked: Forked, tmp_path: Path) -> None:
    train(RECIPE.replace(epochs=1))  # the first of a process imports the half of torch
    untouched = train(RECIPE)
    of_an_epoch = untouched.timing.seconds / RECIPE.epochs
    draw, killed, reached, rounds = random.Random(0), 0, set(), 0
    while killed < KILLS:
        folder = tmp_path / f"round-{rounds}"
        process = forked.start(folder)
        if killed % 5:  # each fifth is killed wherever it is, before its first step too
            wait_until(lambda: forked.has_said("lenet on digits"))
        time.sleep(draw.uniform(0, 3 * of_an_epoch))
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        status = forked.status()
        assert status in {0, -signal.SIGKILL}, forked.output.read_text()
        killed += status == -signal.SIGKILL
        rounds += status == 0  # it had finished before: the kill hit nobody, and the next run is a new one
        reached.add((folder.name, len([*folder.glob("epoch-*")])))
    print(f"{killed} kills hit, at {len(reached)} different numbers of finished epochs; {rounds} runs ended before")
    assert len(reached) >= 5, "else the kills found nothing to interrupt"

    # The last one is a process from scratch.
    command = [sys.executable, "-m", "normlab", *arguments(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "resumed after" in ended.stdout
    record = Runs().get(untouched.trial)
    assert record.result == untouched.result
    assert record.recipe == untouched.recipe
    assert sorted(path.name for path in folder.glob("epoch-*")) == [
        f"epoch-{number:04d}.safetensors" for number in range(1, RECIPE.epochs + 1)
    ]
