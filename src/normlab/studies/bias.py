"""Thread, line 1: can the bias of the layer before batch normalization be removed?"""

from normlab.lab import RECIPE, Arm, Study, accuracy, draw, sizes
from normlab.lab.measures import at_start, running_accuracy
from normlab.lab.rules import below, equivalent
from normlab.measure import bias_gradient, to_plain
from normlab.surgery import remove_bias

gradient = at_start(
    "bias gradient", "largest gradient of a bias, relative to the weights'", "bias_gradient", "relative"
)

STUDY = Study(
    question="Can the bias of the layer before batch normalization be removed?",
    claim="Removing it changes nothing: the batch's mean absorbs any constant.",
    source="Ioffe & Szegedy 2015, arXiv 1502.03167, section 3.2; D2L, batch normalization, exercise 1",
    thread=(1,),
    recipe=RECIPE.replace(probes=(to_plain(bias_gradient(every=0)),)),
    arms={"with bias": Arm(), "without bias": Arm(remove_bias())},
    measures=(accuracy, running_accuracy, gradient),
    rules=(equivalent("accuracy", "with bias", "without bias", 0.004), below("bias gradient", 1e-10, ("with bias",))),
    beside=(equivalent("running accuracy", "with bias", "without bias", 0.004),),
    answers={
        "supported": "Yes, remove it: accuracy moves by {effect} ({low} to {high}, n = {n}), and the gradient of the "
        "bias is zero to rounding.",
        "contradicted": "No: removing it moves accuracy by {effect} ({low} to {high}, n = {n}).",
        "inconclusive": "Not decided: accuracy moves by {effect} ({low} to {high}, n = {n}), around the margin of "
        "0.4 points.",
    },
    sizes=sizes({"train_examples": 10_000}),  # what holds exactly needs no long run
    figures=(draw.points("accuracy"), draw.effects("accuracy", 0.004)),
    caveats=("A bias after the norm, or before an activation without a norm, is another matter.",),
)
