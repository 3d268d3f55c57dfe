"""Records that no training made, for whatever a plan asks."""

from collections.abc import Callable, Mapping, Sequence

from normlab.lab.cell import Found, Trial
from normlab.lab.plan import Plan
from normlab.store import Recipe, Record
from records import record

BASE = Recipe(device="cpu", threads=1, probes=({"name": "fit", "every": 1},))
"""What the arms here start from."""


def trained(recipe: Recipe, train: float | None = 0.9, validation: float | None = None) -> Record:
    """A record of these accuracies; a loss that was not finite where `train` is None."""
    made = record(1, nonfinite=train is None)
    precise = made.result.precise and made.result.precise.model_copy(
        update={"train_accuracy": train, "validation_accuracy": validation, "test_accuracy": train}
    )
    result = made.result.model_copy(update={"precise": precise})
    return made.model_copy(update={"recipe": recipe, "result": result})


def carry_out(
    plan: Plan, arms: Mapping[str, Recipe], seeds: Sequence[int], outcome: Callable[[Trial], Record | str]
) -> tuple[Found, list[Trial]]:
    """Ask until nothing new is wanted, as `lab.run` does; what was found, and all trials of the last answer."""
    found: dict[str, Record | str] = {}
    for _ in range(500):
        trials = plan(arms, seeds, found)
        assert plan(arms, seeds, dict(found)) == trials, "a plan is pure"
        new = [trial for trial in trials if trial.key not in found]
        if not new:
            return found, trials
        found |= {trial.key: outcome(trial) for trial in new}
    raise AssertionError("it asks for ever")
