"""Newton-Schulz whitening: ZCA approached by a few matrix products ("iterative normalization", IterNorm).

    A = (S + eps I) / trace,    P_0 = I,    P_k = 1.5 P_(k-1) - 0.5 P_(k-1)^3 A,    W = P_T / sqrt(trace)

P_k tends to A^(-1/2), as Newton's method for 1 / sqrt(a) does with a number; dividing by the trace (the sum of
the variances) brings every variance below 1, where it converges from I. With the few steps T that are usual
it does not get there, and that is meant: the variance along an axis with the share a of the trace comes to
a p_T^2, p following p <- 1.5 p - 0.5 p^3 a from p = 1. Strong directions are whitened, weak ones, which may be
noise, are not blown up: T stands between no whitening and ZCA.

The steps are taken in the coupled form, Z <- H Z and Y <- Y H with H = 1.5 I - 0.5 Z Y from Y = A and Z = I,
which gives the same numbers (Z is P, Y is A P). The form of the formula multiplies its rounding errors by more
than 1 in every step once strong axes have converged: in float32 it ends in NaN after 10 to 20 steps wherever
variances differ by a factor of a hundred. The coupled form keeps errors as they are, for any T.

Over: batch and positions, all channels of a group together.
Cost: that of whitening, and 6 T d^3 FLOPs of matrix products, no decomposition: fast on any device.
When: whitening in a network: the smooth, cheap choice. More steps are nearer to ZCA, and noisier.
Source: Huang, Zhou, Zhu, Liu, Shao 2019, arXiv 1904.03441, section 3; Higham 2008, Functions of Matrices,
    chapter 6, on the coupled form.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from normlab.errors import NormlabError
from normlab.norms.standardize import transformed
from normlab.norms.tracked import Of1d, Of2d, Of3d
from normlab.norms.whitening import Matrices, Whitening


def newton_schulz(cov: Matrices, iterations: int = 5) -> Matrices:
    """W (G, d, d) near cov^(-1/2), for positive definite cov (G, d, d).

    Raises NormlabError where it diverges, which singular or indefinite matrices make it do: an error and no
    warning, since nothing that is computed from such a W means anything. It is not looked for where that would
    wait for a device, or under torch.compile and torch.func.
    """
    if iterations < 0:
        raise NormlabError("iterations >= 0", iterations)
    identity = torch.eye(cov.shape[-1], dtype=cov.dtype, device=cov.device).expand_as(cov)
    trace = cov.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    y, z = cov / trace, identity
    for _ in range(iterations):
        h = torch.baddbmm(identity, z, y, beta=1.5, alpha=-0.5)
        y, z = y.bmm(h), h.bmm(z)
    if cov.device.type == "cpu" and not torch.compiler.is_compiling() and not transformed():
        # The eigenvalues of z y go from those of A up to 1, hence no element of it ever exceeds 1.
        reached = (z.detach() @ y.detach()).abs().amax().item() if cov.numel() else 0.0
        if not reached < 2:
            raise NormlabError(
                "a positive definite covariance for Newton-Schulz",
                f"one that makes it diverge ({reached:.3g} where it should be below 1)",
                "raise eps or shrinkage, or make group_size smaller than the number of values per channel",
            )
    return z / trace.sqrt()


class _NewtonSchulz(Whitening):
    """With `iterations`, T, besides the arguments of `Whitening`."""

    kind: ClassVar = "newton-schulz"

    def __init__(self, *args: Any, iterations: int = 5, **kwargs: Any) -> None:
        if iterations < 0:
            raise NormlabError("iterations >= 0", iterations)
        self.iterations = iterations
        super().__init__(*args, **kwargs)

    def _matrix(self, cov: Tensor) -> Tensor:
        return newton_schulz(cov, self.iterations)

    def extra_repr(self) -> str:
        """The settings, with the number of steps."""
        return f"{super().extra_repr()}, iterations={self.iterations}"


class NewtonSchulz1d(Of1d, _NewtonSchulz):
    """Newton-Schulz whitening of (N, C) or (N, C, L)."""


class NewtonSchulz2d(Of2d, _NewtonSchulz):
    """Newton-Schulz whitening of (N, C, H, W)."""


class NewtonSchulz3d(Of3d, _NewtonSchulz):
    """Newton-Schulz whitening of (N, C, D, H, W)."""


FAMILY = {"newton-schulz": {1: NewtonSchulz1d, 2: NewtonSchulz2d, 3: NewtonSchulz3d}}
