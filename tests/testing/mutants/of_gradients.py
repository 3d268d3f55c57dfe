"""Batch normalization whose values are right and whose gradients are not, and what finite differences must see."""

import torch
from norm_references import Batch, column
from torch.autograd import Function

from mutants.table import mutant, with_gradient


@mutant(
    "zero-mean", "one-value-gives-beta", "constant-gives-beta", "far-from-zero", "bias-has-no-gradient",
    "first-derivative", "second-derivative", "total-variance", gradient_only=True,
)  # fmt: skip
class TakesTheMeanForAConstant(Batch):
    def by_batch(self, x, mean, var):
        return super().by_batch(x, mean.detach(), var)


@mutant(
    "unit-spread", "bounded-by-the-count", "scale-law", "radial-gradient", "gradient-along-the-output",
    "identity-within-reach", "first-derivative", "second-derivative", "total-variance", gradient_only=True,
)  # fmt: skip
class TakesTheVarianceForAConstant(Batch):
    def by_batch(self, x, mean, var):
        return super().by_batch(x, mean, var.detach())


@mutant("training-sees-the-batch", "first-derivative", gradient_only=True)
class TakesBothForConstants(Batch):
    def by_batch(self, x, mean, var):
        return super().by_batch(x, mean.detach(), var.detach())


def ramp(g):
    return g + torch.linspace(0, 0.1, g.numel(), dtype=g.dtype).reshape(g.shape)


@mutant(
    "eps-is-a-variance", "gradient-falls-as-weights-grow", "examples-have-no-order", "duplicates-change-nothing",
    "first-derivative", gradient_only=True,
)  # fmt: skip
class AddsARampToTheGradient(Batch):
    def normalized(self, x):
        return super().normalized(with_gradient(x, ramp))


@mutant("shift-invariance", "odd-about-a-constant", gradient_only=True)
class ScalesTheGradientByTheInput(Batch):
    def normalized(self, x):
        return super().normalized(with_gradient(x, lambda g: g * (1 + 0.1 * x.detach())))


@mutant("order-is-kept", gradient_only=True)
class NegatesTheGradient(Batch):
    def normalized(self, x):
        return super().normalized(with_gradient(x, torch.neg))


@mutant("first-derivative")
class RoundsItsOutput(Batch):
    def normalized(self, x):
        y = super().normalized(x)
        return y + ((64 * y).round() / 64 - y).detach()


@mutant("first-derivative")
class HasTheGradientOfAnotherScale(Batch):
    def normalized(self, x):
        y = super().normalized(x)
        return y + 0.1 * y.detach()


class _Once(Function):
    """(x - mean) / s, whose backward is right and itself without a gradient by x."""

    @staticmethod
    def forward(ctx, x, eps):
        rows = [0, *range(2, x.dim())]
        inverse = (x.var(rows, correction=0, keepdim=True) + eps).rsqrt()
        y = (x - x.mean(rows, keepdim=True)) * inverse
        ctx.constants, ctx.rows = (y, inverse), rows
        return y

    @staticmethod
    def backward(ctx, g):
        y, inverse = ctx.constants
        rows = ctx.rows
        return inverse * (g - g.mean(rows, keepdim=True) - y * (g * y).mean(rows, keepdim=True)), None


@mutant("second-derivative", gradient_only=True)
class IsDifferentiableOnce(Batch):
    def by_batch(self, x, mean, var):
        return _Once.apply(x, self.eps)


@mutant("affine-gradients", "affine-form")
class MultipliesByGammaTwice(Batch):
    def affine(self, y):
        return y * column(self.weight.square(), y) + column(self.bias, y)


@mutant("affine-gradients", "affine-form")
class AddsBetaTwice(Batch):
    def affine(self, y):
        return y * column(self.weight, y) + 2 * column(self.bias, y)


@mutant("affine-gradients", "affine-form")
class ForgetsBeta(Batch):
    def affine(self, y):
        return y * column(self.weight, y)


@mutant("affine-gradients", gradient_only=True)
class HalvesTheGradientOfGamma(Batch):
    def affine(self, y):
        return y * column(with_gradient(self.weight, lambda g: g / 2), y) + column(self.bias, y)


@mutant("affine-form", gradient_only=True)
class ForgetsGammaInItsGradient(Batch):
    def affine(self, y):
        return super().affine(y.detach()) + y - y.detach()
