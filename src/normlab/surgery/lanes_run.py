"""Stages behind each other as one call: what is done between stages costs a small network as much as they do."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from normlab.kernels import Link, Tensors, chain, native
from normlab.surgery import lanes_norm
from normlab.surgery.find import BatchNorm
from normlab.surgery.lanes_stage import Ready, Shape, Stage, Value


class Piece(NamedTuple):
    """A stage of a run."""

    stage: Stage
    flatten: bool
    """Whether its input (N, C, H, W) becomes (N, C * H * W)."""
    inner: int | None
    """The piece before it whose result is its residual."""
    outer: int | None
    """The number, among the run's other inputs, of a residual from outside."""


class Kept(NamedTuple):
    """What a norm keeps of its batches."""

    mean: Tensor
    var: Tensor
    tracked: Tensor | None
    nonfinite: Tensor | None


class Run:
    """Stages of which each takes what the one before it gives, and nobody but a stage of the run does."""

    def __init__(self, pieces: list[Piece]) -> None:
        self._pieces = pieces
        self._links: dict[object, Link] = {}

    def __call__(self, x: Value, *others: Value) -> Value | None:
        """The last result; None, and nothing is done, where the stages must run one by one."""
        if type(x.data) is not Tensor or not native(x.data) or not (x.in_lanes or self._pieces[0].stage.head):
            return None
        lanes = x.lanes
        if lanes is None:
            return None
        all_ready = self._ready(lanes.shape, lanes.data)
        residuals = [each.lanes for each in others]
        if all_ready is None or None in residuals:
            return None
        links: list[Link] = []
        tensors: list[Tensors] = []
        for number, (piece, ready, kept) in enumerate(all_ready):
            residual = None if piece.outer is None else residuals[piece.outer]
            if residual is not None and not ready.takes(residual, lanes.data):
                return None
            links.append(self._link(number, piece, ready, kept))
            mean, var, tracked, nonfinite = kept or (ready.mean, ready.var, None, None)
            tensors.append(
                Tensors(*ready[1:5], mean, var, tracked, nonfinite, None if residual is None else residual.data)
            )
        for number, (piece, ready, _) in enumerate(all_ready):  # now that nothing can fail any more: this draws
            if (mask := piece.stage.mask(ready, lanes.data)) is not None:
                tensors[number] = tensors[number]._replace(mask=mask.data)
        return Value(chain(lanes, links, tensors))

    def _ready(self, shape: Shape, like: Tensor) -> list[tuple[Piece, Ready, Kept | None]] | None:
        found: list[tuple[Piece, Ready, Kept | None]] = []
        for piece in self._pieces:
            if piece.flatten and len(shape) == 4:
                shape = (shape[0], math.prod(shape[1:]))
            ready = piece.stage.ready(shape, like)
            if ready is None or (piece.inner is not None and found[piece.inner][1].result != ready.shape):
                return None
            kept = None
            if ready.norm is not None and ready.norm.training:
                kept = _kept(ready.norm)
                if kept is None:
                    return None
            found.append((piece, ready, kept))
            shape = ready.result
        return found

    def _link(self, number: int, piece: Piece, ready: Ready, kept: Kept | None) -> Link:
        momentum = None if kept is None or ready.norm is None else ready.norm.momentum
        key = (number, id(ready.settings), kept is None, momentum, ready.weight is None)  # settings outlive the plan
        if key not in self._links:
            share = momentum if momentum is not None else -1.0 if kept and kept.tracked is not None else 0.0
            torchs = type(ready.norm) in lanes_norm.TORCHS
            self._links[key] = Link(
                ready.settings,
                "none" if ready.weight is None else "conv2d" if ready.weight.dim() == 4 else "linear",
                piece.flatten,
                piece.inner,
                "none" if kept is None else "always" if torchs else "finite",
                share,
            )
        return self._links[key]


def _kept(norm: BatchNorm) -> Kept | None:
    """None where the norm's own code must keep it."""
    mean, var = norm.running_mean, norm.running_var
    if not norm.track_running_stats or mean is None or var is None:
        return None
    if mean.dtype != torch.float32 or not (mean.is_contiguous() and var.is_contiguous()):
        return None
    return Kept(mean, var, norm.num_batches_tracked, getattr(norm, "nonfinite_batches", None))
