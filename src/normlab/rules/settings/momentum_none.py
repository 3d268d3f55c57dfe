"""NL203."""

from collections.abc import Iterator, Sequence

from normlab.measure.norms import Norm
from normlab.rules.mending import USUAL_MOMENTUM
from normlab.rules.rule import Found, Rule
from normlab.surgery import Surgery, adjust


class MomentumNone(Rule):
    """With momentum None the running statistics are the plain average over all batches since the beginning. While
    the weights move, those of the first steps count as much as those of now, and the longer training goes on the less
    the statistics follow. It is meant for passes over the data with weights that stay, as recalibration makes them.
    """

    id = "NL203"
    severity = "warning"
    title = "momentum None: the running statistics average over the whole training"
    source = "torch.nn.BatchNorm2d, momentum; Wu & Johnson 2021, arXiv 2105.07576, section 3, on what lags behind"
    remedy = "momentum = 0.1 for training; normlab.surgery.recalibrate for the average at the end"

    def check(self, moving_norms: dict[str, Norm]) -> Iterator[Found]:
        for path, norm in moving_norms.items():
            if norm.module.training and norm.module.momentum is None:
                seen = int(norm.module.num_batches_tracked)
                yield path, f"momentum None: after {seen} batches the next one counts 1/{seen + 1}, the first as much"

    def mend(self, paths: Sequence[str]) -> Surgery:
        return adjust(tuple(paths), {"momentum": USUAL_MOMENTUM})
