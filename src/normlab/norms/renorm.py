"""Batch renormalization: batch normalization whose training output is that of evaluation, within limits.

    y = weight * (r * (x - mean) / sqrt(var + eps) + d) + bias

    r = sqrt(var + eps) / running_std       kept within 1 / r_max .. r_max
    d = (mean - running_mean) / running_std  kept within -d_max .. d_max
    running_std = sqrt(running_var + eps)

Batch normalization computes one thing in training (by the batch) and another in evaluation (by running
averages). With few examples a step, or examples that resemble each other, the two differ much. The correction
r and d turns the first into the second: without limits, y is exactly (x - running_mean) / running_std, as in
evaluation. r and d count as constants when gradients are taken, so that the gradient still goes through the
batch's mean and variance, which is what keeps training stable; with r = 1 and d = 0 it is plain batch
normalization. Since the running averages mean nothing in the beginning, the limits start there and are
widened step by step: the schedule.

Over: the batch and all positions, corrected towards running averages; each channel by itself.
Cost: that of batch normalization, and 2 readings of x forward.
When: with small batches or batches whose examples are not independent. Not needed with large, well mixed batches,
    where it does what batch normalization does.
Source: Ioffe 2017, arXiv 1702.03275, section 3, algorithm 1; the schedule from section 4.
"""

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from normlab.errors import NormlabError
from normlab.norms.batch import BatchNorm1d, BatchNorm2d, BatchNorm3d, Channels, _BatchNorm
from normlab.norms.channels import cast, inverse_std, moments
from normlab.norms.running import check_arguments, update_running
from normlab.norms.standardize import BatchStatistics, normalize_by, normalize_by_batch

R_MAX, D_MAX = 3.0, 5.0
SCHEDULE = (5000, 40000, 25000)


def batch_renorm(
    x: Float[Tensor, "N C *spatial"],
    running_mean: Channels,
    running_var: Channels,
    weight: Channels | None = None,
    bias: Channels | None = None,
    *,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
    r_max: float | Tensor = R_MAX,
    d_max: float | Tensor = D_MAX,
    mask: Bool[Tensor, "..."] | None = None,
) -> tuple[Float[Tensor, "N C *spatial"], Channels, Channels]:
    """Batch renormalization as a pure function; nothing that is passed in is changed.

    Args, returned values and errors are those of `batch_norm`, the running statistics are needed, and:
        r_max: >= 1, the limit of the scale's correction; math.inf is none, and 1 leaves the batch's scale.
        d_max: >= 0, the limit of the shift's correction, in deviations; math.inf is none, and 0 leaves the
            batch's mean. Those of a tensor are taken on trust.
    """
    check_arguments(x, running_mean, running_var, weight, bias, eps, momentum)
    _check_limits(r_max, d_max)
    if training:
        y, batch = _renormalize(x, running_mean, running_var, weight, bias, mask, eps, r_max, d_max)
        return y, *update_running(running_mean, running_var, batch, momentum)
    y = normalize_by(x, running_mean, running_var, weight, bias, mask, eps)
    return y, running_mean.detach(), running_var.detach()


def renorm_limits(
    step: Tensor, r_max: float = R_MAX, d_max: float = D_MAX, schedule: tuple[int, int, int] = SCHEDULE
) -> tuple[Tensor, Tensor]:
    """r_max and d_max, of shape (), after `step` batches: 1 and 0 up to the first number of the schedule, then in
    a straight line to their full values at the second (r) and the third (d).
    """
    start, r_end, d_end = schedule
    r_share = ((step - start) / (r_end - start)).clamp(0, 1)
    d_share = ((step - start) / (d_end - start)).clamp(0, 1)
    return 1 + (r_max - 1) * r_share, d_max * d_share


def _renormalize(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    eps: float,
    r_max: float | Tensor,
    d_max: float | Tensor,
) -> tuple[Tensor, BatchStatistics]:
    elements, mean, squares = moments(x, mask)
    inverse = inverse_std(cast(running_var.detach(), x), eps)
    r = _clip((squares / elements.clamp(min=1) + eps).sqrt() * inverse, 1 / r_max, r_max)
    d = _clip((mean - cast(running_mean.detach(), x)) * inverse, -d_max, d_max)
    # r and d go into gamma and beta, whose gradients are then those of the formula above.
    scale = r if weight is None else r * cast(weight, x)
    shift = d if weight is None else d * cast(weight, x)
    return normalize_by_batch(x, scale, shift if bias is None else shift + cast(bias, x), mask, eps)


def _clip(value: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    low, high = (torch.as_tensor(limit, dtype=value.dtype, device=value.device) for limit in (low, high))
    return value.clamp(low, high)


def _check_limits(r_max: float | Tensor, d_max: float | Tensor) -> None:
    if not isinstance(r_max, Tensor) and not r_max >= 1:
        raise NormlabError("r_max >= 1", r_max, "at 1 the scale is the batch's")
    if not isinstance(d_max, Tensor) and not d_max >= 0:
        raise NormlabError("d_max >= 0", d_max, "at 0 the mean is the batch's")


class _Renorm(_BatchNorm):
    """As BatchNorm, with `r_max` (3), `d_max` (5) and `schedule`: the batch after which the limits begin to widen,
    and those at which r and d have their full limits; (5000, 40000, 25000) as in the paper, None for full limits
    from the start. The batches are counted by `num_batches_tracked`. Short trainings need a shorter schedule.

    Raises NormlabError for track_running_stats=False, which leaves nothing to correct towards.
    """

    kind: ClassVar = "renorm"
    exchangeable: ClassVar = True

    def __init__(
        self,
        num_features: int,
        *args: Any,
        r_max: float = R_MAX,
        d_max: float = D_MAX,
        schedule: tuple[int, int, int] | None = SCHEDULE,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_features, *args, **kwargs)
        if not self.track_running_stats:
            raise NormlabError("running statistics in a batch renormalization", "track_running_stats=False")
        _check_limits(r_max, d_max)
        if schedule is not None and not (
            len(schedule) == 3
            and 0 <= schedule[0] < min(schedule[1:])
            and math.isfinite(r_max)
            and math.isfinite(d_max)
        ):
            raise NormlabError(
                "a schedule (start, end of r, end of d), increasing from start, to finite limits",
                f"{schedule} to {r_max} and {d_max}",
                "schedule=None has the full limits from the first batch",
            )
        self.r_max, self.d_max, self.schedule = r_max, d_max, schedule

    def _by_batch(self, input: Tensor, mask: Tensor | None) -> Tensor:
        r_max: float | Tensor = self.r_max
        d_max: float | Tensor = self.d_max
        if self.schedule is not None and self.num_batches_tracked is not None:
            r_max, d_max = renorm_limits(self.num_batches_tracked, self.r_max, self.d_max, self.schedule)
        assert self.running_mean is not None
        assert self.running_var is not None
        y, batch = _renormalize(
            input, self.running_mean, self.running_var, self.weight, self.bias, mask, self.eps, r_max, d_max
        )
        self._track(batch)
        return y

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, r_max={self.r_max}, d_max={self.d_max}, schedule={self.schedule}"


class BatchRenorm1d(_Renorm, BatchNorm1d):
    """Of (N, C) or (N, C, L); see `functional.batch_renorm`."""


class BatchRenorm2d(_Renorm, BatchNorm2d):
    """Of (N, C, H, W); see `functional.batch_renorm`."""


class BatchRenorm3d(_Renorm, BatchNorm3d):
    """Of (N, C, D, H, W); see `functional.batch_renorm`."""


FAMILY = {"renorm": {1: BatchRenorm1d, 2: BatchRenorm2d, 3: BatchRenorm3d}}
