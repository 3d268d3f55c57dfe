"""A step of gradient descent on one batch, for what asks how far a step goes."""

import torch
from torch import Tensor, nn

from normlab.measure.asking import Loss, trained


def descend(model: nn.Module, x: Tensor, y: Tensor, loss: Loss, *, lr: float, weight_decay: float = 0.0) -> None:
    """Torch's SGD without momentum, in place: w - lr (gradient + weight_decay w), in the model's modes.

    Leaves no gradients.
    """
    optimizer = torch.optim.SGD(trained(model), lr=lr, weight_decay=weight_decay)
    optimizer.zero_grad()
    loss(model(x), y).backward()
    optimizer.step()
    optimizer.zero_grad()
