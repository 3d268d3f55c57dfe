"""What the tests of the probes ask with: a Look at any model, and the layer of the book."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from normlab.measure import Look
from normlab.store import Recipe


def look(model: nn.Module, x: Tensor | None = None, y: Tensor | None = None, **recipe: object) -> Look:
    """At a model in train mode, with a batch of 32 random images of digits' size unless x is given."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(32, 1, 28, 28, generator=draw) if x is None else x
    y = torch.randint(10, (len(x),), generator=draw) if y is None else y
    return Look(model.train(), x, y, cross_entropy, Recipe(**recipe), 0)


class BookNorm(nn.Module):
    """The BatchNorm of *Dive into Deep Learning*: statistics returned as `.data`, or with their history."""

    def __init__(self, channels: int, dims: int, detached: bool) -> None:
        super().__init__()
        shape = (1, channels) if dims == 2 else (1, channels, 1, 1)
        self.detached = detached
        self.gamma, self.beta = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))
        self.moving_mean, self.moving_var = torch.zeros(shape), torch.ones(shape)

    def forward(self, X: Tensor) -> Tensor:
        mean = X.mean(dim=(0, 2, 3), keepdim=True) if X.dim() == 4 else X.mean(dim=0)
        square = (X - mean) ** 2
        var = square.mean(dim=(0, 2, 3), keepdim=True) if X.dim() == 4 else square.mean(dim=0)
        self.moving_mean = 0.9 * self.moving_mean + 0.1 * mean
        self.moving_var = 0.9 * self.moving_var + 0.1 * var
        if self.detached:
            self.moving_mean, self.moving_var = self.moving_mean.data, self.moving_var.data
        return self.gamma * (X - mean) / torch.sqrt(var + 1e-5) + self.beta


def book_net(detached: bool) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 5), BookNorm(4, 4, detached), nn.Sigmoid(), nn.AvgPool2d(4), nn.Flatten(),
        nn.Linear(144, 20), BookNorm(20, 2, detached), nn.Sigmoid(), nn.Linear(20, 10),
    )  # fmt: skip
