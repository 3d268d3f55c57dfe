"""Whitening: every channel mean 0 and variance 1, and no channel predictable from another.

    y = weight * W (x - mean) + bias,    W (S + eps I) W^T = I

    x, mean, y    the d channels of a group, at one position of one example
    S             their covariance (d, d): S[i, j] = mean of (x_i - mean_i) (x_j - mean_j)
    W             the whitening matrix (d, d), a function of S

Batch normalization looks at each channel by itself: it divides by a standard deviation. Two channels that say
nearly the same thing still do so afterwards. The full covariance S also holds, off its diagonal, how each
channel moves with every other; a cloud of points with correlated channels is a tilted ellipse. Whitening turns
that ellipse into a round ball: it divides by the "square root of the covariance" as batch normalization
divides by the square root of the variance. With groups of one channel it is batch normalization.

Many W do that, since a ball may be turned without ceasing to be round: ZCA (the one that moves the points
least), PCA (turns them onto the ellipse's axes), Cholesky (channel by channel), and Newton-Schulz, which comes
near ZCA by matrix products alone. Each has a file of its own.

eps is added to the variances (the diagonal of S), so that y's covariance is a little less than I, as batch
normalization's variance is var / (var + eps). Fewer values than channels leave S without an inverse: directions
in which the batch does not vary have variance eps then, and 0 in y. `shrinkage` a moves S towards a ball of the
same size, (1 - a) S + a (trace S / d) I, which is the better estimate from few values. Beyond eps the diagonal
always gets what rounding may have taken from it, so that no batch gives NaN.

Running averages are kept of mean and covariance, not of W: an average of covariances is a covariance, whereas
an average of whitening matrices whitens nothing, and PCA's, which change sign and order from batch to batch,
would cancel. So evaluation computes W anew from the running covariance.

Over: batch and positions, all channels of a group together.
Cost: 4 d FLOPs for each element forward (d is the group size), 8 d backward; and d^3 for W, in evaluation too.
When: correlated features, where the loss is badly conditioned. Needs several times more values (batch times
    positions) than channels in a group: make `group_size` smaller, or the batch larger, until it has them.
Source: Huang, Yang, Lang, Deng 2018, arXiv 1804.08450; Kessy, Lewin, Strimmer 2018, arXiv 1512.00809, on the
    choice of W.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from normlab.errors import NormlabError
from normlab.norms.batch import Channels
from normlab.norms.channels import accumulator, cast, center, column, values_per_channel
from normlab.norms.running import check_settings
from normlab.norms.tracked import Tracked, average

Matrices = Float[Tensor, "G d d"]


def whiten(
    x: Float[Tensor, "N C *spatial"],
    matrix: Callable[[Tensor], Tensor],
    running_mean: Channels | None = None,
    running_cov: Matrices | None = None,
    weight: Channels | None = None,
    bias: Channels | None = None,
    *,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
    group_size: int | None = None,
    shrinkage: float = 0.0,
) -> tuple[Float[Tensor, "N C *spatial"], Channels | None, Matrices | None]:
    """Whitening as a pure function; nothing that is passed in is changed.

    Args:
        x: (N, C, *spatial), floating; the linear algebra runs in float32 or better, autocast or not.
        matrix: W (G, d, d) of positive definite covariances (G, d, d): `zca`, `pca`, `cholesky`, `newton_schulz`.
        running_mean: (C,), or None with batch statistics only.
        running_cov: (G, d, d), likewise; unbiased, as torch's running variance is.
        weight: (C,), gamma; None is 1.
        bias: (C,), beta; None is 0.
        training: whiten with the batch's statistics and average them into the running ones. Without running
            statistics the batch's serve in evaluation too.
        momentum: the batch's share in the new running statistics.
        eps: added to every variance, finite and >= 0.
        group_size: channels d that are whitened together, which divides C; None is all.
        shrinkage: in [0, 1]: how far the covariance goes towards a multiple of I.

    Returns:
        y, with the dtype and shape of x, and the running statistics that follow, without autograd history: the
        old ones in evaluation, after a batch with an inf or NaN, and after one of fewer than two values a channel.

    Raises:
        NormlabError: a shape or value that fits none of the above.

    """
    check_settings(eps, momentum)
    size = x.shape[1] if group_size is None else group_size
    check_whitening(x.shape[1], size, shrinkage)
    if (running_mean is None) != (running_cov is None):
        raise NormlabError("running_mean and running_cov, both or neither", "one of them")
    if running_cov is not None and running_cov.shape != (x.shape[1] // size, size, size):
        raise NormlabError(f"running_cov of shape {(x.shape[1] // size, size, size)}", tuple(running_cov.shape))
    if running_mean is None or running_cov is None:
        return whiten_by_batch(x, matrix, weight, bias, eps, size, shrinkage)[0], None, None
    if not training:
        y = whiten_by(x, running_mean, running_cov, matrix, weight, bias, eps, shrinkage)
        return y, running_mean.detach(), running_cov.detach()
    y, batch = whiten_by_batch(x, matrix, weight, bias, eps, size, shrinkage)
    if values_per_channel(x) < 2:
        return y, running_mean.detach(), running_cov.detach()
    (new_mean, new_cov), _ = average((running_mean, running_cov), batch, momentum)
    return y, new_mean, new_cov


def whiten_by_batch(
    x: Tensor,
    matrix: Callable[[Tensor], Tensor],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    size: int,
    shrinkage: float,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Training's y (N, C, *spatial), and the batch's mean (C,) and unbiased covariance (G, d, d)."""
    values = values_per_channel(x)
    with torch.autocast(x.device.type, enabled=False):
        mean, centered = center(x, None, exact=eps == 0)
        blocks = _blocks(centered, size)
        squares = (blocks @ blocks.mT).unflatten(0, (-1, x.shape[1] // size)).sum(0)
        w = _regularized(squares / max(values, 1), matrix, eps, shrinkage)
        y = _apply(w, blocks, weight, bias, centered).to(x.dtype)
    return y, (mean.detach(), squares.detach() / max(values - 1, 1))


def whiten_by(
    x: Tensor,
    mean: Tensor,
    cov: Tensor,
    matrix: Callable[[Tensor], Tensor],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    shrinkage: float,
) -> Tensor:
    """Evaluation's y (N, C, *spatial): a linear map that no other row of the batch enters."""
    with torch.autocast(x.device.type, enabled=False):
        w = _regularized(cast(cov, x), matrix, eps, shrinkage)
        centered = x.to(accumulator(x)) - column(cast(mean, x), x)
        return _apply(w, _blocks(centered, cov.shape[-1]), weight, bias, centered).to(x.dtype)


def check_whitening(num_features: int, group_size: int, shrinkage: float) -> None:
    """Raises NormlabError on a group size that does not divide the channels, and a shrinkage outside [0, 1]."""
    if group_size < 1 or num_features % group_size:
        raise NormlabError(f"a group size that divides {num_features} channels", group_size)
    if not 0 <= shrinkage <= 1:
        raise NormlabError("shrinkage in [0, 1]", shrinkage)


def _regularized(cov: Tensor, matrix: Callable[[Tensor], Tensor], eps: float, shrinkage: float) -> Tensor:
    """W (G, d, d) of covariances that may be singular or not even finite."""
    identity = torch.eye(cov.shape[-1], dtype=cov.dtype, device=cov.device)
    # LAPACK refuses NaN. It need not see it: the deviations hold it too, and bring it into y.
    cov = torch.where(cov.isfinite().all(-1, keepdim=True).all(-2, keepdim=True), cov, identity)
    if shrinkage:
        scale = cov.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        cov = cov + shrinkage * (scale * identity - cov)
    largest = cov.detach().abs().sum(-1).amax(-1)[..., None, None]  # a bound of the largest eigenvalue
    # Half of this was enough for every singular covariance tried, of 3 to 512 channels.
    ridge = eps + 8 * torch.finfo(cov.dtype).eps * largest
    return matrix(cov + torch.where(ridge == 0, 1, ridge) * identity)


def _channels_last(x: Tensor) -> bool:
    return x.movedim(1, -1).is_contiguous()


def _blocks(x: Tensor, size: int) -> Tensor:
    """Views x (N, C, *spatial) as (B * G, d, P): B is N or, where the channels lie last in memory, 1."""
    n, c = x.shape[:2]
    if _channels_last(x):
        return x.movedim(1, -1).reshape(-1, c).mT.reshape(c // size, size, -1)
    return x.reshape(n * c // size, size, -1)


def _apply(w: Tensor, blocks: Tensor, weight: Tensor | None, bias: Tensor | None, x: Tensor) -> Tensor:
    """Gives weight * W blocks + bias, in the shape and layout of x."""
    groups, size, _ = w.shape
    if weight is not None:
        w = w * cast(weight, x).reshape(groups, size, 1)
    shift = w.new_zeros(()) if bias is None else cast(bias, x).reshape(groups, size, 1)
    copies = blocks.shape[0] // groups
    w = w.expand(copies, -1, -1, -1).flatten(0, 1)
    y = torch.baddbmm(shift.expand(copies, groups, size, 1).flatten(0, 1), w, blocks)
    if _channels_last(x):
        return y.reshape(x.shape[1], -1).mT.contiguous().reshape(x.movedim(1, -1).shape).movedim(-1, 1)
    return y.reshape(x.shape)


class Whitening(Tracked):
    """The whitening layers, but for the choice of W; arguments as of torch.nn.BatchNorm, and two more.

    Args:
        num_features: C.
        eps: added to every variance.
        momentum: the batch's share in the running statistics; None makes them the cumulative mean.
        affine: whether it has gamma (C,), `weight`, and beta (C,), `bias`.
        track_running_stats: whether it has `running_mean` (C,) and `running_cov` (C / d, d, d).
        device: of parameters and buffers.
        dtype: likewise.
        group_size: whiten at most so many channels together: d is the largest divisor of C that is not above
            it, so that one setting serves a whole network. None is all channels.
        shrinkage: in [0, 1]; see `functional.whiten`.

    """

    exchangeable: ClassVar = True

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        group_size: int | None = None,
        shrinkage: float = 0.0,
    ) -> None:
        if group_size is not None and group_size < 1:
            raise NormlabError("group_size >= 1, or None for all channels", group_size)
        at_most = num_features if group_size is None else min(group_size, num_features)
        self.group_size = next(d for d in range(at_most, 0, -1) if num_features % d == 0)
        self.shrinkage = shrinkage
        check_whitening(num_features, self.group_size, shrinkage)
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)

    @abstractmethod
    def _matrix(self, cov: Tensor) -> Tensor:
        """W (G, d, d) of positive definite covariances (G, d, d)."""

    def _new_statistics(self) -> dict[str, Tensor]:
        identity = torch.eye(self.group_size).repeat(self.num_features // self.group_size, 1, 1)
        return {"running_mean": torch.zeros(self.num_features), "running_cov": identity}

    def _train(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return whiten_by_batch(x, self._matrix, self.weight, self.bias, self.eps, self.group_size, self.shrinkage)

    def _evaluate(self, x: Tensor, *running: Tensor) -> Tensor:
        mean, cov = running
        return whiten_by(x, mean, cov, self._matrix, self.weight, self.bias, self.eps, self.shrinkage)

    def extra_repr(self) -> str:
        """The settings, with the group size that serves."""
        return f"{super().extra_repr()}, group_size={self.group_size}, shrinkage={self.shrinkage}"
