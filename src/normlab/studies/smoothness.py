"""Literature: along its gradient the loss is smoother with batch normalization, also where the loss is the same."""

from statistics import fmean

from normlab.lab import RECIPE, Arm, Study, accuracy, draw, sizes
from normlab.lab.measures import at_matched_loss, over_readings
from normlab.lab.rules import ratio_at_least
from normlab.measure import landscape, to_plain
from normlab.surgery import swap

NORMS = {"BN": (), "none": (swap("batch", "none"),)}
ON_DIGITS = "MLP on digits, "
DIGITS = {
    "model": "mlp",
    "data": "digits-8x8",
    "validation": 0,
    "train_examples": 1_400,
    "precise_examples": 1_000,
    "epochs": 10,
}
PAIRS = (("none", "BN"), (ON_DIGITS + "none", ON_DIGITS + "BN"))
VALUES = {
    "loss range": "range of the loss after steps of half to four times the learning rate",
    "predictiveness max": "largest change of the gradient over these steps",
    "smoothness": "effective beta-smoothness: the largest change of the gradient for its distance",
}
BY_STEP = "smoothness by step"


def rougher(pair: tuple[str, str]) -> tuple[ratio_at_least, ...]:
    """The first of the pair, in all three ways."""
    return tuple(ratio_at_least(value, *pair, 1.25) for value in VALUES)


STUDY = Study(
    question="Is the loss smoother along its gradient with batch normalization?",
    claim="At the same loss the range of the loss, the change of the gradient and the effective smoothness are at least "
    "1.25 times as large without it.",
    source="Santurkar et al. 2018, arXiv 1805.11604, section 3 and figure 4",
    recipe=RECIPE.replace(
        lr=0.1,
        model_options={"activation": "relu", "init": "xavier"},
        probes=(to_plain(landscape(every=2, examples=64)),),
        evaluate_epochs=False,
    ),
    arms={
        **{norm: Arm(*surgeries) for norm, surgeries in NORMS.items()},
        **{ON_DIGITS + norm: Arm(*surgeries, **DIGITS) for norm, surgeries in NORMS.items()},
    },
    measures=(
        accuracy,
        *(
            at_matched_loss(value, f"{title}, at matched loss", "landscape", value, PAIRS)
            for value, title in VALUES.items()
        ),
        over_readings(BY_STEP, "effective beta-smoothness, all readings alike", "landscape", "smoothness", fmean),
    ),
    rules=rougher(PAIRS[0]),
    beside=(*rougher(PAIRS[1]), *(ratio_at_least(BY_STEP, *pair, 1.25) for pair in PAIRS)),
    answers={
        "supported": "Yes, in all three ways: {rule}; found {effect} times ({low} to {high}, n = {n}).",
        "contradicted": "Not in every way: {rule}, but found {effect} times ({low} to {high}, n = {n}).",
        "inconclusive": "Not decided in every way: {rule}; found {effect} times ({low} to {high}, n = {n}).",
    },
    sizes=sizes(),
    figures=(
        *(draw.over_loss("landscape", value, title) for value, title in VALUES.items()),
        *(draw.points(value) for value in VALUES),
    ),
    caveats=(
        "A network that does not get off its plateau looks smooth. So the arms are compared where they have the same loss, "
        "in bins of 0.1 nats through which both pass, each bin alike; a trial that stays on the plateau counts as unusable. "
        "The source compares by step, which is shown beside. At the same loss the arms are at different steps: batch norm "
        "passes in its first through losses that the other reaches late.",
        "Both arms have the same learning rate, as in the source, one at which both train; it sets how far the steps go.",
        "The loss of 64 training examples, the same at every reading, batch norm by their own statistics. Smoothness in the "
        "space of weights hangs on their length, which batch norm makes free: twice the length is a quarter of the "
        "curvature and the same function.",
    ),
)
