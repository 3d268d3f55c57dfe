"""under_statistics: accuracy in evaluation mode under running, recomputed and batch statistics, side by side.

Wu & Johnson 2021, arXiv 2105.07576, section 3: running averages lag behind the weights.
"""

import dataclasses

import torch
from torch import Tensor, nn

from normlab.measure.asking import asking
from normlab.measure.probe import Look
from normlab.measure.reading import Reading
from normlab.measure.statistics import STATISTICS, evaluate_under


@dataclasses.dataclass(frozen=True)
class under_statistics(Reading):
    """Accuracies (shares) of the second half of the batch: `running`, under the model's own running statistics,
    `recomputed`, over the first half, and `batch`, its own.
    """

    def __call__(self, look: Look) -> dict[str, float]:
        half = len(look.x) // 2
        x, y = look.x[half:], look.y[half:]
        found = {}
        with torch.no_grad(), asking(look.model) as copy:
            for statistics in STATISTICS:
                # One pass: of a single batch it finds what one a layer would, where no norm is used twice.
                evaluate_under(copy, statistics, lambda: (look.x[:half],), at_once=True)
                found[statistics] = _accuracy(copy, x, y)
        return found


def _accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return (model(x).argmax(1) == y).float().mean().item()
