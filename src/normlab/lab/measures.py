"""What studies measure: numbers of a cell's trials. Accuracy means accuracy under recomputed statistics."""

from collections.abc import Callable, Sequence

from normlab.lab.cell import Cell, train_accuracy
from normlab.lab.study import Measure
from normlab.store import Precise, Record


def of_record(read: Callable[[Record], float | None]) -> Callable[[Cell], float | None]:
    """Read from the trial by which an arm is judged."""
    return lambda cell: None if cell.record is None else read(cell.record)


def _test(precise: Precise) -> float | None:
    """A user's data may have no test split: then what validates must do."""
    return precise.validation_accuracy if precise.test_accuracy is None else precise.test_accuracy


def _running(record: Record) -> float | None:
    last = record.last
    return last.validation_accuracy if last.test_accuracy is None else last.test_accuracy


def _gap(record: Record) -> float | None:
    precise = record.result.precise
    if precise is None or precise.train_accuracy is None or (test := _test(precise)) is None:
        return None
    return precise.train_accuracy - test


accuracy = Measure(
    "accuracy",
    "test accuracy, recomputed statistics",
    of_record(lambda record: record.result.precise and _test(record.result.precise)),
    percent=True,
)
running_accuracy = Measure("running accuracy", "test accuracy, running statistics", of_record(_running), percent=True)
training_accuracy = Measure(
    "training accuracy", "training accuracy, recomputed statistics", of_record(train_accuracy), percent=True
)
gap = Measure("gap", "training minus test accuracy, recomputed statistics", of_record(_gap), percent=True)
best_rate = Measure("best rate", "learning rate of the arm", of_record(lambda record: record.recipe.lr))


def statistics_error() -> Measure:
    """How far running statistics are from recomputed ones, in test accuracy, either way."""

    def read(record: Record) -> float | None:
        running, precise = _running(record), record.result.precise and _test(record.result.precise)
        return None if running is None or precise is None else abs(running - precise)

    return Measure("statistics error", "|test accuracy under running - recomputed statistics|", of_record(read), True)


def reading(name: str, title: str, probe: str, value: str, at: int = -1, *, percent: bool = False) -> Measure:
    """One value of a probe: its last reading, or that at another index."""

    def read(record: Record) -> float | None:
        series = record.result.probes.get(probe)
        return None if series is None or value not in series.values else series.values[value][at]

    return Measure(name, title, of_record(read), percent)


def over_readings(
    name: str,
    title: str,
    probe: str,
    chosen: str,
    reduce: Callable[[Sequence[float]], float],
    *,
    percent: bool = False,
) -> Measure:
    """All readings of a probe's values whose name contains `chosen`, in one number."""

    def read(record: Record) -> float | None:
        series = record.result.probes.get(probe)
        if series is None:
            return None
        numbers = [number for value, read in series.values.items() if chosen in value for number in read]
        return (
            reduce([number for number in numbers if number is not None])
            if any(number is not None for number in numbers)
            else None
        )

    return Measure(name, title, of_record(read), percent)


def steps_to(target: float) -> Measure:
    """Steps until the probe `fit` first reads this training accuracy; those of the whole run if it never does,
    which is a lower bound.
    """

    def read(record: Record) -> float | None:
        series = record.result.probes.get("fit")
        if series is None:
            return None
        reached = (
            step
            for step, share in zip(series.steps, series.values["accuracy"], strict=True)
            if share is not None and share >= target
        )
        return float(next(reached, series.steps[-1]))

    return Measure(f"steps to {target:.0%}", f"steps to a training accuracy of {target:.0%}", of_record(read))


def _largest(cell: Cell) -> float | None:
    rates = [record.recipe.lr for record in cell.records if cell.usable(record)]
    return max(rates, default=None)


largest_rate = Measure("largest rate", "largest usable learning rate", _largest)
