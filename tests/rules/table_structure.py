"""Rules about how the layers stand to each other."""

import torch
from cases import Case
from torch import nn

from models import Places, Residual, conv, gamma

CASES = (
    Case(
        "NL101",
        trips=lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        spares=lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)),
        paths=("0",),
    ),
    Case(
        "NL102",
        trips=lambda: nn.Sequential(conv(), nn.Dropout(0.5), nn.ReLU(), nn.BatchNorm2d(4)),
        spares=lambda: nn.Sequential(conv(), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU()),
        paths=("3",),
    ),
    Case(
        "NL103",
        trips=lambda: Places(shared=True),
        spares=lambda: Places(shared=False),
        paths=("norm1",),
        given=lambda model: {"batch": torch.randn(8, 4, 8, 8)},
    ),
    Case(
        "NL104",
        trips=lambda: nn.Sequential(conv(), nn.BatchNorm2d(4), nn.Identity(), nn.InstanceNorm2d(4)),
        spares=lambda: nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU(), nn.InstanceNorm2d(4)),
        paths=("3",),
    ),
    Case(
        "NL105",
        trips=lambda: nn.Sequential(conv(8), nn.BatchNorm2d(4), nn.ReLU()),
        spares=lambda: nn.Sequential(conv(4), nn.BatchNorm2d(4), nn.ReLU()),
        paths=("1",),
    ),
    Case(
        "NL106",
        trips=lambda: nn.Sequential(conv(), gamma(nn.BatchNorm2d(4), 0.0), nn.ReLU()),
        spares=Residual,
        paths=("1",),
    ),
    Case(
        "NL107",
        trips=lambda: nn.Sequential(nn.utils.spectral_norm(conv()), nn.BatchNorm2d(4)),
        spares=lambda: nn.Sequential(nn.utils.spectral_norm(conv()), nn.GroupNorm(2, 4)),
        paths=("0",),
    ),
    Case(
        "NL108",
        trips=lambda: nn.Sequential(conv(), nn.Identity(), nn.ReLU()),
        spares=lambda: nn.Sequential(conv(), nn.BatchNorm2d(4), nn.Identity(), nn.ReLU()),
        paths=("0",),
    ),
)
