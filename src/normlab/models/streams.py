"""Random streams keyed by (seed, module path): two networks share every draw that they can.

One global stream would let a layer more or less (a bias, a norm, a dropout) shift every later draw, and the
difference of two runs would measure the draws. Here each module draws from a stream of its own.
"""

import contextlib
import hashlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from normlab.surgery.generators import borrowed, global_generators
from normlab.surgery.hooks import reads_no_input


def key(seed: int, *path: object) -> int:
    """The seed of the stream (seed, *path): a hash, in [0, 2^63)."""
    name = "/".join(map(str, (seed, *path)))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *path: object) -> torch.Generator:
    """A CPU generator of the stream (seed, *path)."""
    return torch.Generator().manual_seed(key(seed, *path))


def seed_everything_else(device: torch.device, seed: int, *path: object) -> None:
    """Point torch's global generators, CPU and device, to the stream (seed, *path).

    Not torch.manual_seed: that queues a call with a stack trace for CUDA every time.
    """
    for each in global_generators(device):
        each.manual_seed(key(seed, *path))


class DropoutStreams:
    """Every dropout layer of a model, torch's own classes, draws from the stream (seed, path, step, use).

    Of several processes the first draws as one alone would, each other from streams of its own.
    """

    def __init__(self, model: nn.Module, seed: int, device: torch.device, process: int = 0) -> None:
        self._model = model
        self._seed = seed
        self._device = device
        self._process = ("process", process) if process else ()
        self._step: tuple[int, ...] = ()
        self._uses: dict[str, int] = {}

    def __enter__(self) -> "DropoutStreams":
        self._hooks = [
            hook
            for path, module in self._model.named_modules()
            if isinstance(module, nn.modules.dropout._DropoutNd)
            for hook in self._watch(module, path)
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def at(self, *step: int) -> None:
        """Set the step, as (epoch, step in it); all else that is random draws from the stream (seed, step)."""
        self._step = step
        self._uses.clear()
        seed_everything_else(self._device, self._seed, "step", *step)

    def part_ways(self) -> None:
        """Until the next step each process draws for itself: all drew the same batch, and go on with parts of it."""
        if self._process:
            seed_everything_else(self._device, self._seed, "step", *self._step, *self._process)

    def _watch(self, module: nn.Module, path: str) -> Iterator[RemovableHandle]:
        """Hooks that lend the layer its stream for a forward pass, so that whatever follows draws as without it."""
        loan = contextlib.ExitStack()

        @reads_no_input
        def point(module: nn.Module, _: object) -> None:
            if module.training:
                loan.enter_context(borrowed(self._device))
                # In a backward pass activation checkpointing repeats the last use, and needs its mask again.
                repeated = torch._C._current_graph_task_id() != -1
                use = self._uses[path] = self._uses.get(path, -1) + (not repeated)
                seed_everything_else(self._device, self._seed, "dropout", path, *self._step, use, *self._process)

        yield module.register_forward_pre_hook(point)
        yield module.register_forward_hook(reads_no_input(lambda *_: loan.close()), always_call=True)
