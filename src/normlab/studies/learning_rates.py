"""Thread, line 2: compare the learning rates with and without batch normalization."""

from normlab.lab import RECIPE, Arm, Study, draw, sizes
from normlab.lab.measures import best_rate_accuracy, largest_rate
from normlab.lab.plan import SEARCHING, every_rate, half_decades
from normlab.lab.rules import ratio_at_least, superior
from normlab.surgery import swap

STUDY = Study(
    question="How do learning rates compare with and without batch normalization?",
    claim="With it, rates at least three times as large still train, and the best rate trains better.",
    source="Ioffe & Szegedy 2015, arXiv 1502.03167, section 3.3; D2L, batch normalization, exercise 2",
    thread=(2,),
    recipe=RECIPE.replace(model_options={"activation": "relu"}, **SEARCHING),
    arms={"BN": Arm(), "none": Arm(swap("batch", "none"))},
    measures=(largest_rate, best_rate_accuracy),
    rules=(ratio_at_least("largest rate", "BN", "none", 3), superior("best accuracy", "BN", "none")),
    answers={
        "supported": "With batch norm the largest rate that still trains is {effect} times as large ({low} to {high}, "
        "n = {n}), and the best rate trains better.",
        "contradicted": "No: {rule}, but found {effect} ({low} to {high}, n = {n}).",
        "inconclusive": "Not decided: {rule}; found {effect} ({low} to {high}, n = {n}).",
    },
    plan=every_rate(half_decades(-3, 2)),
    sizes=sizes({"train_examples": 10_000}),
    figures=(draw.rates(), draw.points("largest rate"), draw.points("best accuracy")),
    caveats=(
        "With ReLU: sigmoid LeNet without batch norm does not leave chance in runs this short, at any rate.",
        "Rates stand on a grid of sqrt(10); `largest-rate` goes finer.",
    ),
)
