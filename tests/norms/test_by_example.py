"""Norms of each example by itself: against torch's layers, against each other, and what is their own."""

import pytest
import torch
from torch.testing._internal.common_modules import module_db

from compare import assert_close
from normlab import functional, nn
from normlab.errors import NormlabError
from normlab.norms.group import groups_for

GROUP_NORM = next(info for info in module_db if info.module_cls is torch.nn.GroupNorm)
SHAPES = [(5, 6, 4), (3, 6, 3, 4), (2, 6, 2, 3, 2)]


def draw(shape, dtype=torch.float64):
    return (2 * torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3).to(dtype)


def outcome(layer, x):
    """y and the gradients of x and of the parameters."""
    x = x.detach().clone().requires_grad_()
    y = layer(x)
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y.dtype))
    return [y.detach(), x.grad, *(parameter.grad for parameter in layer.parameters())]


def assert_same(ours, theirs, x):
    theirs.load_state_dict(ours.state_dict())
    for found, expected in zip(outcome(ours, x), outcome(theirs, x), strict=True):
        assert_close(found, expected, scale=8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_group_norm_on_every_input_of_torchs_own_table(dtype):
    count = 0
    for entry in GROUP_NORM.module_inputs_func(GROUP_NORM, "cpu", dtype, requires_grad=True, training=True):
        made = entry.constructor_input
        x = entry.forward_input.args[0]
        ours, theirs = nn.GroupNorm(*made.args, **made.kwargs), torch.nn.GroupNorm(*made.args, **made.kwargs)
        assert repr(ours) == repr(theirs)
        assert_same(ours.to(dtype), theirs.to(dtype), x)
        count += 1
    assert count >= 3


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_instance_norm_is_torchs(dim, affine):
    ours = getattr(nn, f"InstanceNorm{dim}d")(6, affine=affine).double()
    theirs = getattr(torch.nn, f"InstanceNorm{dim}d")(6, affine=affine).double()
    assert isinstance(ours, type(theirs))
    assert repr(ours) == repr(theirs)
    assert_same(ours, theirs, draw(SHAPES[dim - 1]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(nn.LayerNorm1d, torch.nn.LayerNorm), (nn.RMSNorm1d, torch.nn.RMSNorm)],
)
def test_without_positions_layer_and_rms_norm_are_torchs(ours, theirs, dtype):
    assert_same(ours(6, dtype=dtype), theirs(6, eps=1e-5, dtype=dtype), draw((5, 6), dtype))


@pytest.mark.parametrize("shape", SHAPES)
def test_with_positions_they_are_torchs_over_all_of_them(shape):
    x = draw(shape)
    assert_close(functional.layer_norm(x), torch.nn.functional.layer_norm(x, shape[1:]))
    assert_close(functional.rms_norm(x), torch.nn.functional.rms_norm(x, shape[1:], eps=1e-5))
    assert_close(functional.layer_norm(x), functional.group_norm(x, 1))
    assert_close(functional.instance_norm(x), functional.group_norm(x, 6))


@pytest.mark.parametrize("shape", [(5, 6), *SHAPES])
def test_layer_norm_is_rms_norm_of_what_is_centred(shape):
    x = draw(shape)
    centred = x - x.mean(list(range(1, x.dim())), keepdim=True)
    assert_close(functional.layer_norm(x), functional.rms_norm(centred))
    assert not torch.allclose(functional.rms_norm(x), functional.rms_norm(x + 1))


@pytest.mark.parametrize("function", [functional.rms_norm, functional.filter_response_norm])
def test_zeros_give_zeros_at_eps_zero(function):
    x = torch.zeros(2, 3, 4, requires_grad=True)
    y = function(x, eps=0.0)
    y.sum().backward()
    assert (y == 0).all()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("function", [functional.rms_norm, functional.filter_response_norm, functional.layer_norm])
def test_squares_do_not_overflow_in_float16(function):
    x = draw((4, 6, 5)).half() * 1000
    assert_close(function(x).float().bfloat16(), function(x.double()))


@pytest.mark.parametrize(("width", "groups"), [(1, 1), (6, 3), (7, 1), (16, 8), (64, 32), (84, 28), (256, 32)])
def test_the_number_of_groups_divides_and_leaves_two_channels_in_each(width, groups):
    assert groups_for(width) == groups
    assert nn.make_norm("group", width, 2).num_groups == groups
    assert nn.make_norm("group", width, 2, num_groups=1).num_groups == 1


def test_an_instance_norm_of_running_statistics_is_refused():
    with pytest.raises(NormlabError, match="track_running_stats=True; use BatchNorm"):
        nn.InstanceNorm2d(3, track_running_stats=True)


def test_an_instance_without_positions_is_refused_and_one_position_gives_beta():
    with pytest.raises(NormlabError, match=r"3D input \(N, C, L\), got 2D .* use layer norm"):
        nn.InstanceNorm1d(3)(torch.zeros(5, 3))
    assert (nn.InstanceNorm2d(3)(torch.ones(2, 3, 1, 1)) == 0).all()


def test_the_learned_eps_of_filter_response_norm_and_its_threshold():
    layer = nn.FilterResponseNorm1d(6, learn_eps=True)
    x = draw((5, 6), torch.float32)
    with torch.no_grad():
        layer.threshold.fill_(-0.5)
        layer.learned_eps.fill_(-0.1)
    y = layer(x)
    assert_close(y, (x / (x**2 + 1e-6 + 0.1).sqrt()).clamp(min=-0.5))
    y.sum().backward()
    assert layer.learned_eps.grad != 0
    assert nn.FilterResponseNorm1d(6, tlu=False)(-x).min() < -0.5


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_dynamic_tanh_is_odd_about_beta_and_within_gamma(dim):
    layer = getattr(nn, f"DynamicTanh{dim}d")(6, alpha=0.75).double()
    with torch.no_grad():
        layer.weight.copy_(torch.arange(6) - 2)
        layer.bias.fill_(0.25)
    x = draw(SHAPES[dim - 1])
    y = layer(x)
    limit = layer.weight.abs().view(1, -1, *[1] * dim)
    assert ((y - 0.25).abs() <= limit).all()
    assert_close(y - 0.25, 0.25 - layer(-x))
    assert_close(y[:, 4], 2 * torch.tanh(0.75 * x[:, 4]) + 0.25)
