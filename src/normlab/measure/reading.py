"""What the probes of this room share: when they read, what they hook into, and the copies that they ask."""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from normlab.errors import NormlabError

Kept = TypeVar("Kept")


@dataclasses.dataclass(frozen=True)
class Reading:
    """A probe's first field. Raises NormlabError where it is no whole number of steps."""

    every: int
    """Optimizer steps between two readings; 0 reads before the first alone, more than a run has at its end too."""

    def __post_init__(self) -> None:
        check_every(self.every)


def check_every(every: object) -> None:
    """Raises NormlabError unless it is a whole number of steps, or 0."""
    if not isinstance(every, int) or isinstance(every, bool) or every < 0:
        raise NormlabError("every as a number of steps, 0 for the start alone", repr(every))


def at_least(least: int, value: object, name: str) -> None:
    """Raises NormlabError unless the value is a whole number of at least this size."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise NormlabError(f"{name} as a whole number of at least {least}", repr(value))


def check_percentiles(at: Sequence[float]) -> None:
    """Raises NormlabError unless they are percentiles, one at least."""
    if not at or not all(isinstance(q, int | float) and 0 <= q <= 100 for q in at):
        raise NormlabError("percentiles from 0 to 100", at)


@contextlib.contextmanager
def inputs_of(modules: Mapping[str, nn.Module], keep: Callable[[Tensor], Kept]) -> Iterator[dict[str, list[Kept]]]:
    """What `keep` makes of every first input of these modules, by path in order of first use, one for each use.

    `keep` is called before the module is: what an in-place layer does to its input comes later.
    """
    kept: dict[str, list[Kept]] = {}

    def hook(path: str) -> Callable[..., None]:
        def look(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            value = arguments[0] if arguments else keywords["input"]
            kept.setdefault(path, []).append(keep(value.detach()))

        return look

    with _removed(module.register_forward_pre_hook(hook(path), with_kwargs=True) for path, module in modules.items()):
        yield kept


@contextlib.contextmanager
def outputs_of(modules: Mapping[str, nn.Module], keep: Callable[[Any], Kept]) -> Iterator[dict[str, list[Kept]]]:
    """Likewise of every output, whatever it is, before a later layer works on it in place."""
    kept: dict[str, list[Kept]] = {}

    def hook(path: str) -> Callable[..., None]:
        return lambda _module, _input, output: kept.setdefault(path, []).append(keep(output))

    with _removed(module.register_forward_hook(hook(path)) for path, module in modules.items()):
        yield kept


@contextlib.contextmanager
def _removed(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Hooks, for a while."""
    held = list(handles)
    try:
        yield
    finally:
        for handle in held:
            handle.remove()


def copy_of(model: nn.Module) -> nn.Module:
    """The model with tensors of its own, without gradients.

    A tensor with autograd history, which deepcopy refuses, is copied without it.
    """
    held = (
        value
        for module in model.modules()
        for value in (*vars(module).values(), *module._buffers.values())
        if isinstance(value, Tensor) and not value.is_leaf
    )
    twin = copy.deepcopy(model, {id(value): value.detach().clone() for value in held})
    twin.zero_grad(set_to_none=True)
    return twin


def in_float64(model: nn.Module, x: Tensor, y: Tensor) -> tuple[nn.Module, Tensor, Tensor]:
    """A model, which is moved, and a batch, where there is float64: on the CPU instead of MPS."""
    device = torch.device("cpu") if x.device.type == "mps" else x.device
    return model.to(device, torch.float64), x.to(device, torch.float64), y.to(device)
