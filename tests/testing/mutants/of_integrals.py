"""Transforms to a uniform or a Gaussian distribution, broken."""

import torch
from norm_references import Normal, Rank, Uniform, column

from mutants.table import mutant, with_gradient


@mutant("ranks-are-uniform")
class RanksFromZero(Rank):
    def stand_in(self, rows, ranks):
        return super().stand_in(rows, ranks - 0.5 / rows.shape[1])


@mutant("ranks-are-uniform")
class RanksOverOneMore(Rank):
    def stand_in(self, rows, ranks):
        return super().stand_in(rows, ranks * rows.shape[1] / (rows.shape[1] + 1))


@mutant("ranks-are-uniform", "ranks-see-only-the-order")
class RanksAndSomeInput(Rank):
    def stand_in(self, rows, ranks):
        return super().stand_in(rows, ranks + 1e-3 * rows.detach())


@mutant("ranks-are-uniform", "ranks-see-only-the-order", gradient_only=True)
class RanksWithoutAGradient(Rank):
    def stand_in(self, rows, ranks):
        return ranks


@mutant("ranks-see-only-the-order")
class GaussianIntegralForARank(Uniform):
    kind = "rank"


@mutant("ranks-see-only-the-order")
class RanksAmongBins(Rank):
    def stand_in(self, rows, ranks):
        low, high = rows.detach().aminmax(dim=1, keepdim=True)
        return super().stand_in(rows, (10 * (rows.detach() - low) / (high - low)).round() / 10)


@mutant("gaussian-becomes-uniform", "uniform-is-the-gaussian-integral")
class LogisticForAGaussian(Uniform):
    def normalized(self, x):
        return torch.sigmoid(super(Uniform, self).normalized(x))


@mutant("gaussian-becomes-uniform", "uniform-is-the-gaussian-integral")
class UniformForgetsTheMean(Uniform):
    def standardize(self, x, mean, var):
        return x * column((var + self.eps).rsqrt(), x)


@mutant("gaussian-becomes-uniform", "uniform-is-the-gaussian-integral")
class UniformAboutZero(Uniform):
    def normalized(self, x):
        return super().normalized(x) - 0.5


@mutant("gaussian-becomes-uniform", gradient_only=True)
class UniformWithoutAGradient(Uniform):
    def normalized(self, x):
        return super().normalized(x).detach()


@mutant("uniform-is-the-gaussian-integral", gradient_only=True)
class UniformHalvesItsGradient(Uniform):
    def normalized(self, x):
        return super().normalized(with_gradient(x, lambda g: g / 2))


@mutant("symmetric-batches-are-only-standardized")
class NormalOfAFixedPower(Normal):
    def power(self, y):
        return super().power(y) + 0.2


@mutant("symmetric-batches-are-only-standardized")
class NormalThatForgetsTheVariance(Normal):
    def standardize(self, x, mean, var):
        return x - column(mean, x)


@mutant("symmetric-batches-are-only-standardized")
class NormalOfOneSide(Normal):
    def power(self, y):
        return super().power(y.relu())


@mutant("symmetric-batches-are-only-standardized", gradient_only=True)
class NormalTakesTheVarianceForAConstant(Normal):
    def by_batch(self, x, mean, var):
        return super().by_batch(x, mean, var.detach())
