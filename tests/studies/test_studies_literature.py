"""What the studies of the literature read off a record by themselves."""

import dataclasses

import pytest

from normlab.lab.cell import Cell
from normlab.store import Series
from normlab.studies import batch_size, edge_of_stability, precise_bn, weight_decay
from records import record


def test_a_trial_counts_as_it_ends() -> None:
    ended, broken = record(), record(nonfinite=True)
    cell = Cell("BN", 0, (ended,), None, 0.95, "training accuracy 0.905, below 0.950")
    assert weight_decay.as_it_ends(cell) == 0.885
    assert weight_decay.as_it_ends(dataclasses.replace(cell, records=(broken,))) == 0
    assert weight_decay.as_it_ends(dataclasses.replace(cell, records=())) is None


def read(**values: tuple[float | None, ...]) -> Cell:
    series = Series(steps=tuple(range(0, 90, 10)), values=values)
    made = record()
    made = made.model_copy(update={"result": made.result.model_copy(update={"probes": {"under_statistics": series}})})
    return Cell("lr 1", 0, (made,), made, 0.0)


def test_the_untrained_network_is_no_reading_and_early_is_a_quarter_of_the_rest() -> None:
    cell = read(recomputed=(0.9, 0.5, 0.6, *[0.7] * 6), running=(0.0, 0.1, 0.4, *[0.7] * 5, 0.6))
    early, late, *_ = precise_bn.STUDY.measures
    assert early.of(cell) == pytest.approx((0.4 + 0.2) / 2)
    assert late.of(cell) == pytest.approx(0.1)
    nothing = dataclasses.replace(cell, record=record())
    assert early.of(nothing) is late.of(nothing) is None


def test_the_last_reading_of_the_batchs_own_statistics() -> None:
    *_, own = batch_size.STUDY.measures
    assert own.of(read(batch=tuple(i / 10 for i in range(9)), running=(0.0,) * 9)) == 0.8


def test_the_interaction_is_what_batch_norm_loses_more() -> None:
    accuracy = {"BN, batch 32": 0.9, "BN, batch 2": 0.8, "GN, batch 32": 0.85, "GN, batch 2": 0.83}
    values = {arm: {seed: value + seed / 1000 for seed in range(5)} for arm, value in accuracy.items()}
    (finding,) = batch_size.lost("running accuracy")({"running accuracy": values})
    assert finding.effect == pytest.approx(0.08)
    assert finding.word == "supported"


def test_the_edge_is_read_from_the_last_readings_before_the_data_are_fitted() -> None:
    made = record(30, lr=0.5)
    epochs = [
        epoch.model_copy(update={"train_loss": 1.0 if number < 22 else 0.05})
        for number, epoch in enumerate(made.result.epochs)
    ]
    largest = (9.0, 9.0, *[1.0] * 5, 4.0, 5.0, 7.0, 8.0, 100.0, 100.0, 100.0, 100.0)
    probes = {"curvature": Series(steps=tuple(range(0, 30, 2)), values={"largest": largest})}
    made = made.model_copy(
        update={"result": made.result.model_copy(update={"epochs": tuple(epochs), "probes": probes})}
    )
    # Of the eleven readings up to step 20 the last three tenths, at lr / 2 = 1/4.
    assert edge_of_stability.at_the_edge(made) == pytest.approx(6.0 / 4)
    assert edge_of_stability.at_the_edge(record()) is None
