"""Small data of other shapes than images, from what scikit-learn carries: each a function that a recipe can name.

A table, sequences, volumes, and images of two domains. All but the table are the digits of `digits-8x8`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from normlab.data.digits import load_8x8
from normlab.data.split import Examples

Splits = dict[str, tuple[Tensor, Tensor]]

WHITE = 240
"""Of a pixel of the digits."""
DEPTH = 4


def table() -> Splits:
    """Breast cancer (Wolberg, Street & Mangasarian, UCI 1995): 30 measured features, standardized by the training
    part; 455 patients to train on, 114 to test.
    """
    from sklearn.datasets import load_breast_cancer

    features, labels = load_breast_cancer(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    x, y = torch.from_numpy(features)[order].float(), torch.from_numpy(labels)[order].long()
    train = len(x) * 4 // 5
    x = (x - x[:train].mean(0)) / x[:train].std(0)
    return {"train": (x[:train], y[:train]), "test": (x[train:], y[train:])}


def sequences() -> Splits:
    """Digits read row by row: (N, 8 pixels of a row, 8 rows)."""
    return _digits(lambda x: x[:, 0].mT.contiguous())


def volumes() -> Splits:
    """Digits two slices thick, somewhere in a noisy volume: (N, 1, 4, 8, 8)."""

    def thicken(x: Tensor) -> Tensor:
        draw = torch.Generator().manual_seed(len(x))
        volume = 0.2 * torch.rand(len(x), 1, DEPTH, *x.shape[2:], generator=draw)
        front = torch.randint(DEPTH - 1, (len(x),), generator=draw)
        for depth in (front, front + 1):
            volume[torch.arange(len(x)), 0, depth] += x[:, 0] / WHITE
        return volume

    return _digits(thicken)


def domains() -> Splits:
    """Digits, every second one inverted: (N, 2, 8, 8), of which the last channel holds the domain, 0 or 1."""

    def invert(x: Tensor) -> Tensor:
        domain = (torch.arange(len(x)) % 2).view(-1, 1, 1, 1).expand_as(x)
        image = x / WHITE
        return torch.cat([torch.where(domain == 1, 1 - image, image), domain], 1)

    return _digits(invert)


def _digits(change: Callable[[Tensor], Tensor]) -> Splits:
    dataset = load_8x8()
    splits = {"train": dataset.train, "test": dataset.test}
    return {name: (change(split.x), split.y) for name, split in splits.items() if isinstance(split, Examples)}
