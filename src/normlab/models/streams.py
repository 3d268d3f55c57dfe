"""Random streams keyed by (seed, module path): two networks share every draw that they can.

One global stream would let a layer more or less (a bias, a norm, a dropout) shift every later draw, and the
difference of two runs would measure the draws. Here each module draws from a stream of its own.
"""

import contextlib
import hashlib
from collections.abc import Iterator

import torch
from torch import nn


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
    value = key(seed, *path)
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(value)
    elif device.type == "mps":
        torch.mps.manual_seed(value)


@contextlib.contextmanager
def borrowed(device: torch.device | None = None) -> Iterator[None]:
    """Give torch's global generators back as they were."""
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


class DropoutStreams:
    """Every dropout layer of a model, torch's own classes, draws from the stream (seed, path, step, use)."""

    def __init__(self, model: nn.Module, seed: int, device: torch.device) -> None:
        self._model = model
        self._seed = seed
        self._device = device
        self._step: tuple[int, ...] = ()
        self._uses: dict[str, int] = {}

    def __enter__(self) -> "DropoutStreams":
        self._hooks = [
            module.register_forward_pre_hook(lambda module, _, path=path: self._point(module, path))
            for path, module in self._model.named_modules()
            if isinstance(module, nn.modules.dropout._DropoutNd)
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

    def _point(self, module: nn.Module, path: str) -> None:
        if module.training:
            use = self._uses[path] = self._uses.get(path, -1) + 1
            seed_everything_else(self._device, self._seed, "dropout", path, *self._step, use)
