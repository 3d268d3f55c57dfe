"""Layers as a user may write them, named `users_norms:...` in the tests."""

import torch
from torch import Tensor, nn


class Scale(nn.Module):
    """gamma and beta under torch's names, a parameter and a buffer of its own, and `dim`."""

    def __init__(self, num_features: int, dim: int = 0, power: float = 1.0) -> None:
        super().__init__()
        self.dim = dim
        self.power = power
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.own = nn.Parameter(torch.full((num_features,), 0.5))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(1))  # another shape than a batch norm's

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.dim() - 2))
        return x * self.weight.reshape(shape) + self.bias.reshape(shape)


def no_layer(num_features: int) -> int:
    return num_features


class Wide(nn.Module):
    """Cannot be made for more than 8 features."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        if num_features > 8:
            raise ValueError("too wide")
