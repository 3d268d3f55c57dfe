"""How a network is asked without a trace: a copy of it, and random numbers that come again."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from normlab.measure.reading import copy_of
from normlab.surgery.generators import borrowed, global_generators

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of what the network gives and the classes y (N,), to ()."""


@contextlib.contextmanager
def asking(model: nn.Module) -> Iterator[nn.Module]:
    """A copy of the model, in its modes and without gradients; torch's random generators go back."""
    with borrowed(_device(model)):
        yield copy_of(model)


@contextlib.contextmanager
def same_draws(model: nn.Module) -> Iterator[Callable[[], None]]:
    """What makes torch draw from here again: every pass then has the same dropout masks and the same noise."""
    states = [(each, each.get_state()) for each in global_generators(_device(model))]

    def again() -> None:
        for each, state in states:
            each.set_state(state)

    try:
        yield again
    finally:
        again()


def without_dropout(model: nn.Module) -> None:
    """Put its dropout layers, and them alone, in evaluation mode."""
    for layer in model.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.eval()


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that take a gradient."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def flat(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """All P numbers of them, (P,)."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _device(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
