"""Layer, group, instance and root mean square normalization, and the hyperbolic tangent, each broken."""

import torch
from norm_references import Group, Layer, MeanOnly, Rms, Tanh

from mutants.table import mutant, with_gradient


@mutant("training-ignores-the-batch")
class LayerOverTheBatch(Layer):
    def rows(self, x):
        return x.reshape(1, -1)


@mutant("training-ignores-the-batch")
class LayerSeesItsNeighbour(Layer):
    def normalized(self, x):
        y = super().normalized(x)
        return y + 0.01 * y.roll(1, 0)


@mutant("training-ignores-the-batch")
class LayerDividesByTheLargestOfTheBatch(Layer):
    def normalized(self, x):
        return super().normalized(x) / x.abs().max()


@mutant("training-ignores-the-batch", gradient_only=True)
class LayerLeaksGradient(Layer):
    def normalized(self, x):
        return super().normalized(with_gradient(x, lambda g: g + 0.01 * g.mean(0)))


def unbiased(self, rows):
    return (rows - rows.mean(1, keepdim=True)) * (rows.var(1, keepdim=True) + self.eps).rsqrt()


def uncentered(self, rows):
    return rows * (rows.var(1, correction=0, keepdim=True) + self.eps).rsqrt()


def mean_for_a_constant(self, rows):
    centered = rows - rows.mean(1, keepdim=True).detach()
    return centered * (rows.var(1, correction=0, keepdim=True) + self.eps).rsqrt()


@mutant("layer-is-rms-of-the-centered")
class LayerByTheUnbiasedVariance(Layer):
    standardize = unbiased


@mutant("layer-is-rms-of-the-centered")
class LayerForgetsTheMean(Layer):
    standardize = uncentered


@mutant("layer-is-rms-of-the-centered", gradient_only=True)
class LayerTakesTheMeanForAConstant(Layer):
    standardize = mean_for_a_constant


@mutant("one-group-is-layer", "groups-of-one-are-instance")
class GroupByTheUnbiasedVariance(Group):
    standardize = unbiased


@mutant("one-group-is-layer", "groups-of-one-are-instance")
class GroupForgetsTheMean(Group):
    standardize = uncentered


@mutant("one-group-is-layer", "groups-of-one-are-instance", gradient_only=True)
class GroupTakesTheMeanForAConstant(Group):
    standardize = mean_for_a_constant


@mutant("one-group-is-layer", "groups-of-one-are-instance")
class GroupAlwaysMakesTwo(Group):
    def rows(self, x):
        return x.reshape(2 * x.shape[0], -1)


@mutant("rms-sees-a-shift")
class RmsThatCenters(Rms):
    def rows(self, x):
        rows = super().rows(x)
        return rows - rows.mean(1, keepdim=True)


@mutant("rms-sees-a-shift")
class RmsThatGivesBeta(Rms):
    def normalized(self, x):
        return 0 * super().normalized(x)


@mutant("rms-sees-a-shift")
class RmsOfDifferences(Rms):
    def rows(self, x):
        rows = super().rows(x)
        return rows - rows.roll(1, 1)


@mutant("rms-sees-a-shift", gradient_only=True)
class RmsWithoutAGradient(Rms):
    def normalized(self, x):
        return super().normalized(x).detach() + 0 * x


@mutant("affine-in-its-input")
class MeanOnlyIsRectified(MeanOnly):
    def normalized(self, x):
        return super().normalized(x).relu()


@mutant("affine-in-its-input")
class MeanOnlyDivides(MeanOnly):
    def standardize(self, x, mean, var):
        return super().standardize(x, mean, var) / (1 + var.sum()).sqrt()


@mutant("affine-in-its-input")
class MeanOnlyClamps(MeanOnly):
    def normalized(self, x):
        return super().normalized(x.clamp(-1, 1))


@mutant("affine-in-its-input", gradient_only=True)
class MeanOnlyScalesItsGradientByTheInput(MeanOnly):
    def normalized(self, x):
        return super().normalized(with_gradient(x, lambda g: g * (1 + 0.1 * x.detach())))


@mutant("bounded-by-gamma")
class TanhWithoutABound(Tanh):
    def normalized(self, x):
        return self.alpha * x


@mutant("bounded-by-gamma")
class TanhOfAHigherBound(Tanh):
    def normalized(self, x):
        return 1.01 * super().normalized(x)


@mutant("bounded-by-gamma")
class TanhThatLeaks(Tanh):
    def normalized(self, x):
        return super().normalized(x) + 1e-4 * x


@mutant("bounded-by-gamma", gradient_only=True)
class TanhOfAStraightGradient(Tanh):
    def normalized(self, x):
        return super().normalized(x).detach() + 0.5 * (x - torch.clone(x.detach()))
