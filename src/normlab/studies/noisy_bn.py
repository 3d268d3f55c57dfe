"""Literature: noise behind batch normalization gives the next layer unsteady inputs; does training suffer?"""

import dataclasses
from statistics import median

from normlab.lab import RECIPE, Arm, Study, accuracy, draw, sizes
from normlab.lab.measures import best_rate, over_readings, steps_to_best_of
from normlab.lab.plan import tuned
from normlab.lab.rules import Rule, ratio_at_least
from normlab.lab.sizes import DIGITS
from normlab.lab.study import Measure
from normlab.measure import drift, fit, to_plain
from normlab.surgery import swap

NORMS = {"BN": (), "noisy BN": (swap("batch", "noisy"),), "none": (swap("batch", "none"),)}
RELU = {"activation": "relu"}
ON_DIGITS = ", digits"
STEPS, STEPS_ON_DIGITS = "steps", "steps on digits"


def probes(every: int) -> tuple[dict[str, object], ...]:
    """How well it fits, so often, and how far a step moves the inputs of its layers."""
    return to_plain(fit(every=every, examples=250)), to_plain(drift(every=20))


def steps_of(net: str, share: float, name: str) -> Measure:
    """Of the arms of one network alone."""
    measure = steps_to_best_of("none" + net, share, name)
    arms = {norm + net for norm in NORMS}
    return dataclasses.replace(measure, of=lambda cell: measure.of(cell) if cell.arm in arms else None)


def claimed(steps: str, net: str) -> tuple[Rule, ...]:
    """Of one network: about as fast as with batch norm, faster than without, and the inputs no steadier than there."""
    bn, noisy, none = (norm + net for norm in NORMS)
    return (
        ratio_at_least(steps, bn, noisy, 1 / 1.25),
        ratio_at_least(steps, none, noisy, 1),
        ratio_at_least("drift", noisy, none, 1),
    )


STUDY = Study(
    question="Does batch normalization help because it keeps the inputs of each layer steady?",
    claim="No: with noise behind it, which makes them drift at least as far as without any norm, a network takes fewer steps "
    "than without, and less than 1.25 times as many as with batch norm alone.",
    source="Santurkar et al. 2018, arXiv 1805.11604, section 2.1",
    recipe=RECIPE.replace(model_options=RELU, probes=probes(4), evaluate_epochs=False),
    arms={
        **{norm: Arm(*surgeries) for norm, surgeries in NORMS.items()},
        **{
            norm + ON_DIGITS: Arm(*surgeries, **DIGITS, model_options=RELU, probes=probes(2))
            for norm, surgeries in NORMS.items()
        },
    },
    measures=(
        steps_of("", 0.95, STEPS),
        steps_of(ON_DIGITS, 0.98, STEPS_ON_DIGITS),
        over_readings("drift", "median move of inputs in a step, over their spread", "drift", "relative", median),
        accuracy,
        best_rate,
    ),
    rules=(*claimed(STEPS, ""), *claimed(STEPS_ON_DIGITS, ON_DIGITS)),
    answers={
        "supported": "No: noise behind it costs few steps, however far the inputs drift. The closest of the ratios: {rule}; "
        "found {effect} ({low} to {high}, n = {n}).",
        "contradicted": "Not all of that holds here: {rule}, but found {effect} ({low} to {high}, n = {n}).",
        "inconclusive": "Not decided: {rule}; found {effect} ({low} to {high}, n = {n}).",
    },
    plan=tuned((0.1, 0.316, 1.0), tuning_seeds=1),
    sizes=sizes(),
    figures=(
        draw.readings("fit", "accuracy", "training accuracy, the batch's statistics", percent=True),
        draw.points(STEPS, tuple(NORMS)),
        draw.points(STEPS_ON_DIGITS, tuple(norm + ON_DIGITS for norm in NORMS)),
        draw.points("drift"),
    ),
    caveats=(
        "Each arm at its own best rate, chosen by validation accuracy with one seed; drift is that of a step at this rate, "
        "where a network without norms may move as far as the noise does.",
        "The noise is the paper's: in each step a mean from U(-0.5, 0.5) and a factor from U(1, 1.25) for each channel, 0.1 "
        "of jitter about them for each element. It is drawn anew in each pass, is part of the drift, and is there too when "
        "training accuracy is read.",
        "Steps are to 95 % of the best that the network without norms reads (98 % on digits, which are easy), so that what is "
        "compared is how training begins; an arm that never gets there counts with the whole run.",
        "A first run read LeNet every 10 steps, too coarse for arms that need 10 to 40 of them; it is every 4 since that was "
        "seen, the rules are as they were. Either run contradicts the claim.",
        "The paper has VGG on CIFAR-10; these are LeNet and an MLP, in short runs.",
    ),
)
