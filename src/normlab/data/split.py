"""Splits: labelled examples in mini-batches, from tensors or from a user's DataLoader."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from normlab.errors import NormlabError
from normlab.kernels import Lanes, pack

_SAMPLE_SEED = 1502  # arbitrary and constant: trials of every seed get the same examples


def _features(x: Tensor, *, own: bool) -> Tensor:
    """What a network reads: bytes in [0, 1], as in the book; floats as they are, copied unless `own`."""
    if x.dtype == torch.uint8:
        return x.to(torch.float32).div_(255)
    return x if own else x.clone()


def _slices(count: int, size: int, start: int) -> Iterator[slice]:
    return (slice(first, first + size) for first in range(start * size, count, size))


def check(x: object, y: object, what: str = "examples") -> None:
    """Raises NormlabError unless `x` (N, *shape) and `y` (N,) are features and their class labels."""
    if not isinstance(x, Tensor) or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise NormlabError(f"{what} with x as a tensor of uint8 or of floats", _kind(x), "convert x to float32")
    if x.dim() < 2:
        got = f"shape {tuple(x.shape)}"
        raise NormlabError(f"{what} with x of shape (N, ...)", got, "put the examples along the first axis")
    if not isinstance(y, Tensor) or y.dtype != torch.int64:
        raise NormlabError(f"{what} with class labels y as a tensor of int64", _kind(y), "convert y to int64")
    if y.shape != x.shape[:1]:
        got = f"shapes {tuple(x.shape)} and {tuple(y.shape)}"
        do = "give one class label per example"
        raise NormlabError(f"{what} with x of shape (N, ...) and y of shape (N,)", got, do)
    if not len(y):
        raise NormlabError(f"{what}, one at least", "none")
    if (lowest := int(y.min())) < 0:
        do = "drop these examples or number from 0"
        raise NormlabError(f"{what} with class labels from 0 to K-1", f"a label {lowest}", do)


def check_finite(x: Tensor, what: str) -> None:
    """Raises NormlabError where features are NaN or infinite, which no loss survives."""
    # By the extremes, which NaN passes into: they need no memory. An empty batch has none.
    if x.is_floating_point() and x.numel() and not torch.stack(x.aminmax()).isfinite().all():
        bad = (~x.flatten(1).isfinite()).any(dim=1).nonzero().flatten()
        got = f"NaN or infinity in {len(bad)} of {len(x)} examples, number {int(bad[0])} the first"
        raise NormlabError(f"{what} with finite x", got, "drop these examples or fill them in")


def _kind(value: object) -> str:
    return f"a tensor of {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled examples that lie in memory, or in a file that is mapped into it.

    `x` (N, *shape) is uint8 or floating, `y` (N,) int64 class labels from 0. Raises NormlabError on
    anything else, and on no example at all.
    """

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        check(self.x, self.y)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.x.shape[1:])

    @property
    def classes(self) -> int:
        """The highest label + 1."""
        return int(self.y.max()) + 1

    def subset(self, chosen: Tensor | slice) -> "Examples":
        """The examples at these int64 indices, copied, or in this slice, not copied."""
        return Examples(self.x[chosen], self.y[chosen])

    def sample(self, count: int) -> "Examples":
        """A random part of `count` examples, the same on every call, in their order; all if there are no more."""
        if count >= len(self):
            return self
        drawn = torch.randperm(len(self), generator=torch.Generator().manual_seed(_SAMPLE_SEED))
        return self.subset(drawn[:count].sort().values)

    def batches(
        self, batch_size: int, order: Tensor | None = None, *, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Mini-batches (x, y) from number `start`, at no cost for those before it; the last may be smaller.

        `order` holds the int64 indices of the examples of an epoch, all of them as they lie if None.
        uint8 becomes float32 in [0, 1], floats keep their dtype. `x` is the caller's to write into; `y` may
        be a view.
        """
        count = len(self) if order is None else len(order)
        for chosen in _slices(count, batch_size, start):
            if order is None:
                yield _features(self.x[chosen], own=False), self.y[chosen]
            else:
                rows = order[chosen]
                yield _features(self.x.index_select(0, rows), own=True), self.y.index_select(0, rows)

    def in_lanes(
        self, batch_size: int, order: Tensor | None = None, *, start: int = 0
    ) -> Iterator[tuple[Lanes, Tensor]]:
        """The mini-batches of `batches`, gathered, converted and packed in one pass; for uint8 and float32."""
        scale = 1 / 255 if self.x.dtype == torch.uint8 else 1.0
        count = len(self) if order is None else len(order)
        for chosen in _slices(count, batch_size, start):
            if order is None:
                yield pack(self.x[chosen], None, scale), self.y[chosen]
            else:
                rows = order[chosen]
                yield pack(self.x, rows, scale), self.y.index_select(0, rows)


class Loaded:
    """Labelled examples that a torch DataLoader draws; batch size, order and shuffling are the loader's own.

    Reads the loader once when made, to check every batch and to find `shape` (of one example), `classes`
    (the highest label + 1) and `smallest` (examples of the smallest batch), and leaves torch's random state
    and the loader's generators as they were. Raises NormlabError where a batch is not (x, y) as `Examples`
    takes them, the shape of an example varies, or nothing comes.
    """

    def __init__(self, loader: DataLoader, what: str = "a DataLoader") -> None:
        self.loader = loader
        self.what = what
        before = [(generator, generator.get_state()) for generator in self._generators()]
        shapes, sizes, highest = set(), set(), -1
        try:
            with torch.random.fork_rng(devices=[]):
                for x, y in self._checked(iter(self.loader)):
                    check_finite(x, f"a batch of {self.what}")
                    shapes.add(tuple(x.shape[1:]))
                    sizes.add(len(x))
                    highest = max(highest, int(y.max()))
        finally:
            for generator, state in before:
                generator.set_state(state)
        if len(shapes) != 1:
            got = ", ".join(map(str, sorted(shapes)))
            raise NormlabError(f"{self.what} with examples of one shape", got, "pad or crop the examples")
        self.shape: tuple[int, ...] = shapes.pop()
        self.smallest = min(sizes)
        self.classes = highest + 1

    def __len__(self) -> int:
        """The number of examples; TypeError, as from torch, where the loader's data set has no length."""
        return len(self.loader.dataset)  # type: ignore[arg-type]

    @property
    def batch_count(self) -> int | None:
        """Mini-batches of one pass; None where the loader does not know."""
        try:
            return len(self.loader)
        except TypeError:
            return None

    def batches(self, *, start: int = 0, seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The loader's mini-batches from number `start`, drawing and dropping those before it; `x` as in `Examples`.

        With a seed the order is a function of it: the generators of the loader and its sampler, else torch's,
        are set here, before the first batch is drawn. Raises NormlabError on a loader that gives nothing.
        """
        if seed is not None:
            for generator in self._generators() or [torch.default_generator]:
                generator.manual_seed(seed)
        drawn = self._checked(iter(self.loader))
        for _ in range(start):
            next(drawn, None)
        return ((_features(x, own=False), y) for x, y in drawn)

    def _generators(self) -> list[torch.Generator]:
        """The loader's own, and its sampler's, which a user may have made with one."""
        owners = (self.loader, self.loader.sampler)
        found = (getattr(owner, "generator", None) for owner in owners)
        return [generator for generator in found if isinstance(generator, torch.Generator)]

    def _checked(self, batches: Iterator[object]) -> Iterator[tuple[Tensor, Tensor]]:
        empty = True
        for batch in batches:
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise NormlabError(
                    f"{self.what} with batches (x, y)", f"a {type(batch).__name__}", "collate to (x, y)"
                )
            x, y = batch
            check(x, y, self.what)
            empty = False
            yield x, y
        if empty:
            raise NormlabError(
                f"{self.what} with at least one batch each time",
                "none",
                "hand over one that can be read again",
            )
