"""Thread, line 5: is batch normalization needed in every layer?"""

import itertools

from normlab.lab import RECIPE, Arm, Study, accuracy, draw, sizes
from normlab.lab.measures import running_accuracy
from normlab.lab.rules import contrast, holm
from normlab.surgery import keep

STAGES = 4
SUBSETS = [kept for size in range(STAGES + 1) for kept in itertools.combinations(range(STAGES), size)]


def name(kept: tuple[int, ...]) -> str:
    """The norms that stand, counted from 1, as the thread's readers do."""
    return "all" if len(kept) == STAGES else "".join(str(stage + 1) for stage in kept) or "none"


def main_effect(measure: str, stage: int) -> contrast:
    """The mean of the eight subsets with a stage's norms, minus that of the eight without."""
    half = len(SUBSETS) / 2
    weights = tuple((name(kept), (1 if stage in kept else -1) / half) for kept in SUBSETS)
    return contrast(measure, f"what the norms of stage {stage + 1} add, over the others' subsets", weights, 0.004)


STUDY = Study(
    question="Is batch normalization needed in every layer?",
    claim="Each of the four layers' norms adds more than 0.4 points of accuracy.",
    source="D2L, batch normalization, exercise 4 and its discussion",
    thread=(5,),
    recipe=RECIPE.replace(lr=0.3, model_options={"activation": "tanh"}),
    arms={name(kept): Arm() if len(kept) == STAGES else Arm(keep(stages=kept, of=STAGES)) for kept in SUBSETS},
    measures=(accuracy, running_accuracy),
    rules=(holm(tuple(main_effect("accuracy", stage) for stage in range(STAGES))),),
    beside=(holm(tuple(main_effect("running accuracy", stage) for stage in range(STAGES))),),
    answers={
        "supported": "Yes: even the least of the four adds {effect} ({low} to {high}, n = {n}).",
        "contradicted": "No: {rule} does not hold; it adds {effect} ({low} to {high}, n = {n}).",
        "inconclusive": "Not decided for every layer: {rule}; found {effect} ({low} to {high}, n = {n}).",
    },
    sizes=sizes(),
    figures=(draw.effects("accuracy", 0.004), draw.points("accuracy"), draw.points("running accuracy")),
    caveats=(
        "Main effects average over all subsets of the other layers; the points show each subset.",
        "tanh at rate 0.3, where every subset trains: sigmoid LeNet without norms stays at chance in runs this short.",
        "A model with more norms is divided into four stages, in order.",
    ),
)
