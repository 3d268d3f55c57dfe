"""NL208."""

from collections.abc import Iterator, Sequence

from torch import nn

from normlab.measure.norms import Norm
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery, adjust


class TrainingInEvaluation(Rule):
    """A batch norm in train mode inside a model that is under evaluation normalizes by whatever else is in the batch,
    so that an example's prediction depends on its neighbours, and moves its running statistics by the test data.
    """

    id = "NL208"
    severity = "error"
    title = "a batch norm in train mode in a model under evaluation"
    source = "torch.nn.Module.eval; github.com/pytorch/pytorch/issues/5406"
    remedy = "model.eval() after everything else; to use the batch's statistics on purpose, normlab.surgery.adapt"

    def check(self, model: nn.Module, averaging_norms: dict[str, Norm]) -> Iterator[Found]:
        for path, norm in averaging_norms.items():
            if norm.module.training and not model.training:
                yield (
                    path,
                    "is in train mode, the model is not: the test data move its running statistics",
                )

    def mend(self, paths: Sequence[str]) -> Surgery:
        return adjust(tuple(paths), {"training": False})
