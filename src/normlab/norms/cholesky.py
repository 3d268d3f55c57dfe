"""Cholesky whitening: channel by channel, each without what the channels before it already say.

    S + eps I = C C^T with C lower triangular,    W = C^-1

C is the matrix analogue of a standard deviation: a triangular "square root" of the covariance. Its inverse is
triangular too, so output k depends on the channels 1 to k alone: from each channel what the earlier ones
predict of it is subtracted, and the rest is divided by its standard deviation (Gram-Schmidt, in another word).
The first channel is thus only standardized, and the order of the channels matters.

Over: batch and positions, all channels of a group together.
Cost: that of whitening, and d^3 / 3 FLOPs for C: the cheapest exact whitening.
When: exact whitening at the least cost, and a derivative without special cases. ZCA where no channel should
    come first.
Source: Siarohin, Sangineto, Sebe 2019, arXiv 1806.00420, section 3; Kessy, Lewin, Strimmer 2018, arXiv
    1512.00809.
"""

from typing import ClassVar

import torch
from torch import Tensor

from normlab.norms.tracked import Of1d, Of2d, Of3d
from normlab.norms.whitening import Matrices, Whitening


def cholesky(cov: Matrices) -> Matrices:
    """The lower triangular W (G, d, d) with W cov W^T = I, for positive definite cov (G, d, d)."""
    factor, _ = torch.linalg.cholesky_ex(cov)  # which asks the device for no answer; layers see to definite ones
    identity = torch.eye(cov.shape[-1], dtype=cov.dtype, device=cov.device)
    return torch.linalg.solve_triangular(factor, identity.expand_as(cov), upper=False)


class _Cholesky(Whitening):
    kind: ClassVar = "cholesky"

    def _matrix(self, cov: Tensor) -> Tensor:
        return cholesky(cov)


class Cholesky1d(Of1d, _Cholesky):
    """Cholesky whitening of (N, C) or (N, C, L)."""


class Cholesky2d(Of2d, _Cholesky):
    """Cholesky whitening of (N, C, H, W)."""


class Cholesky3d(Of3d, _Cholesky):
    """Cholesky whitening of (N, C, D, H, W)."""


FAMILY = {"cholesky": {1: Cholesky1d, 2: Cholesky2d, 3: Cholesky3d}}
