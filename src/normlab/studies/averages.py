"""Thread, line 7: "if it means fixing the moving averages": never updating them, or using them in training."""

from normlab.lab import RECIPE, Arm, Study, accuracy, draw, sizes
from normlab.lab.measures import running_accuracy, statistics_error
from normlab.lab.rules import equivalent, superior
from normlab.surgery import freeze

STUDY = Study(
    question="What if the moving averages are fixed?",
    claim="Never updated, they break evaluation and nothing else; used in training, they leave no normalization.",
    source="D2L, batch normalization, exercise 6 and its discussion",
    thread=(7,),
    recipe=RECIPE.replace(lr=0.3, model_options={"activation": "relu"}),
    arms={
        "as usual": Arm(),
        "never updated": Arm(freeze("averages")),
        "used in training": Arm(freeze("statistics")),
    },
    measures=(accuracy, running_accuracy, statistics_error),
    rules=(
        superior("running accuracy", "as usual", "never updated", 0.05),
        equivalent("accuracy", "as usual", "never updated", 0.001),
        superior("running accuracy", "as usual", "used in training", 0.02),
    ),
    answers={
        "supported": "Never updated, they break evaluation alone; used in training from the start they cost what batch "
        "norm gains ({rule}: {effect}, {low} to {high}, n = {n}).",
        "contradicted": "Not as claimed: {rule}, but found {effect} ({low} to {high}, n = {n}).",
        "inconclusive": "Not decided: {rule}; found {effect} ({low} to {high}, n = {n}).",
    },
    sizes=sizes(),
    figures=(draw.points("running accuracy"), draw.points("accuracy"), draw.points("statistics error")),
    caveats=("Frozen batch norm is meant for statistics of a trained network; here they are those of a new one.",),
)
