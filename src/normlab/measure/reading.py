"""What the probes of this room share: when they read, what they hook into, and the copies that they ask."""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from normlab.errors import NormlabError
from normlab.measure.probe import Look

Kept = TypeVar("Kept")


@dataclasses.dataclass(frozen=True)
class Reading:
    """A probe's first field. Raises NormlabError where it is no whole number of steps."""

    every: int
    """Optimizer steps between two readings; 0 reads before the first alone."""

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


@contextlib.contextmanager
def inputs_of(modules: Mapping[str, nn.Module], keep: Callable[[Tensor], Kept]) -> Iterator[dict[str, list[Kept]]]:
    """What `keep` makes of every first input of these modules, by path, one for each use.

    `keep` is called before the module is: what an in-place layer does to its input comes later.
    """
    kept: dict[str, list[Kept]] = {path: [] for path in modules}

    def hook(path: str) -> Callable[..., None]:
        def look(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            kept[path].append(keep((arguments[0] if arguments else keywords["input"]).detach()))

        return look

    handles = [module.register_forward_pre_hook(hook(path), with_kwargs=True) for path, module in modules.items()]
    try:
        yield kept
    finally:
        for handle in handles:
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


def in_float64(look: Look, examples: int | None = None) -> tuple[nn.Module, Tensor, Tensor]:
    """A copy of the model, and the first `examples` of the batch: x (N, ...) and y (N,), in float64."""
    device = torch.device("cpu") if look.x.device.type == "mps" else look.x.device  # which has no float64
    x = look.x[:examples].to(device, torch.float64)
    return copy_of(look.model).to(device, torch.float64), x, look.y[:examples].to(device)


def without_dropout(model: nn.Module) -> None:
    """Switch a copy's dropout off."""
    for layer in model.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.eval()
