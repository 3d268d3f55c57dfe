"""What every layer with running statistics of its own keeps, whatever it normalizes by: one row a layer."""

import copy
import io
import math
import pickle
import subprocess
import sys

import pytest
import torch

from compare import assert_close
from normlab import nn
from normlab.errors import NormlabError

NAMES = ["zca", "pca", "cholesky", "newton-schulz", "pit", "rank-pit", "normality", "normality-noise"]
SILENT = [name for name in NAMES if name != "normality-noise"]
SHAPES = {1: [(5, 4), (2, 4), (3, 4, 7), (257, 4)], 2: [(3, 4, 5, 6), (257, 4, 1, 2)], 3: [(3, 4, 2, 3, 2)]}
CASES = [(dim, shape) for dim, shapes in SHAPES.items() for shape in shapes]


def draw(shape, seed=0, dtype=torch.float32):
    """Channels that are correlated, skewed, and of unlike means."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    x = x + 0.7 * x.roll(1, dims=1) + 0.3 * x.square()
    return (2 * x + torch.arange(shape[1]).view(1, -1, *[1] * (len(shape) - 2))).to(dtype)


def last(x):
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def state(layer):
    return copy.deepcopy(layer.state_dict())


def same_state(layer, before):
    return all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dim", "shape"), CASES)
def test_trains_and_evaluates_in_every_shape(name, dim, shape):
    layer = nn.make_norm(name, 4, dim)
    x = draw(shape).requires_grad_()
    for training in (True, False):
        y = layer.train(training)(x)
        gradients = torch.autograd.grad(y.pow(3).sum(), [x, layer.weight, layer.bias])
        assert y.shape == x.shape
        assert y.dtype == x.dtype
        assert all(value.isfinite().all() for value in (y, *gradients))


@pytest.mark.parametrize("name", NAMES)
def test_training_moves_every_statistic_and_evaluation_none(name):
    layer = nn.make_norm(name, 4, 2)
    fresh = state(layer)
    layer(draw((6, 4, 3, 3)))
    moved = state(layer)
    statistics = [key for key in fresh if key.startswith("running")]
    assert statistics
    assert not any(torch.equal(fresh[key], moved[key]) for key in statistics)
    assert layer.num_batches_tracked == 1
    layer.eval()(draw((6, 4, 3, 3), seed=1))
    assert same_state(layer, moved)
    assert not any(value.requires_grad for value in layer.buffers())
    layer.reset_running_stats()
    assert same_state(layer, fresh)


@pytest.mark.parametrize("name", NAMES)
def test_no_row_of_the_batch_enters_evaluation_of_another(name):
    layer = nn.make_norm(name, 4, 2)
    layer(draw((6, 4, 3, 3)))
    x = draw((6, 4, 3, 3), seed=1)
    others = x.clone()
    others[1:] = 1e3
    layer.eval()
    assert torch.equal(layer(x)[0], layer(others)[0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [float("nan"), math.inf, -math.inf])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_batch_that_is_not_finite_moves_no_buffer_is_counted_and_shows(name, bad, momentum):
    layer = nn.make_norm(name, 4, 2, momentum=momentum)
    layer(draw((6, 4, 3, 3)))
    before = state(layer)
    poisoned = draw((60, 4, 3, 3), seed=1)
    poisoned[0, 1, 0, 0] = bad
    assert layer(poisoned)[:, 1].isnan().any()
    assert same_state(layer, before)
    assert layer.nonfinite_batches == 1
    layer(draw((6, 4, 3, 3)))
    assert (layer.num_batches_tracked, layer.nonfinite_batches) == (2, 1)
    layer.reset_running_stats()
    assert layer.nonfinite_batches == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("momentum", [0.3, 1.0, None])
def test_running_statistics_are_averages_of_the_batches(name, momentum):
    layers = [nn.make_norm(name, 4, 1, momentum=momentum).double() for _ in range(3)]
    first, second = (draw((9, 4), seed, torch.float64) for seed in range(2))
    layers[0](first)
    layers[0](second)
    for layer, x in zip(layers[1:], (first, second), strict=True):
        layer.momentum = 1.0
        layer(x)
    fresh = nn.make_norm(name, 4, 1).double().state_dict()
    shares = (0.0, 0.5, 0.5) if momentum is None else ((1 - momentum) ** 2, momentum * (1 - momentum), momentum)
    for key, value in layers[0].state_dict().items():
        if key.startswith("running"):
            parts = (fresh[key], layers[1].state_dict()[key], layers[2].state_dict()[key])
            expected = sum(share * part for share, part in zip(shares, parts, strict=True))
            assert_close(value, expected, what=key)


@pytest.mark.parametrize("name", SILENT)
def test_without_running_statistics_the_batch_serves_in_evaluation_too(name):
    layer = nn.make_norm(name, 4, 1, track_running_stats=False, affine=False)
    x = draw((6, 4))
    assert not layer.state_dict()
    assert_close(layer.eval()(x), layer.train()(x))
    layer(torch.full((3, 4), float("nan")))
    assert layer.nonfinite_batches == 1


@pytest.mark.parametrize("name", SILENT)
def test_layouts_agree_and_are_kept(name):
    x = draw((6, 4, 5, 3))
    reference, layer = nn.make_norm(name, 4, 2), nn.make_norm(name, 4, 2)
    for training in (True, False):
        leaves = [x.clone().requires_grad_(), last(x).requires_grad_()]
        expected, y = reference.train(training)(leaves[0]), layer.train(training)(leaves[1])
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert expected.is_contiguous()
        assert_close(y, expected, scale=10, what="y")
        g = torch.randn_like(expected)
        found, wanted = torch.autograd.grad(y, leaves[1], g), torch.autograd.grad(expected, leaves[0], g)
        assert_close(found[0], wanted[0], scale=100, what="gradient")
    sliced = torch.stack([x, x], -1)[..., 0]
    assert_close(layer.eval()(sliced), layer(x), scale=10)


@pytest.mark.parametrize("name", SILENT)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_compute_in_float32(name, dtype):
    layer = nn.make_norm(name, 4, 2)
    twin = copy.deepcopy(layer)
    x = draw((6, 4, 5, 3)).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    expected = twin(x.float())
    assert y.dtype == dtype
    assert torch.equal(y, expected.to(dtype))
    assert same_state(layer, state(twin))
    assert nn.make_norm(name, 4, 2, affine=False).to(dtype)(x).dtype == dtype
    assert torch.equal(layer.eval()(x), twin.eval()(x.float()).to(dtype))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_constant_channels_give_no_nan(name, eps):
    layer = nn.make_norm(name, 4, 1, eps=eps)
    x = draw((6, 4))
    x[:, 1] = 3.3
    for batch in (x, torch.full((6, 4), 0.1)):
        leaf = batch.clone().requires_grad_()
        y = layer(leaf)
        y.pow(3).sum().backward()
        assert y.isfinite().all()
        assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("name", SILENT)
def test_copies_and_saves(name):
    layer = nn.make_norm(name, 4, 2)
    layer(draw((6, 4, 3, 3))).sum().backward()
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    loaded = nn.make_norm(name, 4, 2)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    meta = nn.make_norm(name, 4, 2, device="meta")
    meta.load_state_dict(layer.state_dict(), assign=True)
    x = draw((6, 4, 3, 3), seed=1)
    expected = copy.deepcopy(layer).eval()(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded, meta):
        assert same_state(other, layer.state_dict())
        assert torch.equal(other.eval()(x), expected)
    meta.train()(torch.full((6, 4, 3, 3), float("nan")))
    assert meta.nonfinite_batches == 1


@pytest.mark.parametrize("name", SILENT)
def test_the_functions_of_torch_func_serve_it(name, no_type_checks):
    layer = nn.make_norm(name, 4, 1, track_running_stats=False).double()
    x = torch.stack([draw((6, 4), seed, torch.float64) for seed in range(3)])
    assert_close(torch.func.vmap(layer)(x), torch.stack([layer(each) for each in x]), scale=100)
    leaf = x[0].clone().requires_grad_()
    (expected,) = torch.autograd.grad(layer(leaf).pow(3).sum(), leaf)
    assert_close(torch.func.grad(lambda x: layer(x).pow(3).sum())(x[0]), expected, scale=1000)
    evaluated = nn.make_norm(name, 4, 1).double().eval()
    assert_close(torch.func.vmap(evaluated)(x), torch.stack([evaluated(each) for each in x]), scale=100)


def test_each_compiles_whole():
    """In a process of its own, where no checker of types stands between the compiler and the layer."""
    script = f"""
import copy, torch
from normlab import nn
for name in {SILENT}:
    for momentum in (0.1, None):
        torch.compiler.reset()
        ours = nn.make_norm(name, 3, 2, momentum=momentum)
        twin = copy.deepcopy(ours)
        compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
        for step in range(3):
            x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(step), requires_grad=True)
            z = x.detach().clone().requires_grad_()
            one, two = compiled(x), twin(z)
            one.pow(3).sum().backward()
            two.pow(3).sum().backward()
            torch.testing.assert_close(one, two, msg=name)
            torch.testing.assert_close(x.grad, z.grad, msg=name, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.state_dict(), twin.state_dict())
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_one_value_per_channel_is_refused_in_training_only(name):
    layer = nn.make_norm(name, 4, 1)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        layer(torch.zeros(1, 4))
    assert layer.eval()(torch.zeros(1, 4)).shape == (1, 4)
    assert layer.train()(torch.zeros(0, 4)).shape == (0, 4)
    assert layer.num_batches_tracked == 0


@pytest.mark.parametrize("name", NAMES)
def test_mistakes_are_named(name):
    for make, message in (
        (lambda: nn.make_norm(name, 4, 1, eps=-1.0), "eps >= 0"),
        (lambda: nn.make_norm(name, 4, 1, momentum=2.0), "momentum in"),
        (lambda: nn.make_norm(name, 4, 2)(torch.zeros(3, 4)), r"expected 4D input \(N, C, H, W\)"),
        (lambda: nn.make_norm(name, 4, 1)(torch.zeros(3, 5)), "4 channels, got 5"),
        (lambda: nn.make_norm(name, 4, 1)(torch.zeros(3, 4, dtype=torch.int64)), "floating input"),
    ):
        with pytest.raises(NormlabError, match=message):
            make()
