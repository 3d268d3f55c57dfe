"""Thread, line 13: does the curvature at the start predict the largest learning rate?"""

from normlab.lab import RECIPE, Arm, Study, draw, sizes
from normlab.lab.measures import at_start, largest_rate
from normlab.lab.plan import bisection
from normlab.lab.rules import ranks
from normlab.measure import curvature, to_plain
from normlab.surgery import swap

none = swap("batch", "none")
NETS = {
    "lenet relu": ("lenet", {"activation": "relu"}),
    "lenet tanh": ("lenet", {"activation": "tanh"}),
    "mlp relu": ("mlp", {"activation": "relu"}),
    "mlp tanh": ("mlp", {"activation": "tanh"}),
    "mlp 300 relu": ("mlp", {"activation": "relu", "widths": [300]}),
    "mlp 6x50 relu": ("mlp", {"activation": "relu", "widths": [50] * 6}),
}


predicted = at_start("2/lambda", "2 / largest Hessian eigenvalue at the start", "curvature", "two_over_largest")

STUDY = Study(
    question="Does the curvature at the start predict the largest learning rate?",
    claim="Over a dozen nets 2 / (largest Hessian eigenvalue) ranks the largest usable rates (rho above 0.5).",
    source="Cohen et al. 2021, arXiv 2103.00065, section 2; LeCun et al. 1993",
    thread=(13,),
    recipe=RECIPE.replace(probes=(to_plain(curvature(every=0, examples=128)),)),
    arms={
        f"{net}, {norm}": Arm(*surgeries, model=model, model_options=options)
        for net, (model, options) in NETS.items()
        for norm, surgeries in (("BN", ()), ("none", (none,)))
    },
    measures=(largest_rate, predicted),
    rules=(ranks("largest rate", "2/lambda", 0.5),),
    answers={
        "supported": "Yes: over n = {n} nets the rank correlation is {effect} ({low} to {high}).",
        "contradicted": "Hardly: over n = {n} nets the rank correlation is {effect} ({low} to {high}).",
        "inconclusive": "Not decided: over n = {n} nets the rank correlation is {effect} ({low} to {high}).",
    },
    plan=bisection(start=1.0),
    sizes=sizes({"train_examples": 10_000}, seeds=(2, 3, 5)),
    figures=(draw.against("largest rate", "2/lambda", "Largest usable rate against 2 / curvature at the start"),),
    caveats=("The curvature of 128 examples; it moves within the first steps.",),
)
