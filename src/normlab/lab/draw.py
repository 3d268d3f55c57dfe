"""What a study draws: from its results to figures."""

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from normlab.errors import choose
from normlab.lab import figure
from normlab.lab.cell import train_accuracy
from normlab.lab.measures import by_loss
from normlab.lab.study import Drawing, Results
from normlab.store import Epoch, Record
from normlab.store.verdict import Figure


def points(measure: str, arms: Sequence[str] = ()) -> Drawing:
    """Every seed of every arm, or of some, a point."""

    def draw(results: Results) -> Figure:
        drawn, of = choose(results.measures, measure, "measure of the study"), results.outcomes[measure]
        return figure.points(
            drawn.title,
            {arm: values for arm, values in of.items() if not arms or arm in arms},
            axis=drawn.title,
            percent=drawn.percent,
            unusable={arm: count for arm, count in results.unusable.items() if count and (not arms or arm in arms)},
        )

    return draw


def effects(measure: str, margin: float | None = None) -> Drawing:
    """What the rules about a measure found, with the intervals that decided."""

    def draw(results: Results) -> Figure:
        drawn = choose(results.measures, measure, "measure of the study")
        findings = [finding for finding in results.findings if finding.measure == measure]
        return figure.effects(f"Effects on {drawn.title}", findings, margin=margin, percent=drawn.percent)

    return draw


def rates() -> Drawing:
    """Training accuracy of every trial, those of a search included, against its learning rate."""

    def draw(results: Results) -> Figure:
        values: dict[str, dict[float, dict[int, float]]] = {}
        for cell in results.cells:
            for record in cell.records:
                at = values.setdefault(cell.arm, {}).setdefault(record.recipe.lr, {})
                at[cell.seed] = train_accuracy(record)
        return figure.sweep(
            "Training accuracy against the learning rate",
            values,
            x="learning rate",
            axis="training accuracy, recomputed statistics",
            percent=True,
        )

    return draw


def over_epochs(field: str, title: str, *, percent: bool) -> Drawing:
    """A number of every epoch, a line a seed."""

    def line(record: Record) -> list[tuple[float, float]]:
        return [(epoch.epoch, value) for epoch in record.result.epochs if (value := _of(epoch, field)) is not None]

    def draw(results: Results) -> Figure:
        values: dict[str, dict[int, list[tuple[float, float]]]] = {}
        for cell in results.cells:
            if cell.record is not None:
                values.setdefault(cell.arm, {})[cell.seed] = line(cell.record)
        return figure.curves(title, values, x="epoch", axis=title, percent=percent)

    return draw


def _of(epoch: Epoch, field: str) -> float | None:
    value: float | None = getattr(epoch, field)
    return value


def readings(probe: str, value: str, title: str, *, percent: bool = False) -> Drawing:
    """A probe's value over the steps, a line a seed."""

    def draw(results: Results) -> Figure:
        values: dict[str, dict[int, list[tuple[float, float]]]] = {}
        for cell in results.cells:
            if line := _readings(cell.record, probe, value):
                values.setdefault(cell.arm, {})[cell.seed] = line
        return figure.curves(title, values, x="step", axis=title, percent=percent)

    return draw


def over_loss(probe: str, value: str, title: str) -> Drawing:
    """A probe's value against its loss, as `at_matched_loss` compares it."""

    def draw(results: Results) -> Figure:
        values: dict[str, dict[float, dict[int, float]]] = {}
        for cell in results.cells:
            if cell.record is not None:
                for loss, mean in by_loss(cell.record, probe, value).items():
                    values.setdefault(cell.arm, {}).setdefault(loss, {})[cell.seed] = mean
        return figure.sweep(title, values, x="loss", axis=title, percent=False, log=False)

    return draw


def paths(probe: str, arm: str, chosen: str, title: str) -> Drawing:
    """Every value of a probe whose name contains `chosen`, over the steps of the first seed."""

    def draw(results: Results) -> Figure:
        record = next((cell.record for cell in results.cells if cell.arm == arm and cell.record), None)
        series = record.result.probes.get(probe) if record else None
        names = [name for name in series.values if chosen in name] if series else []
        return figure.paths(title, {name: _readings(record, probe, name) for name in names}, x="step", axis=title)

    return draw


def by_layer(probe: str, ending: str, title: str) -> Drawing:
    """A probe's first reading of every value whose name has this ending, its geometric mean over the seeds."""

    def draw(results: Results) -> Figure:
        logs: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for cell in results.cells:
            for record in cell.records:
                lines = [line for name, line in record.result.probes[probe].values.items() if name.endswith(ending)]
                for layer, (first, *_) in enumerate(lines, 1):
                    if first:
                        logs[cell.arm][layer].append(math.log(first))
        means = {arm: [(at, math.exp(fmean(each))) for at, each in line.items()] for arm, line in logs.items()}
        return figure.paths(title, means, x="layer", axis=title, log=True)

    return draw


def bands(probe: str, layer: str, title: str) -> Drawing:
    """The percentiles 15, 50 and 85 of a layer's inputs over the steps of the first seed, an arm below another."""

    def draw(results: Results) -> Figure:
        values = {}
        for cell in results.cells:
            if cell.arm in values or cell.record is None:
                continue
            lines = [_readings(cell.record, probe, f"{layer} p{q}") for q in (15, 50, 85)]
            values[cell.arm] = [
                (step, low, middle, high) for (step, low), (_, middle), (_, high) in zip(*lines, strict=True)
            ]
        return figure.percentiles(title, values, x="step", axis="input of the activation")

    return draw


def against(measure: str, predictor: str, title: str) -> Drawing:
    """Each arm's mean of one measure against that of another."""

    def draw(results: Results) -> Figure:
        x, y = (choose(results.measures, each, "measure of the study").title for each in (predictor, measure))
        means = {}
        for arm, seeds in results.outcomes[measure].items():
            if seeds and (predicted := results.outcomes[predictor][arm]):
                means[arm] = (sum(predicted.values()) / len(predicted), sum(seeds.values()) / len(seeds))
        return figure.scatter(title, means, x=x, axis=y)

    return draw


def _readings(record: Record | None, probe: str, value: str) -> list[tuple[float, float]]:
    series = record.result.probes.get(probe) if record else None
    if series is None or value not in series.values:
        return []
    return [(step, read) for step, read in zip(series.steps, series.values[value], strict=True) if read is not None]
