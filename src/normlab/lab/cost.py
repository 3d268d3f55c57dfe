"""What a trial costs before it is run, in examples that BN-LeNet trains on: a third of it is a forward pass."""

import functools
import json
from collections.abc import Iterable, Mapping

import torch
from torch.utils.flop_counter import FlopCounterMode

from normlab import models
from normlab.data import Dataset, Examples, Loaded
from normlab.store import Recipe, Record
from normlab.surgery.find import batch_norms
from normlab.train.evaluate import AT_ONCE_FROM

USUAL = 6000.0
"""LeNet-equivalent examples per second of one thread of a laptop; until a machine has records of its own."""


def cost(recipe: Recipe, dataset: Dataset) -> float:
    """Training, evaluation and the recomputing of statistics, in LeNet-equivalent training examples."""
    relative, norms = _of_model(recipe.model, json.dumps(recipe.model_options), dataset.shape, dataset.classes)
    held = recipe.validation
    there = _count(dataset.train)
    train = min(recipe.train_examples or there, there - held)
    precise = min(recipe.precise_examples or train, train)
    validation = held or _count(dataset.validation)
    sizes = {"validation": validation, "test": _count(dataset.test)}
    each = sum(size for name, size in sizes.items() if name in recipe.evaluate)
    passes = 1 if norms >= AT_ONCE_FROM else norms
    at_end = each + precise * (passes + ("train" in recipe.evaluate))
    evaluations = recipe.epochs * each if recipe.evaluate_epochs else 0
    return relative * (recipe.epochs * train + (evaluations + at_end) / 3)


@functools.lru_cache(maxsize=16)
def _count(split: Examples | Loaded | None) -> int:
    """Examples of a pass; of a loader, whose data set may have no length, those that it gives."""
    if isinstance(split, Loaded):
        return sum(len(y) for _, y in split.batches(seed=0))
    return 0 if split is None else len(split)


@functools.cache
def _of_model(name: str, options: str, shape: tuple[int, ...], classes: int) -> tuple[float, int]:
    """Multiply-adds of a forward pass relative to LeNet's, and the number of batch norms."""
    model = models.build(name, json.loads(options), input_shape=shape, classes=classes, seed=0)
    lenet = models.build("lenet", {}, input_shape=(1, 28, 28), classes=10, seed=0)
    return _flops(model, shape) / _flops(lenet, (1, 28, 28)), len(batch_norms(model))


def _flops(model: torch.nn.Module, shape: tuple[int, ...]) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(2, *shape))
    return max(float(counter.get_total_flops()), 1.0)


def speed(
    records: Iterable[Record], datasets: Mapping[str, Dataset], machine: Mapping[str, str | int]
) -> float | None:
    """The median of the LeNet-equivalent examples per second of this machine's trials; None if there is none.

    Only trials of one thread count: those of studies.
    """
    speeds = sorted(
        cost(record.recipe, datasets[record.recipe.data]) / record.timing.seconds
        for record in records
        if record.machine == machine and record.recipe.threads == 1
    )
    return speeds[len(speeds) // 2] if speeds else None
