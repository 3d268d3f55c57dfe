"""adapt: batch norms that evaluate by the statistics of the batch at hand, or by a mixture with the stored ones.

Schneider et al. 2020, arXiv 2006.16971, section 3: on images corrupted in a way that training did not know, the
stored statistics are those of other data. N of the training's against n examples at hand:

    mean = N / (N + n) running_mean + n / (N + n) batch mean,    var likewise
"""

import math

import torch
from torch import Tensor, fx, nn

from normlab.errors import NormlabError
from normlab.norms.channels import accumulator, cast, count, cut, deviations, values_per_channel
from normlab.norms.shapes import as_one_call
from normlab.norms.standardize import normalize_by
from normlab.surgery.changes import Changes
from normlab.surgery.find import FROZEN, PLAIN, SYNCHRONIZED, BatchNorm, batch_norms
from normlab.surgery.options import with_options
from normlab.surgery.overlay import beneath, lay_over


@with_options
class adapt:
    """Let every batch norm, torch's and ours, evaluate by the statistics of the batch at hand.

    `source_count` (N above) is how many examples the stored statistics count for: 0 takes the batch's alone; the
    paper takes 8 to 512, the more the smaller the batches are. Each batch has to be of one domain. Training is as
    before, no buffer is ever written, and the switch between the two is still `train()` and `eval()`. The batch is
    this process's own, in synchronized norms too; gradients flow through its statistics; its variance is the
    biased one.

    Where all of a domain is at hand beforehand, its statistics need computing once only: AdaBN (Li et al. 2016,
    arXiv 1603.04779) is `recalibrate(model, batches of that domain)`, without this surgery.

    Raises NormlabError for a count below 0 or infinite; and in evaluation, where there is one value per channel
    and nothing to mix it with.
    """

    source_count: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.source_count < math.inf:
            raise NormlabError("a source_count of 0 or more examples", self.source_count)

    def __call__(self, model: nn.Module) -> Changes:
        changes = Changes()
        for path, norm in batch_norms(model).items():
            if isinstance(norm, Adapted):
                changes.left[path] = f"is adapted already, with source_count={norm.source_count:g}"
            elif beneath(norm) not in (*PLAIN, *SYNCHRONIZED, *FROZEN):
                changes.left[path] = f"is a {type(norm).__name__}, whose forward is its own"
            elif norm.running_mean is None:
                changes.left[path] = "keeps no running statistics: it evaluates by the batch's already"
            else:
                undo = lay_over(norm, Adapted, source_count=float(self.source_count))
                changes.record(path, "evaluates by the batch's statistics", undo)
        return changes


class Adapted(BatchNorm):
    """A batch norm whose evaluation is by the batch."""

    source_count: float

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalizes x (N, C, *spatial); `mask` as in `functional.batch_norm`, for ours."""
        arguments: tuple[Tensor, ...] = (input,) if mask is None else (input, mask)
        if isinstance(input, fx.Proxy):
            return as_one_call(self, *arguments)
        if self.training or not input.numel():
            return super().forward(*arguments)
        self._check_input_dim(input)
        if not self.source_count and values_per_channel(input) == 1:
            raise NormlabError(
                "more than one value per channel to adapt to",
                f"input {tuple(input.shape)}",
                "use larger batches, or adapt(source_count=16), which keeps a share of the stored statistics",
            )
        mean, var = self._mixture(input, mask)
        return normalize_by(input, mean, var, self.weight, self.bias, mask, self.eps)

    def _mixture(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        kept = None
        if mask is not None:
            x, mask = cut(x, mask)
            kept = mask.to(accumulator(x))
        mean, squares, _ = deviations(x, kept)
        var = squares / count(x, kept).clamp(min=1)
        if not self.source_count:  # stored statistics that are not finite have no part in it then
            return mean, var
        assert self.running_mean is not None
        assert self.running_var is not None
        share = len(x) / (len(x) + self.source_count)
        return torch.lerp(cast(self.running_mean, x), mean, share), torch.lerp(cast(self.running_var, x), var, share)
