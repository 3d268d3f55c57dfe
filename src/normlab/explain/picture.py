"""A cloud of points before and after a norm, drawn in characters by the layer itself.

Two images of two channels each: a point is one position of one image, its coordinates are its two channels.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from normlab.nn import make_norm

COLUMNS, ROWS = 25, 13
"""Of a panel: odd, so that 0 has a column and a row; a character is about twice as high as it is wide."""
GAP = "  "
POSITIONS = 60
MARKS = "ox"
"""One for each image."""
BOTH = "8"
LEGEND = (
    "Two images, o and x (8 is both): a point is one position of an image, its coordinates are its two channels. "
    "A new layer in training."
)


def picture(norms: Mapping[str, Mapping[str, Any]], width: int = 3 * COLUMNS + 2 * len(GAP)) -> list[str]:
    """Panels side by side, as many as fit into `width` characters: the cloud, then what each norm makes of it.

    Raises NormlabError on a name or an option that `make_norm` does not know.
    """
    points = cloud()
    panels = [_panel("before", points)] + [_panel(name, _apply(name, norms[name], points)) for name in norms]
    fit = max(1, (width + len(GAP)) // (COLUMNS + len(GAP)))
    bands = math.ceil(len(panels) / fit)
    beside = math.ceil(len(panels) / bands)  # four where three fit are two and two
    lines: list[str] = []
    for start in range(0, len(panels), beside):
        lines += [""] * bool(lines)
        lines += [GAP.join(row).rstrip() for row in zip(*panels[start : start + beside], strict=True)]
    return lines


def cloud() -> Tensor:
    """(2 images, 2 channels, positions), of mean (.9, .6), deviation (.8, .4) and correlation .8 together."""
    drawn = torch.randn(2, POSITIONS, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = drawn.clamp(-2, 2) + torch.tensor([[[0.9, 0.0]], [[-0.9, 0.0]]])  # one image is brighter
    flat = drawn.reshape(-1, 2)
    centered = flat - flat.mean(0)
    factor = torch.linalg.cholesky(centered.T @ centered / len(centered))
    white = torch.linalg.solve_triangular(factor, centered.T, upper=False)
    wanted = torch.linalg.cholesky(torch.tensor([[0.64, 0.256], [0.256, 0.16]], dtype=torch.float64))
    colored = wanted @ white + torch.tensor([[0.9], [0.6]])
    return colored.T.reshape(2, POSITIONS, 2).transpose(1, 2).float()


def _apply(name: str, options: Mapping[str, Any], points: Tensor) -> Tensor:
    with torch.random.fork_rng(devices=[]):  # some norms draw noise
        torch.manual_seed(0)
        return make_norm(name, 2, 1, **options)(points).detach()


def _panel(title: str, points: Tensor) -> list[str]:
    """A title, the axes with the points, and their statistics: each line COLUMNS wide."""
    limit = 1
    while limit < points.abs().max():
        limit *= 3
    middle_column, middle_row = COLUMNS // 2, ROWS // 2
    rows = [[" "] * middle_column + ["|"] + [" "] * middle_column for _ in range(ROWS)]
    rows[middle_row] = ["-"] * middle_column + ["+"] + ["-"] * middle_column
    for image, mark in zip(points, MARKS, strict=True):
        for x, y in image.T.tolist():
            row = rows[middle_row - round(y / limit * middle_row)]
            column = middle_column + round(x / limit * middle_column)
            row[column] = BOTH if row[column] in {*MARKS, BOTH} - {mark} else mark
    statistics = _statistics(points)
    return [line.ljust(COLUMNS) for line in (f"{title}  (-{limit} to {limit})", *map("".join, rows), *statistics)]


def _statistics(points: Tensor) -> Sequence[str]:
    channels = points.transpose(0, 1).reshape(2, -1).double()
    means, deviations = channels.mean(1).tolist(), channels.std(1, correction=0).tolist()
    correlation = torch.corrcoef(channels)[0, 1].item()

    def line(name: str, *values: float) -> str:
        # No minus before a zero that rounding made.
        return f"{name:12}" + "".join(f"{round(value, 2) + 0.0:6.2f}" for value in values)

    return line("mean", *means), line("deviation", *deviations), line("correlation", correlation)
