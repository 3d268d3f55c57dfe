"""Record: what a training run gave, as plain data. `result` is reproducible bit for bit, `timing` is not."""

from pydantic import BaseModel, ConfigDict, Field

from normlab.store.recipe import Recipe


class Plain(BaseModel):
    # JSON has no NaN; one written as null could not be read again.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Epoch(Plain):
    """One epoch. Accuracies are shares in [0, 1]; None where there is no such data or the loss was not finite."""

    epoch: int
    train_loss: float | None
    """Mean over the epoch's examples, in train mode, as the weights moved."""
    train_accuracy: float
    """Likewise, as the book reports it."""
    validation_accuracy: float | None
    """In evaluation mode, under running statistics, after the epoch."""
    test_accuracy: float | None
    """Likewise."""
    gradient_norm: float | None
    """Mean over the epoch's steps of the L2 norm of the whole gradient."""


class Precise(Plain):
    """After training, under statistics recomputed over training data ("precise", Wu & Johnson 2021); None for
    splits that are not there or that the recipe does not evaluate.
    """

    train_loss: float | None
    train_accuracy: float | None
    validation_accuracy: float | None
    test_accuracy: float | None


class NonFinite(Plain):
    """Where the loss stopped being a number; training ended there."""

    epoch: int
    step: int


class Series(Plain):
    """What a probe read: each value at each of the steps; None where it was no finite number."""

    steps: tuple[int, ...]
    """Optimizer steps done when it was read; 0 is before the first."""
    values: dict[str, tuple[float | None, ...]]


class Result(Plain):
    epochs: tuple[Epoch, ...] = Field(min_length=1)
    precise: Precise | None
    nonfinite: NonFinite | None
    nonfinite_batches: int
    """Batches that our batch normalization kept out of its running statistics, summed over layers."""
    parameters: int
    probes: dict[str, Series] = {}
    """By the name of the probe."""


class Timing(Plain):
    examples_per_s: float
    """Training only, warm-up steps left out."""
    seconds: float
    """Wall clock of the whole run: training, evaluation and recomputing the statistics."""
    device: str


class Record(Plain):
    """One finished run: its identity, what was asked (resolved: nothing `auto`), what came, on what."""

    trial: str
    recipe: Recipe
    result: Result
    timing: Timing
    versions: dict[str, str]
    machine: dict[str, str | int]

    @property
    def last(self) -> Epoch:
        """The final epoch."""
        return self.result.epochs[-1]
