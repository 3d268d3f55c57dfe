"""Thread, line 12: "the same accuracy with 14 times fewer training steps"."""

from normlab.lab import RECIPE, Arm, Study, accuracy, draw, sizes
from normlab.lab.measures import steps_to_best_of
from normlab.lab.rules import ratio_at_least, superior
from normlab.measure import fit, to_plain
from normlab.surgery import swap

none = swap("batch", "none")
LR = 0.3
# What the paper changed together with the norm (section 4.2.1), as far as it can be had here: a rate that falls
# faster, and less weight decay.
OTHERS = {"schedule": "cosine", "weight_decay": 1e-4}
INIT = {"init": "xavier"}
PLAIN = {"schedule": "constant", "weight_decay": 5e-4}
ARMS = {
    name: Arm(*surgeries, lr=LR * factor, **changes)
    for name, surgeries, factor, changes in (
        ("none", (none,), 1, PLAIN),
        ("BN", (), 1, PLAIN),
        ("BN x5", (), 5, PLAIN),
        ("BN x30", (), 30, PLAIN),
        ("none, other changes too", (none,), 1, OTHERS),
        ("BN x5, other changes too", (), 5, OTHERS),
    )
}

STUDY = Study(
    question="Does batch normalization reach the same accuracy in 14 times fewer steps, and end better?",
    claim="It reaches the other's best in less than half the steps, at five times the rate in less than a fifth.",
    source="Ioffe & Szegedy 2015, arXiv 1502.03167, section 4.2.2 and figure 2",
    original="Inception on ImageNet: 14 times fewer steps at five times the rate; 74.8 % at thirty times the rate",
    thread=(12,),
    recipe=RECIPE.replace(
        model="inception",
        model_options=INIT,
        probes=(to_plain(fit(every=10)),),
        evaluate_epochs=False,
    ),
    arms=ARMS,
    measures=(accuracy, steps_to_best_of("none")),
    rules=(ratio_at_least("steps", "none", "BN", 2), ratio_at_least("steps", "none", "BN x5", 5)),
    beside=(
        superior("accuracy", "BN", "none"),
        ratio_at_least("steps", "none", "BN x5, other changes too", 5),
        superior("accuracy", "BN x5, other changes too", "BN x5"),
    ),
    answers={
        "supported": "Many times fewer steps: the closer of the two ratios is {effect} ({low} to {high}, n = {n}).",
        "contradicted": "Not so many times fewer: {rule}, but found {effect} ({low} to {high}, n = {n}).",
        "inconclusive": "Not decided: {rule}; found {effect} ({low} to {high}, n = {n}).",
    },
    sizes=sizes(
        {"model_options": {**INIT, "width": 8}}, quick_arms=("none", "BN", "BN x5", "BN x5, other changes too")
    ),
    figures=(
        draw.readings("fit", "accuracy", "training accuracy, the batch's statistics", percent=True),
        draw.points("steps"),
        draw.points("accuracy"),
    ),
    caveats=(
        "A mini-Inception of 100,000 parameters, of 27,000 at quick, on small grey images, not the paper's network on ImageNet.",
        "The paper changed seven things at once; the arms 'other changes too' have two of the others.",
    ),
)
