"""Thread, line 5: is batch normalization needed in every layer?"""

import itertools

from normlab.lab import RECIPE, Arm, Study, accuracy, draw, sizes
from normlab.lab.measures import running_accuracy
from normlab.lab.rules import holm, main_effect
from normlab.surgery import keep

STAGES = 4
SUBSETS = [kept for size in range(STAGES + 1) for kept in itertools.combinations(range(STAGES), size)]


def name(kept: tuple[int, ...]) -> str:
    """The norms that stand, counted from 1, as the thread's readers do."""
    return "all" if len(kept) == STAGES else "".join(str(stage + 1) for stage in kept) or "none"


# The fraction 2^(4-1) of resolution IV, in which no two stages' norms are mistaken for another's.
HALF = tuple(name(kept) for kept in SUBSETS if len(kept) % 2 == 0)


def effects(measure: str) -> holm:
    """For each stage: the mean of the subsets with its norms, minus that of those without."""
    rules = []
    for stage in range(STAGES):
        there, left_out = (
            tuple(name(kept) for kept in SUBSETS if (stage in kept) is wanted) for wanted in (True, False)
        )
        says = f"what the norms of stage {stage + 1} add, over the others' subsets"
        rules.append(main_effect(measure, says, there, left_out, 0.004))
    return holm(tuple(rules))


STUDY = Study(
    question="Is batch normalization needed in every layer?",
    claim="Each of the four layers' norms adds more than 0.4 points of accuracy.",
    source="D2L, batch normalization, exercise 4 and its discussion",
    thread=(5,),
    recipe=RECIPE.replace(lr=0.3, model_options={"activation": "tanh"}),
    arms={name(kept): Arm() if len(kept) == STAGES else Arm(keep(stages=kept, of=STAGES)) for kept in SUBSETS},
    measures=(accuracy, running_accuracy),
    rules=(effects("accuracy"),),
    beside=(effects("running accuracy"),),
    answers={
        "supported": "Yes: even the least of the four adds {effect} ({low} to {high}, n = {n}).",
        "contradicted": "No: {rule} does not hold; it adds {effect} ({low} to {high}, n = {n}).",
        "inconclusive": "Not decided for every layer: {rule}; found {effect} ({low} to {high}, n = {n}).",
    },
    sizes=sizes(quick_arms=HALF),
    figures=(draw.effects("accuracy", 0.004), draw.points("accuracy"), draw.points("running accuracy")),
    caveats=(
        "Main effects average over all subsets of the other layers; the points show each subset. Quick asks the half of "
        "them that leaves an even number out, where a main effect cannot be told from an interaction of the other three.",
        "tanh at rate 0.3, where every subset trains: sigmoid LeNet without norms stays at chance in runs this short.",
        "A model with more norms is divided into four stages, in order.",
    ),
)
