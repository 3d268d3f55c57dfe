"""Thread, line 11: are gamma and beta updated like any weight?"""

from normlab.lab import RECIPE, Arm, Study, accuracy, draw, sizes
from normlab.lab.measures import over_readings
from normlab.lab.rules import answered, below
from normlab.measure import affine, optimizer_equation, to_plain

mismatches = over_readings(
    "mismatches",
    "parameters whose step is not p - lr * gradient, bit for bit",
    "optimizer_equation",
    "mismatches",
    max,
)

STUDY = Study(
    question="How are gamma and beta updated?",
    claim="By the optimizer's equation, the same for them as for convolution weights, bit for bit.",
    source="D2L discussion, batch normalization; Ioffe & Szegedy 2015, arXiv 1502.03167, algorithm 1",
    thread=(11,),
    recipe=RECIPE.replace(probes=(to_plain(affine(every=10)), to_plain(optimizer_equation(every=50)))),
    arms={"gamma and beta free": Arm()},
    measures=(accuracy, mismatches),
    rules=(below("mismatches", 0.5), answered("accuracy")),
    answers={
        "supported": "Like any weight: in n = {n} runs not one of their steps differs from the optimizer's equation by "
        "a bit.",
        "contradicted": "Not by the optimizer's equation: {effect} parameters differ ({low} to {high}, n = {n}).",
        "inconclusive": "Not decided: {effect} parameters differ ({low} to {high}, n = {n}).",
    },
    sizes=sizes({"train_examples": 10_000}),  # what holds exactly needs no long run
    figures=(
        draw.paths("affine", "gamma and beta free", "gamma", "gamma"),
        draw.paths("affine", "gamma and beta free", "beta", "beta"),
    ),
    caveats=("Plain SGD; with weight decay they are usually spared, as here by default.",),
)
