"""Thread, line 9: is what the probability integral transform gives uniform, "approximately in large samples"?"""

from collections import defaultdict
from statistics import fmean

from normlab.lab import RECIPE, Arm, Study, accuracy, draw, figure, sizes
from normlab.lab.measures import of_record
from normlab.lab.rules import below
from normlab.lab.study import Measure, Results
from normlab.measure import to_plain, uniformity
from normlab.measure.uniformity import NORMAL
from normlab.store import Record
from normlab.store.verdict import Figure

FITS = {  # and what the probe calls them
    "Gaussian fit": ("gaussian", False),
    "kernel density": ("kernel", False),
    "ranks": ("ranks", False),
    "Gaussian fit of Gaussian data": ("gaussian", True),
}
LEFT = 0.75
PROBE = to_plain(uniformity(every=300))


def distances(record: Record, fit: str) -> dict[int, float]:
    """Number of values to the distance to uniform at the last reading, averaged over the norms."""
    wanted, control = FITS[fit]
    series = record.result.probes.get("uniformity")
    found = defaultdict(list)
    for name, line in series.values.items() if series else ():
        path, given, n = name.rsplit(" ", 2)
        if given == wanted and (path == NORMAL) == control and line[-1] is not None:
            found[int(n)].append(line[-1])
    return {n: fmean(found[n]) for n in sorted(found)}


def left(fit: str) -> Measure:
    """What is left of the distance when there are four times as many values, the most there are."""

    def read(record: Record) -> float | None:
        *_, few, many = [None, None, *distances(record, fit).values()]
        return many / few if few and many is not None else None

    return Measure(
        fit, f"distance to uniform with all values over that with a quarter of them: {fit}", of_record(read)
    )


def against_values(results: Results) -> Figure:
    """The distance by each fit, against the number of values."""
    values: dict[str, dict[float, dict[int, float]]] = {fit: defaultdict(dict) for fit in FITS}
    for cell in results.cells:
        if cell.record is None:
            continue
        for fit in FITS:
            for n, distance in distances(cell.record, fit).items():
                values[fit][n][cell.seed] = distance
    title = "Distance to uniform (Kolmogorov-Smirnov)"
    return figure.sweep(title, values, x="values", axis=title, percent=False)


STUDY = Study(
    question="Does the probability integral transform make activations uniform, approximately in large samples?",
    claim="With a fitted Gaussian and four times the values, less than three quarters of the distance to uniform is left.",
    source="D2L discussion, batch normalization; Rosenblatt 1952, Remarks on a multivariate transformation",
    thread=(9,),
    recipe=RECIPE.replace(
        model="mlp", lr=0.3, model_options={"activation": "relu"}, probes=(PROBE,), evaluate_epochs=False
    ),
    arms={"trained network": Arm()},
    measures=(accuracy, *map(left, FITS)),
    rules=(below("Gaussian fit", LEFT),),
    beside=tuple(below(fit, LEFT) for fit in FITS if fit != "Gaussian fit"),
    answers={
        "supported": "Yes: with four times the values {effect} of the distance to uniform is left ({low} to {high}, "
        "n = {n}); were the activations Gaussian it would be 0.5.",
        "contradicted": "No: with four times the values {effect} of the distance to uniform is left ({low} to {high}, "
        "n = {n}), where Gaussian activations would leave 0.5; the misfit dominates, not the sample.",
        "inconclusive": "Not decided: with four times the values {effect} of the distance to uniform is left ({low} to "
        "{high}, n = {n}).",
    },
    sizes=sizes(),
    figures=(against_values, draw.points("Gaussian fit")),
    caveats=(
        "The inputs of an MLP's norms, four channels of each, 2,000 training images; each image gives one value a channel. "
        "Convolutions of a flat background give one value many times, which not even ranks can spread.",
        "Each fit is made from the values that it transforms, as a layer in training does.",
    ),
)
