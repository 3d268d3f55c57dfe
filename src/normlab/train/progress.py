"""Where a run stands: all that a resumed run must know beside the model's and the optimizer's tensors."""

from pydantic import BaseModel, ConfigDict

from normlab.store import Epoch
from normlab.store.record import NonFinite

WARMUP_STEPS = 10
"""Steps of each process that no clock counts: the first ones allocate, and choose kernels."""


class Sums(BaseModel):
    """Of the steps done in the epoch that is under way."""

    model_config = ConfigDict(ser_json_inf_nan="constants")  # gradients may overflow while the loss is a number

    steps: int = 0
    examples: int = 0
    loss: float = 0.0
    correct: int = 0
    gradient_norm: float = 0.0


class Progress(BaseModel):
    """Epochs finished, sums of the one under way, what probes read, and the clocks of every process that worked on
    the run.
    """

    epochs: list[Epoch] = []
    sums: Sums = Sums()
    steps: int = 0
    readings: dict[str, list[tuple[int, dict[str, float | None]]]] = {}
    nonfinite: NonFinite | None = None
    seconds: float = 0.0
    timed_seconds: float = 0.0
    timed_examples: int = 0
    trained_seconds: float = 0.0
    trained_examples: int = 0

    def count(self, seconds: float, examples: int, *, warm: bool) -> None:
        """Add a step to the clocks."""
        self.trained_seconds += seconds
        self.trained_examples += examples
        if warm:
            self.timed_seconds += seconds
            self.timed_examples += examples

    @property
    def examples_per_s(self) -> float:
        """Training only, without warm-up; with it for a run that is nothing else."""
        seconds, examples = self.timed_seconds, self.timed_examples
        if not examples:
            seconds, examples = self.trained_seconds, self.trained_examples
        return examples / seconds if seconds else 0.0
