"""NL213."""

from collections.abc import Iterator, Sequence

import torch

from normlab.measure.norms import Norm
from normlab.rules.mending import changed, full_precision
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery


class HalfStatistics(Rule):
    """A running average takes a small step at every batch. In half precision a step below half the distance to the
    next number is rounded away, so that the average stops before it arrives; and in float16 a variance above 65504
    is inf, for ever. To read such statistics in evaluation does no harm; to train with them does.
    """

    id = "NL213"
    severity = "warning"
    title = "running statistics in half precision, in training"
    source = "Micikevicius et al. 2018, arXiv 1710.03740, sections 3.1 and 3.3: statistics are kept in float32"
    remedy = "keep the model in float32 and train under torch.autocast, which leaves the statistics alone"

    def check(self, moving_norms: dict[str, Norm]) -> Iterator[Found]:
        for path, norm in moving_norms.items():
            dtype = norm.module.get_buffer("running_mean").dtype
            if norm.module.training and dtype in (torch.float16, torch.bfloat16):
                resolution = torch.finfo(dtype).eps
                name = str(dtype).removeprefix("torch.")
                yield path, f"running statistics in {name}: a step of less than {resolution / 2:.2%} is lost"

    def mend(self, paths: Sequence[str]) -> Surgery:
        return changed(tuple(paths), full_precision)
