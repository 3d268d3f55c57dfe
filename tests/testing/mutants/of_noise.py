"""Dropout and noise, broken."""

import torch
from norm_references import Dropout, Noisy

from mutants.table import mutant, with_gradient


@mutant("dropout-commutes-with-relu")
class DropsToMinusOne(Dropout):
    def dropped(self, x):
        y = super().dropped(x)
        return torch.where(y == 0, -torch.ones_like(x) - x * 0, y)


@mutant("dropout-commutes-with-relu")
class DropoutThatAddsNoise(Dropout):
    def dropped(self, x):
        return x + torch.randn(x.shape, dtype=x.dtype)


@mutant("dropout-commutes-with-relu")
class DropoutThatShifts(Dropout):
    def dropped(self, x):
        return super().dropped(x) - 0.1


@mutant("dropout-commutes-with-relu", gradient_only=True)
class DropoutOfAStraightGradient(Dropout):
    def dropped(self, x):
        return super().dropped(x).detach() + x - x.detach()


GENERATOR = torch.Generator().manual_seed(0)


@mutant("noise-comes-from-the-generator")
class NoiseOfItsOwnGenerator(Noisy):
    def noise(self, y):
        return y + torch.randn(y.shape, generator=GENERATOR).to(y)


@mutant("noise-comes-from-the-generator")
class NoiseThatIsAlwaysTheSame(Noisy):
    def noise(self, y):
        return y + 0.1


@mutant("noise-comes-from-the-generator")
class NoiseInEvaluation(Noisy):
    def affine(self, y):
        return self.noise(super(Noisy, self).affine(y))


@mutant("noise-comes-from-the-generator", gradient_only=True)
class NoiseInTheGradient(Noisy):
    def noise(self, y):
        return super().noise(with_gradient(y, lambda g: g + torch.randn(g.shape, generator=GENERATOR).to(g)))
