"""Thread, line 8: what else do the high-level batch normalization layers serve for?"""

from typing import Any

from normlab.lab import Arm, Size, Study, accuracy, draw
from normlab.lab.measures import at_start, running_accuracy
from normlab.lab.rules import answered, below, superior
from normlab.lab.study import Results
from normlab.lab.verdict import sentence
from normlab.measure import synchronized, to_plain
from normlab.store import Finding, Recipe
from normlab.surgery import swap

CONVNET, SMALL = "normlab.models.convnet:convnet", "normlab.data.small"
MLP: dict[str, Any] = {"model": "mlp", "model_options": {"activation": "relu", "widths": [64, 64]}}
KINDS: dict[str, dict[str, Any]] = {
    "table": {**MLP, "data": f"{SMALL}:table"},
    "sequences": {"model_options": {"channels": 8, "dim": 1}, "data": f"{SMALL}:sequences"},
    "images": {},
    "volumes": {"model_options": {"dim": 3}, "data": f"{SMALL}:volumes"},
}
DOMAINS, ALONE, TOGETHER = "two domains", "two processes, each by itself", "two processes, synchronized"
IMAGES = 4  # of a process
SHARED: dict[str, Any] = {**MLP, "batch_size": 2 * IMAGES, "train_examples": 480, "lr": 0.02}

GAINS = {
    **{kind: (f"{kind}, BN", f"{kind}, none") for kind in KINDS},
    "a set of statistics for each domain": (f"{DOMAINS}, a set each", f"{DOMAINS}, one set"),
    f"synchronized, {IMAGES} images a process": (TOGETHER, ALONE),
}
NAMES = {str(superior("accuracy", *pair)): name for name, pair in GAINS.items()}

difference = at_start(
    "difference",
    "gradients of two processes with parts of a batch, from those of one with the whole, relative",
    "synchronized",
    "difference",
)


def answer(results: Results, deciding: Finding) -> str:
    """What each gains."""
    gains = [(NAMES[finding.rule], finding) for finding in results.findings if finding.rule in NAMES]
    words = [sentence(f"{name} {{effect}} ({{low}} to {{high}})", each, accuracy) for name, each in gains if each.n]
    lost = [f"{name} unknown, without a usable trial" for name, each in gains if not each.n]
    return (
        f"All of these; gained in test accuracy: {'; '.join(words + lost)}; n = {max(each.n for _, each in gains)}."
    )


STUDY = Study(
    question="What else do batch normalization layers serve for, and what does it gain?",
    claim="Measured: tables, sequences, images, volumes, statistics for each domain, and over processes.",
    source="D2L discussion, batch normalization; Peng et al. 2018, arXiv 1711.07240; Chang et al. 2019, arXiv 1906.03950",
    thread=(8,),
    recipe=Recipe(
        model=CONVNET,
        data="digits-8x8",
        optimizer="momentum",
        lr=0.1,
        schedule="cosine",
        batch_size=32,
        evaluate=("test",),
        precise_examples=360,
    ),
    arms={
        **{f"{kind}, BN": Arm(**changes) for kind, changes in KINDS.items()},
        **{f"{kind}, none": Arm(swap("batch", "none"), **changes) for kind, changes in KINDS.items()},
        f"{DOMAINS}, one set": Arm(model_options={"channels": 2}, data=f"{SMALL}:domains"),
        f"{DOMAINS}, a set each": Arm(model_options={"channels": 2, "domains": 2}, data=f"{SMALL}:domains"),
        ALONE: Arm(swap("batch", "ghost", {"ghost_size": IMAGES}), **SHARED),
        TOGETHER: Arm(swap("batch", "sync"), **SHARED, probes=(to_plain(synchronized(every=0)),)),
    },
    measures=(accuracy, running_accuracy, difference),
    rules=(answered("accuracy"),),
    beside=(*(superior("accuracy", *pair) for pair in GAINS.values()), below("difference", 1e-9, (TOGETHER,))),
    answers=answer,
    sizes={"quick": Size(5, {"epochs": 3}), "standard": Size(8, {"epochs": 10}), "full": Size(15, {"epochs": 40})},
    figures=(draw.points("accuracy"), draw.effects("accuracy")),
    caveats=(
        "Small data (a table of 569 patients, 1,797 digits in several shapes), small networks, one learning rate for all.",
        "That two real processes get the gradients of one is measured at the start, with parts as one to two; they are then "
        "trained in one process, where synchronized is plain batch norm, and each by itself is ghost batch norm.",
        "The network with one set of statistics is told the domain too, as a channel of its input.",
    ),
)
