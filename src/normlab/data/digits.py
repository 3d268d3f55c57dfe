"""The 1,797 handwritten digits that scikit-learn carries: real data that need no network.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI (1998), its test part,
by 13 writers; 8x8 pixels from 0 to 16.
"""

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from normlab.data.dataset import Dataset
from normlab.data.split import Examples
from normlab.errors import NormlabError, one_line

# The last fifth tests, unshuffled as in scikit-learn's own example: neighbours are often by one writer, and a
# shuffled split has writers on both sides, which flatters every model (logistic regression: .97, not .90).
TRAIN = 1437


def path() -> Path:
    """Where scikit-learn keeps the digits; importing it to ask takes a second."""
    spec = importlib.util.find_spec("sklearn")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise NormlabError("scikit-learn, which carries the digits", "no such package", "pip install scikit-learn")
    return Path(folders[0]) / "datasets" / "data" / "digits.csv.gz"


def status() -> str:
    """`verified` where the digits can be read, else `damaged: why`."""
    try:
        _pixels_and_labels()
    except NormlabError as why:
        return f"damaged: {why}"
    return "verified"


def load_8x8() -> Dataset:
    """`digits-8x8`: uint8 (N, 1, 8, 8), from 0 to 240. Raises NormlabError on a missing or damaged file."""
    return _dataset("digits-8x8", _pixels_and_labels())


def load_28x28() -> Dataset:
    """`digits`: uint8 (N, 1, 28, 28) as LeNet reads: each pixel 3x3, a border of 2. Raises as `load_8x8`."""
    x, y = _pixels_and_labels()
    larger = x.repeat_interleave(3, dim=2).repeat_interleave(3, dim=3)
    return _dataset("digits", (torch.nn.functional.pad(larger, (2, 2, 2, 2)), y))


def _dataset(name: str, whole: tuple[Tensor, Tensor]) -> Dataset:
    examples = Examples(*whole)
    train, test = examples.subset(slice(TRAIN)), examples.subset(slice(TRAIN, None))
    return Dataset(name, train, None, test, examples.classes)


def _pixels_and_labels() -> tuple[Tensor, Tensor]:
    """Pixels (1797, 1, 8, 8) as uint8 from 0 to 240, and labels (1797,)."""
    try:
        with gzip.open(path(), "rt", encoding="ascii") as lines:
            table = torch.from_numpy(np.loadtxt(lines, delimiter=",", dtype=np.uint8).reshape(1797, 65))
    except (OSError, EOFError, ValueError) as error:
        raise NormlabError(
            "scikit-learn's digits.csv.gz", one_line(error), "pip install --force-reinstall scikit-learn"
        ) from error
    return table[:, :64].reshape(-1, 1, 8, 8) * 15, table[:, 64].to(torch.int64)
