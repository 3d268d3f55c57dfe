"""NL106."""

from collections.abc import Iterator, Sequence

from torch import nn

from normlab.measure.norms import Norm
from normlab.rules.mending import changed, ones
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery
from normlab.surgery.find import is_shapeless
from normlab.surgery.flow import Link

RECTIFIERS = (nn.ReLU, nn.ReLU6)
"""At 0 and below they pass nothing on and no gradient back."""


class DeadNorm(Rule):
    """With gamma 0 a batch norm gives beta, whatever comes in; where that is not above 0 a ReLU behind it gives 0
    and lets no gradient back, so that neither gamma nor beta nor anything before them ever trains again. (Gamma 0 is
    a good start for the last norm of a residual branch: there the sum follows, and the gradient gets through.)
    """

    id = "NL106"
    severity = "error"
    title = "a batch norm whose gamma is 0, and a ReLU behind it: nothing gets through, and nothing can train"
    source = "Goyal et al. 2017, arXiv 1706.02677, section 5.1, on where gamma = 0 belongs; the gradient of a ReLU"
    remedy = "start gamma at 1: torch.nn.init.ones_(norm.weight)"

    def check(self, model: nn.Module, batch_norms: dict[str, Norm], flow: list[Link]) -> Iterator[Found]:
        for link in flow:
            norm = batch_norms.get(link.source)
            if norm is None or is_shapeless(norm.module) or norm.weight is None or norm.weight.is_meta:
                continue
            rectified = isinstance(model.get_submodule(link.target), RECTIFIERS)
            if rectified and not norm.weight.any() and (norm.bias is None or not (norm.bias > 0).any()):
                count = norm.weight.numel()
                yield link.source, f"gamma is 0 in all of its {count} channels, and {link.target}, behind it, gives 0"

    def mend(self, paths: Sequence[str]) -> Surgery:
        return changed(tuple(paths), ones)
