"""Thread, line 12: less careful initialization."""

from normlab.lab import RECIPE, Arm, Study, accuracy, draw, sizes
from normlab.lab.cell import Cell
from normlab.lab.measures import test_accuracy
from normlab.lab.rules import superior
from normlab.lab.study import Measure
from normlab.surgery import scale_init, swap

none = swap("batch", "none")
STDS = (0.001, 0.01, 0.1, 1.0, 10.0)
MIDDLE = "std 0.1"


def decades(cell: Cell) -> float | None:
    """Of the arms with this one's norm: how many of the five reach 95 % of the best, with the same seed."""
    norm, _, std = cell.arm.partition(", ")
    if std != MIDDLE:
        return None
    reached = [test_accuracy(record) or 0.0 for arm, record in cell.beside.items() if arm.startswith(norm + ",")]
    best = max((test_accuracy(record) or 0.0 for record in cell.beside.values()), default=0.0)
    return float(sum(share >= 0.95 * best for share in reached))


STUDY = Study(
    question="Does batch normalization allow less careful initialization?",
    claim="The initial weights' standard deviations that reach 95 % of the best span at least a decade more.",
    source="Ioffe & Szegedy 2015, arXiv 1502.03167, section 1 and 3.3",
    thread=(12,),
    recipe=RECIPE.replace(lr=0.3, model_options={"activation": "relu"}, evaluate_epochs=False),
    arms={
        f"{norm}, std {std:g}": Arm(*surgeries, scale_init(std))
        for norm, surgeries in (("BN", ()), ("none", (none,)))
        for std in STDS
    },
    measures=(accuracy, Measure("decades", "of five decades, those that reach 95 % of the best", decades)),
    rules=(superior("decades", f"BN, {MIDDLE}", f"none, {MIDDLE}", 0.99),),
    answers={
        "supported": "Yes: {effect} decades more of the initial scale serve ({low} to {high}, n = {n}).",
        "contradicted": "No: only {effect} decades more ({low} to {high}, n = {n}).",
        "inconclusive": "Not decided: {effect} decades more ({low} to {high}, n = {n}).",
    },
    sizes=sizes({"train_examples": 10_000}),
    figures=(draw.points("accuracy"), draw.points("decades", (f"BN, {MIDDLE}", f"none, {MIDDLE}"))),
    caveats=("One learning rate for all; biases keep torch's initialization.",),
)
