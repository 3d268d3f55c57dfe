"""fold: exact in evaluation over all kinds of layers, and refused, with the reason, wherever it would not be."""

import copy
import itertools
import re
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from split import Parts
from test_surgery_arms import COLORED, NETWORKS, Branching, Residual, Reused, TwoNorms, build
from torch import nn
from torch.nn.utils import parametrizations, parametrize, weight_norm

from normlab import nn as ours
from normlab.surgery import fold, freeze, from_plain, to_plain
from normlab.surgery.find import BatchNorm, batch_norms

LAYERS = {
    (kind, dim): getattr(nn, f"{kind}{dim}d") for kind, dim in itertools.product(("Conv", "ConvTranspose"), (1, 2, 3))
} | {("Linear", 1): nn.Linear}
EPS = [1e-5, 1e-3, 0.5]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def stir(model, seed=0):
    """Statistics, weights and biases such that no wrong one gives the same; evaluation mode."""
    generator = torch.Generator().manual_seed(seed)

    def draw(value, low, high):
        value.data.copy_(torch.rand(value.shape, generator=generator, dtype=torch.float64) * (high - low) + low)

    for module in model.modules():
        if isinstance(module, BatchNorm):
            for value in (module.weight, module.bias, module.running_mean):
                if value is not None:
                    draw(value, -2, 2)
            if module.running_var is not None:
                draw(module.running_var, 0.3, 3)
        else:
            for value in module.parameters(recurse=False):
                draw(value, -0.5, 0.5)
    return model.eval()


def normalized(norm, x):
    """Batch norm's evaluation as its paper writes it, in float64."""

    def column(value):
        return value.detach().double().reshape(1, -1, *[1] * (x.dim() - 2))

    y = (x - column(norm.running_mean)) / (column(norm.running_var) + norm.eps).sqrt()
    return y if norm.weight is None else y * column(norm.weight) + column(norm.bias)


@st.composite
def cases(draw):
    """A layer, an input for it, and whether a norm before it can go into it."""
    kind, dim = draw(st.sampled_from(sorted(LAYERS)))
    bias = draw(st.booleans())
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inputs, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    if kind == "Linear":
        return nn.Linear(inputs, outputs, bias), (5, inputs), True

    def sizes(least, most):
        return tuple(draw(st.integers(least, most)) for _ in range(dim))

    options = {"stride": sizes(1, 3), "dilation": sizes(1, 2), "groups": groups, "bias": bias}
    kernel = draw(st.sampled_from([(1,) * dim, sizes(1, 3)]))
    if kind == "Conv":
        mode = draw(st.sampled_from(["zeros", "zeros", "zeros", "replicate", "circular", "reflect"]))
        padding = draw(st.sampled_from(["same", "valid", sizes(0, 2)]))
        if padding == "same":
            options["stride"] = 1
            kernel = tuple(size | 1 for size in kernel)  # of even ones torch warns
        layer = LAYERS[kind, dim](inputs, outputs, kernel, padding=padding, padding_mode=mode, **options)
        pads = max(kernel) > 1 if padding == "same" else padding != "valid" and max(padding) > 0
        return layer, (2, inputs, *[6] * dim), mode != "zeros" or not pads
    options["stride"] = draw(st.sampled_from([1, options["stride"]]))
    layer = LAYERS[kind, dim](inputs, outputs, kernel, padding=sizes(0, 1), **options)
    room = [max(pair) - 1 for pair in zip(layer.stride, layer.dilation, strict=True)]
    layer.output_padding = tuple(draw(st.integers(0, most)) for most in room)
    single = {*layer.kernel_size, *layer.stride} == {1} and not any(layer.output_padding)
    return layer, (2, inputs, *[6] * dim), single


@settings(deadline=None, max_examples=250)
@given(
    cases(), st.booleans(), st.booleans(), st.sampled_from(EPS), st.sampled_from([*TOLERANCE]), st.booleans(),
    st.integers(0, 2**20),
)  # fmt: skip
def test_a_folded_layer_is_the_layer_and_the_norm(case, behind, affine, eps, dtype, torchs, seed):
    layer, shape, exact = case
    channels = layer.weight.new_zeros(shape) if not behind else layer(torch.zeros(shape))
    dim = max(1, channels.dim() - 2)
    make = getattr(nn, f"BatchNorm{dim}d") if torchs else getattr(ours, f"BatchNorm{dim}d")
    norm = make(channels.shape[1], eps=eps, affine=affine)
    model = stir(nn.Sequential(*((layer, norm) if behind else (norm, layer))), seed).to(dtype)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    twin = copy.deepcopy(layer).double()
    truth = normalized(norm, twin(x.double())) if behind else twin(normalized(norm, x.double()))
    before, trained = model(x), layer.weight.requires_grad
    changes = fold(rows=True)(model)
    if not behind and not exact:
        assert not changes
        assert list(changes.left) == ["0"]
        assert torch.equal(model(x), before)
        return
    assert list(changes.done) == ["1" if behind else "0"]
    assert not changes.left
    y = model(x)
    assert y.dtype == layer.weight.dtype == layer.bias.dtype == dtype
    assert layer.weight.requires_grad == trained
    assert (y.double() - truth).abs().max() <= TOLERANCE[dtype] * truth.abs().max()
    assert not batch_norms(model)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_norm_of_a_network_is_folded_or_left_and_the_function_stays(name):
    model, x = build(name)
    model.eval()
    norms, expected = batch_norms(model), model(x)
    changes = fold()(model)
    assert {*changes.done} | {*changes.left} == {*norms}
    assert (model(x) - expected).abs().max() <= 1e-12 * expected.abs().max()
    none = name in ("two norms", "reused") or "without statistics" in name
    assert len(changes.done) == (0 if none else len(norms))


@pytest.mark.parametrize("name", NETWORKS)
def test_undo_gives_the_very_same_parameters_back_and_an_optimizer_goes_on(name):
    model, x = build(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.eval()
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    state, expected = copy.deepcopy(model.state_dict()), model(x)
    changes = fold()(model)
    folded = {path: parameter for path, parameter in model.named_parameters() if path in parameters}
    if changes:
        assert not all(parameters[path] is parameter for path, parameter in folded.items())
        with torch.no_grad():
            model.get_parameter(f"{next(iter(changes.done.values())).split()[-1]}.weight").zero_()
    changes.undo()
    assert dict(model.named_modules()) == modules
    assert [path for path, _ in model.named_parameters()] == list(parameters)
    assert all(one is two for one, two in zip(model.parameters(), parameters.values(), strict=True))
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert torch.equal(model(x), expected)
    model(x).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model(x), expected)


class Reading(nn.Sequential):
    """Takes a weight of a layer in it for something else too."""

    def forward(self, x):
        return super().forward(x) + nn.functional.conv2d(x, self[0].weight)


class Keeping(nn.Sequential):
    """Leaves what is between conv and norm in an attribute, for whoever wants it."""

    def forward(self, x):
        self.seen = self[0](x)
        return self[1](self.seen)


class Collecting(nn.Sequential):
    """Keeps it in a list of its own."""

    def forward(self, x):
        self.seen = [self[0](x)]
        return self[1](self.seen[0])


class Busy(nn.Sequential):
    """Does what is no use of the values in it: counts its calls, looks at a weight, takes a constant."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        assert self[0].weight is not None
        return super().forward(x) * torch.tensor(2.0)


class Masked(nn.Sequential):
    """Calls its norm with a mask."""

    def forward(self, x):
        return self[1](self[0](x), x[:, 0] > 0)


class Own(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


class Domains(ours.DomainBatchNorm2d):
    """Whose norm gets no mask."""

    def forward(self, x):
        return self.domains[self.domain](x)


class Sharp(nn.Conv2d):
    def forward(self, x):
        return super().forward(x).relu()


def hooked(path, hook):
    def make():
        model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Identity()), nn.BatchNorm2d(4))
        model.get_submodule(path).register_forward_hook(hook)
        return model

    return make


def changing(module, inputs, output):
    return output.relu()


def looking(module, inputs, output):
    return None


def buffered():
    conv = nn.Conv2d(3, 4, 3)
    weight = conv.weight.detach()
    del conv.weight
    conv.register_buffer("weight", weight)
    return conv


def poisoned():
    norm = nn.BatchNorm2d(4)
    norm.running_mean[1] = torch.inf
    return nn.Sequential(nn.Conv2d(3, 4, 3), norm)


def overflowing():
    norm = nn.BatchNorm2d(4)
    model = stir(nn.Sequential(nn.Conv2d(3, 4, 3), norm)).to(torch.bfloat16)
    norm.running_var.fill_(1e-30)
    norm.eps = 1e-30
    norm.weight.data.fill_(1e30)
    return model


def behind_conv(norm):
    return lambda: nn.Sequential(nn.Conv2d(3, 4, 3), norm)


def behind_layer(layer):
    return lambda: nn.Sequential(layer(), nn.BatchNorm2d(4))


def computing(*names):
    def make():
        conv = nn.Conv2d(3, 4, 3)
        for name in names:
            parametrize.register_parametrization(conv, name, nn.Tanh())
        return conv

    return make


ROWS, POINTS = (4, 4), (4, 4, 4)
# Model, shape of its input, reason.
REFUSED = {
    "one conv, two norms": (TwoNorms, COLORED, "the output of conv is used elsewhere too"),
    "one norm, two convs": (Reused, COLORED, "used more than once"),
    "one conv, two parts": (Parts, COLORED, "used more than once"),
    "weight used elsewhere": (
        lambda: Reading(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), COLORED, "a tensor of 0 or 1 is used elsewhere",
    ),
    "value kept": (lambda: Keeping(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), COLORED, "output of 0 is used elsewhere"),
    "value collected": (
        lambda: Collecting(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), COLORED, "output of 0 is used elsewhere",
    ),
    "mask": (lambda: Masked(nn.Conv2d(3, 4, 1), ours.BatchNorm2d(4)), COLORED, "more than one tensor"),
    "zero padding": (
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1)), COLORED, "pads with zeros",
    ),
    "transposed behind": (
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.ConvTranspose2d(3, 4, 3)), COLORED, "at every position",
    ),
    "activation between": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.ReLU()), COLORED,
        "1, which feeds it, is a ReLU; 3, which takes it, is a ReLU",
    ),
    "no statistics": (behind_conv(nn.BatchNorm2d(4, track_running_stats=False)), COLORED, "keeps no running"),
    "mean only": (behind_conv(ours.MeanOnlyBatchNorm2d(4)), COLORED, "MeanOnlyBatchNorm2d, whose forward"),
    "own norm": (behind_conv(Own(4)), COLORED, "is a Own, whose forward is its own"),
    "own conv": (behind_layer(lambda: Sharp(3, 4, 3)), COLORED, "0, which feeds it, is a Sharp"),
    "domains": (behind_conv(Domains(4)), COLORED, "no layer feeds it directly"),
    "parametrized": (behind_layer(computing("weight")), COLORED, "is a ParametrizedConv2d"),
    "weight norm": (
        behind_layer(lambda: parametrizations.weight_norm(nn.Conv2d(3, 4, 3))), COLORED, "is a ParametrizedConv2d",
    ),
    "weight in a buffer": (behind_layer(buffered), COLORED, "no parameter"),
    "hook on the layer": (hooked("0.0", changing), COLORED, "0.0 has a hook"),
    "hook on the norm": (hooked("1", changing), COLORED, "1 has a hook"),
    "hook between": (hooked("0.1", changing), COLORED, "0.1 has a hook"),
    "hook around the layer": (hooked("0", looking), COLORED, "0 has a hook"),
    "rows or points": (lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), ROWS, r"fold\(rows=True\)"),
    "points": (lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), POINTS, r"fold\(rows=True\)"),
    "points again": (
        lambda: nn.Sequential(nn.Flatten(), nn.Unflatten(1, (4, 4)), nn.Linear(4, 4), nn.BatchNorm1d(4)), POINTS,
        r"fold\(rows=True\)",
    ),
    "other width": (lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(4)), POINTS, "another dimension"),
    "points before": (lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4)), POINTS, r"fold\(rows=True\)"),
    "linear on images": (lambda: nn.Sequential(nn.Linear(9, 3), nn.BatchNorm2d(3)), COLORED, "another dimension"),
    "inf in the statistics": (poisoned, COLORED, "float32"),
    "overflow": (overflowing, COLORED, "bfloat16"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_exact_is_refused_and_the_model_untouched(name):
    make, shape, reason = REFUSED[name]
    model = make()
    model = model if name in ("inf in the statistics", "overflow") else stir(model)
    model.eval()
    state, modules = copy.deepcopy(model.state_dict()), list(model.modules())
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(next(model.parameters()).dtype)
    expected = model(x)
    attributes = {path: {**vars(module)} for path, module in model.named_modules()}
    changes = fold()(model)
    assert not changes
    assert {*changes.left} == {*batch_norms(model)}
    assert all(torch.equal(one, two) for one, two in zip(model.state_dict().values(), state.values(), strict=True))
    assert list(model.modules()) == modules
    assert all(vars(module).keys() == attributes[path].keys() for path, module in model.named_modules())
    torch.testing.assert_close(model(x), expected, rtol=0, atol=0, equal_nan=True)
    assert all(re.search(reason, left) for left in changes.left.values()), changes.left


def test_a_hook_that_computes_the_weight_is_in_the_way_too():
    with pytest.warns(FutureWarning, match="deprecated"):
        layer = weight_norm(nn.Conv2d(3, 4, 3))
    left = fold()(nn.Sequential(layer, nn.BatchNorm2d(4)).eval()).left["1"]
    assert "0 has a hook" in left


@pytest.mark.parametrize("behind", [True, False])
def test_of_points_the_norm_and_the_linear_layer_mean_other_dimensions(behind):
    """Which torch's own fusion gets wrong in silence."""
    layers = nn.Linear(4, 4), nn.BatchNorm1d(4)
    model = stir(nn.Sequential(*(layers if behind else layers[::-1])))
    rows, points = torch.randn(5, 4), torch.randn(5, 4, 4)
    expected = model(rows), model(points)
    assert not fold()(model)
    changes = fold(rows=True)(model)
    torch.testing.assert_close(model(rows), expected[0])
    assert not torch.allclose(model(points), expected[1]), "which is why rows=True is for the user to say"
    changes.undo()
    assert torch.equal(model(points), expected[1])


class Functional(nn.Module):
    """Flattens by functions, with a norm behind either linear layer, and one that a residual sum feeds."""

    def __init__(self, flatten):
        super().__init__()
        self.flatten = flatten
        self.one, self.norm1 = nn.Linear(12, 6), nn.BatchNorm1d(6)
        self.two, self.norm2 = nn.Linear(6, 6), nn.BatchNorm1d(6)

    def forward(self, x):
        x = torch.relu(self.norm1(self.one(self.flatten(x))))
        return self.norm2(self.two(x))


FLATTENING = {
    "torch.flatten": (lambda x: torch.flatten(x, 1), True),
    "view": (lambda x: x.view(x.size(0), -1), True),
    "reshape": (lambda x: x.reshape(-1, 12), True),
    "not at all": (lambda x: x, False),
    "less": (lambda x: x.flatten(2), False),
}


@pytest.mark.parametrize("name", FLATTENING)
def test_what_was_flattened_is_rows(name):
    flatten, rows = FLATTENING[name]
    model = stir(Functional(flatten))
    shape = (5, 3, 2, 2) if rows else (5, 6, 12) if name == "not at all" else (5, 6, 3, 4)
    x = torch.randn(shape)
    expected = model(x)
    assert [*fold()(model).done] == (["norm1", "norm2"] if rows else [])
    torch.testing.assert_close(model(x), expected)


CHAINS = {
    "norm, norm": lambda: (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), ours.BatchNorm2d(4)),
    "norm, norm before": lambda: (nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, 4, 3, bias=False)),
    "norms on both sides": lambda: (nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
    "between two convs": lambda: (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)),
    "dropout between": lambda: (nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.Identity(), nn.BatchNorm2d(4)),
    "dropout between before": lambda: (nn.BatchNorm2d(3), nn.Dropout(0.5, inplace=True), nn.Conv2d(3, 4, 3)),
    "in place behind": lambda: (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
    "synchronized": lambda: (nn.Conv2d(3, 4, 3), nn.SyncBatchNorm(4)),
    "shared weight": lambda: share(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)),
    "frozen weight": lambda: (nn.Conv2d(3, 4, 3).requires_grad_(False), nn.BatchNorm2d(4)),
    **{
        name: lambda name=name: (nn.Conv2d(3, 4, 3), ours.make_norm(name, 4, 2))
        for name in ("sync", "frozen", "ghost", "renorm", "noisy")
    },
}


def share(first, norm, second):
    second.weight = first.weight
    return first, norm, second


@pytest.mark.parametrize(
    "wrap", [lambda model: model, nn.DataParallel, lambda model: nn.Sequential(model, nn.ReLU())]
)
@pytest.mark.parametrize("name", CHAINS)
def test_no_norm_is_left_in_a_chain(name, wrap):
    model = wrap(stir(nn.Sequential(*CHAINS[name]())).double()).eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    expected, before = model(x), x.clone()
    frozen = {path for path, value in model.named_parameters() if not value.requires_grad}
    changes = fold()(model)
    assert changes
    assert not changes.left
    assert not batch_norms(model)
    assert (model(x) - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert torch.equal(x, before)
    assert all(not value.requires_grad for path, value in model.named_parameters() if path in frozen)
    changes.undo()
    assert torch.equal(model(x), expected)


def test_the_layer_keeps_its_memory_format():
    model = stir(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).to(memory_format=torch.channels_last)
    fold()(model)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_modules_are_paired_by_the_data_flow_not_by_registration():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.norm2, self.conv2, self.norm1 = (
                nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3),
            )  # fmt: skip

        def forward(self, x):
            return self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))

    model, x = stir(Crossed()), torch.randn(COLORED)
    expected = model(x)
    assert fold()(model).done == {"norm1": "folded into conv1", "norm2": "folded into conv2"}
    torch.testing.assert_close(model(x), expected)


def test_control_flow_that_depends_on_data_is_traced_around():
    model, x = stir(Branching()), torch.randn(COLORED)
    expected = model(x)
    assert fold()(model).done == {"stem.1": "folded into stem.0"}
    assert not model.stem[1].training
    torch.testing.assert_close(model(x), expected)


def test_a_forward_may_count_look_and_take_constants_and_leaves_no_trace():
    model, x = stir(Busy(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))), torch.randn(COLORED)
    expected = model(x)
    attributes = {**vars(model)}
    assert fold()(model).done == {"1": "folded into 0"}
    assert vars(model) == attributes
    torch.testing.assert_close(model(x), expected)


def test_training_mode_is_left_unless_the_norm_is_frozen():
    class Auxiliary(Residual):
        def forward(self, x):
            return super().forward(x) + (self.conv1(x) if self.training else 0)

    model = stir(Auxiliary()).train()
    freeze("statistics")(nn.ModuleList([model.bn1]))
    x, modes = torch.randn(COLORED), [module.training for module in model.modules()]
    expected = copy.deepcopy(model).eval()(x)
    changes = fold()(model)
    assert changes.done == {"bn1": "folded into conv1"}
    assert changes.left == {"bn2": "is in training mode, where it depends on the batch; call model.eval() first"}
    assert [module.training for module in model.modules()] == modes
    torch.testing.assert_close(model.eval()(x), expected)


def test_an_error_leaves_the_model_as_it_was(monkeypatch):
    model = stir(Residual())
    modules, parameters = list(model.modules()), list(model.parameters())
    monkeypatch.setattr(sys.modules[fold.__module__], "parents", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fold()(model)
    assert list(model.modules()) == modules
    assert all(one is two for one, two in zip(model.parameters(), parameters, strict=True))


def test_half_precision_models_keep_norms_in_float32():
    model = stir(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    model[0].to(torch.bfloat16)
    x = torch.randn(COLORED).to(torch.bfloat16)
    expected = model(x)
    assert fold()(model)
    assert model(x).dtype == expected.dtype == model[0].bias.dtype == torch.bfloat16
    torch.testing.assert_close(model(x), expected, rtol=3e-2, atol=6e-2)


def test_without_norms_nothing_is_done_and_a_norm_alone_is_left():
    assert fold()(nn.Linear(3, 3)).left == {}
    assert [*fold()(nn.BatchNorm1d(3).eval()).left] == [""]


def test_a_recipe_keeps_it():
    assert to_plain(fold()) == {"name": "fold", "rows": False}
    assert from_plain({"name": "fold", "rows": True}) == fold(rows=True)
