"""ZCA and PCA whitening: by the eigenvectors and eigenvalues of the covariance.

    S + eps I = U L U^T,    W = U L^(-1/2) U^T  (ZCA),    W = L^(-1/2) U^T  (PCA)

The columns of U are the axes of the ellipse that S describes, and L holds the variances along them. Both
turn the cloud onto these axes and divide by the standard deviations there. PCA leaves it so: channel k of the
output is the k-th longest axis, a mixture of all channels. ZCA turns it back: every output is as close to its
own channel as a whitened one can be, and W is symmetric.

PCA does badly inside a network. Which axis is longest, and which of its two ends is positive, may change from
one batch to the next, and the layers above then see their inputs permuted. Where two variances are equal any
axes in their plane would do; PCA's derivative is infinite there, and is replaced by that of axes that stay as
they are. ZCA has no such points: its derivative divides by sums of standard deviations, not by differences of
variances, so that equal ones, or a repeated channel, do no harm.

Over: batch and positions, all channels of a group together.
Cost: that of whitening, and some 10 d^3 FLOPs for the eigenvectors of d channels.
When: ZCA is the exact whitening for networks, with d up to a hundred or so; Newton-Schulz is faster. PCA to see
    why not.
Source: Huang, Yang, Lang, Deng 2018, arXiv 1804.08450, section 3.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import Function

from normlab.norms.tracked import Of1d, Of2d, Of3d
from normlab.norms.whitening import Matrices, Whitening


def zca(cov: Matrices) -> Matrices:
    """The symmetric W (G, d, d) with W cov W = I, for positive definite cov (G, d, d)."""
    return _InverseSqrt.apply(cov)[0]


def pca(cov: Matrices) -> Matrices:
    """W (G, d, d) with rows along the axes of positive definite cov (G, d, d), the longest first."""
    values, vectors = _Eigh.apply(cov)
    return (vectors * values.rsqrt()[..., None, :]).flip(-1).mT


class _InverseSqrt(Function):
    """A (G, d, d) -> W = A^(-1/2), and the eigenvectors and eigenvalues of W.

    W W = A^-1 gives W dW + dW W = -W^2 dA W^2, an equation for dW in which no eigenvector stands. What solves
    it has itself a derivative of this form, so that all higher ones exist.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(cov: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(cov)
        roots = values.rsqrt()
        return (vectors * roots[..., None, :]) @ vectors.mT, vectors, roots

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:
        w, vectors, roots = output
        ctx.mark_non_differentiable(vectors, roots)
        ctx.save_for_backward(w, vectors, roots)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        w, vectors, roots = ctx.saved_tensors
        square = w @ w
        return -(square @ _Sylvester.apply(w, gradients[0], vectors, roots) @ square)


class _Sylvester(Function):
    """X with w X + X w = g, for symmetric positive definite w (G, d, d) of which the eigenvectors are at hand."""

    generate_vmap_rule = True

    @staticmethod
    def forward(w: Tensor, g: Tensor, vectors: Tensor, roots: Tensor) -> Tensor:
        turned = vectors.mT @ g @ vectors
        return vectors @ (turned / (roots[..., :, None] + roots[..., None, :])) @ vectors.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        w, _, vectors, roots = inputs
        ctx.save_for_backward(w, output, vectors, roots)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        w, x, vectors, roots = ctx.saved_tensors
        dg = _Sylvester.apply(w, gradients[0], vectors, roots)
        return -(dg @ x.mT + x.mT @ dg), dg, None, None


class _Eigh(Function):
    """`torch.linalg.eigh`, but a pair of equal eigenvalues adds nothing to the gradient instead of infinity."""

    generate_vmap_rule = True

    @staticmethod
    def forward(cov: Tensor) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(cov)
        return values, vectors

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        values, vectors = ctx.saved_tensors
        of_values, of_vectors = gradients
        gaps = values[..., None, :] - values[..., :, None]
        rounding = gaps.shape[-1] * torch.finfo(gaps.dtype).eps * values[..., -1:, None]
        equal = gaps.abs() <= rounding
        turn = torch.where(equal, 0, vectors.mT @ of_vectors / torch.where(equal, 1, gaps))
        g = vectors @ (turn + torch.diag_embed(of_values)) @ vectors.mT
        return (g + g.mT) / 2


class _ZCA(Whitening):
    kind: ClassVar = "zca"

    def _matrix(self, cov: Tensor) -> Tensor:
        return zca(cov)


class _PCA(Whitening):
    kind: ClassVar = "pca"

    def _matrix(self, cov: Tensor) -> Tensor:
        return pca(cov)


class ZCA1d(Of1d, _ZCA):
    """ZCA whitening of (N, C) or (N, C, L)."""


class ZCA2d(Of2d, _ZCA):
    """ZCA whitening of (N, C, H, W)."""


class ZCA3d(Of3d, _ZCA):
    """ZCA whitening of (N, C, D, H, W)."""


class PCA1d(Of1d, _PCA):
    """PCA whitening of (N, C) or (N, C, L)."""


class PCA2d(Of2d, _PCA):
    """PCA whitening of (N, C, H, W)."""


class PCA3d(Of3d, _PCA):
    """PCA whitening of (N, C, D, H, W)."""


FAMILY = {"zca": {1: ZCA1d, 2: ZCA2d, 3: ZCA3d}, "pca": {1: PCA1d, 2: PCA2d, 3: PCA3d}}
