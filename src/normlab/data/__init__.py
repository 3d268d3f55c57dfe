"""Data: the sets that come with normlab and a user's own, as labelled examples in mini-batches.

To add a set, write a file that makes a `Dataset` and name it in `_SETS`.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from normlab import errors
from normlab.data import digits, fashion_mnist, named
from normlab.data.corruptions import CORRUPTIONS, corrupt
from normlab.data.dataset import Dataset, hold_out
from normlab.data.sources import Say
from normlab.data.split import Examples, Loaded

__all__ = [
    "CORRUPTIONS",
    "NAMES",
    "Dataset",
    "Examples",
    "Facts",
    "Loaded",
    "corrupt",
    "describe",
    "hold_out",
    "load",
]


@dataclass(frozen=True)
class _Set:
    summary: str
    load: Callable[[Say], Dataset]
    path: Callable[[], Path]
    status: Callable[[], str]


_SETS = {
    "fashion-mnist": _Set(
        "clothing, 10 classes, 28x28; 60,000 to train, 10,000 to test; 31 MB to fetch, once",
        fashion_mnist.load,
        fashion_mnist.path,
        fashion_mnist.status,
    ),
    "digits": _Set(
        "handwritten digits, 10 classes, 8x8 enlarged to 28x28; 1,437 to train, 360 to test; no network",
        lambda _: digits.load_28x28(),
        digits.path,
        digits.status,
    ),
    "digits-8x8": _Set(
        "the same digits as they are, 8x8",
        lambda _: digits.load_8x8(),
        digits.path,
        digits.status,
    ),
}

NAMES = tuple(_SETS)


@dataclass(frozen=True)
class Facts:
    """A line of the table of data sets; `status` is `verified`, `missing` or `damaged: why`."""

    name: str
    summary: str
    path: Path
    status: str


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def load(name: str, say: Say = _to_stderr) -> Dataset:
    """The data set of this name, or of a callable named as `pkg.module:callable`.

    `say` is told in one line what takes long (a download) and what was mended (a damaged cache). Raises
    NormlabError on an unknown name, and where the data cannot be had.
    """
    if errors.is_reference(name):
        return named.load(name)
    return _known(name).load(say)


def describe(name: str) -> Facts:
    """What a data set of ours is, where it lies, in what state; fetches nothing; raises as `load` does."""
    known = _known(name)
    return Facts(name, known.summary, known.path(), known.status())


def _known(name: str) -> _Set:
    return errors.choose(_SETS, name, "data set", own=True)
