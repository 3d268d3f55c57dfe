"""Thread, lines 3 and 14: the increase in training and test accuracy, each arm at its best rate."""

from normlab.lab import RECIPE, Arm, Study, accuracy, draw, sizes
from normlab.lab.measures import best_rate, steps_to, training_accuracy
from normlab.lab.plan import tuned
from normlab.lab.rules import answered, ratio_at_least, superior
from normlab.measure import fit, to_plain
from normlab.surgery import swap

none = swap("batch", "none")
GRID = (0.0316, 0.1, 0.316, 1.0)
SHORT = {"train_examples": 5_000, "epochs": 4}
WITH_AND_WITHOUT = {"BN": Arm(), "none": Arm(none)}
TUNED = RECIPE.replace(model_options={"activation": "relu"}, probes=(to_plain(fit(every=10)),))

STUDY = Study(
    question="How do training and test accuracy increase, with and without batch normalization?",
    claim="Measured, each arm at its own best rate.",
    source="D2L, batch normalization, exercise 2",
    thread=(3, 14),
    recipe=TUNED,
    arms=WITH_AND_WITHOUT,
    measures=(accuracy, training_accuracy, steps_to(0.7), best_rate),
    rules=(answered("accuracy"),),
    beside=(superior("accuracy", "BN", "none"), ratio_at_least("steps to 70%", "none", "BN", 2)),
    answers={
        "answered": "The curves are the answer; over both arms the runs end at {effect} of test accuracy (n = {n}).",
        "inconclusive": "No run of either arm trained.",
    },
    plan=tuned(GRID),
    sizes=sizes(SHORT, {"train_examples": 10_000, "epochs": 4}),
    figures=(
        draw.readings("fit", "accuracy", "training accuracy, the batch's statistics", percent=True),
        draw.over_epochs("test_accuracy", "test accuracy, running statistics", percent=True),
        draw.rates(),
    ),
    caveats=("Rates are chosen on validation data by two seeds.",),
)
