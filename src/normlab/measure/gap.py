"""gap: how far evaluation is from training, layer by layer, under running, recomputed and batch statistics.

Wu & Johnson 2021, arXiv 2105.07576, sections 3 and 4: running averages lag behind the weights, recomputed
("precise") statistics do not; what is left under the statistics of the batch is not the norms' (dropout, say).
"""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from normlab.measure.asking import asking
from normlab.measure.layers import check_kinds, layers
from normlab.measure.probe import Look
from normlab.measure.reading import Reading, outputs_of
from normlab.measure.statistics import STATISTICS, evaluate_under
from normlab.surgery.recalibrate import Batches


def statistics_gap(
    model: nn.Module, x: Tensor, batches: Batches, *, of: str | Sequence[str] = "norm"
) -> dict[str, dict[str, float]]:
    """Path to `running`, `recomputed` (over what `batches()` yields) and `batch`: how far the outputs of a layer for
    x (N, ...) in evaluation, under these statistics, are from those in train mode.

    The distance is in root mean square over all outputs, relative to that of the outputs in train mode; NaN where
    those are 0. The layers are of the kinds `of`; the model stays as it is.

    Raises NormlabError where there is no such layer.
    """
    with asking(model) as copy, torch.no_grad():
        found = layers(copy, of)
        evaluated = {}
        for statistics in STATISTICS:
            evaluate_under(copy, statistics, batches)
            evaluated[statistics] = _outputs(copy, x, found)
        copy.train()
        trained = _outputs(copy, x, found)
    return {
        path: {
            statistics: ((outputs[path] - values).norm() / values.norm()).item()
            for statistics, outputs in evaluated.items()
        }
        for path, values in trained.items()
    }


def _outputs(model: nn.Module, x: Tensor, found: dict[str, nn.Module]) -> dict[str, Tensor]:
    """All numbers that each layer gives, over all its uses."""
    with outputs_of(found, lambda output: output.double().flatten()) as outputs:
        model(x)
    return {path: torch.cat(uses) for path, uses in outputs.items()}


@dataclasses.dataclass(frozen=True)
class gap(Reading):
    """Of the second half of the batch: `{path} running`, `{path} recomputed`, over the first half, and
    `{path} batch`: the relative distance of a layer's outputs from those in train mode, for the kinds `of`.
    """

    of: tuple[str, ...] = ("norm",)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "of", check_kinds(self.of))  # from JSON it comes as a list

    def __call__(self, look: Look) -> dict[str, float]:
        half = len(look.x) // 2
        found = statistics_gap(look.model, look.x[half:], lambda: (look.x[:half],), of=self.of)
        return {f"{path} {name}": value for path, gaps in found.items() for name, value in gaps.items()}
