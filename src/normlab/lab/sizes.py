"""The three sizes of a study: quick answers in minutes, standard in an hour or so, full is the book's own run."""

from collections.abc import Mapping
from typing import Any

from normlab.lab.study import Size
from normlab.store import Recipe

RECIPE = Recipe(validation=5_000, evaluate=("train", "test"))
"""Fashion-MNIST with its last 5,000 training images held out, for those who choose; all else is the book's, but for
the size.
"""

DIGITS: dict[str, Any] = {
    "model": "mlp",
    "data": "digits",
    "train_examples": None,
    "validation": 144,
    "batch_size": 64,
    "epochs": 16,
}
"""What an arm changes to ask the same of a second network and of second data, at any size."""

# One pass over 20,000 images in 313 steps under a falling rate: the shortest run in which BN-LeNet ends near where
# ten epochs take it, and the one whose seeds differ least.
_QUICK: dict[str, Any] = {
    "train_examples": 20_000,
    "epochs": 1,
    "batch_size": 64,
    "schedule": "cosine",
    "precise_examples": 2_000,
}
_STANDARD = _QUICK | {"train_examples": 40_000, "precise_examples": 5_000}
_FULL: dict[str, Any] = {"epochs": 10, "batch_size": 256}


def sizes(
    quick: Mapping[str, Any] | None = None,
    standard: Mapping[str, Any] | None = None,
    full: Mapping[str, Any] | None = None,
    *,
    seeds: tuple[int, int, int] = (5, 8, 15),
    quick_arms: tuple[str, ...] = (),
) -> dict[str, Size]:
    """Quick, standard and full, with what a study has of its own; quick with these arms alone, where any is named."""
    return {
        name: Size(count, {**usual, **(own or {})}, quick_arms if name == "quick" else ())
        for name, count, usual, own in zip(
            ("quick", "standard", "full"), seeds, (_QUICK, _STANDARD, _FULL), (quick, standard, full), strict=True
        )
    }
