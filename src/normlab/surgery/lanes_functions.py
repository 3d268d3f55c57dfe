"""Functions of a traced forward as the modules that do the same: what plans stages then knows modules alone."""

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn


class Add(nn.Module):
    """x + y."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Of any shapes that torch adds."""
        return x + y


class Concatenate(nn.Module):
    """Side by side along dimension 1."""

    def forward(self, *parts: Tensor) -> Tensor:
        """From (N, Ci, *spatial) each to (N, sum of Ci, *spatial)."""
        return torch.cat(parts, 1)


class Mean(nn.Module):
    """The mean over dimensions 2 and 3 of four."""

    def __init__(self, dim: tuple[int, int], keepdim: bool) -> None:
        super().__init__()
        self.dim = dim
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        """From (N, C, H, W) to (N, C), or (N, C, 1, 1)."""
        return x.mean(self.dim, keepdim=self.keepdim)


class Rows(nn.Module):
    """A row of `width` numbers for each example; None takes what there is."""

    def __init__(self, width: int | None) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """From (N, *F) to (N, prod(F)), or to whatever `x.view(-1, width)` gives."""
        return x.reshape(len(x), -1) if self.width is None else x.reshape(-1, self.width)


Made = tuple[nn.Module, tuple[fx.Node, ...]]
"""A module, and the nodes whose values it takes."""


def as_module(node: fx.Node) -> Made | None:
    """The module that does what a node of kind call_function or call_method does, or None where it is not known."""
    make = _MAKERS.get(node.target)
    if make is None:
        return None
    try:
        module, inputs = make(*node.args, **node.kwargs)
    except (TypeError, ValueError, LookupError):  # arguments that the module does not have
        return None
    return (module, inputs) if all(isinstance(each, fx.Node) for each in inputs) else None


def is_batch_size(node: fx.Node) -> bool:
    """Whether the node is x.size(0), x.shape[0] or x.size()[0]."""
    if node.op == "call_method" and node.target == "size":
        return node.args[1:] == (0,) and not node.kwargs
    if node.target is not operator.getitem or node.args[1] != 0:
        return False
    return is_shape(node.args[0])


def is_shape(node: Any) -> bool:
    """Whether the node is x.shape or x.size()."""
    if not isinstance(node, fx.Node):
        return False
    if node.op == "call_method" and node.target == "size":
        return len(node.args) == 1 and not node.kwargs
    return node.op == "call_function" and node.target is getattr and node.args[1:] == ("shape",)


def _positional(make: Callable[..., nn.Module], names: str) -> Callable[..., Made]:
    """For a function whose arguments have these names, in an order of its own."""

    def made(input: fx.Node, *values: Any, **options: Any) -> Made:
        return make(**dict(zip(names.split(), values, strict=False)), **options), (input,)

    return made


def _add(input: fx.Node, other: fx.Node) -> Made:
    return Add(), (input, other)


def _add_in_place(input: fx.Node, other: fx.Node) -> Made:
    return Add(inplace=True), (input, other)


def _cat(tensors: list[fx.Node] | tuple[fx.Node, ...], dim: int = 0) -> Made:
    if dim != 1:
        raise ValueError
    return Concatenate(), tuple(tensors)


def _flatten(input: fx.Node, start_dim: int = 0, end_dim: int = -1) -> Made:
    return nn.Flatten(start_dim, end_dim), (input,)


def _view(input: fx.Node, *shape: Any) -> Made:
    first, second = shape[0] if len(shape) == 1 else shape
    if isinstance(first, fx.Node) and is_batch_size(first) and second == -1:
        return Rows(None), (input,)
    if first == -1 and isinstance(second, int) and second > 0:
        return Rows(second), (input,)
    raise ValueError


def _mean(input: fx.Node, dim: Any, keepdim: bool = False) -> Made:
    if tuple(dim) not in ((2, 3), (-2, -1)):
        raise ValueError
    return Mean(tuple(dim), keepdim), (input,)


_sigmoid, _tanh = _positional(nn.Sigmoid, ""), _positional(nn.Tanh, "")
_relu_ = _positional(functools.partial(nn.ReLU, inplace=True), "")
_relu = _positional(nn.ReLU, "inplace")
_max_pool = _positional(nn.MaxPool2d, "kernel_size stride padding dilation ceil_mode return_indices")

_MAKERS: dict[Any, Callable[..., Made]] = {
    operator.add: _add, operator.iadd: _add_in_place, torch.add: _add, "add": _add, "add_": _add_in_place,
    torch.relu: _relu, nn.functional.relu: _relu, "relu": _relu,
    torch.relu_: _relu_, nn.functional.relu_: _relu_, "relu_": _relu_,
    torch.sigmoid: _sigmoid, nn.functional.sigmoid: _sigmoid, "sigmoid": _sigmoid,
    torch.tanh: _tanh, nn.functional.tanh: _tanh, "tanh": _tanh,
    nn.functional.gelu: _positional(nn.GELU, "approximate"), nn.functional.silu: _positional(nn.SiLU, "inplace"),
    torch.flatten: _flatten, "flatten": _flatten, "view": _view, "reshape": _view, torch.reshape: _view,
    torch.cat: _cat, torch.concat: _cat, torch.concatenate: _cat,
    nn.functional.max_pool2d: _max_pool, torch.max_pool2d: _max_pool,
    nn.functional.avg_pool2d: _positional(
        nn.AvgPool2d, "kernel_size stride padding ceil_mode count_include_pad divisor_override"
    ),
    nn.functional.adaptive_avg_pool2d: _positional(nn.AdaptiveAvgPool2d, "output_size"),
    torch.mean: _mean, "mean": _mean,
}  # fmt: skip
