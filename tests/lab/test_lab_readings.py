"""What is made of a probe's readings: compared at the same loss, and drawn over layers and losses."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normlab.lab import draw
from normlab.lab.cell import Cell
from normlab.lab.measures import LOSS_BIN, at_matched_loss, by_loss
from normlab.lab.study import Results
from normlab.store import Series
from records import record

few = settings(max_examples=25, deadline=None)
MATCHED = at_matched_loss("rough", "roughness", "landscape", "rough", [("none", "BN"), ("other none", "other BN")])
LOSSES = st.lists(st.integers(0, 25), min_size=1, max_size=12)


def read(probe, **values):
    """A record in which a probe read these values."""
    made = record(1)
    series = Series(steps=tuple(range(len(next(iter(values.values()))))), values=values)
    return made.model_copy(update={"result": made.result.model_copy(update={"probes": {probe: series}})})


def along(bins, factor=1.0):
    """A run through these bins of loss, as rough as the bin says, times a factor."""
    losses = tuple((index + 0.3) * LOSS_BIN for index in bins)
    return read("landscape", loss=losses, rough=tuple(factor * (1 + index) ** 2 for index in bins))


def cells(records, seed=0):
    return {arm: Cell(arm, seed, (each,), each, 0.0, beside=records) for arm, each in records.items()}


def drawn(drawing, records):
    """The marks of a figure, those of the seeds where there are more: (arm, x) to their number."""
    spec = drawing(Results([*cells(records).values()], {}, {}, [], {})).spec
    rows = spec["data"]["values"] if "data" in spec else spec["layer"][-1]["data"]["values"]
    return {(row.get("name", row.get("arm")), round(row["x"], 6)): row["value"] for row in rows}


@few
@given(LOSSES, LOSSES, st.floats(0.01, 100))
def test_at_the_same_loss_a_factor_is_found_whatever_the_paths(with_norm, without, factor):
    pair = cells({"BN": along(with_norm), "none": along(without, factor)})
    found = {arm: MATCHED.of(cell) for arm, cell in pair.items()}
    shared = set(with_norm) & set(without)
    if not shared:
        assert found == {"BN": None, "none": None}
        return
    assert found["none"] / found["BN"] == pytest.approx(factor)
    assert found["BN"] == pytest.approx(math.prod((1 + index) ** 2 for index in shared) ** (1 / len(shared)))


def test_a_long_plateau_does_not_make_it_smooth():
    rough, plateau = along([23, 20, 10]), along([23] * 100 + [20, 10], 2.0)
    pair = cells({"BN": rough, "none": plateau})
    assert MATCHED.of(pair["none"]) == pytest.approx(2 * MATCHED.of(pair["BN"]))


def test_an_arm_whose_other_is_unusable_or_that_is_in_no_pair_has_none():
    alone, stranger = cells({"BN": along([3]), "other none": along([3])}), cells({"stranger": along([3])})
    assert [MATCHED.of(cell) for cell in (*alone.values(), *stranger.values())] == [None] * 3


def test_readings_of_a_bin_are_averaged_and_what_is_no_number_is_left_out():
    mixed = read("landscape", loss=(0.31, 0.39, 0.35, None, 0.9), rough=(1.0, 4.0, None, 7.0, 0.0))
    assert by_loss(mixed, "landscape", "rough") == pytest.approx({3.5 * LOSS_BIN: 2.0})
    assert by_loss(mixed, "another", "rough") == {}


def test_over_losses_every_bin_of_every_arm_is_a_point():
    found = drawn(draw.over_loss("landscape", "rough", "roughness"), {"BN": along([1, 4, 4]), "none": along([2])})
    assert found == pytest.approx({("BN", 0.15): 4, ("BN", 0.45): 25, ("none", 0.25): 9})


def test_over_layers_the_first_readings_in_order():
    deep = read("signal", **{"b up": (4.0, 1.0), "b down": (9.0, 9.0), "a up": (None, 2.0), "c up": (0.25, 3.0)})
    found = drawn(draw.by_layer("signal", " up", "size"), {"BN": deep})
    assert found == pytest.approx({("BN", 1): 4, ("BN", 3): 0.25})
