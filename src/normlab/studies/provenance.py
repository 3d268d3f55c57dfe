"""Thread, lines 2 and 5: which run gives .962, .931 or 94.6?"""

from normlab.lab import Arm, Size, Study, accuracy, draw
from normlab.lab.measures import of_record, training_accuracy
from normlab.lab.rules import answered
from normlab.lab.study import Measure
from normlab.store import Recipe, Record
from normlab.surgery import swap

CLAIMED = (0.931, 0.946, 0.962)


def first_epoch(target: float) -> Measure:
    """The epoch in which the training accuracy, as the book reports it, first reaches a number of the thread's."""

    def read(record: Record) -> float | None:
        return next((float(each.epoch) for each in record.result.epochs if each.train_accuracy >= target), None)

    return Measure(f"epoch of {target}", f"epoch in which the training accuracy reaches {target}", of_record(read))


STUDY = Study(
    question="Which run gives the thread's .962, .931 and .946?",
    claim="Measured: the training accuracies of longer runs, not test accuracies of ten epochs.",
    source="D2L discussion, batch normalization",
    thread=(2, 5),
    recipe=Recipe(precise_examples=5_000),
    arms={"with BN, lr 1": Arm(), "without, lr 0.1": Arm(swap("batch", "none"), lr=0.1)},
    measures=(*map(first_epoch, CLAIMED), training_accuracy, accuracy),
    rules=(answered("epoch of 0.962", ("with BN, lr 1",)),),
    answers={
        "answered": "Training accuracy reaches .962 in epoch {effect} ({low} to {high}, n = {n}); test accuracy never.",
        "inconclusive": "No run reaches .962 in training.",
    },
    sizes={"standard": Size(2, {"epochs": 60}), "full": Size(5, {"epochs": 60})},
    figures=(
        draw.over_epochs("train_accuracy", "training accuracy, as the weights move", percent=True),
        draw.over_epochs("test_accuracy", "test accuracy, running statistics", percent=True),
    ),
    caveats=("One guess at the thread's recipe: others could give the same numbers.",),
)
