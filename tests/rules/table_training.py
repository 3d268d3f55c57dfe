"""Rules of the folder `training`."""

from typing import Any

import torch
from cases import Case
from torch import Tensor, nn


class Contiguous(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.contiguous()


class Detached(nn.Module):
    def __init__(self, detach: bool) -> None:
        super().__init__()
        self.norm, self.head, self.detach = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), detach

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(x))
        return self.head(x.detach() if self.detach else x)


class Layer(nn.Module):
    """One of many, around which the data may go or not."""

    def __init__(self, skip: bool) -> None:
        super().__init__()
        self.linear, self.norm, self.skip = nn.Linear(16, 16, bias=False), nn.BatchNorm1d(16), skip

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.linear(x)))
        return x + y if self.skip else y


class Optimized(nn.Sequential):
    """A small network, and how its optimizer is to be built: the path of each layer it knows, and its decay."""

    def __init__(self, decays: dict[str, float]) -> None:
        super().__init__(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.decays = decays


def optimizer(model: nn.Module) -> dict[str, Any]:
    assert isinstance(model, Optimized)
    held = [
        {"params": model.get_submodule(path).parameters(), "weight_decay": decay}
        for path, decay in model.decays.items()
    ]
    return {"optimizer": torch.optim.SGD(held, lr=0.1)}


def into(last: nn.Module) -> nn.Module:
    """A norm in channels-last before another layer."""
    return nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4), last).to(
        memory_format=torch.channels_last
    )


def images(model: nn.Module) -> dict[str, Any]:
    return {"batch": 2 + 3 * torch.randn(8, 4, 3, 3), "train": True}


def on_devices(model: nn.Module, devices: int) -> nn.Module:
    """What a machine with so many would make of it. It is not run as such: a check looks at what is wrapped."""
    wrapped = nn.DataParallel(model)
    wrapped.device_ids = list(range(devices))
    return wrapped


CASES: tuple[Case, ...] = (
    Case(
        "NL401",
        trips=lambda: into(Contiguous()),
        spares=lambda: into(nn.Identity()),
        paths=("1",),
        given=images,
    ),
    Case(
        "NL402",
        trips=lambda: Optimized({"0": 0.1, "1": 0.1}),
        spares=lambda: Optimized({"0": 0.1, "1": 0.0}),
        paths=("",),
        given=optimizer,
    ),
    Case(
        "NL403",
        trips=lambda: Optimized({"0": 0.1}),
        spares=lambda: Optimized({"0": 0.1, "1": 0.0}),
        paths=("1",),
        given=optimizer,
    ),
    Case(
        "NL404",
        trips=lambda: Detached(True),
        spares=lambda: Detached(False),
        paths=("norm",),
        given=images,
    ),
    Case(
        "NL405",
        trips=lambda: nn.Sequential(*(Layer(skip=False) for _ in range(80))),
        spares=lambda: nn.Sequential(*(Layer(skip=True) for _ in range(80))),
        paths=("0.norm",),
        given=lambda model: {"batch": torch.randn(64, 16), "train": True},
    ),
    Case(
        "NL406",
        trips=lambda: on_devices(Detached(False), 8),
        spares=lambda: on_devices(Detached(False), 4),
        paths=("",),
        given=lambda model: {"batch": torch.randn(64, 4, 3, 3)},
    ),
)
