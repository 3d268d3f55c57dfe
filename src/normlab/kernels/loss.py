"""The loss of a classifier whose logits are in lanes."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from normlab.kernels.lanes import Lanes, native, unpack_reference


class Outcome(NamedTuple):
    """What a training step has found out before the weights move."""

    loss: float
    """The mean over the batch."""
    correct: int
    """Examples whose largest logit is the target's."""
    gradient_norm: float
    """Of all gradients together."""


def cross_entropy(logits: Lanes, targets: Tensor) -> Tensor:
    """The mean of -log softmax(z)[target] over the examples, as torch's `cross_entropy`; differentiable twice.

    Args:
        logits: N examples of (classes,).
        targets: (N,), int64, each the number of a class.

    """
    if not native(logits.data):
        return cross_entropy_reference(logits, targets)
    loss: Tensor = _CrossEntropy.apply(logits.data, logits.count, targets)
    return loss


def cross_entropy_reference(logits: Lanes, targets: Tensor) -> Tensor:
    """`cross_entropy` in plain torch: any floating dtype, differentiable to any order."""
    return functional.cross_entropy(unpack_reference(logits), targets)


class _CrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, count: int, targets: Tensor) -> Tensor:
        outcome, gradient = torch.ops.normlab.cross_entropy.default(logits.contiguous(), count, targets.contiguous())
        ctx.save_for_backward(logits, targets, gradient)
        ctx.count = count
        return outcome[0].to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        logits, targets, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():
            loss = cross_entropy_reference(Lanes(logits, ctx.count), targets)
            (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
        return gradient * gradients[0], None, None
