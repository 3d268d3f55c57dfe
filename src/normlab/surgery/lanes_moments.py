"""What the batch norms of a network that is one run in lanes see of a batch: the kernels find it anyway."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from normlab.kernels import native, pack
from normlab.surgery.find import BatchNorm
from normlab.surgery.to_lanes import LanesForward


class Moments(NamedTuple):
    """Of the inputs of a norm at one of its uses."""

    norm: BatchNorm
    values: Tensor
    """How many there are in a channel."""
    mean: Tensor
    """(C,)"""
    squares: Tensor
    """(C,), the sums of the squared deviations."""


def moments_in_lanes(model: nn.Module, norms: Iterable[BatchNorm], x: object) -> list[Moments] | None:
    """The moments of these norms, where each of them normalizes by those of the batch x (N, *F), in one pass that
    moves no running statistics; None where the model is not one run in lanes, or does not take x in them.
    """
    forward = vars(model).get("forward")
    run = forward.whole if isinstance(forward, LanesForward) else None
    if run is None or type(x) is not Tensor or x.dim() < 2 or not len(x) or not native(x):
        return None
    with _in_training(norms), torch.no_grad():
        lanes = pack(x)
        ready = run.ready(lanes.shape, lanes.data)
        if ready is None:
            return None
        found = ready.chain.moments(lanes)
    result: list[Moments] = []
    for number, (norm, positions) in ready.norms.items():
        mean, var = found[number]
        values = torch.tensor(float(len(x) * positions))
        result.append(Moments(norm, values, mean, var * values))
    return result


@contextlib.contextmanager
def _in_training(norms: Iterable[BatchNorm]) -> Iterator[None]:
    modes = {norm: norm.training for norm in norms}
    for norm in modes:
        norm.training = True
    try:
        yield
    finally:
        for norm, training in modes.items():
            norm.training = training
