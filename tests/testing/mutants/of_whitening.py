"""Whitening by the wrong matrix, or with the wrong gradient."""

import torch
from norm_references import Cholesky, NewtonSchulz, Pca, Zca

from mutants.of_gradients import ramp
from mutants.table import mutant, with_gradient


@mutant("whitened-covariance", "groups-of-one-are-batch")
class ZcaByTheInverse(Zca):
    def matrix(self, s):
        root = super().matrix(s)
        return root @ root


@mutant("whitened-covariance", "zca-turns-with-its-input")
class ZcaOfTheVariancesAlone(Zca):
    def matrix(self, s):
        return super().matrix(torch.diag_embed(s.diagonal(dim1=-2, dim2=-1)))


@mutant("whitened-covariance", "groups-of-one-are-batch")
class ZcaByTheUnbiasedCovariance(Zca):
    def matrix(self, s):
        return super().matrix(s * 1.01)


@mutant("whitened-covariance", "zca-is-symmetric", "groups-of-one-are-batch", gradient_only=True)
class ZcaTakesItsMatrixForAConstant(Zca):
    def matrix(self, s):
        return super().matrix(s).detach()


@mutant("zca-is-symmetric")
class ZcaThatTurns(Zca):
    def matrix(self, s):
        return super().matrix(s).roll(1, -2)


@mutant("zca-is-symmetric", "zca-turns-with-its-input")
class ZcaByCholesky(Cholesky):
    kind = "zca"


@mutant("zca-is-symmetric", "zca-turns-with-its-input")
class ZcaByPca(Pca):
    kind = "zca"


@mutant("zca-turns-with-its-input", gradient_only=True)
class ZcaAddsARampToTheGradient(Zca):
    def normalized(self, x):
        return super().normalized(with_gradient(x, ramp))


@mutant("groups-of-one-are-batch")
class ZcaOfAllChannels(Zca):
    def __init__(self, num_features, eps=1e-5, momentum=0.1, group_size=None):
        super().__init__(num_features, eps, momentum)


@mutant("whitened-covariance")
class PcaThatOnlyTurns(Pca):
    def matrix(self, s):
        return torch.linalg.eigh(s).eigenvectors.mT


@mutant("whitened-covariance")
class CholeskyTransposed(Cholesky):
    def matrix(self, s):
        return super().matrix(s).mT


@mutant("whitened-covariance", gradient_only=True)
class CholeskyTakesItsMatrixForAConstant(Cholesky):
    def matrix(self, s):
        return super().matrix(s).detach()


@mutant("newton-schulz-steps")
class NewtonSchulzOfOneStepLess(NewtonSchulz):
    def __init__(self, num_features, **options):
        super().__init__(num_features, **options)
        self.iterations = 5

    def matrix(self, s):
        self.iterations = 4
        try:
            return super().matrix(s)
        finally:
            self.iterations = 5


@mutant("newton-schulz-steps")
class NewtonSchulzOfOtherCoefficients(NewtonSchulz):
    def step(self, p, s):
        return 1.4 * p - 0.4 * p @ p @ p @ s


@mutant("newton-schulz-steps")
class NewtonSchulzThatForgetsTheTrace(NewtonSchulz):
    def matrix(self, s):
        trace = s.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
        return super().matrix(s) * trace.sqrt()


@mutant("newton-schulz-steps", gradient_only=True)
class NewtonSchulzTakesItsMatrixForAConstant(NewtonSchulz):
    def matrix(self, s):
        return super().matrix(s).detach()


@mutant("singular-batches-are-finite")
class ZcaWithoutEps(Zca):
    def matrix(self, s):
        return super().matrix(s - self.eps * torch.eye(s.shape[-1], dtype=s.dtype))


@mutant("singular-batches-are-finite")
class PcaWithoutEps(Pca):
    def matrix(self, s):
        values, vectors = torch.linalg.eigh(s - self.eps * torch.eye(s.shape[-1], dtype=s.dtype))
        return vectors.mT * values[..., None].rsqrt()


@mutant("singular-batches-are-finite")
class CholeskyWithoutEps(Cholesky):
    def matrix(self, s):
        return super().matrix(s - self.eps * torch.eye(s.shape[-1], dtype=s.dtype))


@mutant("singular-batches-are-finite", gradient_only=True)
class PcaThatDividesByGaps(Pca):
    def matrix(self, s):
        values, vectors = torch.linalg.eigh(s)
        largest = vectors.gather(-2, vectors.abs().argmax(-2, keepdim=True))
        return (vectors * largest.sign() * values[..., None, :].rsqrt()).mT
