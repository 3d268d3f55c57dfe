import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from normlab import data
from normlab.data import Examples, Loaded
from normlab.errors import NormlabError

numbers = itertools.count()


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], data.Dataset]:
    """Loads the data of a module of the user's, in whose function `make` this line stands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())

    def load(line: str) -> data.Dataset:
        name = f"users_data_{next(numbers)}"
        source = f"import numpy as np, torch\nX, Y = np.zeros((4, 2)), np.arange(4)\ndef make():\n    {line}\n"
        Path(f"{name}.py").write_text(source)
        return data.load(f"{name}:make")

    return load


def test_arrays_and_tensors_of_each_split(named: Callable[[str], data.Dataset]) -> None:
    x = "torch.zeros(3, 2)"
    loaded = named(
        f"return {{'train': (X, Y), 'validation': [{x}, torch.tensor([5, 0, 0])], 'test': ({x}, torch.arange(3))}}"
    )
    assert loaded.validation is not None
    assert loaded.test is not None
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (4, 3, 3)
    assert (loaded.shape, loaded.classes) == ((2,), 6)
    assert loaded.name.endswith(":make")


def test_only_train_must_be_there(named: Callable[[str], data.Dataset]) -> None:
    loaded = named("return {'train': (X, Y), 'test': None}")
    assert (loaded.validation, loaded.test) == (None, None)


@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        ("np.zeros((4, 2))", torch.float32),
        ("np.zeros((4, 2), 'float16')", torch.float16),
        ("np.zeros((4, 2), '>f4')", torch.float32),
        ("np.zeros((4, 2), np.longdouble)", torch.float32),
        ("np.zeros((4, 2), 'uint8')", torch.uint8),
        ("np.zeros((2, 4)).T", torch.float32),
        ("np.zeros((4, 2), 'float32')[::-1]", torch.float32),
        ("np.frombuffer(bytes(32), 'float32').reshape(4, 2)", torch.float32),
        ("np.broadcast_to(np.float32(1), (4, 2))", torch.float32),
        ("torch.zeros(4, 2, dtype=torch.float64)", torch.float64),
        ("torch.zeros(4, 2, requires_grad=True)", torch.float32),
    ],
)
@pytest.mark.parametrize("y", ["Y", "Y.astype('uint8')", "Y.astype('>i4')", "Y > 1", "torch.arange(4).short()"])
def test_whatever_holds_features_and_labels(
    x: str, dtype: torch.dtype, y: str, named: Callable[[str], data.Dataset]
) -> None:
    train = named(f"return {{'train': ({x}, {y})}}").train
    assert isinstance(train, Examples)
    assert train.x.dtype == dtype
    assert not train.x.requires_grad
    assert train.y.tolist() == ([0, 0, 1, 1] if y == "Y > 1" else [0, 1, 2, 3])


def test_values_survive_the_conversion(named: Callable[[str], data.Dataset]) -> None:
    train = named("return {'train': (np.arange(8, dtype='>f8').reshape(4, 2)[::-1], Y)}").train
    assert isinstance(train, Examples)
    assert train.x.tolist() == [[6, 7], [4, 5], [2, 3], [0, 1]]


def test_an_array_is_not_copied_where_it_need_not_be() -> None:
    x = np.zeros((4, 2), np.float32)
    sys.modules["users_own"] = module = type(sys)("users_own")
    try:
        module.make = lambda: {"train": (x, np.arange(4))}  # type: ignore[attr-defined]
        train = data.load("users_own:make").train
    finally:
        del sys.modules["users_own"]
    assert isinstance(train, Examples)
    assert train.x.data_ptr() == x.ctypes.data


def test_loaders(named: Callable[[str], data.Dataset]) -> None:
    loader = "torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(6, 2), torch.arange(6)), 4)"
    loaded = named(f"return {{'train': {loader}, 'test': (X, Y)}}")
    assert isinstance(loaded.train, Loaded)
    assert (loaded.shape, loaded.classes, len(loaded.train)) == ((2,), 6, 6)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("return None", r"data users_data_\d+:make to return a dict, got nothing; return \{"),
        ("return X, Y", "to return a dict, got a tuple of 2"),
        ("return {}", "to return train, and perhaps validation and test, got an empty dict"),
        ("return {'train': (X, Y), 'val': (X, Y)}", "got 'train', 'val'; name them so"),
        ("return {'test': (X, Y)}", "to return train, and perhaps"),
        ("return {'train': X}", r"train of users_data_\d+:make as \(x, y\) or a DataLoader, got a ndarray"),
        ("return {'train': (X, Y, Y)}", "got a tuple of 3"),
        (
            "return {'train': (X.tolist(), Y)}",
            r"x in train of .* as a tensor or a numpy array, got a list of 4",
        ),
        ("return {'train': (X, Y.astype(str))}", "y in train of .* as numbers, got an array of <U"),
        ("return {'train': (X, Y.astype(object))}", "as numbers, got an array of object"),
        (
            "return {'train': (X, Y / 2)}",
            r"train of .* with class labels y as a tensor of int64, got a tensor of",
        ),
        (
            "return {'train': (X, Y), 'test': (X, Y - 1)}",
            r"test of .* with class labels from 0 to K-1, got a label -1",
        ),
        ("return {'train': (X.astype(int), Y)}", r"got a tensor of torch\.int64; convert x to float32"),
        (
            "return {'train': (X, Y), 'test': (np.zeros((4, 3)), Y)}",
            r"with the shape \(2,\) of train, got \(3,\)",
        ),
        ("return {'train': (X, np.eye(4, dtype=int))}", "give one class label per example"),
        (
            "return {'train': (X, Y), 'test': (X + [[0, 1], [1, np.inf], [0, 0], [np.nan, 1]], Y)}",
            r"test of .* with finite x, got NaN or infinity in 2 of 4 examples, number 1 the first; drop",
        ),
        (
            "return {'train': torch.utils.data.DataLoader([(torch.tensor([0.0, torch.nan]), 1)])}",
            r"a batch of train of .* with finite x, got NaN or infinity in 1 of 1 examples",
        ),
        ("raise OSError('no disk\\nat all')", "to return its splits, got OSError: no disk; mend it"),
        (
            "return {'train': torch.utils.data.DataLoader([[1], [2, 3]])}",
            r"^expected train of users_data_\d+:make with batches",
        ),
        (
            "return {'train': torch.utils.data.DataLoader([(1, 2)], collate_fn=lambda _: 1 / 0)}",
            "ZeroDivisionError",
        ),
    ],
)
def test_anything_else_is_refused_by_name(line: str, message: str, named: Callable[[str], data.Dataset]) -> None:
    with pytest.raises(NormlabError, match=message):
        named(line)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(NormlabError, match=r"got 'fashion_mnist'; did you mean fashion-mnist\?"):
        data.load("fashion_mnist")
    with pytest.raises(NormlabError, match="there are fashion-mnist, digits, digits-8x8, or your own"):
        data.describe("imagenet")
