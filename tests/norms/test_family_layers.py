"""What every layer of the family promises, by name."""

import copy
import io
import pickle
import subprocess
import sys

import family
import pytest
import torch

from compare import assert_close
from normlab import nn
from normlab.errors import NormlabError

SPATIAL = {1: (5,), 2: (5, 4), 3: (3, 4, 2)}
each_name = pytest.mark.parametrize("name", family.NAMES)
each_with_statistics = pytest.mark.parametrize("name", family.WITH_BATCH_STATISTICS)


def batch(n=8, dim=2, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(n, 6, *SPATIAL[dim], generator=generator, dtype=torch.float64) + 1).to(dtype)


def trained(name, dim=2, **options):
    """A layer whose parameters and statistics are not those of a new one."""
    layer = family.make(name, dim, **options)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.rand(parameter.shape, generator=generator))
    layer(batch(dim=dim))
    return layer


def statistics(layer):
    return [value.clone() for key, value in layer.named_buffers() if "nonfinite" not in key]


def test_the_table_names_the_family():
    assert set(family.NAMES) <= set(nn.norm_names())


@each_name
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_evaluation_does_not_depend_on_the_other_rows_or_on_chance(name, dim):
    layer, x = trained(name, dim).eval(), batch(dim=dim)
    other = torch.cat([x[:1], batch(7, dim, seed=1) * 5])
    before = statistics(layer)
    y = layer(x)
    assert torch.equal(y[0], layer(other)[0])
    assert torch.equal(y, layer(x))
    assert all(torch.equal(*pair) for pair in zip(statistics(layer), before, strict=True))


@each_name
def test_training_depends_on_the_other_rows_only_where_statistics_are_of_the_batch(name):
    layer, x = trained(name), batch()
    outputs = []
    for others in (x[1:], batch(7, seed=1) * 5):
        torch.manual_seed(0)
        outputs.append(copy.deepcopy(layer)(torch.cat([x[:1], others]))[0])
    assert torch.equal(*outputs) == (name not in family.WITH_BATCH_STATISTICS)


@each_name
def test_copies_and_saves(name):
    layer, x = trained(name), batch()
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    fresh = family.make(name)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), fresh):
        assert torch.equal(other.eval()(x), layer.eval()(x))


@each_name
@pytest.mark.parametrize("n", [1, 2, 3, 257])
def test_batches_of_any_size_with_constant_channels(name, n):
    layer, x = family.make(name), batch(n)
    x[:, 1] = 5.0
    x[:, 2] = 0.0
    x.requires_grad_()
    for training in (True, False):
        y = layer.train(training)(x)
        y.square().sum().backward()
        assert y.shape == x.shape
        assert y.isfinite().all()
        assert x.grad.isfinite().all()


@each_name
def test_an_empty_batch_is_empty_and_moves_nothing(name):
    layer = trained(name)
    before = [value for value in statistics(layer) if value.is_floating_point()]
    assert layer(batch(0)).shape == (0, 6, 5, 4)
    after = [value for value in statistics(layer) if value.is_floating_point()]
    assert all(torch.equal(*pair) for pair in zip(after, before, strict=True))


@each_with_statistics
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_batch_that_is_not_finite_moves_no_buffer_and_is_counted(name, bad):
    layer, x = trained(name), batch()
    x[0, 1, 0, 0] = bad
    before = statistics(layer)
    assert not layer(x).isfinite().all()
    assert all(torch.equal(*pair) for pair in zip(statistics(layer), before, strict=True))
    counts = [value for key, value in layer.named_buffers() if key.endswith("nonfinite_batches")]
    assert sum(counts) == 1


@each_name
def test_layout_and_values_in_channels_last(name):
    layer, x = trained(name), batch()
    for training in (True, False):
        layer.train(training)
        torch.manual_seed(0)
        expected = copy.deepcopy(layer)(x)
        torch.manual_seed(0)
        y = copy.deepcopy(layer)(x.contiguous(memory_format=torch.channels_last))
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert_close(y, expected)


@each_name
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_half_precision_keep_the_dtype(name, dtype):
    layer = family.make(name)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 6, 3), layer)
    with torch.autocast("cpu", dtype=dtype):
        y = net(torch.randn(4, 1, 5, 5))
    y.float().sum().backward()
    assert y.dtype == dtype
    assert all(
        parameter.grad.dtype == torch.float32 for parameter in layer.parameters() if parameter.grad is not None
    )
    for training in (True, False):
        assert copy.deepcopy(layer).train(training).to(dtype)(batch(dtype=dtype)).dtype == dtype


@each_name
def test_a_symbolic_trace_sees_one_call_of_the_layer(name, no_type_checks):
    traced = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.Conv2d(1, 6, 3), family.make(name)))
    targets = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    assert targets == ["0", "1.domains.0" if name == "domain" else "1"]


@each_name
def test_evaluation_goes_through_vmap(name):
    layer = trained(name).eval()
    x = torch.stack([batch(), batch(seed=1)])
    assert_close(torch.func.vmap(layer)(x), torch.stack([layer(each) for each in x]))


@pytest.mark.slow
def test_compiles_whole():
    """In a process of its own, where no checker of types stands between the compiler and the layers."""
    script = """
import copy, sys, torch
import family
for name in family.NAMES:
    torch._dynamo.reset()  # the layers share a forward, whose variants are limited
    ours = family.make(name)
    twin = copy.deepcopy(ours)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    for step in range(3):
        x = torch.randn(4, 6, 5, 5, generator=torch.Generator().manual_seed(step), requires_grad=True)
        z = x.detach().clone().requires_grad_()
        torch.manual_seed(step)
        one = compiled(x)
        torch.manual_seed(step)
        two = twin(z)
        one.pow(3).sum().backward()
        two.pow(3).sum().backward()
        if name != "noisy":
            torch.testing.assert_close(one, two, msg=name)
            torch.testing.assert_close(x.grad, z.grad, rtol=1e-4, atol=1e-4, msg=name)
    torch.testing.assert_close(ours.state_dict(), twin.state_dict())
    torch.testing.assert_close(compiled.eval()(x), twin.eval()(x))
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=__file__.rpartition("/")[0])


@each_name
def test_without_affine_there_is_nothing_to_learn_per_channel(name):
    layer = family.make(name, affine=False)
    assert {key.rpartition(".")[2] for key, _ in layer.named_parameters()} <= {"alpha", "threshold"}
    assert layer(batch()).shape == batch().shape


@each_name
def test_on_another_device_and_in_another_dtype(name):
    layer = family.make(name, device="meta", dtype=torch.float64)
    assert all(value.is_meta for value in layer.state_dict().values())
    assert all(parameter.dtype == torch.float64 for parameter in layer.parameters())


@each_name
@pytest.mark.parametrize("shape", [(4, 5, 3, 3), (6,), (4, 6, 3, 3, 3)])
def test_inputs_of_other_shapes_are_refused(name, shape):
    if name == "group" and len(shape) == 5:
        pytest.skip("takes any number of positions")
    with pytest.raises(NormlabError, match="expected"):
        family.make(name)(torch.zeros(shape))
