"""Noisy batch norm: which noise, where from, and when not."""

import pytest
import torch

from compare import assert_close
from normlab import nn
from normlab.errors import NormlabError
from normlab.functional import batch_norm, noisy_batch_norm


def draw():
    return torch.randn(64, 40, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def noisy(x, seed=0, **noise):
    return noisy_batch_norm(x, training=True, generator=torch.Generator().manual_seed(seed), **noise)[0]


def test_without_jitter_a_channel_is_shifted_and_scaled_as_a_whole_within_the_limits():
    x = draw()
    clean, *_ = batch_norm(x, training=True)
    y = noisy(x, jitter=0.0)
    mean, std = y.mean((0, 2)), y.std((0, 2), correction=0)
    assert_close(y, clean * std.view(1, -1, 1) + mean.view(1, -1, 1), scale=1e8)  # eps: the clean deviation is not 1
    assert mean.abs().max() <= 0.5
    assert mean.min() < -0.35
    assert mean.max() > 0.35
    assert (std > 0.999).all()
    assert (std < 1.25).all()
    assert std.max() > 1.2


def test_jitter_is_uniform_in_the_shift_and_normal_in_the_factor():
    x = draw()
    clean, *_ = batch_norm(x, training=True)
    y = noisy(x, shift=0.0, scale=1.0, jitter=0.1)
    assert_close((y - clean).mean(), torch.tensor(0.0).double(), scale=5e9)  # standard error .001
    # Var(m) + Var(s) E[clean^2] = (2 * .1)^2 / 12 + .1^2
    assert_close((y - clean).var(), torch.tensor(0.04 / 12 + 0.01).double(), scale=5e8)
    near_zero = clean.abs() < 0.05
    assert (y - clean)[near_zero].abs().max() < 0.1 + 0.05 * 0.5


def test_every_step_draws_anew_and_the_seed_repeats_it():
    x, layer = draw().float(), nn.NoisyBatchNorm1d(40)
    torch.manual_seed(0)
    first, second = layer(x), layer(x)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(layer(x), first)
    assert torch.equal(noisy(x), noisy(x))
    assert not torch.equal(noisy(x), noisy(x, seed=1))


def test_evaluation_is_that_of_batch_norm():
    x, layer, twin = draw().float(), nn.NoisyBatchNorm1d(40), nn.BatchNorm1d(40)
    layer(x)
    twin(x)
    assert_close(layer.running_var, twin.running_var)
    assert torch.equal(layer.eval()(x), twin.eval()(x))
    assert torch.equal(nn.NoisyBatchNorm1d(40, track_running_stats=False).eval()(x), nn.BatchNorm1d(40)(x))


def test_mistakes_are_named():
    with pytest.raises(NormlabError, match="shift >= 0, scale >= 1 and jitter >= 0, got -1, "):
        nn.NoisyBatchNorm2d(4, shift=-1)
