"""The sides of the comparison that run on torch. Each step loads its data, trains, and moves the weights."""

import time
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from normlab.bench.networks import NETWORKS, build, build_plain
from normlab.data import Examples
from normlab.errors import one_line
from normlab.kernels import Lanes, pack
from normlab.surgery import lanes_step, to_lanes


class Absent(Exception):  # noqa: N818 - a peer that is not there is no error
    """Why a peer cannot be measured here."""


class Arm(Protocol):
    """A training in flight."""

    def step(self, index: Tensor) -> None:
        """One step on the examples at these indices."""

    def loss(self) -> float:
        """The loss of the last step, once that is done."""


def batches(examples: int, size: int) -> Iterator[Tensor]:
    """Indices of full batches, epoch after epoch, each in an order of its own: the same in every process."""
    generator = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(examples, generator=generator)
        yield from order[: examples // size * size].split(size)


class Eager:
    """Torch as it is commonly written."""

    def __init__(self, name: str, split: Examples) -> None:
        self.split, self.model = split, self.build(name)
        self.scale = 1 / 255 if split.x.dtype == torch.uint8 else 1.0
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=NETWORKS[name].lr, fused=True)
        self.initial = {key: value.clone() for key, value in self.model.state_dict().items()}

    def build(self, name: str) -> nn.Module:
        return build_plain(name)

    def images(self, split: Examples, index: Tensor) -> Tensor | Lanes:
        x = split.x.index_select(0, index)
        return x.to(torch.float32).div_(255) if x.dtype == torch.uint8 else x

    def step(self, index: Tensor) -> None:
        logits = self.model(self.images(self.split, index))
        loss = cross_entropy(logits, self.split.y.index_select(0, index))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.last = loss.detach()

    def loss(self) -> float:
        return self.last.item()

    def reset(self) -> None:
        """Back to the initial weights."""
        self.model.load_state_dict(self.initial)

    @torch.no_grad()
    def accuracy(self, split: Examples) -> float:
        """Under running statistics."""
        self.model.eval()
        right = sum(
            int((self.model(self.images(split, index)).argmax(1) == split.y[index]).sum())
            for index in torch.arange(len(split)).split(1000)
        )
        self.model.train()
        return right / len(split)

    def seconds_to(self, accuracy: float, test: Examples, size: int, epochs: int = 10) -> float | None:
        """Seconds of training, evaluation not counted, from the initial weights to this accuracy on `test`, looked
        at four times an epoch; None if the epochs do not suffice.
        """
        self.reset()
        order, seconds = batches(len(self.split), size), 0.0
        for _ in range(4 * epochs):
            start = time.perf_counter()
            for _ in range(max(len(self.split) // size // 4, 1)):
                self.step(next(order))
            seconds += time.perf_counter() - start
            if self.accuracy(test) >= accuracy:
                return seconds
        return None


class Ours(Eager):
    """The network in lanes, as `normlab train` does it: a batch is shuffled, converted and packed in one pass, and
    gradients need no autograd.
    """

    def build(self, name: str) -> nn.Module:
        model = build(name)
        to_lanes(model)
        self.gradients = lanes_step(model)
        return model

    def images(self, split: Examples, index: Tensor) -> Lanes:
        return pack(split.x, index, self.scale)

    def step(self, index: Tensor) -> None:
        y = self.split.y.index_select(0, index)
        found = None if self.gradients is None else self.gradients(self.images(self.split, index), y)
        if found is None:
            super().step(index)
        else:
            self.optimizer.step()
            self.last = torch.tensor(found.loss)


class Compiled(Eager):
    """torch.compile of the eager network."""

    def __init__(self, name: str, split: Examples) -> None:
        super().__init__(name, split)
        self.compiled = False

    def build(self, name: str) -> nn.Module:
        model = build_plain(name)
        model.compile()
        return model

    def step(self, index: Tensor) -> None:
        if self.compiled:
            super().step(index)
            return
        try:
            super().step(index)
        except Exception as error:  # no compiler, or one that it does not get on with
            raise Absent(f"torch.compile fails here: {one_line(error)}") from error
        self.compiled = True


def make(peer: str, name: str, split: Examples) -> Arm:
    """The arm of this name. Raises Absent where a peer is not installed."""
    if peer != "jax":
        return {"ours": Ours, "eager": Eager, "compile": Compiled}[peer](name, split)
    try:
        from normlab.bench.peers_jax import Jax
    except ImportError as error:
        raise Absent(f"{one_line(error)}; pip install 'normlab[bench]'") from error
    return Jax(build_plain(name), split, NETWORKS[name].lr)
