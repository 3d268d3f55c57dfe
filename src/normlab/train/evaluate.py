"""Loss and accuracy in evaluation mode, and the same under recomputed statistics."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from normlab.data import Dataset, Examples, Loaded
from normlab.store import Precise, Recipe
from normlab.surgery import evaluating, recalibrate
from normlab.train.prepare import logits_of

BATCH = 250
"""Examples of a forward pass; at 1000 the allocator gives memory back between passes and takes it anew, which
doubles the time."""

Split = Examples | Loaded
Feed = Callable[[Split], Iterator[tuple[Tensor, Tensor]]]
"""Batches (x, y) of a split, as the model takes them."""


def evaluate(model: nn.Module, recipe: Recipe, split: Split | None, feed: Feed) -> tuple[float, float] | None:
    """Mean cross-entropy in nats and accuracy in [0, 1]; None without data."""
    if split is None:
        return None
    loss, correct, count = 0.0, 0, 0
    # No inference mode: what a model keeps from one pass to the next must serve in training too.
    with torch.no_grad(), evaluating(model):
        for x, y in feed(split):
            logits = logits_of(model, x, recipe)
            loss += cross_entropy(logits, y, reduction="sum").item()
            correct += int((logits.argmax(1) == y).sum())
            count += len(y)
    return loss / count, correct / count


def evaluate_precisely(model: nn.Module, recipe: Recipe, dataset: Dataset, feed: Feed) -> Precise:
    """Every split under statistics recomputed over the training data; the model's own go back."""
    changes = recalibrate(model, lambda: (x for x, _ in feed(dataset.train)))
    try:
        train, validation, test = (
            evaluate(model, recipe, split, feed) for split in (dataset.train, dataset.validation, dataset.test)
        )
    finally:
        changes.undo()
    assert train is not None
    return Precise(
        train_loss=finite(train[0]),
        train_accuracy=train[1],
        validation_accuracy=validation and validation[1],
        test_accuracy=test and test[1],
    )


def finite(value: float) -> float | None:
    """A number that JSON can hold; None for inf and NaN."""
    return value if math.isfinite(value) else None
