"""What somebody else's code does to a model and to the random generators, seen and taken back."""

import contextlib
import copy
import dataclasses
import operator
import random
from collections.abc import Iterator
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


@dataclasses.dataclass
class Traces:
    """What was taken back; known once the block of `untouched` is over."""

    wrote: bool = False
    """Into the model: its attributes, what the containers among them hold, or its tensors."""
    drew: bool = False
    """Random numbers, or another thread did meanwhile."""


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[Traces]:
    """Give a model back bit for bit as it was, tensors, gradients, modes, hooks and plain attributes, with the random
    generators of Python, NumPy and torch. Gradients are None meanwhile. Costs a copy of every tensor that it holds.
    """
    modes = [(module, module.training) for module in model.modules()]
    kept = [_Kept(vars(module)) for module in model.modules()]
    kept += [_Kept(value) for each in kept for value in each.values() if isinstance(value, list | dict | set)]
    tensors = {id(value): value for each in kept for value in each.values() if _has_values(value)}
    copies = [(value, value.detach().clone()) for value in tensors.values()]
    leaves = [(value, value.grad, value.requires_grad) for value in tensors.values() if value.is_leaf]
    devices = sorted({value.device.index for value in tensors.values() if value.is_cuda})
    draws, generators = _draws(), (random.getstate(), np.random.get_state())
    traces = Traces()
    try:
        for leaf, _, _ in leaves:
            leaf.grad = None
        with torch.random.fork_rng(devices):
            try:
                yield traces
            finally:
                traces.drew = draws != _draws()
    finally:
        for module, training in modes:
            module.training = training
        traces.wrote = [each for each in kept if each.restore()] != []
        for value, before in copies:
            if not _same(value, before):
                traces.wrote = True
                with torch.no_grad():
                    value.detach().copy_(before)
        for leaf, gradient, needed in leaves:
            leaf.requires_grad_(needed)
            leaf.grad = gradient
        random.setstate(generators[0])
        np.random.set_state(generators[1])


def _has_values(value: object) -> TypeGuard[Tensor]:
    """Not a lazy one, nor one on the meta device."""
    return isinstance(value, Tensor) and not is_lazy(value) and not value.is_meta and value.layout == torch.strided


def _same(value: Tensor, before: Tensor) -> bool:
    """Equal, NaN to NaN."""
    return torch.equal(value, before) or bool(((value == before) | (value.isnan() & before.isnan())).all())


def _draws() -> list[object]:
    """Where the random generators stand, for a comparison."""
    numpys: dict[str, Any] = np.random.get_state(legacy=False)
    inner = numpys.pop("state")
    return [torch.get_rng_state().numpy().tobytes(), random.getstate(), numpys, inner["key"].tobytes(), inner["pos"]]


class _Kept:
    """What a container held, by identity."""

    def __init__(self, container: Any) -> None:
        self.container = container
        self.before = copy.copy(container)

    def values(self) -> list[Any]:
        return list(self.before.values() if isinstance(self.before, dict) else self.before)

    def restore(self) -> bool:
        """Whether it had changed."""
        now = self.container
        if isinstance(now, dict):
            same = list(now) == list(self.before) and all(map(operator.is_, now.values(), self.before.values()))
        else:
            same = len(now) == len(self.before) and all(map(operator.is_, now, self.before))
        if not same:
            now.clear()
            (now.extend if isinstance(now, list) else now.update)(self.before)
        return not same
