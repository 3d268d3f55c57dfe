"""statistics_graph: whether the running statistics keep the steps that made them alive.

A running mean computed from X inside the graph carries autograd history, and through it every step's: which is why
`batch_norm` of *Dive into Deep Learning* returns `moving_mean.data`. What it keeps are the nodes, not what they
saved: a backward pass frees that. Their few kB, scattered, still keep glibc from reusing what lies between them.
"""

import dataclasses
import gc
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from normlab.measure.probe import Look
from normlab.measure.reading import Reading, at_least, copy_of


@dataclasses.dataclass(frozen=True)
class statistics_graph(Reading):
    """Of a copy's `steps` forward and backward passes, after the first and after the last:

    - `nodes after 1`, `nodes after {steps}`: autograd nodes that the model's own tensors, buffers or plain
      attributes, lead to. 0 where the statistics are detached.
    - `bytes after 1`, `bytes after {steps}`: of the tensors that these and other nodes still save.
    """

    steps: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.steps, "steps")

    def __call__(self, look: Look) -> dict[str, float]:
        model = copy_of(look.model)
        alive: weakref.WeakSet[_Saved] = weakref.WeakSet()

        def pack(tensor: Tensor) -> _Saved:
            saved = _Saved(tensor)
            alive.add(saved)
            return saved

        found: dict[str, float] = {}
        for step in range(1, self.steps + 1):
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
                look.loss(model(look.x), look.y).backward()
            model.zero_grad(set_to_none=True)
            if step in (1, self.steps):
                gc.collect()
                found[f"nodes after {step}"] = float(len(nodes(model)))
                found[f"bytes after {step}"] = float(_bytes(alive))
        return found


def nodes(model: nn.Module) -> set[Any]:
    """The autograd nodes that parameters, buffers and plain attributes of its modules lead to."""
    tensors = (
        value
        for module in model.modules()
        for value in (*vars(module).values(), *module._buffers.values(), *module._parameters.values())
        if isinstance(value, Tensor)
    )
    found: set[Any] = set()
    ahead = [tensor.grad_fn for tensor in tensors]
    while ahead:  # as deep as the steps are many: no recursion
        node = ahead.pop()
        if node is not None and node not in found:
            found.add(node)
            ahead += [following for following, _ in node.next_functions]
    return found


class _Saved:
    """A tensor that a node has saved, for as long as the node keeps it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()  # with its history a node that saves its own output would keep itself alive


def _bytes(alive: "weakref.WeakSet[_Saved]") -> int:
    """Of the memory behind the tensors, each piece once."""
    storages = {saved.tensor.untyped_storage().data_ptr(): saved.tensor.untyped_storage().nbytes() for saved in alive}
    return sum(storages.values())
