"""Networks of many habits, for to_lanes: what their forwards do, people's forwards do."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from normlab import nn as ours
from normlab.models import inception, lenet, mlp, resnet8

IMAGE = (1, 16, 16)


class BasicBlock(nn.Module):
    """As in torchvision: one activation used twice and in place, the sum in place too."""

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(4, 4), BasicBlock(4, 4))
        self.layer2 = nn.Sequential(BasicBlock(4, 8, 2), BasicBlock(8, 8))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class ConvBlock(nn.Module):
    """As in pytorchcv."""

    def __init__(self, channels: int, width: int, side: int, activate: bool = True) -> None:
        super().__init__()
        self.activate = activate
        self.conv = nn.Conv2d(channels, width, side, padding=side // 2, bias=False)
        self.bn = nn.BatchNorm2d(width)
        if activate:
            self.activ = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return self.activ(x) if self.activate else x


class Unit(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.resize = channels != width
        self.body = nn.Sequential(ConvBlock(channels, width, 3), ConvBlock(width, width, 3, activate=False))
        if self.resize:
            self.identity_conv = ConvBlock(channels, width, 1, activate=False)
        self.activ = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        identity = self.identity_conv(x) if self.resize else x
        return self.activ(self.body(x) + identity)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("init_block", ConvBlock(1, 4, 5))
        stage = nn.Sequential()
        stage.add_module("unit1", Unit(4, 6))
        stage.add_module("unit2", Unit(6, 6))
        self.features.add_module("stage1", stage)
        self.features.add_module("final_pool", nn.AvgPool2d(16, stride=1))
        self.output = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        x = x.view(x.size(0), -1)
        return self.output(x)


class Functional(nn.Module):
    """Functions where modules could be."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3), nn.Conv2d(8, 6, 3)
        self.norm = ours.BatchNorm2d(4)
        self.fc1, self.fc2 = nn.Linear(6 * 2 * 2, 7), nn.Linear(13, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(nn.functional.relu(self.norm(self.conv1(x))), 2)
        x = torch.cat([torch.sigmoid(x), x.tanh()], dim=1)
        x = nn.functional.silu(self.conv2(x))
        y = nn.functional.avg_pool2d(x, kernel_size=3, stride=2, padding=1).mean((2, 3))
        x = nn.functional.max_pool2d(x, 2, padding=0, stride=2)
        x = nn.functional.gelu(self.fc1(x.view(-1, 6 * 2 * 2)), approximate="tanh")
        return self.fc2(torch.cat((x, y), 1))


class Shared(nn.Module):
    """One convolution, one norm and one linear layer, each in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = ours.BatchNorm2d(4, momentum=None)
        self.first = nn.Conv2d(1, 4, 3, stride=2)
        self.again = self.norm
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 5))
        self.head[2].weight = nn.Parameter(torch.randn(5, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(self.first(x))))
        y = self.norm(self.conv(x))
        x = self.again(x) + y
        x = nn.functional.adaptive_avg_pool2d(x, 1)
        return self.head[2](self.head[1](self.head[1](self.head[0](x))))


class Draws(nn.Module):
    """Dropouts whose order a stage could turn round: a's comes before b's, and a goes on behind b."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3)
        self.drop, self.other, self.channels = nn.Dropout(0.3), nn.Dropout(0.6), nn.Dropout2d(0.3)
        self.pool = nn.AvgPool2d(2)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = self.drop(torch.relu(self.a(x)))
        b = self.channels(self.other(self.b(x)))
        return self.fc((self.pool(a) + self.pool(b)).mean([2, 3]))


class Tied(nn.Module):
    """One norm behind two convolutions, of which the first's stage goes on behind the second's."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = self.norm(self.a(x))
        b = self.norm(self.b(x))
        return self.fc(torch.relu(a + b).mean((-2, -1), keepdim=True).flatten(1))


class OwnPool(nn.AvgPool2d):
    """Not torch's: what it does, only its forward knows."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


def tail(features: int) -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(features, 5)]


def ordered() -> nn.Module:
    """The usual places of a norm: after the activation, after the pool, before the convolution."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), ours.BatchNorm2d(4), nn.AvgPool2d(2),
        nn.BatchNorm2d(4, momentum=None), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.Sigmoid(), nn.MaxPool2d(2),
        ours.BatchNorm2d(4), nn.Dropout(0.2), *tail(16),
    )  # fmt: skip


def settings() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, (3, 5), stride=(1, 2), padding=(2, 0)), nn.GELU(approximate="tanh"),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.Conv2d(4, 4, (1, 3), padding="same"), nn.SiLU(),
        nn.Conv2d(4, 4, (2, 1), padding="valid", bias=False), nn.BatchNorm2d(4, affine=False), nn.GELU(),
        nn.MaxPool2d((3, 2), stride=1, padding=1), nn.Identity(), ours.BatchNorm2d(4, track_running_stats=False),
        nn.AdaptiveAvgPool2d(1), *tail(4), nn.Identity(),
    )  # fmt: skip


def partly() -> nn.Module:
    """With layers that torch runs."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, groups=2), nn.ReLU(),
        nn.Conv2d(4, 4, 3, dilation=2), nn.BatchNorm2d(4, eps=1e-3), nn.LeakyReLU(inplace=True), OwnPool(2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), nn.MaxPool2d(2, ceil_mode=True), nn.Dropout2d(0.4),
        nn.Flatten(), ours.make_norm("frozen", 16, 1), nn.Linear(16, 8), nn.LayerNorm(8), nn.Sigmoid(),
        nn.Linear(8, 5),
    )  # fmt: skip


LENETS: dict[str, dict[str, object]] = {
    "lenet": {},
    "lenet-relu": {"activation": "relu", "pooling": "max", "norms": 13, "dropout": 0.5},
    "lenet-none": {"norms": "none"},
    "lenet-tanh": {"activation": "tanh", "norms": "linear", "bias": False, "momentum": None},
}
ZOO: dict[str, Callable[[], nn.Module]] = {
    **{name: lambda options=options: lenet(IMAGE, 5, **options) for name, options in LENETS.items()},
    "mlp": lambda: mlp(IMAGE, 5, dropout=0.3, widths=[9, 7], activation="gelu"),
    "inception": lambda: inception(IMAGE, 5, width=2),
    "resnet8": lambda: resnet8(IMAGE, 5, width=4),
    "resnet": ResNet,
    "nested": Nested,
    "functional": Functional,
    "shared": Shared,
    "draws": Draws,
    "tied": Tied,
    "ordered": ordered,
    "settings": settings,
    "partly": partly,
}
