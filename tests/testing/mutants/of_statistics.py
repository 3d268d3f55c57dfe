"""Batch normalization with a wrong mean, variance or eps."""

import torch
from norm_references import Batch, column

from mutants.table import mutant


@mutant(
    "zero-mean", "bounded-by-the-count", "one-value-gives-beta", "constant-gives-beta", "far-from-zero",
    "shift-invariance", "bias-has-no-gradient", "identity-within-reach", "running-average", "total-variance",
)  # fmt: skip
class ForgetsTheMean(Batch):
    def standardize(self, x, mean, var):
        return x * column((var + self.eps).rsqrt(), x)


@mutant(
    "unit-spread", "bounded-by-the-count", "constant-gives-beta", "far-from-zero", "scale-law", "eps-is-a-variance",
    "gradient-falls-as-weights-grow", "radial-gradient", "gradient-along-the-output", "identity-within-reach",
    "running-average", "total-variance",
)  # fmt: skip
class DividesByTheVariance(Batch):
    def standardize(self, x, mean, var):
        return (x - column(mean, x)) / column(var + self.eps, x)


@mutant(
    "unit-spread", "constant-gives-beta", "scale-law", "eps-is-a-variance", "radial-gradient",
    "gradient-along-the-output", "running-average",
)  # fmt: skip
class AddsEpsToTheDeviation(Batch):
    def standardize(self, x, mean, var):
        return (x - column(mean, x)) / column(var.sqrt() + self.eps, x)


@mutant(
    "unit-spread", "bounded-by-the-count", "one-value-gives-beta", "duplicates-change-nothing",
    "identity-within-reach", "gradient-along-the-output", "running-average", "total-variance",
)  # fmt: skip
class NormalizesByTheUnbiasedVariance(Batch):
    def statistics(self, x):
        mean, var = super().statistics(x)
        n = x.numel() // x.shape[1]
        return mean, var * n / (n - 1)


@mutant("duplicates-change-nothing")
class SumsInPlaceOfAMean(Batch):
    def statistics(self, x):
        mean, var = super().statistics(x)
        return mean, var * (x.numel() // x.shape[1])


@mutant("far-from-zero")
class SquaresThatCancel(Batch):
    def statistics(self, x):
        rows = x.movedim(1, 0).flatten(1)
        mean = rows.mean(1)
        return mean, (rows.square().mean(1) - mean.square()).abs()


@mutant("examples-have-no-order", "duplicates-change-nothing")
class WeighsLaterExamplesMore(Batch):
    def statistics(self, x):
        weights = torch.linspace(0.5, 1.5, len(x), dtype=x.dtype).reshape(-1, *[1] * (x.dim() - 1))
        mean, _ = super().statistics(weights * x)
        return mean, super().statistics(x)[1]


@mutant("examples-have-no-order")
class CentersByTheFirstExample(Batch):
    def statistics(self, x):
        return super().statistics(x[:1])[0], super().statistics(x)[1]


@mutant("odd-about-a-constant")
class CentersByTheLowerMedian(Batch):
    def statistics(self, x):
        _, var = super().statistics(x)
        return x.movedim(1, 0).flatten(1).median(1).values, var


@mutant(
    "zero-mean", "one-value-gives-beta", "shift-invariance", "bias-has-no-gradient", "scale-law", "eps-is-a-variance",
    "gradient-falls-as-weights-grow", "radial-gradient",
)  # fmt: skip
class LetsSomeInputThrough(Batch):
    def by_batch(self, x, mean, var):
        return super().by_batch(x, mean, var) + 0.01 * x


@mutant("shift-invariance", "bias-has-no-gradient", "gradient-falls-as-weights-grow", "odd-about-a-constant")
class ClampsItsInput(Batch):
    def normalized(self, x):
        return super().normalized(x.clamp(-1.5, 2))


@mutant("odd-about-a-constant")
class IsRectified(Batch):
    def normalized(self, x):
        return super().normalized(x).relu()


@mutant("examples-have-no-order", "order-is-kept")
class RollsTheExamples(Batch):
    def normalized(self, x):
        return super().normalized(x) + super().normalized(x).roll(1, 0) * torch.arange(len(x)).to(x).reshape(
            -1, *[1] * (x.dim() - 1)
        )


@mutant("order-is-kept")
class TurnsTheOrderRound(Batch):
    def normalized(self, x):
        return -super().normalized(x)


@mutant("order-is-kept")
class FoldsAtTheMean(Batch):
    def normalized(self, x):
        return super().normalized(x).abs()


@mutant("training-sees-the-batch")
class NormalizesEachExample(Batch):
    def by_batch(self, x, mean, var):
        rows = x.flatten(2)
        return ((rows - rows.mean(2, keepdim=True)) / (rows.var(2, keepdim=True) + self.eps).sqrt()).reshape(x.shape)


@mutant("training-sees-the-batch")
class TrainsByRunningStatistics(Batch):
    def by_batch(self, x, mean, var):
        return self.by_running(x)


@mutant("training-sees-the-batch")
class DoesNothing(Batch):
    def by_batch(self, x, mean, var):
        return x * 1
