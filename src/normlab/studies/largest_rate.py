"""Thread, line 4: how large can the learning rate be?"""

from normlab.lab import RECIPE, Arm, Study, draw, measures, sizes
from normlab.lab.plan import bisection
from normlab.lab.rules import holm, ratio_at_least
from normlab.surgery import swap

none = swap("batch", "none")
NETS = {f"{model} {activation}": (model, activation) for model in ("lenet", "mlp") for activation in ("relu", "tanh")}

STUDY = Study(
    question="How large can the learning rate be?",
    claim="With batch norm at least three times as large as without, whatever the net.",
    source="Ioffe & Szegedy 2015, arXiv 1502.03167, section 3.3; D2L, batch normalization, exercise 2",
    thread=(4, 12),
    recipe=RECIPE,
    arms={
        f"{net}, {norm}": Arm(*surgeries, model=model, model_options={"activation": activation})
        for net, (model, activation) in NETS.items()
        for norm, surgeries in (("BN", ()), ("none", (none,)))
    },
    measures=(measures.largest_rate,),
    rules=(holm(tuple(ratio_at_least("largest rate", f"{net}, BN", f"{net}, none", 3) for net in NETS)),),
    answers={
        "supported": "At least three times as large with batch norm in every net; the closest is {effect} times "
        "({low} to {high}, n = {n}).",
        "contradicted": "Not always three times as large: {rule}, but found {effect} ({low} to {high}, n = {n}).",
        "inconclusive": "Not decided for every net: {rule}; found {effect} ({low} to {high}, n = {n}).",
    },
    plan=bisection(start=1.0),
    sizes=sizes({"train_examples": 10_000}),
    figures=(draw.points("largest rate"), draw.effects("largest rate", 3.0), draw.rates()),
    caveats=(
        "Usable means at half the best accuracy after the run, not merely finite.",
        "Sigmoid nets are left out: without batch norm they stay at chance in runs this short, at any rate.",
    ),
)
