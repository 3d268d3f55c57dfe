"""What the study of corrupted images makes of a record: gains on the same images, from the last reading."""

import pytest

from normlab.data.corruptions import CORRUPTIONS
from normlab.lab.cell import Cell
from normlab.lab.judge import results_of
from normlab.lab.study import Measure
from normlab.store import Series
from normlab.studies.shift import MOVED, PROBE, STUDY
from normlab.train.under_shift import CLEAN, WAYS
from records import record


def share(kind: str, way: str) -> float:
    """Any accuracy, each another."""
    kinds, ways = [CLEAN, *CORRUPTIONS], [*WAYS]
    return 0.2 + 0.01 * kinds.index(kind) + 0.1 * ways.index(way) * (kind != CLEAN)


def cell(arm: str = "trained network", *, steps: tuple[int, ...] = (0, 300)) -> Cell:
    made = record(1)
    read = {f"{kind}: {way}": share(kind, way) for kind in (CLEAN, *CORRUPTIONS) for way in WAYS}
    values = {name: (None, *(value for _ in steps[1:])) for name, value in read.items()}
    probes = {str(PROBE["name"]): Series(steps=steps, values=values)}
    made = made.model_copy(update={"result": made.result.model_copy(update={"probes": probes})})
    return Cell(arm, 0, (made,), made, 0.0)


def measure(name: str) -> Measure:
    return next(each for each in STUDY.measures if each.name == name)


@pytest.mark.parametrize(
    ("name", "gain"),
    [
        ("corrupted", 0.1),
        ("moved images", 0.1),
        ("clean images", 0.0),
        ("one class a batch", 0.2),
        ("batches of 8", 0.3),
        ("batches of 2", 0.4),
        ("batches of 8, mixed", 0.5),
    ],
)
def test_gains_over_the_stored_statistics(name, gain):
    assert measure(name).of(cell()) == pytest.approx(gain)


def test_a_run_without_a_reading_behind_its_first_step_has_none():
    assert measure("corrupted").of(cell(steps=(0,))) is None
    assert measure("corrupted").of(Cell("trained network", 0, (), None, 0.0)) is None


def test_the_figure_has_every_corruption_of_every_network():
    cells = [cell(), cell("MLP, digits"), Cell("MLP, digits", 1, (), None, 0.0)]
    drawn = STUDY.figures[0](results_of(STUDY, cells))
    for kind in (CLEAN, *CORRUPTIONS):
        assert f"{kind}, MLP, digits" in str(drawn.spec)
    assert set(MOVED) < set(CORRUPTIONS)
