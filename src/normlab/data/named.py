"""A user's own data, named as `pkg.module:callable`."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from normlab import errors
from normlab.data.dataset import Dataset
from normlab.data.split import Examples, Loaded, check, check_finite
from normlab.errors import NormlabError, one_line

SPLITS = ("train", "validation", "test")


def load(reference: str) -> Dataset:
    """What the callable returns: `{"train": (x, y), "validation": ..., "test": ...}`; only train must be.

    x (N, *shape) is uint8 or floating and finite, y (N,) holds class labels from 0, of any integer type; both are
    tensors or numpy arrays. A DataLoader of such batches may stand for (x, y). numpy's float64 becomes
    float32, as it is nobody's choice; a float64 tensor stays. Raises NormlabError where the callable
    cannot be imported, raises, or returns anything else.
    """
    call = errors.load(reference, "data")
    try:
        returned = call()
    except Exception as error:
        raise NormlabError(f"data {reference} to return its splits", one_line(error), "mend it") from error
    if not isinstance(returned, Mapping):
        raise NormlabError(f"data {reference} to return a dict", _kind(returned), 'return {"train": (x, y), ...}')
    unknown = [name for name in returned if name not in SPLITS]
    if unknown or returned.get("train") is None:
        got = ", ".join(map(repr, returned)) or "an empty dict"
        raise NormlabError(f"data {reference} to return train, and perhaps validation and test", got, "name them so")
    given = {name: _split(value, f"{name} of {reference}") for name, value in returned.items() if value is not None}
    return Dataset(
        reference,
        given["train"],
        given.get("validation"),
        given.get("test"),
        classes=max(split.classes for split in given.values()),
    )


def _split(value: object, what: str) -> Examples | Loaded:
    if isinstance(value, DataLoader):
        try:
            return Loaded(value, what)
        except NormlabError:
            raise
        except Exception as error:
            raise NormlabError(f"{what} to load", one_line(error), "mend its data set") from error
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise NormlabError(f"{what} as (x, y) or a DataLoader", _kind(value))
    x, y = _tensor(value[0], f"x in {what}"), _tensor(value[1], f"y in {what}")
    if not y.is_floating_point() and not y.is_complex():
        y = y.to(torch.int64)
    check(x, y, what)
    check_finite(x, what)
    return Examples(x, y)


def _tensor(value: object, what: str) -> Tensor:
    """The same values as a tensor on the CPU, without a graph and where possible without a copy."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if not isinstance(value, np.ndarray):
        raise NormlabError(f"{what} as a tensor or a numpy array", _kind(value), "convert it with numpy.asarray")
    plain = np.float32 if value.dtype.kind == "f" and value.dtype.itemsize > 4 else value.dtype.newbyteorder("=")
    try:
        return torch.from_numpy(np.require(value, plain, ["C_CONTIGUOUS", "WRITEABLE"]))
    except TypeError as error:
        raise NormlabError(f"{what} as numbers", f"an array of {value.dtype}", "give it a numeric dtype") from error


def _kind(value: object) -> str:
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return "nothing" if value is None else f"a {type(value).__name__}"
