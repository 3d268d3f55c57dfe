"""`nn.BatchNorm{1,2,3}d` against torch's layers of the same name."""

import copy
import io
import pickle
import subprocess
import sys

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch.testing._internal.common_modules import module_db

from compare import assert_close
from normlab import nn
from normlab.errors import NormlabError

PAIRS = [(nn.BatchNorm1d, torch.nn.BatchNorm1d), (nn.BatchNorm2d, torch.nn.BatchNorm2d)]
PAIRS += [(nn.BatchNorm3d, torch.nn.BatchNorm3d)]
OURS = {theirs: ours for ours, theirs in PAIRS}
ENTRIES = [info for info in module_db if info.module_cls in OURS]


def outcome(layer, inputs, keywords=None):
    """y, the gradients of inputs and parameters, and the buffers after one step."""
    inputs = [value.detach().clone().requires_grad_(value.is_floating_point()) for value in inputs]
    y = layer(*inputs, **(keywords or {}))
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(y.dtype)
    y.backward(g)
    gradients = [value.grad for value in (*inputs, *layer.parameters())]
    return {"y": [y], "gradients": gradients, "buffers": list(layer.state_dict().values())}


def assert_same_outcome(ours, theirs, scale=8.0):
    for name, expected in theirs.items():
        for one, two in zip(ours[name], expected, strict=True):
            assert (one is None) == (two is None), name
            if one is not None:
                assert one.dtype == two.dtype, name
                assert_close(one.detach(), two.detach(), scale=scale, what=name)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("info", ENTRIES, ids=lambda info: info.name)
def test_every_input_of_torchs_own_table(info, dtype, training):
    count = 0
    for entry in info.module_inputs_func(info, "cpu", dtype, requires_grad=True, training=training):
        arguments, keywords = entry.constructor_input.args, entry.constructor_input.kwargs
        ours = OURS[info.module_cls](*arguments, **keywords).to(dtype).train(training)
        theirs = info.module_cls(*arguments, **keywords).to(dtype).train(training)
        call = entry.forward_input
        assert_same_outcome(outcome(ours, call.args, call.kwargs), outcome(theirs, call.args, call.kwargs))
        count += 1
    assert count >= 4


def test_torchs_own_table_has_the_three_layers():
    assert {info.module_cls for info in ENTRIES} == set(OURS)


@st.composite
def cases(draw):
    spatial = draw(st.integers(0, 3))
    shape = (draw(st.integers(2, 9)), draw(st.integers(1, 5)), *(draw(st.integers(1, 5)) for _ in range(spatial)))
    options = {
        "eps": draw(st.sampled_from([1e-5, 1e-3, 0.1])),
        "momentum": draw(st.sampled_from([None, 0.0, 0.1, 1.0])),
        "affine": draw(st.booleans()),
        "track_running_stats": draw(st.booleans()),
    }
    layout = draw(st.sampled_from(["plain", "channels-last", "transposed", "sliced"]))
    return shape, options, layout, draw(st.sampled_from([torch.float32, torch.float64])), draw(st.integers(0, 999))


def lay_out(x, layout):
    if layout == "channels-last":
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "transposed":
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "sliced":
        return torch.stack([x, x], -1)[..., 0]
    return x


@settings(max_examples=150, deadline=None)
@given(cases())
def test_agrees_with_torch_over_shapes_options_layouts_and_dtypes(case):
    shape, options, layout, dtype, seed = case
    ours_class, theirs_class = PAIRS[max(len(shape) - 3, 0)]
    ours, theirs = ours_class(shape[1], **options).to(dtype), theirs_class(shape[1], **options).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    for training in (True, True, False):
        x = lay_out(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype), layout)
        ours.train(training)
        theirs.train(training)
        # Two values per channel may be nearly equal: dividing by their deviation magnifies rounding.
        assert_same_outcome(outcome(ours, [x]), outcome(theirs, [x]), scale=100)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"track_running_stats": False}, {"momentum": None}])
def test_state_dict_goes_both_ways(ours, theirs, options):
    for source, target in ((ours, theirs), (theirs, ours)):
        filled = source(3, **options)
        for value in filled.state_dict().values():
            value.copy_(torch.arange(3) + 2 if value.dim() else torch.tensor(5))
        other = target(3, **options)
        other.load_state_dict(filled.state_dict())
        assert list(other.state_dict()) == list(filled.state_dict())
        assert all(
            torch.equal(a, b) for a, b in zip(other.state_dict().values(), filled.state_dict().values(), strict=True)
        )


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_is_torchs_layer_in_name_type_and_text(ours, theirs):
    assert issubclass(ours, theirs)
    assert repr(ours(3)) == repr(theirs(3))
    synchronized = torch.nn.SyncBatchNorm.convert_sync_batchnorm(torch.nn.Sequential(ours(3)))
    assert isinstance(synchronized[0], torch.nn.SyncBatchNorm)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_batch_that_is_not_finite_moves_no_buffer_and_is_counted(bad, momentum):
    layer = nn.BatchNorm2d(3, momentum=momentum)
    layer(torch.randn(4, 3, 2, 2))
    before = copy.deepcopy(layer.state_dict())
    poisoned = torch.randn(4, 3, 2, 2)
    poisoned[0, 1, 0, 0] = bad
    assert layer(poisoned).isnan().any()
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert layer.nonfinite_batches == 1
    layer(torch.randn(4, 3, 2, 2))
    assert layer.num_batches_tracked == 2
    assert layer.nonfinite_batches == 1


def test_counts_what_is_not_finite_without_running_statistics_too():
    layer = nn.BatchNorm1d(2, track_running_stats=False)
    layer(torch.full((3, 2), float("nan")))
    assert layer.nonfinite_batches == 1


@pytest.mark.parametrize("transform", ["grad", "vmap", "jvp", "hessian"])
def test_a_layer_without_statistics_serves_every_transform_of_torch_func(transform):
    layer = nn.BatchNorm1d(3, track_running_stats=False).double()
    twin = torch.nn.BatchNorm1d(3, track_running_stats=False).double()
    x = torch.randn(4, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def run(each):
        def cubed(x):
            return each(x).pow(3).sum()

        if transform == "vmap":
            return torch.func.vmap(each)(x)
        if transform == "jvp":
            return torch.func.jvp(each, (x[0],), (x[1],))[1]
        return getattr(torch.func, transform)(cubed)(x[0])

    assert_close(run(layer), run(twin), scale=100)


def test_the_count_of_batches_that_are_not_finite_is_reset_and_survives_the_meta_device():
    layer = nn.BatchNorm1d(2)
    layer(torch.full((3, 2), float("nan")))
    layer.reset_running_stats()
    assert layer.nonfinite_batches == 0
    big = nn.BatchNorm1d(2, device="meta")
    big.load_state_dict(layer.state_dict(), assign=True)
    big(torch.full((3, 2), float("nan")))
    assert big.nonfinite_batches == 1


def test_a_float16_layer_counts_what_its_buffers_cannot_hold():
    layer = nn.BatchNorm1d(1).half()
    layer(torch.tensor([[6e4], [6.1e4], [5.9e4]], dtype=torch.float16))
    assert layer.running_var == 1
    assert (layer.nonfinite_batches, layer.num_batches_tracked) == (1, 0)


def test_a_batch_that_the_mask_empties_does_not_dilute_the_cumulative_average():
    layer, x = nn.BatchNorm1d(2, momentum=None), torch.randn(4, 2)
    layer(torch.randn(4, 2), torch.zeros(4, 1, dtype=torch.bool))
    assert layer.num_batches_tracked == 0
    layer(x, torch.ones(4, 1, dtype=torch.bool))
    assert layer.num_batches_tracked == 1
    assert_close(layer.running_mean, x.mean(0))


def test_tolerates_a_layer_whose_count_was_taken_away():
    for momentum in (0.1, None):
        ours, theirs = nn.BatchNorm1d(2, momentum=momentum), torch.nn.BatchNorm1d(2, momentum=momentum)
        ours.num_batches_tracked = theirs.num_batches_tracked = None
        x = torch.randn(4, 2)
        assert_close(ours(x), theirs(x))
        assert_close(ours.running_mean, theirs.running_mean)


def test_a_symbolic_trace_sees_one_call_of_the_layer(no_type_checks):
    traced = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)))
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["0", "1"]
    x = torch.randn(3, 1, 5, 5)
    assert torch.equal(traced.eval()(x), traced.get_submodule("1")(traced.get_submodule("0")(x)))


def test_cumulative_average_is_the_mean_of_the_batches():
    layer = nn.BatchNorm1d(2, momentum=None).double()
    batches = [torch.randn(5, 2, dtype=torch.float64) for _ in range(4)]
    for x in batches:
        layer(x)
    assert_close(layer.running_mean, torch.stack([x.mean(0) for x in batches]).mean(0))
    assert_close(layer.running_var, torch.stack([x.var(0) for x in batches]).mean(0))


@pytest.mark.parametrize(("cls", "shape"), [(nn.BatchNorm1d, (1, 3)), (nn.BatchNorm2d, (1, 3, 1, 1))])
def test_one_value_per_channel_is_refused_in_training_only(cls, shape):
    layer = cls(3)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        layer(torch.zeros(shape))
    assert layer.eval()(torch.zeros(shape)).shape == shape


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_an_empty_batch_is_empty_as_in_torch(ours, theirs):
    shape = (0, 3, *[2] * (2 if ours is nn.BatchNorm2d else 3 if ours is nn.BatchNorm3d else 0))
    assert_same_outcome(outcome(ours(3), [torch.zeros(shape)]), outcome(theirs(3), [torch.zeros(shape)]))


def test_eps_zero_is_accepted_and_a_constant_channel_gives_beta():
    layer = nn.BatchNorm1d(2, eps=0.0)
    with torch.no_grad():
        layer.bias.fill_(3.0)
    assert (layer(torch.full((4, 2), 5.0)) == 3).all()


def test_a_mask_goes_through():
    layer, x = nn.BatchNorm1d(2), torch.randn(3, 2, 4)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)
    y = layer(x, mask)
    assert_close(layer.running_mean, 0.1 * x.movedim(1, 2)[mask].mean(0))
    assert (y.movedim(1, 2)[~mask] == 0).all()
    assert (layer.eval()(x, mask=mask).movedim(1, 2)[~mask] == 0).all()


@pytest.mark.parametrize("momentum", [0.1, None])
def test_compiles_whole(momentum):
    """In a process of its own, where no checker of types stands between the compiler and the layer."""
    script = f"""
import copy, torch
from normlab import nn
ours = nn.BatchNorm2d(3, momentum={momentum})
twin = copy.deepcopy(ours)
compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
for step in range(3):
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(step), requires_grad=True)
    z = x.detach().clone().requires_grad_()
    one, two = compiled(x), twin(z)
    one.pow(3).sum().backward()
    two.pow(3).sum().backward()
    torch.testing.assert_close(one, two)
    torch.testing.assert_close(x.grad, z.grad)
torch.testing.assert_close(ours.state_dict(), twin.state_dict())
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_copies_and_saves():
    layer = nn.BatchNorm2d(3)
    layer(torch.randn(4, 3, 2, 2)).sum().backward()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert all(
            torch.equal(a, b) for a, b in zip(layer.state_dict().values(), other.state_dict().values(), strict=True)
        )
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    torch.nn.BatchNorm2d(3).load_state_dict(torch.load(file, weights_only=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_half_precision_keep_the_dtype(dtype):
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
    with torch.autocast("cpu", dtype=dtype):
        y = net(torch.randn(4, 1, 5, 5))
    y.float().sum().backward()
    assert y.dtype == dtype
    assert net[1].weight.grad.dtype == net[1].running_mean.dtype == torch.float32
    assert nn.BatchNorm2d(3, affine=False).to(dtype)(torch.randn(4, 3, 5, 5, dtype=dtype)).dtype == dtype


def test_layout_is_kept():
    x = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    for layer in (nn.BatchNorm2d(3), nn.BatchNorm2d(3).eval()):
        assert layer(x).is_contiguous(memory_format=torch.channels_last)


def test_frozen_in_evaluation_mode_is_frozen():
    layer = nn.BatchNorm1d(2).eval()
    before = copy.deepcopy(layer.state_dict())
    layer(torch.randn(5, 2, requires_grad=True)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.BatchNorm1d(2, eps=-1.0), "eps >= 0"),
        (lambda: nn.BatchNorm1d(2, momentum=-0.1), "momentum in"),
        (lambda: nn.BatchNorm1d(2)(torch.zeros(2, 2, 2, 2)), r"2D input \(N, C\) or 3D input.*use BatchNorm2d"),
        (lambda: nn.BatchNorm2d(2)(torch.zeros(4, 2)), r"4D input \(N, C, H, W\).*use BatchNorm1d"),
        (
            lambda: nn.BatchNorm2d(2)(torch.zeros(4, 3, 2, 2)),
            r"2 channels, got 3 in 4D input .* make it BatchNorm2d\(3\)",
        ),
        (lambda: nn.BatchNorm2d(2)(torch.zeros(2, 5, 5)), r"x.unsqueeze\(0\)"),
        (lambda: nn.BatchNorm1d(2)(torch.zeros(2, 2, dtype=torch.int64)), "floating input"),
        (lambda: nn.make_norm("batch", 3, 4), "dim 1, 2 or 3"),
        (lambda: nn.make_norm("bacth", 3, 1), "did you mean batch"),
        (lambda: nn.make_norm("batch", 3, 1, epsilon=1), "epsilon"),
        (lambda: nn.make_norm("builtins:len", 3, 1), "to make a layer"),
        (lambda: nn.make_norm("builtins:str", 3, 1), "to make an nn.Module"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(NormlabError, match=message):
        make()


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_make_norm_gives_the_layer_of_the_dimension(dim):
    assert type(nn.make_norm("batch", 3, dim, eps=0.1)) is PAIRS[dim - 1][0]
    assert isinstance(nn.make_norm("none", 3, dim), torch.nn.Identity)
    assert isinstance(nn.make_norm("torch.nn:LazyConv2d", 3, dim, kernel_size=1), torch.nn.LazyConv2d)
