"""Thread, line 13: do the inputs of each sigmoid keep still? Figure 1 of the paper."""

from statistics import fmean, pstdev

from normlab.lab import RECIPE, Arm, Study, accuracy, draw, sizes
from normlab.lab.cell import Cell
from normlab.lab.measures import steps_to
from normlab.lab.rules import ratio_at_least
from normlab.lab.study import Measure
from normlab.measure import fit, percentiles, to_plain
from normlab.surgery import swap

LAST = "activation3"


def wander(cell: Cell) -> float | None:
    """The standard deviation over time of each percentile of the last layer's inputs, averaged over the three."""
    series = cell.record.result.probes.get("percentiles") if cell.record else None
    if series is None:
        return None
    last = max(name.rpartition(" ")[0] for name in series.values)
    lines = [[v for v in line if v is not None] for name, line in series.values.items() if name.startswith(last)]
    return fmean(map(pstdev, lines))


STUDY = Study(
    question="Do the inputs of each activation keep a steadier distribution with batch normalization?",
    claim="Their percentiles wander at least twice as far without it.",
    source="Ioffe & Szegedy 2015, arXiv 1502.03167, section 4.1 and figure 1",
    thread=(13,),
    recipe=RECIPE.replace(
        model="mlp",
        model_options={"init": "xavier"},
        probes=(to_plain(percentiles(every=20)), to_plain(fit(every=10))),
        evaluate_epochs=False,
    ),
    arms={"BN": Arm(), "none": Arm(swap("batch", "none"))},
    measures=(
        accuracy,
        Measure("wander", "standard deviation over time of the last activation's input percentiles", wander),
        steps_to(0.7),
    ),
    rules=(ratio_at_least("wander", "none", "BN", 2),),
    beside=(ratio_at_least("steps to 70%", "none", "BN", 1),),
    answers={
        "supported": "Yes: without it the percentiles wander {effect} times as far ({low} to {high}, n = {n}).",
        "contradicted": "No: without it they wander {effect} times as far ({low} to {high}, n = {n}), not twice.",
        "inconclusive": "Not decided: without it they wander {effect} times as far ({low} to {high}, n = {n}).",
    },
    sizes=sizes({"epochs": 3}, {"epochs": 3}),
    figures=(
        draw.bands("percentiles", LAST, "Percentiles 15, 50 and 85 of the last sigmoid's inputs"),
        draw.points("wander"),
        draw.readings("fit", "accuracy", "training accuracy, the batch's statistics", percent=True),
    ),
    caveats=("That distributions keep still is not why batch norm helps: see Santurkar et al. 2018, 1805.11604.",),
)
