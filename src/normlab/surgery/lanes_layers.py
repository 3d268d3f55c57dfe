"""Which layers run in lanes, in which place of a stage, and under which settings."""

import operator
from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import nn

from normlab.kernels import Lanes, Pool
from normlab.kernels.settings import Activation
from normlab.norms.shapes import Shaped
from normlab.surgery import lanes_norm
from normlab.surgery.lanes_functions import Add, Concatenate, Mean, Rows

Kind = Literal["head", "norm", "add", "activation", "dropout", "pool", "nothing", "single"]
Pair = tuple[int, int]

_ACTIVATIONS: dict[type, Activation] = {
    nn.ReLU: "relu",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.SiLU: "silu",
    nn.GELU: "gelu",
}
_WORDS: dict[type, tuple[str, ...]] = {
    nn.Conv2d: ("stride", "padding", "dilation", "groups", "padding_mode"),
    **dict.fromkeys(lanes_norm.KNOWN, ("eps", "num_features")),
    nn.GELU: ("approximate",),
    nn.AvgPool2d: ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    nn.MaxPool2d: ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    nn.AdaptiveAvgPool2d: ("output_size",),
    nn.Flatten: ("start_dim", "end_dim"),
}
_READERS: dict[type, Callable[[nn.Module], object]] = {
    layer: operator.attrgetter(*words) for layer, words in _WORDS.items()
}


def settings_reader(layer: type[nn.Module]) -> Callable[[nn.Module], object]:
    """Reads all attributes of a layer of this class that a plan rests on, for a comparison."""
    return _READERS.get(layer, _nothing)


def kind(layer: nn.Module) -> Kind:
    """Its place in a stage; "nothing" where it passes on what it gets, "single" for all that runs by itself."""
    found = _PLACES.get(type(layer))
    if found is None:
        return "single"
    name, serves = found
    return name if serves(layer) else "single"


def activation(layer: nn.Module | None) -> Activation:
    """As the kernels name it."""
    if layer is None:
        return "none"
    return "gelu-tanh" if getattr(layer, "approximate", "none") == "tanh" else _ACTIVATIONS[type(layer)]


def pair(value: int | tuple[int, ...]) -> Pair:
    """For both dimensions of an image."""
    return (value, value) if isinstance(value, int) else cast(Pair, tuple(value))


def conv_padding(conv: nn.Conv2d) -> Pair:
    """In numbers; "same", where it can be had on both sides alike, and "valid" too."""
    if conv.padding == "valid":
        return 0, 0
    if conv.padding == "same":
        return cast(Pair, tuple((side - 1) // 2 for side in conv.kernel_size))
    return pair(cast(Pair, conv.padding))


def pooling(layer: nn.Module, size: Pair) -> Pool:
    """As the kernels take it, for images of this size."""
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return Pool("avg", size, size)
    assert isinstance(layer, nn.AvgPool2d | nn.MaxPool2d)
    window, padding = pair(layer.kernel_size), pair(layer.padding)
    stride = pair(layer.stride)
    if isinstance(layer, nn.MaxPool2d):
        return Pool("max", window, stride, padding)
    return Pool("avg", window, stride, padding, layer.count_include_pad)


def describe(layer: nn.Module) -> str:
    """A layer of a stage in a word or three."""
    if isinstance(layer, nn.Conv2d):
        return "conv " + "x".join(map(str, layer.kernel_size))
    if isinstance(layer, nn.AvgPool2d | nn.MaxPool2d):
        return f"{'avg' if isinstance(layer, nn.AvgPool2d) else 'max'} pool " + "x".join(
            map(str, pair(layer.kernel_size))
        )
    if type(layer) in lanes_norm.KNOWN:
        return lanes_norm.describe(layer)
    named = {nn.Linear: "linear", nn.AdaptiveAvgPool2d: "global avg pool", Add: "add", nn.Dropout: "dropout"}
    return named.get(type(layer)) or _ACTIVATIONS[type(layer)]


def _conv_serves(conv: nn.Conv2d) -> bool:
    if conv.padding == "same" and any(side % 2 == 0 for side in conv.kernel_size):
        return False
    return conv.groups == 1 and pair(conv.dilation) == (1, 1) and conv.padding_mode == "zeros"


def _max_pool_serves(pool: nn.MaxPool2d) -> bool:
    return pair(pool.dilation) == (1, 1) and not pool.return_indices and _pool_serves(pool)


def _avg_pool_serves(pool: nn.AvgPool2d) -> bool:
    return pool.divisor_override is None and _pool_serves(pool)


def _pool_serves(pool: nn.MaxPool2d | nn.AvgPool2d) -> bool:
    padded = zip(pair(pool.padding), pair(pool.kernel_size), strict=True)
    return not pool.ceil_mode and all(2 * padding <= side for padding, side in padded)


def _nothing(layer: nn.Module) -> None:
    pass


def _always(layer: nn.Module) -> bool:
    return True


_PLACES: dict[type, tuple[Kind, Callable[[Any], bool]]] = {
    nn.Conv2d: ("head", _conv_serves),
    nn.Linear: ("head", _always),
    **dict.fromkeys(lanes_norm.KNOWN, ("norm", lambda norm: norm.eps > 0)),
    Add: ("add", _always),
    **dict.fromkeys(_ACTIVATIONS, ("activation", _always)),
    nn.Dropout: ("dropout", _always),
    nn.MaxPool2d: ("pool", _max_pool_serves),
    nn.AvgPool2d: ("pool", _avg_pool_serves),
    nn.AdaptiveAvgPool2d: ("pool", lambda pool: pool.output_size in (1, (1, 1))),
    nn.Identity: ("nothing", _always),
}


def _flatten(layer: nn.Flatten, x: Lanes) -> Lanes | None:
    return Lanes(x.data.flatten(1, -2), x.count) if (layer.start_dim, layer.end_dim) == (1, -1) else None


def _rows(layer: Rows, x: Lanes) -> Lanes | None:
    flat = x.data.flatten(1, -2)
    return Lanes(flat, x.count) if layer.width in (None, flat.shape[1]) else None


def _mean(layer: Mean, x: Lanes) -> Lanes | None:
    return Lanes(x.data.mean((2, 3), keepdim=layer.keepdim), x.count) if len(x.shape) == 4 else None


def _concatenate(_: Concatenate, *parts: Lanes) -> Lanes | None:
    alike = len({(each.count, each.shape[2:], each.data.dtype) for each in parts}) == 1
    return Lanes(torch.cat([each.data for each in parts], 1), parts[0].count) if alike else None


def _normed(layer: Shaped, x: Lanes) -> Lanes | None:
    """By the layer itself, to which a vector of examples is so many positions more of one example."""
    whole = x.count % x.data.shape[-1] == 0  # else the last block has lanes that are nobody's
    if not whole or len(x.shape) not in layer.layouts or x.shape[1] != layer.num_features:
        return None
    assert isinstance(layer, nn.Module)
    given = x.data.flatten(-2) if x.data.dim() == 5 else x.data
    return Lanes(layer(given).view(x.data.shape), x.count)


_LANEWISE: dict[type, Callable[..., Lanes | None]] = {
    nn.Flatten: _flatten,
    Rows: _rows,
    Mean: _mean,
    Concatenate: _concatenate,
}


def lanewise(layer: nn.Module) -> Callable[..., Lanes | None] | None:
    """Does, by itself, in lanes what the layer does in plain tensors, or gives None where it cannot."""
    if moves_numbers(layer):
        return _LANEWISE[type(layer)]
    ours = type(layer).__module__.startswith("normlab.norms.")  # what a subclass does, only its forward knows
    return _normed if ours and isinstance(layer, Shaped) and layer.exchangeable else None


def moves_numbers(layer: nn.Module) -> bool:
    """Whether it only moves numbers about."""
    return type(layer) in _LANEWISE
