"""Literature: with small batches batch norm loses accuracy, group norm does not."""

import dataclasses

from normlab.lab import RECIPE, Arm, Study, accuracy, draw, sizes
from normlab.lab.measures import over_readings, running_accuracy
from normlab.lab.rules import interaction
from normlab.measure import to_plain, under_statistics
from normlab.surgery import swap

BATCHES = (2, 4, 8, 16, 32)
NORMS = {"BN": (), "GN": (swap("batch", "group"),)}
LR = 0.1
"""Of a batch of 32; in proportion for the others, as in the source."""
READING = 8_000
"""Training examples from one reading of the probe to the next."""


def arm(norm: str, batch_size: int) -> str:
    """Its name."""
    return f"{norm}, batch {batch_size}"


ENDS = (arm("BN", 32), arm("BN", 2), arm("GN", 32), arm("GN", 2))
SIZES = sizes({"train_examples": 8_000})


def lost(measure: str) -> interaction:
    """What batch norm loses between the ends, less what group norm does."""
    bn, small_bn, gn, small_gn = ENDS
    return interaction(measure, bn, small_bn, gn, small_gn, 0.02)


own = dataclasses.replace(
    over_readings(
        "batch's own",
        "training accuracy at the last reading, under the statistics of the 1,000 examples asked",
        "under_statistics",
        "batch",
        lambda readings: readings[-1],
    ),
    percent=True,
)

STUDY = Study(
    question="Does batch normalization suffer from small batches, where group normalization does not?",
    claim="From batches of 32 to batches of 2 it loses at least two points of accuracy more than group norm does.",
    source="Wu & He 2018, arXiv 1803.08494, section 4.1 and table 2; Wu & Johnson 2021, arXiv 2105.07576, section 3",
    recipe=RECIPE.replace(model_options={"activation": "relu", "norms": "conv"}),
    arms={
        arm(norm, batch_size): Arm(
            *surgeries,
            batch_size=batch_size,
            lr=LR * batch_size / 32,
            probes=(to_plain(under_statistics(every=READING // batch_size)),),
        )
        for norm, surgeries in NORMS.items()
        for batch_size in BATCHES
    },
    measures=(running_accuracy, accuracy, own),
    rules=(lost("running accuracy"),),
    beside=(lost("accuracy"), lost("batch's own")),
    answers={
        "supported": "Yes: batches of 2 cost batch norm more than group norm, by {effect} ({low} to {high}, n = {n}).",
        "contradicted": "Hardly: batches of 2 cost batch norm more than group norm by {effect} ({low} to {high}, n = {n}), "
        "not by two points.",
        "inconclusive": "Not decided: batches of 2 cost batch norm more than group norm by {effect} ({low} to {high}, "
        "n = {n}).",
    },
    sizes=SIZES | {"quick": dataclasses.replace(SIZES["quick"], arms=ENDS)},
    figures=(draw.points("running accuracy"), draw.points("accuracy"), draw.effects("running accuracy", 0.02)),
    caveats=(
        "The source's claim is about running statistics. Under recomputed ones only what small batches do to training is "
        "left: whatever the two differ by is evaluation's.",
        "Norms stand behind the convolutions alone, as in the source's networks: of two examples, a linear layer's batch "
        "norm leaves no more than which is the larger, and so does group norm with two units in a group.",
        "The rate is in proportion to the batch, and every arm sees as many examples: a small batch takes more, and "
        "smaller, steps. The source has momentum and 100 epochs of ImageNet.",
        "Here two images have 1,152 and 128 values a channel at the norms, and are much alike; the source's last layers "
        "have 98, of photographs.",
        "Quick asks about the ends, batches of 2 and 32, after 8,000 images.",
    ),
)
