"""Small models that the tables and the near misses are made of."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Build = Callable[[], nn.Module]


def conv(out_channels: int = 4) -> nn.Module:
    return nn.Conv2d(3, out_channels, 3, bias=False)


def network(norm: nn.Module) -> nn.Module:
    """With the norm at "1"."""
    return nn.Sequential(conv(), norm, nn.ReLU())


def batch(**settings: Any) -> Build:
    return lambda: network(nn.BatchNorm2d(4, **settings))


def changed(change: Callable[[Any], Any], model: Build | None = None) -> Build:
    """The model, after something was done to its norm."""

    def build() -> nn.Module:
        built = (model or batch())()
        with torch.no_grad():
            change(built.get_submodule("1"))
        return built

    return build


def gamma(norm: nn.Module, value: float) -> nn.Module:
    nn.init.constant_(norm.get_parameter("weight"), value)
    return norm


class Places(nn.Module):
    """Two convolutions, each followed by a norm: the same one, or another."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(4, 4, 3, bias=False), nn.Conv2d(4, 4, 3, bias=False)
        self.norm1 = nn.BatchNorm2d(4)
        self.norm2 = self.norm1 if shared else nn.BatchNorm2d(4)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x))))))


class Residual(nn.Module):
    """A branch whose last norm starts at gamma 0, as it should."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(4, 4, 1, bias=False), nn.ReLU()
        self.norm = gamma(nn.BatchNorm2d(4), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.norm(self.conv(x)))


class Keeps(nn.Module):
    """Keeps the modes of what it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.body = changed(lambda norm: norm.eval())()

    def train(self, mode: bool = True) -> "Keeps":
        self.training = mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class ByHand(nn.Module):
    """A norm as tutorials write it, with its statistics as a parameter, a buffer or a plain attribute."""

    def __init__(self, kept: str, value: Tensor) -> None:
        super().__init__()
        if kept == "parameter":
            self.moving_mean = nn.Parameter(value)
        elif kept == "buffer":
            self.register_buffer("moving_mean", value)
        else:
            self.moving_mean = value

    def forward(self, x: Tensor) -> Tensor:
        return x - self.moving_mean[:, None, None]


def by_hand(kept: str) -> Build:
    return lambda: network(ByHand(kept, torch.zeros(4)))
