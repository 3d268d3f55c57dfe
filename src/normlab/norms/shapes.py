"""What a layer accepts: the shapes of its dimension, and an error that says which other layer is meant."""

import math
from typing import Any, ClassVar

from torch import Tensor, fx, nn

from normlab.errors import NormlabError


def check_tensors(x: Tensor, **per_channel: Tensor | None) -> None:
    """Raises NormlabError where x is not floating (N, C, *spatial), or what is given for each channel not (C,)."""
    if x.dim() < 2 or not x.is_floating_point():
        raise NormlabError("floating x of shape (N, C, *spatial)", f"{x.dtype} of shape {tuple(x.shape)}")
    for name, value in per_channel.items():
        if value is not None and value.shape != (x.shape[1],):
            raise NormlabError(
                f"{name} of shape ({x.shape[1]},) for x {tuple(x.shape)}",
                tuple(value.shape),
                "channels are dimension 1 of x",
            )


def check_eps(eps: float) -> None:
    """Raises NormlabError on an eps below 0 or infinite."""
    if not 0 <= eps < math.inf:
        raise NormlabError("eps >= 0", eps)


def as_one_call(module: nn.Module, *arguments: Any) -> fx.Proxy:
    """The call of a layer in a symbolic trace: one node, as for torch's layers."""
    tracer = arguments[0].tracer
    return tracer.create_proxy("call_module", tracer.path_of_module(module), arguments, {})


class Shaped:
    """A layer for inputs (N, num_features, *spatial) of one number of spatial dimensions."""

    layouts: ClassVar[dict[int, str]]
    """Number of dimensions of an accepted input to the shape, in words."""
    sibling: ClassVar[str]
    """What to use for other shapes."""
    num_features: int
    exchangeable: ClassVar[bool] = False
    """Whether y is the same, value by value, however a channel's values are spread over examples and positions."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() in self.layouts and input.shape[1] == self.num_features and input.is_floating_point():
            return
        got = f"{input.dim()}D input {tuple(input.shape)}"
        if input.dim() not in self.layouts:
            wanted = " or ".join(f"{dims}D input {layout}" for dims, layout in self.layouts.items())
            unbatched = input.dim() + 1 in self.layouts and input.shape[:1] == (self.num_features,)
            advice = f"add the batch dimension: x.unsqueeze(0), or {self.sibling}" if unbatched else self.sibling
            raise NormlabError(wanted, got, advice)
        if not input.is_floating_point():
            raise NormlabError("floating input", input.dtype, "convert it: x.float()")
        raise NormlabError(
            f"{self.num_features} channels",
            f"{input.shape[1]} in {got}",
            f"make it {type(self).__name__}({input.shape[1]})",
        )


class Shaped1d(Shaped):
    """(N, C) or (N, C, L)."""

    layouts: ClassVar = {2: "(N, C)", 3: "(N, C, L)"}
    sibling = "use the 2d layer for images"


class Shaped2d(Shaped):
    """(N, C, H, W)."""

    layouts: ClassVar = {4: "(N, C, H, W)"}
    sibling = "use the 1d layer after linear layers, the 3d one for volumes"


class Shaped3d(Shaped):
    """(N, C, D, H, W)."""

    layouts: ClassVar = {5: "(N, C, D, H, W)"}
    sibling = "use the 2d layer for images"
