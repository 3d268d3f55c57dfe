"""The command line, in this process and in one of its own, and a module of the user's in the working directory."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from normlab.cli import main

USERS = """
import os, signal, time
import numpy as np
import torch
from torch import nn

thing = 3
draw = np.random.default_rng(0)
X, Y = draw.random((40, 1, 28, 28), dtype="float32"), np.arange(40) % 10

def data(): return {"train": (X, Y), "test": (X[:20], Y[:20])}
def train_only(): return {"train": (X, Y)}
def odd(): return {"train": (X[:9], Y[:9])}
def data_raises(): raise KeyError("first line\\nsecond line")
def data_list(): return [1]
def data_empty(): return {}

def model(text="", number=1): return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
def model_nan():
    found = model()
    nn.init.constant_(found[1].weight, np.nan)
    return found

def model_raises(): raise RuntimeError("first line\\nsecond line")
def model_none(): return None
def model_shape(): return nn.Sequential(nn.Flatten(), nn.Linear(784, 3))

class OtherNorm(nn.Module):
    def __init__(self, num_features): super().__init__()
    def forward(self, x): return x * 2
def norm_none(num_features): return None
def norm_no_argument(): return nn.Identity()

def wait(what):
    print(what, flush=True)
    time.sleep(60)

def slow_data():
    wait("waiting for data")

class Slow(nn.Module):
    '''Stands still at the fifth batch it sees in training.'''
    def __init__(self):
        super().__init__()
        self.linear, self.seen = nn.Linear(784, 10), 0
    def forward(self, x):
        self.seen += 1
        if self.seen == 5:
            wait("waiting in a step")
        return self.linear(x.flatten(1))
"""


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        return self.out.splitlines()[-1]

    @property
    def json(self) -> Any:
        """The last line, in which a number may not be NaN."""

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is no JSON")

        return json.loads(self.last, parse_constant=refuse)


@pytest.fixture(autouse=True)
def a_plain_environment(monkeypatch):
    """Python buffers its output into a pipe, and nobody has told rich what it writes to."""
    for name in ("PYTHONUNBUFFERED", "COLUMNS", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def users(tmp_path, monkeypatch):
    """The working directory, with `users.py` in it; what a command imports from it is forgotten afterwards."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "users.py").write_text(USERS)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield folder
    sys.modules.pop("users", None)


@pytest.fixture
def normlab(capsys):
    """Run a command here, which costs no start of Python and no import of torch."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code or 0
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return run


@pytest.fixture
def spawn(users):
    """Start a command as a process of its own in the working directory, pipes to its ends."""
    processes = []

    def start(*arguments: object, **options: Any) -> subprocess.Popen:
        command = [sys.executable, "-m", "normlab", *map(str, arguments)]
        given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        processes.append(subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, **given))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def left(users):
    """Every file below the working directory but the user's own, half-written ones included."""

    def files() -> set[str]:
        return {str(path.relative_to(users)) for path in users.rglob("*") if path.is_file()} - {"users.py"}

    return lambda: {path for path in files() if "__pycache__" not in Path(path).parts}
