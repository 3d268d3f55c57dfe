"""The seconds of an optimizer step: measured serially when all trials are done, the arms in turns."""

import json
import time
from collections.abc import Iterator

from torch.nn.functional import cross_entropy

from normlab.data import Loaded
from normlab.lab.plan import Arms
from normlab.lab.worker import work
from normlab.store import Recipe

ROUNDS = 15
"""Measurements of each of two arms; more arms have fewer turns, but FEWEST."""
FEWEST = 5
STEPS = 20
"""Steps of a measurement."""


def timing(arms: Arms) -> str:
    """The payload with which `work_or_time` times the steps of these arms."""
    return json.dumps({"time": {arm: recipe.model_dump(mode="json") for arm, recipe in arms.items()}})


def work_or_time(payload: str) -> str:
    """What a worker does: the trial of a recipe, as `work`, or the timing of several, as `measure_steps`."""
    arms = json.loads(payload).get("time")
    if arms is None:
        return work(payload)
    return json.dumps(measure_steps({arm: Recipe.model_validate(recipe) for arm, recipe in arms.items()}))


def measure_steps(recipes: Arms) -> dict[str, list[float]]:
    """Arm to seconds of a step, one number a round.

    In every round each arm takes its turn, so that what befalls the machine befalls all; the first round warms up.
    """
    from normlab.train.device import threads

    measured: dict[str, list[float]] = {arm: [] for arm in recipes}
    with threads(1):
        steps = {arm: _steps(recipe) for arm, recipe in recipes.items()}
        rounds = max(min(ROUNDS, FEWEST), 2 * ROUNDS // max(2, len(recipes)))
        for number in range(rounds + 1):
            for arm, each in steps.items():
                start = time.perf_counter()
                for _ in range(STEPS):
                    next(each)
                if number:
                    measured[arm].append((time.perf_counter() - start) / STEPS)
    return measured


def _steps(recipe: Recipe) -> Iterator[None]:
    """One optimizer step after another, for ever, on the same batch."""
    from normlab.train.optimizer import make_optimizer
    from normlab.train.prepare import prepare, to_device

    dataset, model = prepare(recipe, lambda _: None)
    optimizer = make_optimizer(model, recipe)
    split = dataset.train
    x, y = next(split.batches() if isinstance(split, Loaded) else split.batches(recipe.batch_size))
    x, y = to_device(x, recipe), y.to(recipe.device)
    while True:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        yield
