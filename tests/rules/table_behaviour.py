"""Rules of the folder `behaviour`."""

import torch
from cases import Case
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from normlab import nn as ours


def drawn(*shape: int) -> Tensor:
    """Numbers that are not standardized already."""
    return 2 + 3 * torch.randn(shape)


class Switches(nn.Module):
    """A forward that sets the mode of its norm itself."""

    def __init__(self, mode: bool) -> None:
        super().__init__()
        self.norm, self.mode = nn.BatchNorm2d(4), mode

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm.train(self.mode)(x))


class HandWritten(nn.Module):
    """The batch norm of a chapter, with the line that detaches, or without."""

    def __init__(self, detach: bool) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 1, bias=False), HandWritten.BatchNorm(detach)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)))

    class BatchNorm(nn.Module):
        def __init__(self, detach: bool) -> None:
            super().__init__()
            self.gamma = nn.Parameter(torch.ones(4))
            self.moving_mean, self.detach = torch.zeros(4), detach

        def forward(self, x: Tensor) -> Tensor:
            mean = x.mean((0, 2, 3)) if self.training else self.moving_mean
            if self.training:
                self.moving_mean = 0.9 * self.moving_mean + 0.1 * (mean.detach() if self.detach else mean)
            return (x - mean[:, None, None]) * self.gamma[:, None, None]


class Checkpointed(nn.Module):
    """A block under activation checkpointing, behind a layer that is not."""

    def __init__(self, recompute: bool) -> None:
        super().__init__()
        self.stem, self.recompute = nn.Conv2d(4, 4, 1, bias=False), recompute
        self.block = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return checkpoint(self.block, x, use_reentrant=False) if self.recompute else self.block(x)


def behind(norm: nn.Module, *before: nn.Module) -> nn.Module:
    """A norm between other layers and a ReLU."""
    return nn.Sequential(*before, norm, nn.ReLU())


def tracked(mean: float, sd: float, batches: int = 1000, momentum: float = 0.1) -> nn.Module:
    """A norm that remembers batches of this mean and standard deviation."""
    norm = nn.BatchNorm2d(4, momentum=momentum)
    nn.init.constant_(norm.running_mean, mean)
    nn.init.constant_(norm.running_var, sd**2)
    norm.num_batches_tracked.fill_(batches)
    return behind(norm)


class Reciprocal(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 1 / x


def with_beta(beta: float) -> nn.Module:
    """A batch norm whose ReLU opens above -beta standard deviations."""
    norm = nn.BatchNorm2d(16)
    nn.init.constant_(norm.bias, beta)
    return behind(norm)


def scaled(size: float) -> nn.Module:
    """A layer with weights of this size before a norm."""
    conv = nn.Conv2d(4, 4, 1, bias=False)
    nn.init.normal_(conv.weight, std=size)
    return behind(nn.BatchNorm2d(4), conv)


class Padded(nn.Module):
    """A norm for sequences that are filled up, with a mask or without."""

    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.norm, self.masked = ours.BatchNorm1d(4), masked

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(x, (x != 0).any(1)) if self.masked else self.norm(x))


def ends_in_zeros() -> Tensor:
    x = drawn(4, 4, 10)
    for row, length in enumerate((10, 8, 5, 3)):
        x[row, :, length:] = 0
    return x


class Transposed(nn.Module):
    """Linear layers have their features last, the norm wants them second."""

    def __init__(self, right: bool) -> None:
        super().__init__()
        self.linear, self.norm, self.right = nn.Linear(3, 5, bias=False), nn.BatchNorm1d(5), right

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return torch.relu(self.norm(x.transpose(1, 2)).transpose(1, 2) if self.right else self.norm(x))


def dropping(share: float) -> nn.Module:
    """Dropout, and one layer on a norm."""
    return nn.Sequential(
        nn.ReLU(), nn.Dropout(share), nn.Linear(32, 4, bias=False), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)
    )


def images(model: nn.Module) -> dict[str, Tensor]:
    return {"batch": drawn(8, 4, 3, 3)}


CASES: tuple[Case, ...] = (
    Case(
        "NL301",
        trips=lambda: Switches(True),
        spares=lambda: Switches(False),
        paths=("norm",),
        given=images,
    ),
    Case(
        "NL302",
        trips=lambda: behind(nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1)),
        spares=lambda: behind(nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(3)),
        paths=("1",),
        given=lambda model: {"batch": drawn(1, 4, 3, 3)},
    ),
    Case(
        "NL303",
        trips=lambda: behind(nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1)),
        spares=lambda: behind(nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(2)),
        paths=("1",),
        given=lambda model: {"batch": drawn(4, 4, 4, 4)},
    ),
    Case(
        "NL304",
        trips=lambda: tracked(0, 0.1),
        spares=lambda: tracked(0, 1),
        paths=("0",),
        given=images,
    ),
    Case(
        "NL305",
        trips=lambda: tracked(2, 3, batches=100, momentum=0.01),
        spares=lambda: tracked(2, 3, batches=100, momentum=0.1),
        paths=("0",),
        given=images,
    ),
    Case(
        "NL306",
        trips=lambda: behind(nn.BatchNorm2d(4), nn.ReLU(), Reciprocal()),
        spares=lambda: behind(nn.BatchNorm2d(4), nn.Softplus(), Reciprocal()),
        paths=("2",),
        given=images,
    ),
    Case(
        "NL307",
        trips=lambda: Checkpointed(True),
        spares=lambda: Checkpointed(False),
        paths=("block.0",),
        given=lambda model: {**images(model), "train": True},
    ),
    Case(
        "NL308",
        trips=lambda: HandWritten(detach=False),
        spares=lambda: HandWritten(detach=True),
        paths=("norm",),
        given=lambda model: {**images(model), "train": True},
        also=("NL215",),  # the chapter's attribute is no buffer
    ),
    Case(
        "NL309",
        trips=lambda: behind(nn.BatchNorm2d(4), nn.Threshold(50, 0.1)),
        spares=lambda: behind(nn.BatchNorm2d(4), nn.Threshold(0, 0.1)),
        paths=("1",),
        given=images,
    ),
    Case(
        "NL310",
        trips=lambda: with_beta(-20),
        spares=lambda: with_beta(-2),
        paths=("1",),
        given=lambda model: {"batch": drawn(8, 16, 3, 3)},
    ),
    Case(
        "NL311",
        trips=lambda: behind(nn.BatchNorm2d(4)),
        spares=lambda: behind(nn.BatchNorm2d(4), nn.InstanceNorm2d(4)),
        paths=("0",),
        given=lambda model: {"batch": 1e5 + drawn(8, 4, 3, 3)},
    ),
    Case(
        "NL312",
        trips=lambda: scaled(1e-4),
        spares=lambda: scaled(1e-2),
        paths=("1",),
        given=images,
    ),
    Case(
        "NL313",
        trips=lambda: Padded(False),
        spares=lambda: Padded(True),
        paths=("norm",),
        given=lambda model: {"batch": ends_in_zeros()},
    ),
    Case(
        "NL314",
        trips=lambda: Transposed(False),
        spares=lambda: Transposed(True),
        paths=("norm",),
        given=lambda model: {"batch": drawn(8, 5, 3)},
    ),
    Case(
        "NL315",
        trips=lambda: dropping(0.6),
        spares=lambda: dropping(0.2),
        paths=("3",),
        given=lambda model: {"batch": torch.randn(64, 32)},
    ),
)
