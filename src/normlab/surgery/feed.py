"""What a user's loader yields, and how it gets into a model."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from normlab.errors import NormlabError

Batches = Callable[[], Iterable[Any]] | Iterable[Any]
"""A loader, a list, or a function that begins anew at each call."""
Forward = Callable[[nn.Module, Any], object]
"""Passes a batch through a model."""


def feed(model: nn.Module, batch: Any) -> object:
    """`model(x)` for x, for (x, y) and longer, and `model(**batch)` for a mapping, on the model's device."""
    given = _moved(input_of(batch), device_of(model))
    return model(**given) if isinstance(given, Mapping) else model(given)


def input_of(batch: Any) -> Any:
    """What of a batch a model takes: all of it, or the x of (x, y) and longer."""
    return batch[0] if isinstance(batch, tuple | list) else batch


def from_the_start(batches: Batches) -> Callable[[], Iterable[Any]]:
    """The function among the two; NormlabError for an iterator, which can be gone through but once."""
    if callable(batches):
        return batches
    if isinstance(batches, Iterator):
        raise NormlabError(
            "batches that can be gone through several times",
            f"a {type(batches).__name__}",
            "give the loader itself, a list, or a function that begins anew",
        )
    return lambda: batches


def device_of(model: nn.Module) -> torch.device | None:
    """That of its first tensor; None where it has none."""
    return next((value.device for values in (model.parameters(), model.buffers()) for value in values), None)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, where it is wrapped for several devices, whose copies would each see a part of a batch."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return model.module if isinstance(model, wrappers) else model


def _moved(value: Any, device: torch.device | None) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: _moved(each, device) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [_moved(each, device) for each in value]
    return value
