"""Literature: batch normalization makes the gradients of a deep network explode, at a rate that theory gives."""

import math
from typing import Any

from normlab.lab import Arm, Size, Study, draw
from normlab.lab.measures import at_start
from normlab.lab.plan import before_training
from normlab.lab.rules import below, near
from normlab.measure import signal, to_plain
from normlab.store import Recipe
from normlab.surgery import swap

LARGE = 256
RELU = math.pi / (math.pi - 1)
LINEAR = {size: (size - 2) / (size - 3) for size in (8, 16)}
RATE = "gradient rate"
NONE = "ReLU without norms"


def linear(size: int) -> str:
    """Its name."""
    return f"linear, batch {size}"


def asked_with(size: int, skip: int) -> dict[str, Any]:
    """What makes `size` examples the whole training set, its one batch, and what the network is asked with."""
    probe = to_plain(signal(every=0, skip=skip, examples=size))
    return {"train_examples": size, "batch_size": size, "probes": (probe,)}


def as_theory_says(arm: str, rate: float) -> near:
    """By how much the gradient grows, within a tenth."""
    return near(RATE, arm, rate, 0.1 * (rate - 1))


STUDY = Study(
    question="Does batch normalization make gradients explode with depth?",
    claim="At initialization their mean square grows from a layer to the one before by pi / (pi - 1) = 1.467 with ReLU and "
    "large batches, and by (B - 2) / (B - 3) in linear networks at batch size B.",
    source="Yang et al. 2019, A mean field theory of batch normalization, arXiv 1902.08129",
    recipe=Recipe(
        model="deep",
        model_options={"width": 1_000},
        epochs=1,
        lr=1e-3,
        evaluate=("train",),
        precise_examples=2,
        **asked_with(LARGE, skip=6),
    ),
    arms={
        "ReLU": Arm(model_options={"depth": 16}),
        "ReLU, digits": Arm(model_options={"depth": 16}, data="digits-8x8"),
        NONE: Arm(swap("batch", "none"), model_options={"depth": 16, "gain": math.sqrt(2)}),
        **{
            linear(size): Arm(model_options={"depth": 30, "activation": "none"}, **asked_with(size, skip=10))
            for size in LINEAR
        },
    },
    measures=(at_start(RATE, "growth of the mean-square gradient from a layer to the one before", "signal", RATE),),
    rules=(
        as_theory_says("ReLU", RELU),
        as_theory_says("ReLU, digits", RELU),
        *(as_theory_says(linear(size), rate) for size, rate in LINEAR.items()),
    ),
    beside=(below(RATE, 1.05, (NONE,)),),
    answers={
        "supported": "Yes, as fast as theory says: with ReLU by {effect} a layer ({low} to {high}, n = {n}).",
        "contradicted": "Not everywhere as theory says: {rule}, but found {effect} ({low} to {high}, n = {n}).",
        "inconclusive": "Not decided everywhere: {rule}; found {effect} ({low} to {high}, n = {n}).",
    },
    plan=before_training,
    sizes={"quick": Size(20, {}), "standard": Size(40, {}), "full": Size(100, {})},
    figures=(draw.points(RATE), draw.by_layer("signal", " gradient", "mean square of the gradient")),
    caveats=(
        "Each seed's rate is e to the slope of the logarithms of its gradients; its mean is e to the mean slope, to 1e-4. The "
        "fit leaves out the output and the first 6 of 16 layers (10 of 30 in the linear networks), in which examples still "
        "are as alike as the data made them; a pilot of three seeds said how many. The rates that they are held to are "
        "those of infinite width and, with ReLU, of infinite batches.",
        "At initialization: nothing is trained but one step that a trial cannot do without, after the reading. Whether "
        "training suffers is another matter, and residual networks have other rates.",
        "Another model has no rate to be held to; `normlab measure signal` gives its own.",
    ),
)
