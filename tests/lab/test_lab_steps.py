"""Steps to a share of the best that another arm reads."""

import pytest
from outcomes import BASE, trained

from normlab.lab.cell import Cell
from normlab.lab.measures import steps_to_best_of
from normlab.store import Record, Series

LINES = {"none": (0.1, 0.4, 0.6, 0.8, 0.7), "BN": (0.1, 0.7, 0.75, 0.9, 0.9), "broken": (0.1, None, 0.2, 0.1, 0.1)}


def record(line: tuple[float | None, ...]) -> Record:
    """Of a run whose training accuracy was read every ten steps."""
    made = trained(BASE)
    fit = Series(steps=tuple(range(0, 10 * len(line), 10)), values={"accuracy": line})
    return made.model_copy(update={"result": made.result.model_copy(update={"probes": {"fit": fit}})})


def steps(arm: str, share: float, *beside: str) -> float | None:
    records = {name: record(LINES[name]) for name in (arm, *beside)}
    cell = Cell(arm, 0, (records[arm],), records[arm], 0.0, beside=records)
    return steps_to_best_of("none", share).of(cell)


@pytest.mark.parametrize(
    ("arm", "share", "expected"),
    [("BN", 1, 30), ("BN", 0.9, 20), ("BN", 0.8, 10), ("none", 1, 30), ("none", 0.7, 20), ("broken", 1, 40)],
)
def test_first_reading_that_reaches_it_and_the_whole_run_where_none_does(arm, share, expected):
    assert steps(arm, share, "none") == expected


def test_nothing_to_reach_where_the_other_arm_is_unusable():
    assert steps("BN", 1) is None
    assert steps_to_best_of("none").of(Cell("BN", 0, (), None, 0.0)) is None


def test_its_name_and_title():
    measure = steps_to_best_of("none", 0.95, "steps on digits")
    assert (measure.name, measure.title) == (
        "steps on digits",
        "steps to 95% of the best of none, in training accuracy",
    )
    assert steps_to_best_of("none").title == "steps to the best of none, in training accuracy"
