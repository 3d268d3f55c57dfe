"""Literature: statistics of the batch at hand in the place of the training data's, when test images are corrupted."""

from statistics import fmean

from normlab.lab import RECIPE, Arm, Study, accuracy, draw, figure, sizes
from normlab.lab.measures import of_record
from normlab.lab.rules import above, below
from normlab.lab.sizes import DIGITS
from normlab.lab.study import Measure, Results
from normlab.measure import to_plain
from normlab.store import Record
from normlab.store.verdict import Figure
from normlab.train.under_shift import CLEAN, STORED, WAYS, under_shift

MOVED = ("rotation", "translation")
DAMAGED = tuple(kind for kind in under_shift(0).corruptions if kind not in MOVED)
PROBE = to_plain(under_shift(every=300))
RELU = {"activation": "relu"}


def reached(record: Record, kinds: tuple[str, ...], way: str) -> float | None:
    """The mean accuracy over kinds of images at the last reading, at which something was learned."""
    series = record.result.probes.get(str(PROBE["name"]))
    last = [series.values[f"{kind}: {way}"][-1] for kind in kinds] if series else []
    known = [share for share in last if share is not None]
    return fmean(known) if known else None


def gain(name: str, way: str, kinds: tuple[str, ...] = DAMAGED) -> Measure:
    """Accuracy by the statistics at hand minus that by the stored ones, on the same images."""

    def read(record: Record) -> float | None:
        adapted, stored = reached(record, kinds, way), reached(record, kinds, STORED)
        return None if adapted is None or stored is None else adapted - stored

    return Measure(name, f"accuracy, statistics at hand minus stored: {name}", of_record(read), percent=True)


GAIN, CLEAN_IMAGES, MOVED_IMAGES = "corrupted", "clean images", "moved images"
WHOLE, ONE_CLASS, EIGHT, TWO, MIXED = (way for way in WAYS if way != STORED)


def by_kind(results: Results) -> Figure:
    """The gain of each corruption in a whole batch."""
    values: dict[str, dict[int, float]] = {}
    for kind in (CLEAN, *DAMAGED, *MOVED):
        for cell in results.cells:
            if (value := gain(kind, WHOLE, (kind,)).of(cell)) is not None:
                values.setdefault(f"{kind}, {cell.arm}", {})[cell.seed] = value
    return figure.points("Gain by corruption", values, axis="statistics at hand minus stored", percent=True)


STUDY = Study(
    question="On corrupted images, should batch norm use the statistics of the batch at hand?",
    claim="At severity 5 that gains at least five points of accuracy, averaged over kinds of corruption.",
    source="Schneider et al. 2020, arXiv 2006.16971, section 3; Nado et al. 2020, arXiv 2006.10963; Li et al. 2016, arXiv "
    "1603.04779",
    recipe=RECIPE.replace(lr=0.3, model_options=RELU, probes=(PROBE,), evaluate_epochs=False),
    arms={"trained network": Arm(), "MLP, digits": Arm(**DIGITS, model_options=RELU)},
    measures=(
        gain(GAIN, WHOLE),
        gain(CLEAN_IMAGES, WHOLE, (CLEAN,)),
        gain(MOVED_IMAGES, WHOLE, MOVED),
        *(gain(way, way) for way in (ONE_CLASS, EIGHT, TWO, MIXED)),
        accuracy,
    ),
    rules=(above(GAIN, 0.05),),
    beside=(
        above(MOVED_IMAGES, 0.05),
        below(CLEAN_IMAGES, 0.0),
        below(ONE_CLASS, 0.0),
        below(TWO, 0.0),
        above(EIGHT, 0.0),
        above(MIXED, 0.0),
    ),
    answers={
        "supported": "Yes, where whole batches are corrupted alike: that gains {effect} ({low} to {high}, n = {n}).",
        "contradicted": "Not five points of accuracy in every network: {effect} ({low} to {high}, n = {n}).",
        "inconclusive": "Not decided: it gains {effect} ({low} to {high}, n = {n}), around five points.",
    },
    sizes=sizes(),
    figures=(by_kind, *map(draw.points, (GAIN, ONE_CLASS, EIGHT, TWO, MIXED))),
    caveats=(
        "The mean is over the eight kinds of ImageNet-C that are there, all images of a batch damaged alike; strengths are "
        "for images of 28x28. Rotation and translation, which ImageNet-C has not, are beside.",
        "200 held-out images for each seed, the same by all statistics; read after a multiple of 300 steps, the last.",
        "Batches of one example are left out: behind a linear layer they have no statistics.",
        "Data must be images in [0, 1], held out and not scaled yet.",
    ),
)
