"""NL402."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from normlab.measure.norms import Norm
from normlab.rules.mending import undecayed
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery


class BatchNormDecay(Rule):
    """Weight decay pulls gamma and beta towards 0. Unlike that of a weight before the norm, which the norm makes up
    for, that changes the function: channels are turned down. Most recipes of today leave decay off for
    one-dimensional parameters.
    """

    id = "NL402"
    severity = "note"
    title = "weight decay on the gamma and beta of a batch norm"
    source = "He et al. 2019, arXiv 1812.01187, section 3.1 (no bias decay); Goyal et al. 2017, arXiv 1706.02677, 5.1"
    remedy = "build the optimizer of normlab.surgery.param_groups(model, weight_decay)"

    def check(self, optimized: dict[Tensor, dict[str, Any]], batch_norms: dict[str, Norm]) -> Iterator[Found]:
        decayed = {
            path: max(decays)
            for path, norm in batch_norms.items()
            if (decays := [decay for each in (norm.weight, norm.bias) if (decay := _decay(each, optimized))])
        }
        if decayed:
            yield (
                "",
                f"{len(decayed)} of {len(batch_norms)} batch norms are under a weight decay of up to "
                f"{max(decayed.values()):g}, {next(iter(decayed))} first; 0 is usual",
            )

    def mend(self, paths: Sequence[str], optimizer: Optimizer, batch_norms: dict[str, Norm]) -> Surgery:
        return undecayed(optimizer, batch_norms)


def _decay(parameter: Tensor | None, optimized: dict[Tensor, dict[str, Any]]) -> float:
    if parameter is None or not parameter.requires_grad:
        return 0.0
    return float(optimized.get(parameter, {}).get("weight_decay", 0))
