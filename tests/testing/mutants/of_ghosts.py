"""Ghost batch normalization and batch renormalization, broken."""

import torch
from norm_references import Ghost, Renorm, column

from mutants.table import mutant


@mutant("ghost-of-all-is-batch", "ghost-of-one-is-instance")
class GhostsOfThree(Ghost):
    def normalized(self, x):
        self.ghost_size = 3
        return super().normalized(x)


@mutant("ghost-of-all-is-batch", "ghost-of-one-is-instance")
class GhostByTheUnbiasedVariance(Ghost):
    def statistics(self, x):
        mean, var = super().statistics(x)
        n = x.numel() // x.shape[1]
        return mean, var * n / (n - 1)


@mutant("ghost-of-all-is-batch", "ghost-of-one-is-instance")
class GhostForgetsTheMean(Ghost):
    def standardize(self, x, mean, var):
        return x * column((var + self.eps).rsqrt(), x)


@mutant("ghost-of-all-is-batch", "ghost-of-one-is-instance", gradient_only=True)
class GhostTakesTheMeanForAConstant(Ghost):
    def by_batch(self, x, mean, var):
        return super().by_batch(x, mean.detach(), var)


@mutant("renorm-trains-as-it-evaluates", "renorm-corrections-are-constants")
class RenormWithoutD(Renorm):
    def correction(self, *statistics):
        r, d = super().correction(*statistics)
        return r, 0 * d


@mutant("renorm-trains-as-it-evaluates", "renorm-corrections-are-constants")
class RenormOfTheInverseR(Renorm):
    def correction(self, *statistics):
        r, d = super().correction(*statistics)
        return 1 / r, d


@mutant("renorm-trains-as-it-evaluates")
class RenormThatAlwaysClips(Renorm):
    def correction(self, *statistics):
        r, d = super().correction(*statistics)
        return r.clamp(0.99, 1.01), d


@mutant("renorm-trains-as-it-evaluates", "renorm-corrections-are-constants", gradient_only=True)
class RenormDifferentiatesItsCorrections(Renorm):
    def by_batch(self, x, mean, var):
        r, d = self.correction(mean, var, *(old.to(x) for old in self.old))
        return self.standardize(x, mean, var) * column(r, x) + column(d, x)


@mutant("renorm-without-correction-is-batch")
class RenormWithoutLimits(Renorm):
    def correction(self, *statistics):
        self.r_max, self.d_max = 100.0, 100.0
        return super().correction(*statistics)


@mutant("renorm-without-correction-is-batch")
class RenormForgetsTheMean(Renorm):
    def standardize(self, x, mean, var):
        return x * column((var + self.eps).rsqrt(), x)


@mutant("renorm-without-correction-is-batch")
class RenormByTheUnbiasedVariance(Renorm):
    def statistics(self, x):
        mean, var = super().statistics(x)
        return mean, var * 1.03


@mutant("renorm-without-correction-is-batch", gradient_only=True)
class RenormTakesTheVarianceForAConstant(Renorm):
    def standardize(self, x, mean, var):
        return super().standardize(x, mean, torch.clone(var.detach()))
