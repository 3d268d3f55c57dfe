"""Studies, models and data as users write them, importable by worker processes; small: a trial takes milliseconds."""

import os
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from normlab import models
from normlab.lab import Arm, Size, Study, accuracy, draw
from normlab.lab.rules import equivalent
from normlab.store import Recipe
from normlab.surgery import swap

RECIPE = Recipe(
    model="mlp",
    model_options={"widths": [8], "activation": "relu"},
    data="digits-8x8",
    train_examples=200,
    batch_size=50,
    epochs=1,
    lr=0.3,
    precise_examples=50,
)


def study(**changes):
    told = {
        "question": "Is BN as good as none?", "claim": "It is.", "source": "this test", "recipe": RECIPE,
        "arms": {"BN": Arm(), "none": Arm(swap("batch", "none"))}, "measures": (accuracy,),
        "rules": (equivalent("accuracy", "BN", "none", 0.05),), "answers": {"supported": "Yes: {effect}."},
        "sizes": {"quick": Size(2, {}), "standard": Size(8, {"epochs": 5})}, "figures": (draw.points("accuracy"),),
    }  # fmt: skip
    return Study(**told | changes)


def breaking(width: int = 8) -> nn.Module:
    """Raises while the file that LAB_ZOO_BREAKS names is there."""
    if width == 7 and Path(os.environ["LAB_ZOO_BREAKS"]).exists():
        raise OSError("out of luck\nand of lines")
    return models.mlp((1, 8, 8), widths=[width], activation="relu")


def without_norms() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def many_norms() -> nn.Module:
    """As many as a ResNet-50."""
    blocks = [layer for _ in range(53) for layer in (nn.Linear(12, 12), nn.BatchNorm1d(12), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), *blocks, nn.Linear(12, 10))


def examples(count, classes=3, seed=0):
    x = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return x, torch.arange(count) % classes


def fifty():
    return {"train": examples(50)}


def nine():
    return {"train": examples(9)}


def one_class():
    x, y = examples(50)
    return {"train": (x, torch.full_like(y, 3))}


def validating():
    return {"train": examples(50), "validation": examples(20, seed=1)}


def with_test():
    return {"train": examples(50), "test": examples(20, seed=1)}


def fifty_one():
    return {"train": examples(57), "test": examples(20, seed=1)}


def loaders():
    return {
        name: DataLoader(TensorDataset(*examples(40, seed=seed)), 16) for seed, name in enumerate(("train", "test"))
    }


def last_of_one():
    return {"train": DataLoader(TensorDataset(*examples(33)), 16)}


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(*examples(40), strict=True))


def streamed():
    return {"train": DataLoader(Stream(), 16)}


class Shift(nn.Module):
    """A normalization layer of the user's."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features))

    def forward(self, x):
        return x + self.weight.view(1, -1, *(1 for _ in x.shape[2:]))
