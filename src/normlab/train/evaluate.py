"""Loss and accuracy in evaluation mode, and the same under recomputed statistics."""

import math
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from normlab.data import Dataset, Examples, Loaded
from normlab.kernels import Lanes, unpack
from normlab.store import Epoch, Precise, Recipe
from normlab.surgery import evaluating, lanes_step, recalibrate
from normlab.surgery.find import batch_norms
from normlab.train.prepare import logits_of

BATCH = 256
"""Examples of a forward pass, a whole number of vectors; at 1000 the allocator gives memory back between passes and
takes it anew, which doubles the time.
"""
AT_ONCE_FROM = 16
"""Batch norms from which on statistics are recomputed in one pass: layer by layer each costs a pass of its own."""
SAMPLE = 2_000
"""Examples up to which statistics are recomputed over one batch: in one pass, and exact, since those of the batch
are those of the population.
"""

Split = Examples | Loaded


class Feed(Protocol):
    """Batches (x, y) of a split, of `size` examples or as a loader has them: as the model takes them, or in lanes."""

    def __call__(
        self, split: Split, size: int = BATCH, /, *, in_lanes: bool = False
    ) -> Iterator[tuple[Tensor | Lanes, Tensor]]: ...


def evaluate(model: nn.Module, recipe: Recipe, split: Split | None, feed: Feed) -> tuple[float, float] | None:
    """Mean cross-entropy in nats and accuracy in [0, 1]; None without data."""
    if split is None:
        return None
    loss, correct, count = 0.0, 0, 0
    # No inference mode: what a model keeps from one pass to the next must serve in training too.
    with torch.no_grad(), evaluating(model):
        step = lanes_step(model) if recipe.lanes else None
        for x, y in feed(split, in_lanes=step is not None):
            judged = step.judge(x, y) if step is not None and isinstance(x, Lanes) else None
            mean, right = judged or _judge(model, unpack(x) if isinstance(x, Lanes) else x, y, recipe)
            loss += mean * len(y)
            correct += right
            count += len(y)
    return loss / count, correct / count


def _judge(model: nn.Module, x: Tensor, y: Tensor, recipe: Recipe) -> tuple[float, int]:
    logits = logits_of(model, x, recipe)
    return cross_entropy(logits, y).item(), int((logits.argmax(1) == y).sum())


def evaluate_precisely(model: nn.Module, recipe: Recipe, dataset: Dataset, feed: Feed, last: Epoch) -> Precise:
    """The recipe's splits under statistics recomputed over training data; the model's own go back.

    Where there are none to recompute, what the last epoch found of data held out, if anything, is taken over.
    """
    train = dataset.train
    if recipe.precise_examples is not None and isinstance(train, Examples):
        train = train.sample(recipe.precise_examples)
    whole = isinstance(train, Examples) and len(train) <= SAMPLE
    size = SAMPLE if whole else BATCH
    at_once = whole or len(batch_norms(model)) >= AT_ONCE_FROM
    changes = recalibrate(model, lambda: (x for x, _ in feed(train, size)), at_once=at_once)

    def found(name: str, split: Split | None) -> tuple[float, float] | None:
        return evaluate(model, recipe, split, feed) if name in recipe.evaluate else None

    try:
        trained = found("train", train)
        validated, tested = last.validation_accuracy, last.test_accuracy
        if changes or not recipe.evaluate_epochs:
            validated, tested = (
                result and result[1]
                for result in (found("validation", dataset.validation), found("test", dataset.test))
            )
    finally:
        changes.undo()
    return Precise(
        train_loss=trained and finite(trained[0]),
        train_accuracy=trained and trained[1],
        validation_accuracy=validated,
        test_accuracy=tested,
    )


def finite(value: float) -> float | None:
    """A number that JSON can hold; None for inf and NaN."""
    return value if math.isfinite(value) else None
