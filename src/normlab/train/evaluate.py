"""Loss and accuracy in evaluation mode, and the same under recomputed statistics."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from normlab.data import Dataset, Examples, Loaded
from normlab.store import Precise, Recipe
from normlab.surgery import evaluating, recalibrate
from normlab.surgery.find import batch_norms
from normlab.train.prepare import logits_of

BATCH = 250
"""Examples of a forward pass; at 1000 the allocator gives memory back between passes and takes it anew, which
doubles the time."""
AT_ONCE_FROM = 16
"""Batch norms from which on statistics are recomputed in one pass: layer by layer each costs a pass of its own."""

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
    """The recipe's splits under statistics recomputed over training data; the model's own go back."""
    train = dataset.train
    if recipe.precise_examples is not None and isinstance(train, Examples):
        train = train.sample(recipe.precise_examples)
    changes = recalibrate(model, lambda: (x for x, _ in feed(train)), at_once=len(batch_norms(model)) >= AT_ONCE_FROM)
    try:
        found = {
            name: evaluate(model, recipe, split, feed) if name in recipe.evaluate else None
            for name, split in (("train", train), ("validation", dataset.validation), ("test", dataset.test))
        }
    finally:
        changes.undo()
    return Precise(
        train_loss=found["train"] and finite(found["train"][0]),
        train_accuracy=found["train"] and found["train"][1],
        validation_accuracy=found["validation"] and found["validation"][1],
        test_accuracy=found["test"] and found["test"][1],
    )


def finite(value: float) -> float | None:
    """A number that JSON can hold; None for inf and NaN."""
    return value if math.isfinite(value) else None
