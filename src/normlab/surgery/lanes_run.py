"""Stages behind each other as one call: what is done between stages costs a small network as much as they do."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from normlab.kernels import Chain, Lanes, Link, Settings, Tensors, native
from normlab.kernels.program import INPUT
from normlab.surgery import lanes_norm
from normlab.surgery.find import BatchNorm
from normlab.surgery.lanes_stage import Ready, Shape, Stage, Value


class Piece(NamedTuple):
    """A stage of a run, or a concatenation along the channels."""

    stage: Stage | None
    sources: tuple[int, ...]
    """The pieces before it whose results it takes; INPUT is the run's input."""
    flatten: bool = False
    """Whether its input (N, C, H, W) becomes (N, C * H * W)."""
    inner: int | None = None
    """The piece before it whose result is its residual."""
    outer: int | None = None
    """The number, among the run's other inputs, of a residual from outside."""


class Kept(NamedTuple):
    """What a norm keeps of its batches."""

    mean: Tensor
    var: Tensor
    tracked: Tensor | None
    nonfinite: Tensor | None


class Prepared(NamedTuple):
    """A piece for one input: all that it is called with, but for dropout's mask."""

    link: Link
    tensors: Tensors
    ready: Ready | None
    """None for a concatenation."""
    shape: Shape
    """Of its result."""


class ReadyRun(NamedTuple):
    """A run with the tensors that its modules have."""

    chain: Chain
    drawing: dict[int, Callable[[], Lanes]]
    """The dropouts at work, by the number of their stage."""
    norms: dict[int, tuple[BatchNorm, int]]
    """Those that take the batch's statistics, by the number of their stage, each with its positions in a channel."""

    def masks(self) -> dict[int, Tensor]:
        """What the dropouts draw; asked once nothing can fail any more."""
        return {number: draw().data for number, draw in self.drawing.items()}


class Run:
    """Stages of which each takes what others before it give, and nobody but the run takes anything but the last."""

    def __init__(self, pieces: list[Piece]) -> None:
        self._pieces = pieces
        self._links: dict[object, Link] = {}

    def __call__(self, x: Value, *others: Value) -> Value | None:
        """The last result; None, and nothing is done, where the stages must run one by one."""
        lanes = self._lanes(x)
        ready = None if lanes is None else self.ready(lanes.shape, lanes.data, [each.lanes for each in others])
        return None if lanes is None or ready is None else Value(ready.chain(lanes, ready.masks()))

    def _lanes(self, x: Value) -> Lanes | None:
        first = self._pieces[0].stage
        starts = x.in_lanes or (first is not None and first.head is not None)
        return x.lanes if type(x.data) is Tensor and native(x.data) and starts else None

    def ready(self, shape: Shape, like: Tensor, residuals: Sequence[Lanes | None] = ()) -> "ReadyRun | None":
        """For inputs of a shape (N, *F) and of `like`'s dtype, as the modules are now; None where the stages must
        run one by one.
        """
        prepared = self._prepare(shape, like, residuals)
        if prepared is None:
            return None
        chain = Chain([each.link for each in prepared], [each.tensors for each in prepared])
        drawing: dict[int, Callable[[], Lanes]] = {
            number: functools.partial(piece.stage.mask, each.ready, like)
            for number, (piece, each) in enumerate(zip(self._pieces, prepared, strict=True))
            if piece.stage is not None and each.ready is not None and piece.stage.drops
        }
        norms = {
            number: (ready.norm, ready.positions)
            for number, (_, _, ready, _) in enumerate(prepared)
            if ready is not None and ready.norm is not None
        }
        return ReadyRun(chain, drawing, norms)

    def _prepare(self, shape: Shape, like: Tensor, residuals: Sequence[Lanes | None]) -> list[Prepared] | None:
        if None in residuals:
            return None
        found: list[Prepared] = []
        for number, piece in enumerate(self._pieces):
            shapes = [shape if source == INPUT else found[source].shape for source in piece.sources]
            outer = None if piece.outer is None else residuals[piece.outer]
            inner = None if piece.inner is None else found[piece.inner].shape
            prepared = self._prepared_piece(number, piece, shapes, like, outer, inner)
            if prepared is None:
                return None
            found.append(prepared)
        return found

    def _prepared_piece(
        self, number: int, piece: Piece, shapes: list[Shape], like: Tensor, outer: Lanes | None, inner: Shape | None
    ) -> Prepared | None:
        shape = _side_by_side(shapes)
        if shape is None:
            return None
        if piece.stage is None:
            return Prepared(self._link(number, piece, None, None), Tensors(), None, shape)
        if piece.flatten and len(shape) == 4:
            shape = (shape[0], math.prod(shape[1:]))
        ready = piece.stage.ready(shape, like)
        if ready is None or inner not in (None, ready.shape) or (outer is not None and not ready.takes(outer, like)):
            return None
        kept = None
        if ready.norm is not None and ready.norm.training:
            kept = _kept(ready.norm)
            if kept is None:
                return None
        residual = None if outer is None else outer.data
        mean, var, tracked, nonfinite = kept or (ready.mean, ready.var, None, None)
        tensors = Tensors(*ready[1:5], mean, var, tracked, nonfinite, residual)
        return Prepared(self._link(number, piece, ready, kept), tensors, ready, ready.result)

    def _link(self, number: int, piece: Piece, ready: Ready | None, kept: Kept | None) -> Link:
        if ready is None:
            return self._links.setdefault(number, Link(_NOTHING, "none", piece.sources))
        momentum = None if kept is None or ready.norm is None else ready.norm.momentum
        key = (number, id(ready.settings), kept is None, momentum, ready.weight is None)  # settings outlive the plan
        if key not in self._links:
            share = momentum if momentum is not None else -1.0 if kept and kept.tracked is not None else 0.0
            torchs = type(ready.norm) in lanes_norm.TORCHS
            self._links[key] = Link(
                ready.settings,
                "none" if ready.weight is None else "conv2d" if ready.weight.dim() == 4 else "linear",
                piece.sources,
                piece.flatten,
                piece.inner,
                "none" if kept is None else "always" if torchs else "finite",
                share,
            )
        return self._links[key]


_NOTHING = Settings()


def _side_by_side(shapes: list[Shape]) -> Shape | None:
    """Of several values along the channels; None where they do not fit."""
    first = shapes[0]
    if any((each[0], each[2:]) != (first[0], first[2:]) for each in shapes[1:]):
        return None
    return (first[0], sum(each[1] for each in shapes), *first[2:]) if len(shapes) > 1 else first


def _kept(norm: BatchNorm) -> Kept | None:
    """None where the norm's own code must keep it."""
    mean, var = norm.running_mean, norm.running_var
    if not norm.track_running_stats or mean is None or var is None:
        return None
    if mean.dtype != torch.float32 or not (mean.is_contiguous() and var.is_contiguous()):
        return None
    return Kept(mean, var, norm.num_batches_tracked, getattr(norm, "nonfinite_batches", None))
