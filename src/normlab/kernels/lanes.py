"""Lane tensors: as many images as the vector unit has lanes lie side by side, so that every operation fills it.

A lane tensor holds N examples of shape F in a contiguous tensor (ceil(N/L), *F, L), L the width (16 for float32 on
AVX-512, 8 on AVX2, 4 on NEON): Intel's compact, or interleaved, batch format. The last block is filled up with
copies of the last example, which enter no statistic and whose gradients are zero.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from normlab.kernels import serving

REFERENCE_WIDTH = 8
"""Lanes where plain torch stands in for the kernels; any number would do."""


def native(x: Tensor) -> bool:
    """Whether the native kernels serve x: float32 and bytes on the CPU, where they can be had."""
    return x.dtype in (torch.float32, torch.uint8) and x.device.type == "cpu" and _can_be_had()


def _can_be_had() -> bool:
    return serving.path().name == "native"


# What `torch.compiler.assume_constant_result` does, without importing the compiler, a second for every command.
_can_be_had._dynamo_marked_constant = True  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Lanes:
    """`count` examples (N, *F) as blocks of lanes (ceil(N/L), *F, L)."""

    data: Tensor
    count: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *F), as the same examples would have it in a plain tensor."""
        return (self.count, *self.data.shape[1:-1])


def pack(x: Tensor, index: Tensor | None = None, scale: float = 1.0, shift: float = 0.0) -> Lanes:
    """Lanes of the examples x (N, *F), uint8 or floating, or of those at the int64 indices `index`, as
    `scale * x + shift`: a batch shuffled, converted and packed in one pass.
    """
    if not native(x):
        return pack_reference(x, index, scale, shift)
    count = len(x) if index is None else len(index)
    if x.requires_grad:
        return Lanes(_Pack.apply(x, index, scale, shift), count)
    return Lanes(torch.ops.normlab.pack.default(x.contiguous(), index, scale, shift), count)


def unpack(lanes: Lanes) -> Tensor:
    """The examples (N, *F) of a lane tensor."""
    if not native(lanes.data):
        return unpack_reference(lanes)
    if lanes.data.requires_grad:
        return _Unpack.apply(lanes.data, lanes.count)
    return torch.ops.normlab.unpack.default(lanes.data, lanes.count)


class _Unpack(Function):
    @staticmethod
    def forward(ctx: Any, data: Tensor, count: int) -> Tensor:
        return torch.ops.normlab.unpack.default(data, count)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _UnpackBackward.apply(gradients[0].contiguous()), None


class _UnpackBackward(Function):
    """(N, *F) -> lanes, zero in those that only fill the last block up; linear, so its gradient is unpack."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor) -> Tensor:
        ctx.count = len(gradient)
        return torch.ops.normlab.unpack_backward.default(gradient)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Unpack.apply(gradients[0].contiguous(), ctx.count)


class _Pack(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor | None, scale: float, shift: float) -> Tensor:
        ctx.save_for_backward(index)
        ctx.scale, ctx.shape, ctx.count = scale, x.shape, len(x) if index is None else len(index)
        return torch.ops.normlab.pack.default(x.contiguous(), index, scale, shift)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        # Gradients in the lanes that only fill the last block up are zero: they may be dropped.
        g = _Unpack.apply(gradients[0].contiguous(), ctx.count)
        g = g if ctx.scale == 1.0 else g * ctx.scale
        (index,) = ctx.saved_tensors
        return g if index is None else g.new_zeros(ctx.shape).index_add(0, index, g), None, None, None


def pack_reference(
    x: Tensor, index: Tensor | None = None, scale: float = 1.0, shift: float = 0.0, width: int = REFERENCE_WIDTH
) -> Lanes:
    """`pack` in plain torch, for any floating dtype, differentiable."""
    x = x if index is None else x.index_select(0, index)
    x = x.to(torch.float32) if x.dtype == torch.uint8 else x
    x = x if (scale, shift) == (1.0, 0.0) else x * scale + shift
    count = len(x)
    missing = -count % width
    if missing:
        x = torch.cat([x, x[-1:].detach().expand(missing, *x.shape[1:])])
    return Lanes(x.reshape(-1, width, *x.shape[1:]).movedim(1, -1).contiguous(), count)


def unpack_reference(lanes: Lanes) -> Tensor:
    """`unpack` in plain torch: (N, *F), differentiable."""
    data = lanes.data.movedim(-1, 1)
    return data.reshape(-1, *data.shape[2:])[: lanes.count]
