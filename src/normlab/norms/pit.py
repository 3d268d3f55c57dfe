"""Probability integral transform, Gaussian: every channel spread evenly over the interval from 0 to 1.

    u = Phi((x - mean) / sqrt(var + eps)),    y = weight * u + bias

Phi(z) is the share of a normal distribution that lies below z. Any random number, put through the distribution
function of its own distribution, becomes uniform on (0, 1): that is the probability integral transform. Here
the distribution is taken to be normal with the channel's mean and variance, so u is uniform exactly if the
channel is normal. If it is not, u keeps the difference: more data brings the fit no nearer, and the distance
to uniform stops falling. The rank-based transform (`rank_pit`) assumes nothing.

u has mean 1/2 and variance 1/12. Where zero mean and unit variance should come out, begin with weight
sqrt(12) and bias -sqrt(3); before a ReLU this matters, which else sees positive numbers only. Values far from
the mean are squeezed together, as by a sigmoid, of which Phi is a near relative, and their gradient vanishes.

Over: batch and positions, each channel by itself; evaluation by the running mean and variance.
Cost: batch normalization, and about 3 passes forward and 10 backward for Phi.
When: bounded inputs of known distribution (copulas, hashing, quantization); as a layer between others an object
    of study, Gaussianizing or uniformizing ones having been reported without gain.
Source: Rosenblatt 1952, Remarks on a multivariate transformation; as a layer, the thread on batch
    normalization in Dive into Deep Learning.
"""

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from normlab.norms.batch import Channels, batch_norm
from normlab.norms.channels import accumulator, cast, column
from normlab.norms.standardize import normalize_by, normalize_by_batch
from normlab.norms.tracked import Of1d, Of2d, Of3d, Tracked


def gaussian_pit(
    x: Float[Tensor, "N C *spatial"],
    running_mean: Channels | None = None,
    running_var: Channels | None = None,
    weight: Channels | None = None,
    bias: Channels | None = None,
    *,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> tuple[Float[Tensor, "N C *spatial"], Channels | None, Channels | None]:
    """The Gaussian probability integral transform as a pure function: `functional.batch_norm`, then Phi.

    Arguments, what is returned and what is raised are those of `functional.batch_norm`.
    """
    h, running_mean, running_var = batch_norm(
        x.to(accumulator(x)), running_mean, running_var, training=training, momentum=momentum, eps=eps
    )
    return uniform(h, weight, bias).to(x.dtype), running_mean, running_var


def uniform(h: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Gives weight * Phi(h) + bias in few passes: Phi(h) = (1 + erf(h / sqrt 2)) / 2, the halves being gamma's."""
    half = h.new_full((), 0.5) if weight is None else column(cast(weight, h) / 2, h)
    start = half if bias is None else half + column(cast(bias, h), h)
    return torch.addcmul(start, half, _Erf.apply(h))


class _Erf(Function):
    """erf(h / sqrt 2). Its gradient, g exp(-h^2 / 2) sqrt(2 / pi), takes two tensors where autograd's takes five."""

    generate_vmap_rule = True

    @staticmethod
    def forward(h: Tensor) -> Tensor:
        return torch.mul(h, math.sqrt(0.5)).erf_()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (h,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            return gradient * torch.exp(h * h * -0.5) * math.sqrt(2 / math.pi)
        return gradient * torch.mul(h, h).mul_(-0.5).exp_().mul_(math.sqrt(2 / math.pi))


class _PIT(Tracked):
    """Arguments and buffers as of torch.nn.BatchNorm."""

    kind: ClassVar = "uniform"
    exchangeable: ClassVar = True

    def _new_statistics(self) -> dict[str, Tensor]:
        return {"running_mean": torch.zeros(self.num_features), "running_var": torch.ones(self.num_features)}

    def _train(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        h, batch = normalize_by_batch(x.to(accumulator(x)), None, None, None, self.eps)
        return uniform(h, self.weight, self.bias).to(x.dtype), (batch.mean, batch.unbiased_var)

    def _evaluate(self, x: Tensor, *running: Tensor) -> Tensor:
        mean, var = running
        h = normalize_by(x.to(accumulator(x)), mean, var, None, None, None, self.eps)
        return uniform(h, self.weight, self.bias).to(x.dtype)


class PIT1d(Of1d, _PIT):
    """Gaussian probability integral transform of (N, C) or (N, C, L)."""


class PIT2d(Of2d, _PIT):
    """Gaussian probability integral transform of (N, C, H, W)."""


class PIT3d(Of3d, _PIT):
    """Gaussian probability integral transform of (N, C, D, H, W)."""


FAMILY = {"pit": {1: PIT1d, 2: PIT2d, 3: PIT3d}}
