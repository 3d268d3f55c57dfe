"""A model that is traced part by part."""

from torch import nn


class Parts(nn.Module):
    """One convolution in two parts, traced apart since control flow depends on data."""

    def __init__(self):
        super().__init__()
        conv = nn.Conv2d(3, 3, 1)
        self.one, self.two = (nn.Sequential(conv, nn.BatchNorm2d(3)) for _ in range(2))

    def forward(self, x):
        return self.one(x) if x.sum() > 0 else self.two(x)
