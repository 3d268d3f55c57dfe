"""What somebody else's code does to a model and to the random generators, seen and taken back."""

import contextlib
import copy
import dataclasses
import operator
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn


@dataclasses.dataclass
class Traces:
    """What was taken back; known once the block of `untouched` is over."""

    wrote: bool = False
    """Into the model: its attributes, what the containers among them hold, or its buffers."""
    drew: bool = False
    """Random numbers, or another thread did meanwhile."""


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[Traces]:
    """Give a model back as it was, modes included, with the random generators of Python, NumPy and torch."""
    modes = [(module, module.training) for module in model.modules()]
    kept = [_Kept(vars(module)) for module in model.modules()]
    kept += [_Kept(value) for each in kept for value in each.values() if isinstance(value, list | dict | set)]
    written = [(value, value._version, value.detach().clone()) for value in model.buffers()]
    draws, generators = _draws(), (torch.get_rng_state(), random.getstate(), np.random.get_state())
    traces = Traces()
    try:
        yield traces
    finally:
        for module, training in modes:
            module.training = training
        traces.wrote = [each for each in kept if each.restore()] != []
        for value, version, before in written:
            if value._version != version:
                traces.wrote = True
                with torch.no_grad():
                    value.copy_(before)
        traces.drew = draws != _draws()
        torch.set_rng_state(generators[0])
        random.setstate(generators[1])
        np.random.set_state(generators[2])


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
