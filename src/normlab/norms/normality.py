"""Normality normalization: standardizes, then bends each channel towards a normal distribution; noise if asked.

    h = (x - mean) / sqrt(var + eps),    y = weight * (psi(h) + noise * s * z) + bias

    psi(h) = ((1 + h)^lambda - 1) / lambda             where h >= 0
           = -((1 - h)^(2 - lambda) - 1) / (2 - lambda)    where h < 0

Batch normalization gives a channel the mean and variance of a standard normal one, but not its shape. The
power transform psi of Yeo and Johnson, always increasing, also takes skewness out: lambda below 1 pulls in a
long right tail and stretches the left one, above 1 the reverse, and lambda = 1 changes nothing.

Each channel's lambda is estimated from the batch, by one step of Newton's method from lambda = 1 towards the
most likely value (so the gradient flows through it). It needs two derivatives of the likelihood, which are means
over the batch; a channel without spread has lambda 1. The result is normal only in so far as one number can
make it so.

With noise, training adds to each value normal noise z (torch's generator), `noise` times the channel's mean
absolute deviation s, which is taken as a constant: of all noise with a given variance the normal is the most
harmful to a signal, and a normal signal the best protected. The authors take 0.4 after batch statistics.
Evaluation adds none.

Over: batch and positions, each channel by itself; evaluation by the running mean, variance and lambda.
Cost: batch normalization, and some 40 passes forward and more backward: logarithms, powers, their derivatives.
When: where generalization is worth several times the normalization's time. Compare with batch normalization
    plus the same noise, which may be what helps.
Source: Eftekhari, Papyan 2025, arXiv 2505.00685; Yeo, Johnson 2000, A new family of power
    transformations.
"""

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from normlab.errors import NormlabError
from normlab.norms.batch import Channels
from normlab.norms.channels import accumulator, affine, cast, column, count, reduced, values_per_channel
from normlab.norms.running import check_settings
from normlab.norms.standardize import normalize_by, normalize_by_batch
from normlab.norms.tracked import Of1d, Of2d, Of3d, Tracked, average


def normality_norm(
    x: Float[Tensor, "N C *spatial"],
    running_mean: Channels | None = None,
    running_var: Channels | None = None,
    running_lambda: Channels | None = None,
    weight: Channels | None = None,
    bias: Channels | None = None,
    *,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
    noise: float = 0.0,
) -> tuple[Float[Tensor, "N C *spatial"], Channels | None, Channels | None, Channels | None]:
    """Normality normalization as a pure function; nothing that is passed in is changed.

    Args:
        x: (N, C, *spatial), floating.
        running_mean: (C,), or None, with the next two, for batch statistics only.
        running_var: (C,), likewise; unbiased.
        running_lambda: (C,), likewise.
        weight: (C,), gamma; None is 1.
        bias: (C,), beta; None is 0.
        training: use the batch's statistics, average them into the running ones, and add the noise.
        momentum: the batch's share in the new running statistics.
        eps: added to the variance, finite and >= 0; its root is added to the likelihood's second derivative.
        noise: of the normal noise, in mean absolute deviations of the channel.

    Returns:
        y, with the dtype and shape of x, and the running statistics that follow, without autograd history: the
        old ones in evaluation, after a batch with an inf or NaN, and after one of fewer than two values a channel.

    """
    check_settings(eps, momentum)
    check_noise(noise)
    running = (running_mean, running_var, running_lambda)
    if any(value is None for value in running) and any(value is not None for value in running):
        raise NormlabError("running_mean, running_var and running_lambda, all or none", "some of them")
    if running_mean is None or running_var is None or running_lambda is None:
        y, _ = normality_by_batch(x, weight, bias, eps, noise if training else 0.0)
        return y, None, None, None
    old = (running_mean.detach(), running_var.detach(), running_lambda.detach())
    if not training:
        return normality_by(x, running_mean, running_var, running_lambda, weight, bias, eps), *old
    y, batch = normality_by_batch(x, weight, bias, eps, noise)
    if values_per_channel(x) < 2:
        return y, *old
    (mean, var, lmbda), _ = average(old, batch, momentum)
    return y, mean, var, lmbda


def normality_by_batch(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, noise: float
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Training's y (N, C, *spatial), and the batch's mean, unbiased variance and lambda, each (C,)."""
    h, batch = normalize_by_batch(x.to(accumulator(x)), None, None, None, eps)
    lmbda = estimate_lambda(h, eps)
    y = yeo_johnson(h, column(lmbda, h))
    if noise:
        y = y + noise * column(_absolute_deviation(y.detach()), y) * torch.randn_like(y)
    return affine(y, weight, bias).to(x.dtype), (batch.mean, batch.unbiased_var, lmbda.detach())


def normality_by(
    x: Tensor, mean: Tensor, var: Tensor, lmbda: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Evaluation's y (N, C, *spatial): an increasing map of each channel that no other row of the batch enters."""
    h = normalize_by(x.to(accumulator(x)), mean, var, None, None, None, eps)
    return affine(yeo_johnson(h, column(cast(lmbda, h), h)), weight, bias).to(x.dtype)


def check_noise(noise: float) -> None:
    """Raises NormlabError on noise that is negative or not finite."""
    if not 0 <= noise < math.inf:
        raise NormlabError("noise >= 0", noise)


def yeo_johnson(h: Tensor, lmbda: Tensor) -> Tensor:
    """psi(h) of Yeo and Johnson 2000; `lmbda` broadcasts to h."""
    sign = torch.where(h >= 0, 1.0, -1.0).to(h.dtype)  # 1 at 0, where torch.sign's and abs' gradients vanish
    power = 1 + sign * (lmbda - 1)
    log = torch.log1p(h * sign)
    # (e^(power log) - 1) / power. Near power 0, where the quotient's derivative is all rounding, its series.
    near = power.abs() < torch.finfo(h.dtype).eps ** 0.25
    z = power * log
    series = log * (1 + z / 2 * (1 + z / 3 * (1 + z / 4)))
    quotient = torch.expm1(torch.where(near, 0, z)) / torch.where(near, 1, power)
    return sign * torch.where(near, series, quotient)


def estimate_lambda(h: Tensor, eps: float) -> Tensor:
    """The lambda (C,) of standardized h (N, C, *spatial): 1 - L' / (L'' + sqrt eps).

    L is the negative log-likelihood 1/2 log var psi - (lambda - 1) mean(sign(h) log(1 + |h|)), convex in lambda;
    its derivatives are taken at 1, where psi = h, with `first` and `second` those of psi in lambda.
    """
    elements = count(h, None).clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return values.sum(reduced(h)) / elements

    sign = torch.where(h >= 0, 1.0, -1.0).to(h.dtype)
    size = h * sign
    log = torch.log1p(size)
    first = (1 + size) * log - size
    second = sign * ((1 + size) * log * log - 2 * first)
    slope = mean(h * first)
    curvature = mean(h * second + (first - column(mean(first), h)) ** 2) - 2 * slope**2 + math.sqrt(eps)
    step = (slope - mean(sign * log)) / torch.where(curvature == 0, 1, curvature)
    return 1 - step


def _absolute_deviation(y: Tensor) -> Tensor:
    elements = count(y, None).clamp(min=1)
    mean = y.sum(reduced(y)) / elements
    return (y - column(mean, y)).abs().sum(reduced(y)) / elements


class _Normality(Tracked):
    """Arguments as of torch.nn.BatchNorm, with `noise`; see `functional.normality_norm`."""

    kind: ClassVar = "normal"

    def __init__(self, *args: Any, noise: float = 0.0, **kwargs: Any) -> None:
        check_noise(noise)
        self.noise = noise
        super().__init__(*args, **kwargs)

    def _new_statistics(self) -> dict[str, Tensor]:
        zeros, ones = torch.zeros(self.num_features), torch.ones(self.num_features)
        return {"running_mean": zeros, "running_var": ones, "running_lambda": ones.clone()}

    def _train(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return normality_by_batch(x, self.weight, self.bias, self.eps, self.noise if self.training else 0.0)

    def _evaluate(self, x: Tensor, *running: Tensor) -> Tensor:
        mean, var, lmbda = running
        return normality_by(x, mean, var, lmbda, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The settings, with the noise."""
        return f"{super().extra_repr()}, noise={self.noise}"


class _NoisyNormality(_Normality):
    """With the paper's noise, where no other is asked for."""

    kind: ClassVar = "noisy-normal"

    def __init__(self, *args: Any, noise: float = 0.4, **kwargs: Any) -> None:
        super().__init__(*args, noise=noise, **kwargs)


class Normality1d(Of1d, _Normality):
    """Normality normalization of (N, C) or (N, C, L)."""


class Normality2d(Of2d, _Normality):
    """Normality normalization of (N, C, H, W)."""


class Normality3d(Of3d, _Normality):
    """Normality normalization of (N, C, D, H, W)."""


class NoisyNormality1d(Of1d, _NoisyNormality):
    """Normality normalization with noise, of (N, C) or (N, C, L)."""


class NoisyNormality2d(Of2d, _NoisyNormality):
    """Normality normalization with noise, of (N, C, H, W)."""


class NoisyNormality3d(Of3d, _NoisyNormality):
    """Normality normalization with noise, of (N, C, D, H, W)."""


FAMILY = {
    "normality": {1: Normality1d, 2: Normality2d, 3: Normality3d},
    "normality-noise": {1: NoisyNormality1d, 2: NoisyNormality2d, 3: NoisyNormality3d},
}
