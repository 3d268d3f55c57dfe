"""NL211."""

from collections.abc import Iterator

import torch

from normlab.rules.facts.statistics import Statistic
from normlab.rules.rule import Found, Rule


class PoisonedStatistics(Rule):
    """One batch with an inf or NaN makes the running statistics inf or NaN for ever: whatever comes later is averaged
    with it. Training does not use them and goes on well, so that it shows in evaluation only, as NaN predictions or
    a constant. A variance below 0 comes of a momentum outside of 0 to 1, or of arithmetic on checkpoints.
    """

    id = "NL211"
    severity = "error"
    title = "running statistics that are no statistics: NaN, inf, or a variance below 0"
    source = "github.com/pytorch/pytorch/issues/90342"
    remedy = "normlab.surgery.recalibrate on training data; normlab.nn.BatchNorm2d skips such batches and counts them"
    recalibrates = True

    def check(self, statistics: list[Statistic]) -> Iterator[Found]:
        for each in statistics:
            if each.value.is_meta or not each.value.is_floating_point():
                continue
            value = each.value.detach()
            for what, wrong in (
                ("not finite", ~value.isfinite()),
                ("below 0", (value < 0) & torch.tensor("var" in each.name, device=value.device)),
            ):
                if count := int(wrong.sum()):
                    yield each.path, f"{each.name} is {what} in {count} of {value.numel()} channels"
