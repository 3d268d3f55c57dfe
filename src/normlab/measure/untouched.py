"""untouched: a model that is asked, and is afterwards bit for bit as before."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Whatever is run inside, the model's tensors, gradients, modes, hooks and plain attributes, and the random
    number generators of Python, numpy and torch are as before at the end. Gradients begin as None.

    Costs a copy of every tensor that the model holds.
    """
    state = random.getstate()
    drawn = np.random.get_state()
    kept = {module: _attributes(module) for module in model.modules()}
    tensors = {id(value): value for held in kept.values() for value in _tensors(held)}
    copies = {key: value.detach().clone() for key, value in tensors.items()}
    leaves = [value for value in tensors.values() if value.is_leaf]
    gradients = [value.grad for value in leaves]
    needed = [value.requires_grad for value in leaves]
    devices = sorted({value.device.index for value in tensors.values() if value.is_cuda})
    try:
        for leaf in leaves:
            leaf.grad = None
        with torch.random.fork_rng(devices):
            yield
    finally:
        for module, held in kept.items():
            _put_back(module, held)
        with torch.no_grad():
            for key, value in tensors.items():
                if not value.is_meta and not torch.equal(value, copies[key]):  # or NaN, which equals nothing
                    value.detach().copy_(copies[key])
        for leaf, gradient, need in zip(leaves, gradients, needed, strict=True):
            leaf.requires_grad_(need)
            leaf.grad = gradient
        random.setstate(state)
        np.random.set_state(drawn)


def _attributes(module: nn.Module) -> dict[str, Any]:
    """What a module holds by name; of its tables (parameters, buffers, hooks, and the user's own) a copy."""
    return {name: type(value)(value) if type(value) in _TABLES else value for name, value in vars(module).items()}


_TABLES = {type(value) for value in vars(nn.Module()).values()} - {bool, type(None)} | {list}
"""dict, OrderedDict, set, list: changed in place by whoever registers something."""


def _put_back(module: nn.Module, held: dict[str, Any]) -> None:
    """The same objects under the same names; a table is the same object with what it held."""
    now = vars(module)
    for name in now.keys() - held.keys():
        del now[name]
    for name, before in held.items():
        table = now.get(name)
        if type(before) in _TABLES and type(table) is type(before):
            _refill(table, before)
        else:
            now[name] = before


def _refill(table: Any, before: Any) -> None:
    table.clear()
    (table.extend if isinstance(table, list) else table.update)(before)


def _tensors(held: dict[str, Any]) -> Iterator[Tensor]:
    for value in held.values():
        if isinstance(value, Tensor) and not torch.nn.parameter.is_lazy(value):
            yield value
        elif type(value) in _TABLES:
            inside = value.values() if isinstance(value, dict) else value
            yield from (each for each in inside if isinstance(each, Tensor) and not torch.nn.parameter.is_lazy(each))
