"""Literature: scale invariance makes weight decay a learning rate, and the learning rate hardly matter."""

import itertools

from normlab.lab import RECIPE, Arm, Study, accuracy, draw, sizes
from normlab.lab.cell import Cell
from normlab.lab.measures import at_start, test_accuracy
from normlab.lab.rules import below, equivalent, holm, near, superior
from normlab.lab.study import Measure
from normlab.measure import equivalent_rates, to_plain
from normlab.surgery import stretch, swap

LR = 0.3
APART, TURN = "apart", "turn"
OF_WEIGHTS = {"weights' rate / 10": stretch(10**0.5), "weights' rate x 10": stretch(10**-0.5)}
BN = ("BN", *OF_WEIGHTS)


def as_it_ends(cell: Cell) -> float | None:
    """Of an unusable trial too, since to be so is what a rate does; 0 where the loss was no number."""
    if not cell.records:
        return None
    return 0.0 if cell.records[0].result.nonfinite else test_accuracy(cell.records[0])


STUDY = Study(
    question="Does batch normalization make the learning rate of the weights before it a matter of indifference?",
    claim="Weight decay at a constant rate is a growing rate without it, to 1e-9 over 1,000 steps; a step turns a weight "
    "by sqrt(2 lr decay); and a tenth to ten times the rate of these weights costs less than a point of accuracy, "
    "where without batch norm ten times the rate costs five.",
    source="Li & Arora 2020, arXiv 1910.07454, theorem 1.1; Arora, Li & Lyu 2019, arXiv 1812.03981, section 3; Wan et "
    "al. 2021, arXiv 2006.08419, section 3",
    recipe=RECIPE.replace(model="mlp", lr=LR, model_options={"activation": "relu"}, evaluate_epochs=False),
    arms={
        "BN": Arm(probes=(to_plain(equivalent_rates(every=0, lr=LR, weight_decay=0.01)),)),
        **{name: Arm(surgery) for name, surgery in OF_WEIGHTS.items()},
        **{
            f"{norm}, all rates {name}": Arm(*surgeries, lr=lr)
            for norm, surgeries in (("BN", ()), ("none", (swap("batch", "none"),)))
            for name, lr in (("/ 10", LR / 10), ("x 1", LR), ("x 10", LR * 10))
            if norm == "none" or lr != LR
        },
    },
    measures=(
        Measure("accuracy", accuracy.title + ", as it ends", as_it_ends, percent=True),
        at_start(APART, "largest relative distance of the two descents in 1,000 steps", "equivalent_rates", APART),
        at_start(TURN, "angle of a step over sqrt(2 lr decay)", "equivalent_rates", TURN),
    ),
    rules=(
        below(APART, 1e-9, ("BN",)),
        near(TURN, "BN", 1, 0.1),
        holm(tuple(equivalent("accuracy", *pair, 0.01) for pair in itertools.combinations(BN, 2))),
        superior("accuracy", "none, all rates x 1", "none, all rates x 10", 0.05),
    ),
    beside=(
        superior("accuracy", "BN", "BN, all rates x 10", 0.05),
        superior("accuracy", "BN", "BN, all rates / 10", 0.05),
        superior("accuracy", "none, all rates x 1", "none, all rates / 10", 0.05),
    ),
    answers={
        "supported": "Yes: the weakest of four parts holds too ({rule}: {effect}, {low} to {high}, n = {n}).",
        "contradicted": "Not in every part: {rule}, but found {effect} ({low} to {high}, n = {n}).",
        "inconclusive": "Not decided in every part: {rule}; found {effect} ({low} to {high}, n = {n}).",
    },
    sizes=sizes(),
    figures=(draw.points("accuracy"), draw.effects("accuracy", 0.01), draw.points(TURN, ("BN",))),
    caveats=(
        "The equivalence is exact where the loss depends on the weights' directions alone: it is shown at eps = 0, of the "
        "weights before norms, with gamma, beta and the last layer held fixed, without momentum; a norm of the usual eps, "
        "and an optimizer that decays or moves the rest, have it nearly.",
        "Another rate for these weights alone is had by another length: at a fixed rate, weights sqrt(10) times as long "
        "turn as at a tenth of the rate.",
        "The theorems are about long trainings, where the length has had the time to grow to what suits the rate.",
    ),
)
