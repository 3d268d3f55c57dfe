"""One stage of a plan: modules that run as a single call of `normlab.kernels.stage`, or else one by one."""

import math
from typing import Any, NamedTuple, cast

from torch import Tensor, nn

from normlab.kernels import Lanes, Settings, pack, serves, stage, unpack
from normlab.surgery import lanes_norm
from normlab.surgery.find import BatchNorm
from normlab.surgery.lanes_functions import Add, Concatenate
from normlab.surgery.lanes_layers import Pair, activation, conv_padding, lanewise, moves_numbers, pair, pooling

Shape = tuple[int, ...]


class Value:
    """What an operation gave: as a plain tensor, in lanes, or, once both were asked for, both."""

    __slots__ = ("_lanes", "_plain")

    def __init__(self, value: Any) -> None:
        """Of Lanes, or of whatever a module returns."""
        is_lanes = isinstance(value, Lanes)
        self._lanes: Lanes | None = value if is_lanes else None
        self._plain: Any = None if is_lanes else value

    @property
    def in_lanes(self) -> bool:
        """Whether lanes are there already."""
        return self._lanes is not None

    @property
    def data(self) -> Any:
        """What is there, in lanes or not."""
        return self._plain if self._lanes is None else self._lanes.data

    @property
    def plain(self) -> Any:
        """(N, *F), or what else a module returned."""
        if self._plain is None and self._lanes is not None:
            # In order: a dropout draws in the order of the elements in memory.
            self._plain = unpack(self._lanes).contiguous()
        return self._plain

    @property
    def lanes(self) -> Lanes | None:
        """In lanes, or None where they do not take it."""
        x = self._plain
        if self._lanes is None and type(x) is Tensor and x.dim() > 1 and len(x) and serves(x):
            self._lanes = pack(x)
        return self._lanes


class Single:
    """One module by itself: one that takes lanes as they are, in lanes if its input is; any other in torch."""

    def __init__(self, module: nn.Module, hooked: bool) -> None:
        """`hooked`: somebody wants to see it called, on plain tensors."""
        self._module = module
        self._in_lanes = None if hooked else lanewise(module)
        self.takes_lanes = self._in_lanes is not None
        self.moves_numbers = self.takes_lanes and moves_numbers(module)
        flat = isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1)
        self.flattens = self.takes_lanes and flat
        self.concatenates = self.takes_lanes and isinstance(module, Concatenate)

    def __call__(self, *inputs: Value) -> Value:
        """From the values it takes to the one it gives."""
        if self._in_lanes is not None and any(each.in_lanes for each in inputs):
            parts = [each.lanes for each in inputs]
            result = self._in_lanes(self._module, *parts) if all(parts) else None
            if result is not None:
                return Value(result)
        return Value(self._module(*(each.plain for each in inputs)))


class Ready(NamedTuple):
    """A stage for one input: all that it is called with, but for mask, residual and what it is called on."""

    settings: Settings
    weight: Tensor | None
    bias: Tensor | None
    gamma: Tensor | None
    beta: Tensor | None
    mean: Tensor | None
    var: Tensor | None
    norm: BatchNorm | None
    """Whose running statistics the batch moves."""
    positions: int
    """Values in a channel of one example."""
    shape: Shape
    """Of what the activation gives, before the pool."""

    def takes(self, residual: Lanes, like: Tensor) -> bool:
        """Whether it may be added."""
        return residual.shape == self.shape and residual.data.dtype == like.dtype

    @property
    def result(self) -> Shape:
        """The shape of what the stage gives."""
        pool, shape = self.settings.pool, self.shape
        return shape if pool is None else (*shape[:2], *_outputs(shape[2:], pool.size, pool.stride, pool.padding))


class Stage:
    """Modules by the place that they have in a stage, and in the order in which they are called one by one.

    Where something does not fit (another number of dimensions, one value per channel, mixed dtypes) they are
    called: what then happens, an error included, is what the modules themselves do.
    """

    def __init__(self, members: list[nn.Module], places: dict[str, nn.Module]) -> None:
        """`places` may have a head, before, norm, activation, dropout and pool."""
        self._members = members
        self.head = cast(nn.Conv2d | nn.Linear | None, places.get("head"))
        self._norm = cast(BatchNorm | None, places.get("norm"))
        self._activations = tuple(activation(places.get(name)) for name in ("before", "activation"))
        self._dropout = places.get("dropout")
        self._pool = places.get("pool")
        self._cases: dict[object, tuple[Settings, Shape, int] | None] = {}

    def __call__(self, x: Value, residual: Value | None = None) -> Value:
        """From the values it takes to the one it gives."""
        result = None
        if self.head is not None or x.in_lanes or (residual is not None and residual.in_lanes):
            result = self._in_lanes(x.lanes, None if residual is None else residual.lanes, residual is not None)
        return self._one_by_one(x, residual) if result is None else Value(result)

    def _one_by_one(self, x: Value, residual: Value | None) -> Value:
        y = x.plain
        for module in self._members:
            y = module(y, residual.plain) if isinstance(module, Add) and residual is not None else module(y)
        return Value(y)

    def ready(self, shape: Shape, like: Tensor) -> Ready | None:
        """For an input of a shape (N, *F), of `like`'s dtype and device; None where the modules must do it."""
        head, norm = self.head, self._norm
        mode = lanes_norm.mode(norm)
        case = self._case(shape, mode)
        if case is None:
            return None
        settings, full, positions = case
        weight, bias = (None, None) if head is None else (head.weight, head.bias)
        gamma, beta = (None, None) if norm is None else (norm.weight, norm.bias)
        mean, var = (norm.running_mean, norm.running_var) if norm is not None and mode == "fixed" else (None, None)
        for tensor in (weight, bias, gamma, beta, mean, var):
            if tensor is not None and (tensor.dtype != like.dtype or tensor.device != like.device):
                return None
        return Ready(
            settings, weight, bias, gamma, beta, mean, var, norm if mode == "batch" else None, positions, full
        )

    @property
    def drops(self) -> bool:
        """Whether a dropout is at work in it."""
        return self._dropout is not None and self._dropout.training

    def mask(self, ready: Ready, like: Tensor) -> Lanes:
        """What the stage's dropout multiplies by: the layer itself is asked."""
        assert self._dropout is not None
        return pack(self._dropout(like.new_ones(ready.shape)))

    def _in_lanes(self, x: Lanes | None, residual: Lanes | None, adds: bool) -> Lanes | None:
        if x is None or (adds and residual is None):
            return None
        ready = self.ready(x.shape, x.data)
        if ready is None or (residual is not None and not ready.takes(residual, x.data)):
            return None
        mask = self.mask(ready, x.data) if self.drops else None
        y, mean, var = stage(x, *ready[:7], residual, mask)
        if ready.norm is not None and mean is not None and var is not None:
            lanes_norm.track(ready.norm, x.count * ready.positions, mean, var)
        return y

    def _case(self, shape: Shape, mode: lanes_norm.Mode) -> tuple[Settings, Shape, int] | None:
        """Settings, shape before the pool, and positions in a channel; None where the modules must do it."""
        key = (shape, mode, None if self.head is None else self.head.weight.shape)
        if key not in self._cases:
            self._cases[key] = self._worked_out(shape, mode)
        return self._cases[key]

    def _worked_out(self, shape: Shape, mode: lanes_norm.Mode) -> tuple[Settings, Shape, int] | None:
        stride, padding = (1, 1), (0, 0)
        if self.head is not None:
            weight = self.head.weight
            if len(shape) != weight.dim() or shape[1] != weight.shape[1]:
                return None
            if isinstance(self.head, nn.Conv2d):
                stride, padding = pair(self.head.stride), conv_padding(self.head)
                shape = (shape[0], len(weight), *_outputs(shape[2:], weight.shape[2:], stride, padding))
            else:
                shape = (shape[0], len(weight))
        if min(shape) < 1 or len(shape) not in (2, 4):
            return None
        positions = math.prod(shape[2:])
        if (norm := self._norm) is not None:
            of_images = isinstance(norm, nn.BatchNorm2d)
            alone = mode == "batch" and shape[0] * positions == 1
            if shape[1] != norm.num_features or (len(shape) == 4) != of_images or alone:
                return None
        pool = None
        if self._pool is not None:
            if len(shape) != 4:
                return None
            pool = pooling(self._pool, (shape[2], shape[3]))
            if min(_outputs(shape[2:], pool.size, pool.stride, pool.padding)) < 1:
                return None
        eps = 1e-5 if norm is None else norm.eps
        before, after = self._activations
        return Settings(stride, padding, before, mode, eps, after, pool, lanes_norm.part(norm)), shape, positions


def _outputs(size: Shape, window: Shape, stride: Pair, padding: Pair) -> Shape:
    each = zip(size, window, stride, padding, strict=True)
    return tuple((side + 2 * pad - width) // step + 1 for side, width, step, pad in each)
