"""Running statistics that move wrongly, too often, or with a memory."""

import torch
from norm_references import Batch, Frozen

from mutants.table import mutant, with_gradient


def halved(g):
    return g / 2


@mutant("running-average", "cumulative-average", "total-variance")
class StoresTheBiasedVariance(Batch):
    def track(self, x, mean, var):
        self.move(mean.detach(), var.detach(), torch.isfinite(var.detach().sum()))


@mutant("running-average", "total-variance")
class InvertsMomentum(Batch):
    def move(self, mean, var, moves):
        kept, self.momentum = self.momentum, 1 - self.momentum
        super().move(mean, var, moves)
        self.momentum = kept


@mutant("cumulative-average")
class TakesNoneForATenth(Batch):
    def move(self, mean, var, moves):
        kept, self.momentum = self.momentum, 0.1
        super().move(mean, var, moves)
        self.momentum = kept


@mutant("cumulative-average")
class CountsOneTooMany(Batch):
    def move(self, mean, var, moves):
        self.num_batches_tracked.add_(self.num_batches_tracked == 0)
        super().move(mean, var, moves)


@mutant("running-average", "cumulative-average", gradient_only=True)
class HalvesTheGradientInEvaluation(Batch):
    def by_running(self, x):
        return super().by_running(with_gradient(x, halved))


@mutant("statistics-have-no-history", "memory-is-flat", gradient_only=True)
class RunningMeanRemembers(Batch):
    def track(self, x, mean, var):
        super().track(x, mean, var)
        self.running_mean = self.running_mean.detach() + 0 * (x * x).sum()
        self.old = (getattr(self, "old", 0) + self.running_mean.sum()).clone()


@mutant("statistics-have-no-history", gradient_only=True)
class RunningVarianceRemembers(Batch):
    def track(self, x, mean, var):
        super().track(x, mean, var)
        self.running_var = self.running_var.detach() + 0 * var


@mutant("statistics-have-no-history", gradient_only=True)
class KeepsTheLastMean(Batch):
    def track(self, x, mean, var):
        super().track(x, mean, var)
        self.last = mean


@mutant("memory-is-flat", gradient_only=True)
class KeepsEveryInput(Batch):
    def forward(self, x, mask=None):
        self.seen = [*getattr(self, "seen", []), x]
        return super().forward(x, mask)


@mutant("memory-is-flat")
class KeepsEveryOutput(Batch):
    def forward(self, x, mask=None):
        y = super().forward(x, mask)
        self.given = [*getattr(self, "given", []), y]
        return y


@mutant("nonfinite-batches-are-left-out")
class LetsNanIntoItsStatistics(Batch):
    def move(self, mean, var, moves):
        super().move(mean, var, torch.ones_like(moves))


@mutant("nonfinite-batches-are-left-out")
class HidesNan(Batch):
    def forward(self, x, mask=None):
        return super().forward(x.nan_to_num(0, 0, 0), mask)


@mutant("nonfinite-batches-are-left-out")
class StaysPoisoned(Batch):
    poisoned = False

    def track(self, x, mean, var):
        super().track(x, mean, var)
        self.poisoned = self.poisoned or not mean.isfinite().all()

    def affine(self, y):
        return super().affine(y) * (2 if self.poisoned else 1)


@mutant("nonfinite-batches-are-left-out", gradient_only=True)
class LosesHalfItsGradientToNan(StaysPoisoned):
    def affine(self, y):
        return Batch.affine(self, with_gradient(y, halved) if self.poisoned else y)


@mutant("evaluation-moves-nothing")
class TracksInEvaluation(Batch):
    def by_running(self, x):
        self.track(x, *self.statistics(x))
        return super().by_running(x)


@mutant("evaluation-moves-nothing")
class CountsInEvaluation(Batch):
    def by_running(self, x):
        self.num_batches_tracked.add_(1)
        return super().by_running(x)


@mutant("evaluation-moves-nothing")
class WearsOutInEvaluation(Batch):
    asked = 0

    def by_running(self, x):
        self.asked += 1
        return super().by_running(x) / self.asked


@mutant("evaluation-moves-nothing", gradient_only=True)
class FadesInEvaluation(Batch):
    asked = 0

    def by_running(self, x):
        self.asked += 1
        asked = self.asked
        return super().by_running(with_gradient(x, lambda g: g / asked))


@mutant("frozen-statistics-never-move")
class FrozenTracks(Frozen):
    def normalized(self, x):
        if self.training:
            self.track(x, *self.statistics(x))
        return super().normalized(x)


@mutant("frozen-statistics-never-move", "training-ignores-the-batch")
class FrozenNormalizesByTheBatch(Frozen):
    def normalized(self, x):
        return self.by_batch(x, *self.statistics(x)) if self.training else super().normalized(x)


@mutant("frozen-statistics-never-move")
class FrozenCounts(Frozen):
    def normalized(self, x):
        self.num_batches_tracked.add_(1)
        return super().normalized(x)


@mutant("frozen-statistics-never-move", gradient_only=True)
class FrozenHalvesItsGradientInTraining(Frozen):
    def normalized(self, x):
        return super().normalized(with_gradient(x, halved) if self.training else x)


@mutant("evaluation-ignores-the-batch")
class EvaluatesByTheBatch(Batch):
    def by_running(self, x):
        return self.by_batch(x, *self.statistics(x))


@mutant("evaluation-ignores-the-batch")
class CentersInEvaluation(Batch):
    def by_running(self, x):
        y = super().by_running(x)
        return y - 0.01 * y.mean(0)


@mutant("evaluation-ignores-the-batch")
class DividesByTheLargestOfTheBatch(Batch):
    def by_running(self, x):
        return super().by_running(x) / x.abs().max()


@mutant("evaluation-ignores-the-batch", gradient_only=True)
class LeaksGradientInEvaluation(Batch):
    def by_running(self, x):
        return super().by_running(with_gradient(x, lambda g: g + 0.01 * g.mean(0)))
