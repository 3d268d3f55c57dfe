"""A small, plain and correct layer of each kind, of which the mutants are made. Hooks are what a mutant overrides."""

import math
from typing import ClassVar

import torch
from torch import nn


def column(per_channel, x):
    return per_channel.reshape(1, -1, *[1] * (x.dim() - 2))


def laid_out(y, x):
    last = x.dim() == 4 and x.stride(1) == 1 < x.shape[1] and x.stride(3) > 1
    return y.contiguous(memory_format=torch.channels_last) if last else y


class Norm(nn.Module):
    """gamma and beta, and half types computed with in float32."""

    kind: ClassVar[str]

    def __init__(self, num_features, eps=1e-5, affine=True):
        super().__init__()
        self.num_features, self.eps = num_features, eps
        self.weight = nn.Parameter(torch.ones(num_features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if affine else None

    def forward(self, x):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return laid_out(self.affine(self.normalized(wide)).to(x.dtype), x)

    def affine(self, y):
        return y if self.weight is None else y * column(self.weight, y) + column(self.bias, y)

    def normalized(self, x):
        raise NotImplementedError


class Tracking(Norm):
    """Running statistics as torch has them; a batch that is not finite moves none."""

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True):
        super().__init__(num_features, eps, affine)
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))

    def normalized(self, x):
        if not self.training:
            return self.by_running(x)
        mean, var = self.statistics(x)
        self.track(x, mean, var)
        return self.by_batch(x, mean, var)

    def by_running(self, x):
        return self.standardize(x, self.running_mean.to(x.dtype), self.running_var.to(x.dtype))

    def by_batch(self, x, mean, var):
        return self.standardize(x, mean, var)

    def statistics(self, x):
        rows = x.movedim(1, 0).flatten(1)
        mean = rows.mean(1)
        return mean, (rows - mean[:, None]).square().mean(1)

    def standardize(self, x, mean, var):
        return (x - column(mean, x)) * column((var + self.eps).rsqrt(), x)

    def track(self, x, mean, var):
        n = x.numel() // x.shape[1]
        unbiased = var.detach() * n / max(n - 1, 1)
        self.move(mean.detach(), unbiased, torch.isfinite(unbiased.sum()))

    def move(self, mean, var, moves):
        self.num_batches_tracked.add_(moves)
        share = (
            self.num_batches_tracked.clamp(min=1).to(mean).reciprocal() if self.momentum is None else self.momentum
        )
        for running, value in ((self.running_mean, mean), (self.running_var, var)):
            running.copy_(torch.where(moves, running + share * (value.to(running) - running), running))


class Batch(Tracking):
    kind = "batch"

    def forward(self, x, mask=None):
        return super().forward(x) if mask is None else self.masked(x, mask)

    def masked(self, x, mask):
        # One channel after the other, from the elements that count and no others.
        x, mask = torch.where(mask, x, 0), mask.expand_as(x)
        if not self.training:
            return torch.where(mask, self.affine(self.by_running(x)), 0)
        rows, kept = x.movedim(1, 0).flatten(1), mask.movedim(1, 0).flatten(1)
        count = kept.sum(1)
        mean = rows.sum(1) / count
        var = ((rows - mean[:, None]) * kept).square().sum(1) / count
        self.move(mean.detach(), var.detach() * count / (count - 1), torch.isfinite(var.detach().sum()))
        return torch.where(mask, self.affine(self.standardize(x, mean, var)), 0)


class MeanOnly(Tracking):
    kind = "mean-only"

    def standardize(self, x, mean, var):
        return x - column(mean, x)


class VarianceOnly(Tracking):
    kind = "variance-only"

    def standardize(self, x, mean, var):
        return x * column((var + self.eps).rsqrt(), x)


class Frozen(Tracking):
    kind = "frozen"

    def normalized(self, x):
        return self.by_running(x)


class Ghost(Tracking):
    kind = "ghost"

    def __init__(self, num_features, eps=1e-5, momentum=0.1, ghost_size=2):
        super().__init__(num_features, eps, momentum)
        self.ghost_size = ghost_size

    def normalized(self, x):
        if not self.training:
            return self.by_running(x)
        return torch.cat([super(Ghost, self).normalized(ghost) for ghost in x.split(self.ghost_size)])


class Renorm(Tracking):
    kind = "renorm"

    def __init__(self, num_features, eps=1e-5, momentum=0.1, r_max=3.0, d_max=5.0):
        super().__init__(num_features, eps, momentum)
        self.r_max, self.d_max = r_max, d_max

    def normalized(self, x):
        self.old = self.running_mean.clone(), self.running_var.clone()
        return super().normalized(x)

    def by_batch(self, x, mean, var):
        r, d = self.correction(mean.detach(), var.detach(), *(old.to(x) for old in self.old))
        return self.standardize(x, mean, var) * column(r, x) + column(d, x)

    def correction(self, mean, var, old_mean, old_var):
        inverse = (old_var + self.eps).rsqrt()
        r = ((var + self.eps).sqrt() * inverse).clamp(1 / self.r_max, self.r_max)
        return r, ((mean - old_mean) * inverse).clamp(-self.d_max, self.d_max)


class Noisy(Batch):
    kind = "noisy"

    def affine(self, y):
        y = super().affine(y)
        return self.noise(y) if self.training else y

    def noise(self, y):
        return y * (1 + 0.1 * torch.randn_like(y)) + 0.3 + 0.1 * torch.randn_like(y)


class Example(Norm):
    """By statistics of each example; `rows` says which elements share them."""

    def normalized(self, x):
        return self.standardize(self.rows(x)).reshape(x.shape)

    def standardize(self, rows):
        mean = rows.mean(1, keepdim=True)
        var = (rows - mean).square().mean(1, keepdim=True)
        return (rows - mean) * (var + self.eps).rsqrt()

    def rows(self, x):
        raise NotImplementedError


class Layer(Example):
    kind = "layer"

    def rows(self, x):
        return x.reshape(x.shape[0], -1)


class Group(Example):
    kind = "group"

    def __init__(self, num_features, eps=1e-5, num_groups=2):
        super().__init__(num_features, eps)
        self.num_groups = num_groups

    def rows(self, x):
        return x.reshape(x.shape[0] * self.num_groups, -1)


class Instance(Example):
    kind = "instance"

    def rows(self, x):
        return x.reshape(x.shape[0] * x.shape[1], -1)


class Rms(Example):
    kind = "rms"

    def standardize(self, rows):
        return rows * (rows.square().mean(1, keepdim=True) + self.eps).rsqrt()

    def rows(self, x):
        return x.reshape(x.shape[0], -1)


class Response(Rms):
    kind = "response"

    def __init__(self, num_features, eps=1e-5):
        super().__init__(num_features, eps)
        self.tau = nn.Parameter(torch.zeros(num_features))

    def rows(self, x):
        return x.reshape(x.shape[0] * x.shape[1], -1)

    def affine(self, y):
        return torch.maximum(super().affine(y), column(self.tau, y))


class Tanh(Norm):
    kind = "tanh"

    def __init__(self, num_features):
        super().__init__(num_features)
        self.alpha = nn.Parameter(torch.tensor(0.5))

    def normalized(self, x):
        return torch.tanh(self.alpha * x)


class Weights(nn.Conv2d):
    kind = "weights"

    def __init__(self, num_features, eps=1e-5):
        super().__init__(num_features, num_features, 3, padding=1)
        self.eps = eps

    def forward(self, x):
        return nn.functional.conv2d(
            x, self.standardized(self.weight.flatten(1)).reshape(self.weight.shape), self.bias, padding=1
        )

    def standardized(self, filters):
        mean = filters.mean(1, keepdim=True)
        return (filters - mean) * (filters.var(1, correction=0, keepdim=True) + self.eps).rsqrt()


class Whitening(Norm):
    """By a matrix made of the covariance S + eps I of each group of channels."""

    def __init__(self, num_features, eps=1e-5, momentum=0.1, group_size=None):
        super().__init__(num_features, eps)
        self.momentum, self.group_size = momentum, group_size or num_features
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_cov", torch.eye(self.group_size).repeat(num_features // self.group_size, 1, 1))

    def normalized(self, x):
        rows = x.movedim(1, 0).flatten(1)
        if self.training:
            mean = rows.mean(1)
            h = self.groups(rows, mean)
            cov = h @ h.mT / h.shape[2]
            self.track(mean.detach(), cov.detach())
        else:
            h, cov = self.groups(rows, self.running_mean.to(x.dtype)), self.running_cov.to(x.dtype)
        y = self.matrix(cov + self.eps * torch.eye(self.group_size, dtype=x.dtype)) @ h
        return y.reshape(x.shape[1], x.shape[0], *x.shape[2:]).movedim(0, 1)

    def groups(self, rows, mean):
        return (rows - mean[:, None]).reshape(-1, self.group_size, rows.shape[1])

    def track(self, mean, cov):
        moves = torch.isfinite(cov.sum())
        for running, value in ((self.running_mean, mean), (self.running_cov, cov)):
            running.copy_(torch.where(moves, running.lerp(value.to(running), self.momentum), running))

    def matrix(self, s):
        raise NotImplementedError


class Zca(Whitening):
    """The inverse root by coupled steps of matrix products, whose derivatives know no eigenvalue."""

    kind = "zca"

    def matrix(self, s):
        trace = s.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
        eye = torch.eye(s.shape[-1], dtype=s.dtype).expand_as(s)
        root, inverse = s / trace, eye
        for _ in range(24):
            step = 1.5 * eye - 0.5 * inverse @ root
            root, inverse = root @ step, step @ inverse
        return inverse * trace.rsqrt()


class Pca(Whitening):
    """Turned to the axes, each with the sign that makes its largest entry positive."""

    kind = "pca"

    def matrix(self, s):
        finite = torch.isfinite(s.sum())
        eye = torch.eye(s.shape[-1], dtype=s.dtype)
        s = torch.where(finite, s, eye)
        # Eigenvalues that are equal are moved apart: the derivative of the axes divides by their distance.
        apart = torch.arange(1, s.shape[-1] + 1, dtype=s.dtype) * 4 * torch.finfo(s.dtype).eps
        values, vectors = torch.linalg.eigh(
            s + torch.diag(apart) * s.detach().diagonal(dim1=-2, dim2=-1).sum(-1).max()
        )
        largest = vectors.gather(-2, vectors.abs().argmax(-2, keepdim=True))
        matrix = (vectors * largest.sign() * values[..., None, :].rsqrt()).mT
        return torch.where(finite, matrix, torch.nan)


class Cholesky(Whitening):
    kind = "cholesky"

    def matrix(self, s):
        factor, _ = torch.linalg.cholesky_ex(s)
        eye = torch.eye(s.shape[-1], dtype=s.dtype).expand_as(s)
        return torch.linalg.solve_triangular(factor, eye, upper=False)


class NewtonSchulz(Whitening):
    kind = "newton-schulz"

    def __init__(self, num_features, eps=1e-5, momentum=0.1, group_size=None, iterations=5):
        super().__init__(num_features, eps, momentum, group_size)
        self.iterations = iterations

    def matrix(self, s):
        trace = s.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
        p = torch.eye(s.shape[-1], dtype=s.dtype).expand_as(s)
        for _ in range(self.iterations):
            p = self.step(p, s / trace)
        return p * trace.rsqrt()

    def step(self, p, s):
        return 1.5 * p - 0.5 * p @ p @ p @ s


class Uniform(Tracking):
    kind = "uniform"

    def normalized(self, x):
        return 0.5 * (1 + torch.erf(super().normalized(x) / math.sqrt(2)))


class Rank(Norm):
    """Evaluation by the last batch's values; the gradient in place of the ranks' is that of the identity."""

    kind = "rank"

    def __init__(self, num_features):
        super().__init__(num_features)
        self.register_buffer("table", torch.linspace(-1, 1, 21).repeat(num_features, 1))

    def normalized(self, x):
        rows = x.movedim(1, 0).flatten(1).contiguous()
        finite = torch.isfinite(rows.sum())
        if self.training:
            ranks = (rows.argsort(1).argsort(1).to(x.dtype) + 0.5) / rows.shape[1]
            table = rows.detach().to(self.table).sort(1).values
            at = (torch.linspace(0, 1, 21) * (rows.shape[1] - 1)).long()
            self.table.copy_(torch.where(finite, table[:, at], self.table))
        else:
            ranks = (rows[..., None] > self.table.to(x.dtype)[:, None]).sum(-1) / 21
        ranks = torch.where(finite if self.training else rows.isfinite(), ranks, torch.nan)
        y = self.stand_in(rows, ranks.detach().to(x.dtype))
        return y.reshape(x.shape[1], x.shape[0], *x.shape[2:]).movedim(0, 1)

    def stand_in(self, rows, ranks):
        return ranks + (rows - rows.detach())


class Normal(Tracking):
    """One Newton step for the power lambda from 1, of the negative log likelihood; then batch normalization."""

    kind = "normal"

    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)
        self.register_buffer("running_lambda", torch.ones(num_features))

    def normalized(self, x):
        y = super().normalized(x)
        if self.training:
            power = self.power(y)
            moves = torch.isfinite(power.detach().sum())
            moved = self.running_lambda.lerp(power.detach().to(self.running_lambda), self.momentum)
            self.running_lambda.copy_(torch.where(moves, moved, self.running_lambda))
        else:
            power = self.running_lambda.to(x.dtype)
        return self.transform(y, column(power, y))

    def power(self, y):
        # d psi / d lambda at 1 is even: its covariance with y, what the power must take away, is the skew.
        even = (1 + y.abs()) * torch.log1p(y.abs()) - y.abs()
        skew = (y * even).movedim(1, 0).flatten(1).mean(1) - (y.sign() * torch.log1p(y.abs())).movedim(1, 0).flatten(
            1
        ).mean(1)
        return 1 - 0.5 * torch.tanh(skew)

    def transform(self, y, power):
        up = ((1 + y.clamp(min=0)) ** power - 1) / power
        down = -((1 - y.clamp(max=0)) ** (2 - power) - 1) / (2 - power)
        return torch.where(y >= 0, up, down)


class NoisyNormal(Normal):
    kind = "noisy-normal"

    def affine(self, y):
        if self.training:
            size = (y - y.mean((0, *range(2, y.dim())), keepdim=True)).abs().mean().detach()
            y = y + 0.3 * size * torch.randn(y.shape, dtype=y.dtype)
        return super().affine(y)


class Dropout(nn.Dropout):
    kind = "dropout"

    def __init__(self, num_features, p=0.5):
        super().__init__(p)

    def forward(self, x):
        return self.dropped(x) if self.training else x * 1

    def dropped(self, x):
        return x * (torch.rand(x.shape, dtype=x.dtype) >= self.p) / (1 - self.p)


class Anything(Batch):
    kind = "any"
