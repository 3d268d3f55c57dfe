"""A small data set in the files and the layout of Fashion-MNIST, and a home of its own for each test."""

import gzip
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from normlab.data import idx
from normlab.data.idx import IdxFile

USERS_HOME = os.environ.get("NORMLAB_HOME")

NAMES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


@dataclass(frozen=True)
class Published:
    """A folder of idx.gz files, what is known of them, and what they hold."""

    folder: Path
    files: dict[str, IdxFile]
    tensors: dict[str, Tensor]

    def as_json(self) -> str:
        return json.dumps({name: asdict(known) for name, known in self.files.items()})


def publish(folder: Path, tensors: dict[str, Tensor]) -> Published:
    files = {}
    for name, values in tensors.items():
        content = idx.header(tuple(values.shape)) + values.numpy().tobytes()
        (folder / f"{NAMES[name]}.gz").write_bytes(gzip.compress(content, 1))
        files[name] = IdxFile(NAMES[name], tuple(values.shape), idx.sha256(values))
    return Published(folder, files, tensors)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    draw = torch.Generator().manual_seed(0)
    tensors = {}
    for split, count in (("train", 50), ("test", 20)):
        tensors[f"{split}_images"] = torch.randint(256, (count, 28, 28), dtype=torch.uint8, generator=draw)
        tensors[f"{split}_labels"] = (torch.arange(count) % 10).to(torch.uint8)
    return publish(tmp_path_factory.mktemp("published"), tensors)


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """As large as Fashion-MNIST, so that writing and mapping it can be watched."""
    tensors = {}
    for split, count in (("train", 60000), ("test", 10000)):
        tensors[f"{split}_images"] = torch.full((count, 28, 28), 7, dtype=torch.uint8)
        tensors[f"{split}_labels"] = (torch.arange(count) % 10).to(torch.uint8)
    return publish(tmp_path_factory.mktemp("large"), tensors)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    monkeypatch.setenv("NORMLAB_HOME", str(folder))
    monkeypatch.delenv("NORMLAB_FASHION_MNIST", raising=False)
    return folder


@pytest.fixture
def users_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """The home from before the tests: only to read what is cached there."""
    if USERS_HOME is None:
        monkeypatch.delenv("NORMLAB_HOME", raising=False)
    else:
        monkeypatch.setenv("NORMLAB_HOME", USERS_HOME)
