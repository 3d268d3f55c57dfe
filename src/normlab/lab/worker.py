"""What a worker process does: one trial, from a recipe as JSON to a record as JSON. It never sees the store."""

import contextlib
import functools
import gc
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from normlab.errors import NormlabError, one_line
from normlab.store import Recipe, Record

if TYPE_CHECKING:
    from normlab.data import Dataset

MOST_MEMORY = 1 << 40

_HELD: list[object] = []
"""Locks that last as long as this process."""

_ALONE = threading.Lock()
"""Trials in threads of one process, as a Dask worker of several has them, would share torch's random stream."""


def begin(threads: int, gpus: int, parent: int) -> None:
    """Make a process a worker: Ctrl-C is its parent's to handle, of several GPUs it takes one for itself, and when
    its parent is gone so is it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if gpus > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(take_one(gpus, "gpu"))
    import torch
    from loky import process_executor

    from normlab.train.memory import keep_freed

    keep_freed()
    torch.set_num_threads(threads)
    # Loky takes the memory that the allocator keeps, as it is told to, for a leak, and would restart the worker.
    process_executor._MAX_MEMORY_LEAK_SIZE = MOST_MEMORY


def _end_with(parent: int) -> None:
    """A parent that is killed tells nobody, and its workers would wait for it for ever."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def take_one(count: int, what: str) -> int:
    """The first of `count` things that no other living process has; it is given back when this process ends."""
    from filelock import FileLock, Timeout

    for number in range(count):
        lock = FileLock(Path(tempfile.gettempdir()) / f"normlab-{what}-{number}.lock")
        with contextlib.suppress(Timeout):
            lock.acquire(blocking=False)
            _HELD.append(lock)
            return number
    raise NormlabError(f"one of {count} {what}s to be free", "none", f"use fewer workers than there are {what}s")


def work(payload: str) -> str:
    """Train what the recipe says; {"record": ...}, or {"failed": why} for whatever was raised."""
    from normlab.train import train

    _settle()
    try:
        with _ALONE:
            record = train(Recipe.model_validate_json(payload), dataset_of=_kept_dataset)
    except Exception as error:  # a trial that raises costs that trial alone
        why = str(error) if isinstance(error, NormlabError) else one_line(error)
        return json.dumps({"failed": why})
    return json.dumps({"record": record.model_dump(mode="json")})


@functools.cache
def _settle() -> None:
    """Spare the garbage collector, once, what importing has made: looking through it was 7 % of a small training."""
    gc.collect()
    gc.freeze()


def outcome(text: str) -> Record | str:
    """What `work` returned: the record, or why there is none."""
    told = json.loads(text)
    return Record.model_validate(told["record"]) if "record" in told else str(told["failed"])


def _kept_dataset(recipe: Recipe, say: Callable[[str], None]) -> "Dataset":
    return _dataset(recipe.data, recipe.validation, recipe.train_examples)


@functools.lru_cache(maxsize=4)
def _dataset(data: str, validation: int, train_examples: int | None) -> "Dataset":
    """Read and divided once a process: every trial reads the same bytes of the same mapped file."""
    from normlab.train.prepare import dataset_of

    recipe = Recipe(data=data, validation=validation, train_examples=train_examples)
    return dataset_of(recipe, lambda _: None)
