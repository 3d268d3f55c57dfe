"""Batch renormalization: what r and d do, their limits, and the schedule of these."""

import math

import pytest
import torch

from compare import assert_close
from normlab import nn
from normlab.errors import NormlabError
from normlab.functional import batch_norm, batch_renorm, renorm_limits

UNLIMITED = {"r_max": math.inf, "d_max": math.inf}


def draw(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(6, 4, 3, generator=generator, dtype=torch.float64) + 1
    mean, weight, bias = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    var = 0.1 + torch.rand(4, generator=generator, dtype=torch.float64)
    return [value.to(dtype) for value in (x, mean, var, weight, bias)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_without_limits_training_gives_what_evaluation_gives(dtype):
    given = draw(dtype)
    trained, *_ = batch_renorm(*given, training=True, **UNLIMITED)
    assert_close(trained, batch_renorm(*given)[0], scale=8)


def test_at_limits_of_one_and_zero_it_is_batch_norm():
    given = draw()
    ours = batch_renorm(*given, training=True, r_max=1.0, d_max=0.0)
    for found, expected in zip(ours, batch_norm(*given, training=True), strict=True):
        assert_close(found, expected)


@pytest.mark.parametrize("limits", [UNLIMITED, {"r_max": 1.2, "d_max": 0.3}])
def test_is_the_papers_algorithm_with_r_and_d_as_constants(limits):
    x, mean, var, weight, bias = (value.requires_grad_() for value in draw())
    y, *_ = batch_renorm(x, mean, var, weight, bias, training=True, **limits)

    def column(value):
        return value.view(1, -1, 1)

    batch_std = (x.var((0, 2), correction=0) + 1e-5).sqrt()
    std = (var + 1e-5).sqrt()
    r = (batch_std / std).clamp(1 / limits["r_max"], limits["r_max"]).detach()
    d = ((x.mean((0, 2)) - mean) / std).clamp(-limits["d_max"], limits["d_max"]).detach()
    normalized = (x - column(x.mean((0, 2)))) / column(batch_std) * column(r) + column(d)
    expected = normalized * column(weight) + column(bias)
    assert_close(y, expected)
    leaves = [x, weight, bias]
    found = torch.autograd.grad(y.pow(3).sum(), leaves)
    wanted = torch.autograd.grad(expected.pow(3).sum(), leaves)
    for actual, twin in zip(found, wanted, strict=True):
        assert_close(actual, twin, scale=100)
    assert not any(value is not None for value in torch.autograd.grad(y.sum(), [mean, var], allow_unused=True))


def test_the_limits_of_the_paper_over_its_steps():
    for step, r_max, d_max in ((0, 1, 0), (5000, 1, 0), (15000, 1 + 2 * 10 / 35, 2.5), (25000, 1 + 2 * 20 / 35, 5)):
        found = renorm_limits(torch.tensor(step))
        assert_close(torch.stack(found), torch.tensor([r_max, d_max], dtype=torch.float64))
    assert [value.item() for value in renorm_limits(torch.tensor(10**6))] == [3, 5]


def test_the_layer_widens_its_limits_batch_by_batch():
    layer = nn.BatchRenorm1d(4, schedule=(1, 3, 2)).double()
    x, mean, var, *_ = draw()
    layer.running_mean.copy_(mean)
    layer.running_var.copy_(var)
    for r_max, d_max in ((1.0, 0.0), (1.0, 0.0), (2.0, 5.0), (3.0, 5.0), (3.0, 5.0)):
        running = layer.running_mean.clone(), layer.running_var.clone()
        expected, *_ = batch_renorm(x, *running, training=True, r_max=r_max, d_max=d_max)
        assert_close(layer(x).detach(), expected)


def test_no_schedule_is_the_full_limits_from_the_start():
    layer = nn.BatchRenorm1d(4, schedule=None, **UNLIMITED).double()
    x, mean, var, *_ = draw()
    layer.running_mean.copy_(mean)
    layer.running_var.copy_(var)
    expected = layer.eval()(x)
    assert_close(layer.train()(x), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"track_running_stats": False}, "running statistics"),
        ({"r_max": 0.0}, "r_max >= 1"),
        ({"d_max": -1.0}, "d_max >= 0"),
        ({"schedule": (5, 5, 9)}, "a schedule"),
        ({"r_max": math.inf}, "finite limits, got .* to inf"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(NormlabError, match=message):
        nn.BatchRenorm2d(4, **options)
