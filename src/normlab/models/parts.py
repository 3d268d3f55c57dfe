"""What the networks share: activations, pooling, norms by position, initial weights."""

import contextlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from normlab.errors import NormlabError, choose
from normlab.models.streams import key
from normlab.nn import make_norm
from normlab.surgery.generators import borrowed

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
}
POOLINGS: dict[str, Callable[[int], nn.Module]] = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}
Draw = Callable[[torch.Tensor], object]
"""Fills a weight with what it draws from torch's global generator."""

INITIALIZATIONS: dict[str, Draw | None] = {
    "torch": None,
    "xavier": nn.init.xavier_uniform_,
}


def activation_layer(name: str) -> nn.Module:
    """The activation; NormlabError if there is none of that name."""
    return choose(ACTIVATIONS, name, "activation")()


def pooling_layer(name: str) -> nn.Module:
    """Pooling over windows of 2 x 2; NormlabError if there is none of that name."""
    return choose(POOLINGS, name, "pooling")(2)


def norm_layer(width: int, dim: int, eps: float, momentum: float | None) -> nn.Module:
    """Batch normalization, which `swap` exchanges for any other."""
    return make_norm("batch", width, dim, eps=eps, momentum=momentum)


def check_images(input_shape: Sequence[int], least: int, model: str) -> None:
    """Raises NormlabError unless examples are images (C, H, W) of `least` pixels a side."""
    if len(input_shape) != 3 or min(input_shape[1:]) < least:
        do = "take mlp" + (", or give x its axis of channels, as x[:, None]" if len(input_shape) == 2 else "")
        raise NormlabError(f"images (C, H, W) of at least {least} x {least} for {model}", input_shape, do)


def flag(value: object, name: str) -> bool:
    """The value; NormlabError unless it is true or false: as text even "no" would count as true."""
    if not isinstance(value, bool):
        raise NormlabError(f"{name} as true or false", repr(value))
    return value


def standing(norms: str | int | Sequence[int], groups: dict[str, Sequence[int]], count: int) -> set[int]:
    """Which of the positions 1..count carry a norm: "all", "none", a group's name, 13, "1,3" or [1, 3]."""
    named = {"all": range(1, count + 1), "none": (), **groups}
    if isinstance(norms, str) and norms in named:
        return set(named[norms])
    with contextlib.suppress(TypeError, ValueError):
        text = str(norms)
        given = norms if not isinstance(norms, str | int) else text.split(",") if "," in text else text
        positions = {int(position) for position in given}
        if positions <= set(range(1, count + 1)):
            return positions
    raise NormlabError(f"norms as {', '.join(named)} or positions out of 1 to {count}, as 13", repr(norms))


def initialize_weights(model: nn.Sequential, init: str, seed: int | None) -> nn.Sequential:
    """Draw the initial weights: torch's defaults, or Xavier-uniform weights over torch's biases as in the book."""
    return draw_weights(model, choose(INITIALIZATIONS, init, "initialization"), seed)


def draw_weights(model: nn.Sequential, draw_weight: Draw | None, seed: int | None) -> nn.Sequential:
    """Draw every weight by a function that fills it, over torch's own biases; by torch's defaults if None.

    With a seed each layer draws from the stream (seed, its path), so that one layer more or less shifts no
    other draw.
    """
    for path, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        with borrowed() if seed is not None else contextlib.nullcontext():
            if seed is not None:
                torch.default_generator.manual_seed(key(seed, "init", path))
                layer.reset_parameters()
            if draw_weight is not None:
                if seed is not None:  # from its start again: a bias or none before it shifts nothing
                    torch.default_generator.manual_seed(key(seed, "init", path))
                draw_weight(layer.weight)
    return model


def parameter_count(model: nn.Module) -> int:
    """Numbers that training moves or could move; shared ones once."""
    return sum(math.prod(parameter.shape) for parameter in model.parameters())
