"""running: how much of its start a batch norm's running average still holds.

After t batches with momentum m it is (1 - m)^t of the start plus the batches' share.
"""

import torch

from normlab.surgery.find import BatchNorm


def remembered(norm: BatchNorm) -> float:
    """The share (1 - m)^t of the start, mean 0 and variance 1.

    0 where no batch has been counted, and at momentum 0, which says nothing of where the statistics are from.
    """
    batches = norm.num_batches_tracked
    if batches is None or batches.is_meta or batches == 0 or not norm.momentum:
        return 0.0
    return float((1 - norm.momentum) ** int(batches))


def untrained(norm: BatchNorm) -> bool:
    """Whether the running statistics are those of a new layer; False where there are none."""
    mean, var = norm.running_mean, norm.running_var
    return mean is not None and var is not None and not mean.any() and bool(torch.all(var == 1))
