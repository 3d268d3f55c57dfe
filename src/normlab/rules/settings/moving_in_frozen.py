"""NL206."""

from collections.abc import Iterator, Sequence

from normlab.measure.norms import Norm
from normlab.rules.mending import at, frozen
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery


class MovingInFrozen(Rule):
    """requires_grad=False keeps gamma and beta, but not the running statistics: in train mode every batch moves them,
    and training uses the batch's. A backbone that was meant to stay as it was drifts to the new data, and evaluates
    differently after every step though no parameter of it has changed.
    """

    id = "NL206"
    severity = "warning"
    title = "a frozen norm in train mode: its running statistics still move"
    source = "github.com/pytorch/pytorch/issues/86590; He et al. 2017, arXiv 1703.06870, section 3.1"
    remedy = "normlab.surgery.freeze('statistics')(model), which outlasts model.train()"
    study = "averages"

    def check(self, moving_norms: dict[str, Norm]) -> Iterator[Found]:
        for path, norm in moving_norms.items():
            if norm.frozen and norm.module.training and norm.module.momentum != 0:
                yield (
                    path,
                    "gamma and beta take no gradient, but its running statistics move at every batch in training",
                )

    def mend(self, paths: Sequence[str]) -> Surgery:
        return at(tuple(paths), frozen)
