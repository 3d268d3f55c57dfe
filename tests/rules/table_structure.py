"""Rules about how the layers stand to each other."""

from cases import Case
from torch import nn

CASES = (
    Case(
        "NL101",
        trips=lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        spares=lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)),
        paths=("0",),
    ),
)
