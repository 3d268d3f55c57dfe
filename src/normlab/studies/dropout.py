"""Thread, line 6: can batch normalization replace dropout, and is it a regularizer?"""

from normlab.lab import RECIPE, Arm, Study, accuracy, draw, sizes
from normlab.lab.measures import gap, training_accuracy
from normlab.lab.rules import interaction, superior
from normlab.surgery import dropout, swap

none = swap("batch", "none")
SMALL = {"train_examples": 10_000, "epochs": 2}

STUDY = Study(
    question="Can batch normalization replace dropout?",
    claim="With batch norm, dropout of one half costs accuracy, and more than it costs without.",
    source="Ioffe & Szegedy 2015, arXiv 1502.03167, sections 3.4 and 4.2.1; D2L, batch normalization, exercise 3",
    thread=(6,),
    recipe=RECIPE.replace(lr=0.3, model_options={"activation": "relu"}, evaluate_epochs=False),
    arms={
        f"{norm}, p = {p:g}": Arm(*surgeries, *((dropout(p),) if p else ()))
        for norm, surgeries in (("BN", ()), ("none", (none,)))
        for p in (0, 0.2, 0.5)
    },
    measures=(accuracy, training_accuracy, gap),
    rules=(superior("accuracy", "BN, p = 0", "BN, p = 0.5"),),
    beside=(
        interaction("accuracy", "BN, p = 0", "BN, p = 0.5", "none, p = 0", "none, p = 0.5"),
        superior("accuracy", "BN, p = 0", "BN, p = 0.2"),
        superior("gap", "none, p = 0", "BN, p = 0"),
    ),
    answers={
        "supported": "Dropout has nothing to add to batch norm here: it costs {effect} ({low} to {high}, n = {n}).",
        "contradicted": "No: on top of batch norm dropout still gains; leaving it out costs {effect} ({low} to {high}, "
        "n = {n}, negative where dropout helps).",
        "inconclusive": "Not decided: leaving dropout out gains {effect} ({low} to {high}, n = {n}).",
    },
    sizes=sizes(SMALL, SMALL, {"train_examples": 10_000}),
    figures=(draw.points("accuracy"), draw.points("gap"), draw.effects("accuracy")),
    caveats=(
        "Runs this short underfit: the generalization gap that dropout closes opens later.",
        "All arms have the same rate; dropout might want another.",
    ),
)
