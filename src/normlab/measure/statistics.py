"""Which statistics a network normalizes by in evaluation."""

from torch import nn

from normlab.surgery import recalibrate
from normlab.surgery.feed import Batches
from normlab.surgery.find import batch_norms

STATISTICS = ("running", "recomputed", "batch")


def evaluate_under(model: nn.Module, statistics: str, batches: Batches, *, at_once: bool = False) -> None:
    """Put a model in evaluation mode: under its running statistics, under those recomputed over `batches`, which
    replace them, or under those of the batch at hand, which move them. `at_once` is that of `recalibrate`.
    """
    model.eval()
    if statistics == "recomputed":
        recalibrate(model, batches, at_once=at_once)
    elif statistics == "batch":
        for norm in batch_norms(model).values():
            norm.train()
