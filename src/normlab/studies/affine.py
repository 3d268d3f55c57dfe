"""Thread, line 7: fix beta and gamma; what happens?"""

from normlab.lab import RECIPE, Arm, Study, accuracy, draw, sizes
from normlab.lab.measures import running_accuracy
from normlab.lab.rules import equivalent, holm, superior
from normlab.surgery import freeze

PARTS = {"gamma fixed": "gamma", "beta fixed": "beta", "both fixed": "affine"}
SIGMOID = {"activation": "sigmoid"}

STUDY = Study(
    question="What happens if gamma and beta are fixed?",
    claim="With ReLU nothing that matters (0.4 points): the next layer can scale and shift by itself.",
    source="D2L, batch normalization, exercise 6; Ioffe & Szegedy 2015, arXiv 1502.03167, section 3",
    thread=(7,),
    recipe=RECIPE.replace(lr=0.3, model_options={"activation": "relu"}),
    arms={
        "free": Arm(),
        **{name: Arm(freeze(part)) for name, part in PARTS.items()},
        "sigmoid, free": Arm(model_options=SIGMOID),
        "sigmoid, gamma fixed": Arm(freeze("gamma"), model_options=SIGMOID),
    },
    measures=(accuracy, running_accuracy),
    rules=(holm(tuple(equivalent("accuracy", "free", part, 0.004) for part in PARTS)),),
    beside=(superior("accuracy", "sigmoid, free", "sigmoid, gamma fixed", 0.004),),
    answers={
        "supported": "Nothing that matters, with ReLU: the largest difference is {effect} ({low} to {high}, n = {n}).",
        "contradicted": "They matter even with ReLU: {rule}, but the difference is {effect} ({low} to {high}, n = {n}).",
        "inconclusive": "Not decided at 0.4 points: {rule}; the difference is {effect} ({low} to {high}, n = {n}).",
    },
    sizes=sizes(),
    figures=(draw.points("accuracy"), draw.effects("accuracy", 0.004)),
    caveats=("Both activations at rate 0.3, which is low for the sigmoid.",),
)
