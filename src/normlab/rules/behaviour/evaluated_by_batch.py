"""NL301."""

from collections.abc import Iterator

from normlab.measure.normalized import distance
from normlab.measure.norms import Norm
from normlab.measure.passes import Pass
from normlab.rules.rule import Found, Rule
from normlab.surgery.adapt import Adapted
from normlab.surgery.find import BatchNorm

FITS = 0.01
"""Standard deviations; rounding stays below it, in half precision too."""
DIFFERS = 0.1
"""From here on the other statistics are told apart from these."""


class EvaluatedByBatch(Rule):
    """Under evaluation an example's output must not depend on which others are in the batch. This norm keeps
    running statistics for that, and does not use them: something sets it to train mode, or hands `training=True`
    on. Outputs then change with the size and the order of the batches.
    """

    id = "NL301"
    severity = "error"
    title = "evaluation normalizes by the batch at hand"
    source = "Ioffe & Szegedy 2015, arXiv 1502.03167, section 3.1, algorithm 2"
    remedy = "call eval() on the whole model, and let no forward call train() or pass training=True"
    study = "averages"

    def check(self, evaluation: Pass, batch_norms: dict[str, Norm]) -> Iterator[Found]:
        told = set()
        for use in evaluation.uses:
            norm, x = use.module, use.input
            if use.path in told or use.path not in batch_norms or not isinstance(norm, BatchNorm) or x is None:
                continue
            if isinstance(norm, Adapted):  # on purpose
                continue
            if norm.running_mean is None or norm.running_var is None or x.mean is None or x.var is None:
                continue
            ours = distance(use, x.mean, x.var)
            theirs = distance(use, norm.running_mean, norm.running_var)
            if ours < FITS and theirs > DIFFERS:
                told.add(use.path)
                yield (
                    use.path,
                    f"its output is {theirs:.3g} standard deviations from what its running statistics give, and "
                    f"{ours:.1g} from what the batch's do",
                )
