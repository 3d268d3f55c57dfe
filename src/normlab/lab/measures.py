"""What studies measure: numbers of a cell's trials. Accuracy means accuracy under recomputed statistics."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean

from normlab.lab.cell import Cell, train_accuracy
from normlab.lab.study import Measure
from normlab.store import Record

LOSS_BIN = 0.1
"""Nats."""


def of_record(read: Callable[[Record], float | None]) -> Callable[[Cell], float | None]:
    """Read from the trial by which an arm is judged."""
    return lambda cell: None if cell.record is None else read(cell.record)


def test_accuracy(record: Record) -> float | None:
    """Under recomputed statistics. A user's data may have no test split: then what validates must do."""
    if (precise := record.result.precise) is None:
        return None
    return precise.validation_accuracy if precise.test_accuracy is None else precise.test_accuracy


def _running(record: Record) -> float | None:
    last = record.last
    return last.validation_accuracy if last.test_accuracy is None else last.test_accuracy


def _gap(record: Record) -> float | None:
    test = test_accuracy(record)
    return None if test is None else train_accuracy(record) - test


accuracy = Measure("accuracy", "test accuracy, recomputed statistics", of_record(test_accuracy), percent=True)
running_accuracy = Measure("running accuracy", "test accuracy, running statistics", of_record(_running), percent=True)
training_accuracy = Measure(
    "training accuracy", "training accuracy, recomputed statistics", of_record(train_accuracy), percent=True
)
gap = Measure("gap", "training minus test accuracy, recomputed statistics", of_record(_gap), percent=True)
best_rate = Measure("best rate", "learning rate of the arm", of_record(lambda record: record.recipe.lr))


def _error(record: Record) -> float | None:
    running, precise = _running(record), test_accuracy(record)
    return None if running is None or precise is None else abs(running - precise)


statistics_error = Measure(
    "statistics error",
    "test accuracy, running minus recomputed statistics, either way",
    of_record(_error),
    percent=True,
)


def at_start(name: str, title: str, probe: str, value: str) -> Measure:
    """One value of a probe before the first step: of an unusable trial too, since it does not depend on training."""

    def read(cell: Cell) -> float | None:
        series = cell.records[0].result.probes.get(probe) if cell.records else None
        return None if series is None or value not in series.values else series.values[value][0]

    return Measure(name, title, read)


def over_readings(
    name: str,
    title: str,
    probe: str,
    chosen: str,
    reduce: Callable[[Sequence[float]], float],
) -> Measure:
    """All readings of a probe's values whose name contains `chosen`, in one number."""

    def read(record: Record) -> float | None:
        series = record.result.probes.get(probe)
        if series is None:
            return None
        numbers = [number for value, read in series.values.items() if chosen in value for number in read]
        known = [number for number in numbers if number is not None]
        return reduce(known) if known else None

    return Measure(name, title, of_record(read))


def at_matched_loss(name: str, title: str, probe: str, value: str, pairs: Sequence[tuple[str, str]]) -> Measure:
    """A probe's value over the losses through which both arms of a pair pass with the same seed, each loss alike: the
    geometric mean over the bins of `by_loss` that both have; None where there is none.
    """

    def read(cell: Cell) -> float | None:
        pair = next((pair for pair in pairs if cell.arm in pair), None)
        if pair is None or not all(arm in cell.beside for arm in pair):
            return None
        lines = {arm: by_loss(cell.beside[arm], probe, value) for arm in pair}
        shared = set.intersection(*map(set, lines.values()))
        return math.exp(fmean(math.log(lines[cell.arm][loss]) for loss in shared)) if shared else None

    return Measure(name, title, read)


def by_loss(record: Record, probe: str, value: str) -> dict[float, float]:
    """The middle of each bin of the probe's `loss`, `LOSS_BIN` wide, to the geometric mean of the value there."""
    logs: dict[int, list[float]] = defaultdict(list)
    if series := record.result.probes.get(probe):
        for loss, number in zip(series.values["loss"], series.values[value], strict=True):
            if loss is not None and number:
                logs[math.floor(loss / LOSS_BIN)].append(math.log(number))
    return {LOSS_BIN * (index + 0.5): math.exp(fmean(logs[index])) for index in sorted(logs)}


def steps_to(target: float) -> Measure:
    """Steps until the probe `fit` first reads this training accuracy; those of the whole run if it never does,
    which is a lower bound.
    """
    return Measure(
        f"steps to {target:.0%}",
        f"steps to a training accuracy of {target:.0%}",
        of_record(lambda record: _steps_to(record, target)),
    )


def steps_to_best_of(arm: str, share: float = 1.0, name: str = "steps") -> Measure:
    """Steps until the training accuracy first reaches this share of the best that `arm` reads with the same seed;
    those of the whole run where it never does.
    """

    def read(cell: Cell) -> float | None:
        if cell.record is None or arm not in cell.beside:
            return None
        return _steps_to(cell.record, share * max(_fit(cell.beside[arm]).values(), default=math.inf))

    part = "" if share == 1 else f"{share:.0%} of "
    return Measure(name, f"steps to {part}the best of {arm}, in training accuracy", read)


def seconds_to(target: float) -> Measure:
    """Steps to a training accuracy, times the seconds of a step that were measured apart."""

    def read(cell: Cell) -> float | None:
        steps = None if cell.record is None else _steps_to(cell.record, target)
        return None if steps is None or cell.step_seconds is None else steps * cell.step_seconds

    return Measure("seconds", f"seconds of training to an accuracy of {target:.0%}", read)


step_seconds = Measure("step", "seconds of an optimizer step, one thread", lambda cell: cell.step_seconds)


def _fit(record: Record) -> dict[int, float]:
    """Step to training accuracy, as the probe `fit` read it."""
    if (series := record.result.probes.get("fit")) is None:
        return {}
    read = zip(series.steps, series.values["accuracy"], strict=True)
    return {step: share for step, share in read if share is not None}


def _steps_to(record: Record, target: float) -> float | None:
    line = _fit(record)
    reached = (step for step, share in line.items() if share >= target)
    return float(next(reached, max(line))) if line else None


def _largest(cell: Cell) -> float | None:
    return max((record.recipe.lr for record in cell.records if cell.usable(record)), default=None)


largest_rate = Measure("largest rate", "largest usable learning rate", _largest)


def _best(cell: Cell) -> float | None:
    precise = [record.result.precise for record in cell.records if cell.usable(record)]
    shares = [each.validation_accuracy for each in precise if each and each.validation_accuracy is not None]
    return max(shares, default=None)


best_rate_accuracy = Measure("best accuracy", "validation accuracy at the best rate of the grid", _best, percent=True)
