"""NL307."""

from collections import Counter
from collections.abc import Iterator, Sequence

from torch import Tensor

from normlab.measure.norms import Norm
from normlab.measure.passes import Pass
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery, checkpoint_safe


class DoubleUpdate(Rule):
    """Activation checkpointing runs the forward of its part again within the backward pass, and a batch norm there
    averages each batch into its running statistics twice: they follow the batches with another momentum than was
    set, and than the norms outside of that part do.
    """

    id = "NL307"
    severity = "warning"
    title = "running statistics that one batch moves twice"
    source = "github.com/pytorch/pytorch/issues/96136; torch.utils.checkpoint"
    remedy = "normlab.surgery.checkpoint_safe()(model)"

    def check(self, backward: Pass, batch_norms: dict[str, Norm]) -> Iterator[Found]:
        forwards = Counter(use.path for use in backward.uses if not use.recomputed)
        repeated = {use.path for use in backward.uses if use.recomputed}
        for path, norm in batch_norms.items():
            before = getattr(norm.module, "num_batches_tracked", None)
            after = backward.held[path].get("num_batches_tracked")
            if path not in repeated or not isinstance(before, Tensor) or after is None:
                continue
            moves = int(after.value - before)
            if moves > forwards[path]:
                yield (
                    path,
                    f"{moves} updates of its running statistics for {forwards[path]} forward calls: the backward "
                    "pass calls it again",
                )

    def mend(self, paths: Sequence[str]) -> Surgery:
        return checkpoint_safe()
