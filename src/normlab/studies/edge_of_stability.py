"""Literature: full-batch gradient descent trains where its rate is as large as the curvature allows."""

from statistics import median

from normlab.lab import Arm, Size, Study, draw
from normlab.lab.measures import of_record
from normlab.lab.rules import near
from normlab.lab.study import Measure
from normlab.measure import curvature, to_plain
from normlab.store import Recipe, Record
from normlab.surgery import swap

RATES = (0.1, 0.2)
EXAMPLES = 256
FITTED = 0.1
"""Nats of training loss. Below it the curvature of the cross-entropy falls with the loss itself, at any rate."""
LAST = 0.3


def at_the_edge(record: Record) -> float | None:
    """The median of lr * curvature / 2 over the last readings before the training loss first falls below FITTED."""
    series = record.result.probes.get("curvature")
    losses = [epoch.train_loss for epoch in record.result.epochs]  # an epoch is a step: the batch is the whole set
    fitted = next((step for step, loss in enumerate(losses) if loss is not None and loss < FITTED), len(losses))
    if series is None:
        return None
    read = zip(series.steps, series.values["largest"], strict=True)
    found = [record.recipe.lr * largest / 2 for step, largest in read if largest is not None and step < fitted]
    return median(found[int(len(found) * (1 - LAST)) :]) if found else None


def arm(rate: float) -> str:
    """Its name."""
    return f"none, lr {rate:g}"


STUDY = Study(
    question="Does full-batch gradient descent train at the edge of stability?",
    claim="Without batch norm the largest eigenvalue of the Hessian rises to 2 / lr and stays there: 0.9 to 1.3 times as "
    "large, until the data are fitted.",
    source="Cohen et al. 2021, arXiv 2103.00065, section 3",
    recipe=Recipe(
        model="mlp",
        model_options={"activation": "tanh", "widths": [100, 100]},
        train_examples=EXAMPLES,
        batch_size=EXAMPLES,
        evaluate=("train",),
        probes=(to_plain(curvature(every=20, examples=EXAMPLES)),),
    ),
    arms={arm(rate): Arm(swap("batch", "none"), lr=rate) for rate in RATES},
    measures=(
        Measure(
            "edge", "lr * largest eigenvalue / 2, the last 30 % before the data are fitted", of_record(at_the_edge)
        ),
    ),
    rules=tuple(near("edge", arm(rate), 1.1, 0.2) for rate in RATES),
    answers={
        "supported": "Yes: at either rate; the farther lies at {effect} times 2 / lr ({low} to {high}, n = {n}).",
        "contradicted": "No: {rule}, but found {effect} ({low} to {high}, n = {n}).",
        "inconclusive": "Not decided: {rule}; found {effect} ({low} to {high}, n = {n}).",
    },
    sizes={
        "quick": Size(5, {"epochs": 500}),
        "standard": Size(8, {"epochs": 1_000}),
        "full": Size(15, {"epochs": 2_000}),
    },
    figures=(draw.readings("curvature", "largest", "largest eigenvalue of the Hessian"), draw.points("edge")),
    caveats=(
        f"The batch is the whole training set, {EXAMPLES} images, so that the eigenvalue is that of the loss which is "
        "descended; a loader, whose batches are its own, makes it another question.",
        "The rates, and the loss of 0.1 at which the data count as fitted, were chosen in a pilot of one seed, in which "
        "the eigenvalue came near 2 / lr before that loss and fell behind it; the bounds are older than the pilot.",
        "The last reading of the network whose data are fitted before the eigenvalue has risen counts too.",
    ),
)
