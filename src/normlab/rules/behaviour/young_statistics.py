"""NL305."""

from collections.abc import Iterator

from torch import nn

from normlab.measure.norms import Norm
from normlab.measure.running import remembered
from normlab.rules.rule import Found, Rule
from normlab.surgery.find import BatchNorm

YOUNG = 0.05
"""Of the start: as much as momentum 0.1 leaves after 29 batches."""

PATIENCE = 100
"""Batches, before which a model in train mode is only just being trained."""


class YoungStatistics(Rule):
    """Running statistics begin at mean 0 and variance 1, and each batch moves them by the share `momentum` alone.
    After few batches, or with a small momentum, evaluation still normalizes by what they began with.
    """

    id = "NL305"
    severity = "warning"
    title = "running statistics that still hold what they began with"
    source = "Ioffe & Szegedy 2015, arXiv 1502.03167, section 3.1; torch.nn.BatchNorm2d, momentum"
    remedy = "train on, take a larger momentum, or normlab.surgery.recalibrate(model, batches)"
    study = "averages"
    recalibrates = True

    def check(self, model: nn.Module, batch_norms: dict[str, Norm]) -> Iterator[Found]:
        for path, each in batch_norms.items():
            norm = each.module
            if not isinstance(norm, BatchNorm) or (share := remembered(norm)) <= YOUNG:
                continue
            batches = int(norm.num_batches_tracked or 0)
            if batches >= PATIENCE or not model.training:
                yield (
                    path,
                    f"after {batches} batches with momentum {norm.momentum:g} a share of "
                    f"{share:.2g} of its running statistics is their start; below {YOUNG:g} is expected",
                )
