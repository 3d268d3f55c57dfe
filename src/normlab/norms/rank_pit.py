"""Probability integral transform by ranks: every channel exactly uniform, whatever its distribution.

    u = (r - 1/2) / M,    y = weight * u + bias

r is the rank of a value among the M values of its channel: 1 for the smallest, M for the largest. Equal values
share the mean of their ranks, so that half the values being 0 (after a ReLU) are all given 1/4, and a constant
channel 1/2. The outcome is as near to uniform as M values can be, at a distance of 1/(2M), and no strictly
increasing change of the input (a logarithm, a cube) changes it.

A rank moves in steps and has no derivative. The gradient is therefore borrowed ("straight-through") from the
Gaussian transform `pit`, the smooth map that the ranks follow where the channel is normal: it sums to zero over
the channel, and falls with the channel's scale, as that of a normalization must.

Evaluation cannot rank against a batch. It looks x up in a table of K quantiles a channel, the running averages
of the batches', between two of which it draws a straight line; values beyond the table are given its ends,
1/(2K) and 1 - 1/(2K). With a table as long as the batch, and the batch's own, evaluation gives training's y.

Over: batch and positions, each channel by itself; evaluation by the running quantiles.
Cost: a sort of each channel, M log M, and two binary searches for each value: by far the dearest of the family.
When: to measure what exact uniformity would bring, or where the input's distribution is unknown and its outliers
    are wild. Not for speed.
Source: Rosenblatt 1952, Remarks on a multivariate transformation; Bengio, Leonard, Courville 2013, arXiv
    1308.3432, on straight-through gradients.
"""

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from normlab.errors import NormlabError
from normlab.norms.batch import Channels
from normlab.norms.channels import accumulator, affine, cast, values_per_channel
from normlab.norms.pit import uniform
from normlab.norms.running import check_settings
from normlab.norms.standardize import normalize_by_batch
from normlab.norms.tracked import Of1d, Of2d, Of3d, Tracked, average

Quantiles = Float[Tensor, "C K"]


def rank_pit(
    x: Float[Tensor, "N C *spatial"],
    running_quantiles: Quantiles | None = None,
    weight: Channels | None = None,
    bias: Channels | None = None,
    *,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> tuple[Float[Tensor, "N C *spatial"], Quantiles | None]:
    """The rank-based probability integral transform as a pure function; nothing that is passed in is changed.

    Args:
        x: (N, C, *spatial), floating.
        running_quantiles: (C, K), ascending: those of the levels 1/(2K), 3/(2K), ..., 1 - 1/(2K). None: ranks
            within the batch, in evaluation too.
        weight: (C,), gamma; None is 1.
        bias: (C,), beta; None is 0.
        training: rank within the batch, and average its quantiles into the running ones.
        momentum: the batch's share in the new running quantiles.
        eps: of the Gaussian transform that lends its gradient.

    Returns:
        y, with the dtype and shape of x, and the running quantiles that follow, without autograd history: the
        old ones in evaluation and after a batch with an inf or NaN. Of such a channel y is NaN.

    """
    check_settings(eps, momentum)
    if running_quantiles is not None and running_quantiles.shape[0] != x.shape[1]:
        raise NormlabError(f"running_quantiles of shape ({x.shape[1]}, K)", tuple(running_quantiles.shape))
    if running_quantiles is None or training:
        y, ordered = rank(x, weight, bias, eps)
        if running_quantiles is None or not ordered.numel():
            return y, running_quantiles
        batch = quantiles(ordered, running_quantiles.shape[1])
        (new,), _ = average((running_quantiles,), (batch,), momentum)
        return y, new
    return look_up(x, running_quantiles, weight, bias), running_quantiles.detach()


def rank(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """Training's y (N, C, *spatial), and each channel's values in ascending order (C, M)."""
    x, dtype = x.to(accumulator(x)), x.dtype
    ordered, order = _by_channel(x.detach()).sort(1)
    below = torch.searchsorted(ordered, ordered)  # of values in order, which is twice as fast
    not_above = torch.searchsorted(ordered, ordered, right=True)
    u = (below + not_above).to(x.dtype) / (2 * max(values_per_channel(x), 1))
    u = _as_before(torch.empty_like(u).scatter(1, order, u), x)
    smooth = uniform(normalize_by_batch(x, None, None, None, eps)[0], None, None)
    u = u + (smooth - smooth.detach())  # which adds 0, a gradient and, where the batch is not finite, NaN
    return affine(u, weight, bias).to(dtype), ordered


def quantiles(ordered: Tensor, size: int) -> Tensor:
    """Quantiles (C, K) of ascending values (C, M): at the level (r - 1/2) / M the r-th value, linear between.

    NaN for a channel with an inf or NaN, though no quantile may fall on it.
    """
    m = ordered.shape[1]
    levels = (torch.arange(size, device=ordered.device, dtype=ordered.dtype) + 0.5) / size
    place = (levels * m - 0.5).clamp(0, m - 1)
    before = place.floor().long()
    after = (before + 1).clamp(max=m - 1)
    table = torch.lerp(ordered[:, before], ordered[:, after], (place - before).expand(len(ordered), -1))
    return table + 0 * ordered[:, :1] + 0 * ordered[:, -1:]


def look_up(x: Tensor, table: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Evaluation's y (N, C, *spatial): the level of each value in its channel's ascending quantiles (C, K)."""
    dtype, x = x.dtype, x.to(accumulator(x))
    table = cast(table.detach(), x).contiguous()
    size = table.shape[1]
    values = _by_channel(x).clamp(table[:, :1], table[:, -1:])
    below = torch.searchsorted(table, values.detach())
    not_above = torch.searchsorted(table, values.detach(), right=True)
    lower = table.gather(1, (below - 1).clamp(min=0))
    gap = table.gather(1, not_above.clamp(max=size - 1)) - lower
    held = below < not_above  # by the table, once or, where quantiles are equal, several times
    share = torch.where(held, 0, (values - lower) / torch.where(gap > 0, gap, 1) - 0.5)
    u = ((below + not_above) / 2 + share) / size
    return affine(_as_before(u, x), weight, bias).to(dtype)


def _by_channel(x: Tensor) -> Tensor:
    """(N, C, *spatial) as (C, M), contiguous: as rows are sorted and searched."""
    return x.movedim(1, 0).reshape(x.shape[1], -1).contiguous()


def _as_before(values: Tensor, x: Tensor) -> Tensor:
    """(C, M) in the shape and layout of x (N, C, *spatial)."""
    shaped = values.reshape(x.movedim(1, 0).shape).movedim(0, 1)
    return torch.empty_like(x).copy_(shaped)


class _RankPIT(Tracked):
    """Arguments as of torch.nn.BatchNorm, with `quantiles`, the length K of the table that evaluation uses."""

    kind: ClassVar = "rank"
    exchangeable: ClassVar = True

    def __init__(self, *args: Any, quantiles: int = 128, **kwargs: Any) -> None:
        if quantiles < 1:
            raise NormlabError("quantiles >= 1", quantiles)
        self.quantiles = quantiles
        super().__init__(*args, **kwargs)

    def _new_statistics(self) -> dict[str, Tensor]:
        levels = (torch.arange(self.quantiles, dtype=torch.float64) + 0.5) / self.quantiles
        return {"running_quantiles": torch.special.ndtri(levels).repeat(self.num_features, 1)}  # of a normal one

    def _train(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        y, ordered = rank(x, self.weight, self.bias, self.eps)
        return y, (quantiles(ordered, self.quantiles),)

    def _evaluate(self, x: Tensor, *running: Tensor) -> Tensor:
        return look_up(x, running[0], self.weight, self.bias)

    def extra_repr(self) -> str:
        """The settings, with the length of the table."""
        return f"{super().extra_repr()}, quantiles={self.quantiles}"


class RankPIT1d(Of1d, _RankPIT):
    """Rank-based probability integral transform of (N, C) or (N, C, L)."""


class RankPIT2d(Of2d, _RankPIT):
    """Rank-based probability integral transform of (N, C, H, W)."""


class RankPIT3d(Of3d, _RankPIT):
    """Rank-based probability integral transform of (N, C, D, H, W)."""


FAMILY = {"rank-pit": {1: RankPIT1d, 2: RankPIT2d, 3: RankPIT3d}}
