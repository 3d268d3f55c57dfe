"""A published data set as one verified safetensors file, which processes map into memory and share."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from normlab.data import idx
from normlab.data.idx import IdxFile, Unusable
from normlab.errors import NormlabError, one_line

_ABANDONED = 600.0
"""Seconds without a write after which what lies beside the file has lost its writer."""


def read(path: Path, files: Mapping[str, IdxFile]) -> dict[str, Tensor] | None:
    """The uint8 tensors of `files` by name, mapped from the file and not copied; None where there is none.

    Every byte is verified against the published SHA-256 (35 ms for 55 MB), once per process and version
    of the file. Raises Unusable where it is damaged.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return dict(_verified(path, found.st_ino, found.st_size, found.st_mtime_ns, tuple(files.items())))


@lru_cache(maxsize=2)
def _verified(
    path: Path, inode: int, size: int, modified_ns: int, files: tuple[tuple[str, IdxFile], ...]
) -> dict[str, Tensor]:
    try:
        tensors = safetensors.torch.load_file(path)
    except Exception as error:  # what the reader raises on a damaged header is not documented
        raise Unusable(one_line(error)) from error
    for name, known in files:
        held = tensors.get(name)
        if held is None:
            raise Unusable(f"it lacks {name}")
        if held.dtype != torch.uint8 or idx.sha256(held) != known.sha256:
            raise Unusable(f"{name} has other content than published")
    return tensors


def fill(path: Path, make: Callable[[Path], Mapping[str, Tensor]]) -> None:
    """Writes the tensors that `make(scratch)` returns, whole or not at all, whoever else does it meanwhile.

    `scratch` is an empty folder beside the file, so that a folder that cannot be written is found out
    before anything is fetched. Raises NormlabError on it, and on a full disk.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=_prefix(path), dir=path.parent, ignore_cleanup_errors=True) as beside:
            scratch, new = Path(beside, "scratch"), Path(beside, "new")
            scratch.mkdir()
            tensors = make(scratch)
            with new.open("wb") as file:
                file.write(safetensors.torch.save(dict(tensors)))
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
    except OSError as error:
        raise NormlabError(
            f"to write 60 MB into the cache {path.parent}",
            one_line(error),
            "make room there, or set NORMLAB_HOME to another folder",
        ) from error


def sweep(path: Path) -> None:
    """Removes what writers that were killed have left beside the file."""
    for left in path.parent.glob(f"{_prefix(path)}*"):
        with contextlib.suppress(OSError):  # a live one may just be tidying up
            latest = max(each.lstat().st_mtime for each in (left, *left.rglob("*")))
            if time.time() - latest > _ABANDONED:
                shutil.rmtree(left)


def _prefix(path: Path) -> str:
    return f".{path.name}-"
