"""Thread, line 0: its run, and whether recomputed statistics halve the swing of the test accuracy."""

from statistics import pstdev

from normlab.lab import Arm, Size, Study, accuracy, draw
from normlab.lab.cell import Cell
from normlab.lab.measures import of_record, running_accuracy
from normlab.lab.rules import below, near
from normlab.lab.study import Measure
from normlab.measure import to_plain, under_statistics
from normlab.store import Recipe

STEPS = 235  # of an epoch


def swing(cell: Cell) -> float | None:
    """Standard deviation over the last eight epochs: of the accuracy under recomputed statistics, over that under
    running ones.
    """
    series = cell.record.result.probes.get("under_statistics") if cell.record else None
    if series is None:
        return None
    recomputed, running = (
        pstdev(value for value in series.values[kind][-8:] if value is not None) for kind in ("recomputed", "running")
    )
    return recomputed / running if running else None


loss = Measure("loss", "training loss of the last epoch (nats)", of_record(lambda record: record.last.train_loss))
training = Measure(
    "training accuracy",
    "training accuracy of the last epoch, as the book reports it",
    of_record(lambda record: record.last.train_accuracy),
    percent=True,
)

STUDY = Study(
    question="The thread's run: loss 0.246, train acc 0.909, test acc 0.878?",
    claim="Training accuracy is .909 within .02; test accuracy swings, half as much under recomputed statistics.",
    source="D2L discussion, batch normalization; D2L, section 'Concise implementation'",
    original="loss 0.246, train acc 0.909, test acc 0.878",
    recipe=Recipe(probes=(to_plain(under_statistics(every=STEPS)),), precise_examples=5_000),
    arms={"the thread's recipe": Arm()},
    measures=(
        loss,
        training,
        running_accuracy,
        accuracy,
        Measure("swing", "swing of accuracy from epoch to epoch, recomputed over running statistics", swing),
    ),
    rules=(near("training accuracy", "the thread's recipe", 0.909, 0.02), below("swing", 0.5)),
    answers={
        "supported": "It reproduces, and recomputed statistics more than halve the swing of its test accuracy ({rule}: "
        "{effect}, {low} to {high}, n = {n}).",
        "contradicted": "Not as claimed: {rule}, but found {effect} ({low} to {high}, n = {n}).",
        "inconclusive": "Not decided: {rule}; found {effect} ({low} to {high}, n = {n}).",
    },
    sizes={"quick": Size(5, {}), "standard": Size(8, {}), "full": Size(15, {"precise_examples": None})},
    figures=(
        draw.over_epochs("test_accuracy", "test accuracy, running statistics", percent=True),
        draw.readings("under_statistics", "recomputed", "accuracy, recomputed statistics", percent=True),
        draw.points("running accuracy"),
        draw.points("accuracy"),
    ),
    caveats=(
        "All 60,000 images, ten epochs, torch's default initialization; nothing is held out, and nothing is chosen.",
        "The swing is that of 1,000 training examples that the statistics were not recomputed from.",
    ),
)
