"""The surgeries that studies compare: each does what it says, on any module, and can be taken back."""

import copy
import dataclasses

import pytest
import torch
from split import Parts
from torch import nn

from compare import assert_close
from normlab import models
from normlab import nn as ours
from normlab.errors import NormlabError
from normlab.surgery import (
    Changes,
    add_bias,
    dropout,
    fold,
    freeze,
    from_plain,
    keep,
    remove_bias,
    reorder,
    scale_init,
    stretch,
    swap,
)
from normlab.surgery.flow import fed_by


class Residual(nn.Module):
    """A basic block: two convolutions with norms, ReLU as a function, the input added."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.conv2, self.bn2 = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x):
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))) + x)


class Branching(nn.Module):
    """Control flow that depends on data, around a part that can be traced."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x).mean((2, 3))
        return self.head(x if x.sum() > 0 else -x)


class TwoNorms(nn.Module):
    """One convolution that feeds two norms: its bias belongs to neither alone."""

    def __init__(self):
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x):
        h = self.conv(x)
        return self.one(h) + self.two(h)


class Reused(nn.Module):
    """One norm behind two convolutions."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.norm = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv2(self.norm(self.conv1(x))))


IMAGES, COLORED = (8, 1, 28, 28), (8, 3, 9, 9)
# Model, shape of its input, biases that a norm makes redundant.
NETWORKS = {
    "lenet": (models.lenet, IMAGES, 4),
    "lenet-relu-dropout": (lambda: models.lenet(activation="relu", pooling="max", dropout=0.5), IMAGES, 4),
    "lenet-none": (lambda: models.lenet(norms="none"), IMAGES, 0),
    "mlp": (models.mlp, IMAGES, 3),
    "residual": (Residual, COLORED, 2),
    "branching": (Branching, COLORED, 1),
    "wrapped": (lambda: nn.DataParallel(Residual()), COLORED, 2),
    "two norms": (TwoNorms, COLORED, 0),
    "reused": (Reused, COLORED, 0),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3, groups=1), nn.BatchNorm2d(4)),
        COLORED,
        1,
    ),
    "torch norms without statistics": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        COLORED,
        1,
    ),
}
SURGERIES = [
    remove_bias(),
    add_bias(),
    keep((0,)),
    fold(),
    freeze("gamma"),
    freeze("affine"),
    freeze("averages"),
    freeze("statistics"),
    reorder("norm", "activation"),
    reorder("activation", "dropout"),
    dropout(0.3),
    scale_init(0.1),
    stretch(3.0),
    swap("batch", "none"),
    swap("batch", "frozen"),
]


def build(name):
    """The network in float64 after two steps, so that no statistic is at its start."""
    make, shape, _ = NETWORKS[name]
    torch.manual_seed(0)
    model, x = make().double(), torch.randn(shape, dtype=torch.float64)
    for step in range(2):
        model(x + step)
    return model, x


@pytest.mark.parametrize("surgery", SURGERIES, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_undo_gives_the_very_same_model_back(name, surgery):
    model, x = build(name)
    if isinstance(surgery, keep) and not [
        m for m in model.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d)
    ]:
        surgery = keep()
    modules = dict(model.named_modules())
    classes = [type(module) for module in modules.values()]
    parameters = {name: (value, value.requires_grad) for name, value in model.named_parameters()}
    state = copy.deepcopy(model.state_dict())
    if surgery == swap("batch", "frozen") and "without statistics" in name:
        with pytest.raises(NormlabError, match="running statistics"):
            surgery(model)
        changes = Changes()
    else:
        changes = surgery(model)
    model.eval()(x)
    changes.undo()
    assert dict(model.named_modules()) == modules
    assert [type(module) for module in modules.values()] == classes
    assert {name: (value, value.requires_grad) for name, value in model.named_parameters()} == parameters
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    changes.undo()  # a second time does nothing
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)


@pytest.mark.parametrize("surgery", SURGERIES, ids=str)
def test_a_surgery_survives_the_way_through_a_recipe(surgery):
    plain = {"name": type(surgery).__name__, **dataclasses.asdict(surgery)}
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}
    assert from_plain(plain) == surgery


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_remove_bias_removes_what_is_redundant_and_nothing_else(name, training):
    model, x = build(name)
    torch.manual_seed(1)
    expected = copy.deepcopy(model).train(training)(x)
    before = sum(1 for path, _ in model.named_parameters())
    changes = remove_bias()(model)
    torch.manual_seed(1)
    assert_close(model.train(training)(x), expected, scale=10)
    assert len(changes.done) == NETWORKS[name][2]
    assert sum(1 for path, _ in model.named_parameters()) == before - NETWORKS[name][2]


def test_remove_bias_takes_226_numbers_from_lenet():
    model = models.lenet()
    before = models.parameter_count(model)
    remove_bias()(model)
    assert before - models.parameter_count(model) == 226


@pytest.mark.parametrize(
    ("norm", "left"), [("mean-only", {}), ("ghost", {}), ("variance-only", {"0": "1 takes no mean off"})]
)
def test_remove_bias_leaves_the_bias_that_a_norm_does_not_absorb(norm, left):
    model = nn.Sequential(nn.Linear(3, 4), ours.make_norm(norm, 4, 1))
    x = torch.randn(6, 3)
    before = copy.deepcopy(model)
    assert remove_bias()(model).left == left
    torch.testing.assert_close(model(x), before(x))
    torch.testing.assert_close(model.eval()(x), before.eval()(x))


def test_remove_bias_says_why_it_left_a_layer():
    assert "is used elsewhere too" in str(remove_bias()(TwoNorms()).left)
    assert "is used more than once" in str(remove_bias()(Reused()).left)
    late = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4))
    assert remove_bias()(late).left == {"2": "a ReLU feeds it"}


class Clipped(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x.relu())


def hooked():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model[0].register_forward_hook(lambda module, inputs, output: output.relu())
    return model


NOT_EXACT = {
    "points": (lambda: nn.Sequential(nn.Linear(9, 4), nn.BatchNorm1d(3)), (8, 3, 9), "channels are not those of 0"),
    "parts": (Parts, COLORED, "used more than once"),
    "class of its own": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), Clipped(4)), COLORED, "Clipped has a forward"),
    "hook": (hooked, COLORED, "0 has a hook"),
    "domains": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), ours.DomainBatchNorm2d(4)), COLORED, "no layer feeds it directly",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_EXACT)
def test_remove_bias_leaves_every_bias_whose_absence_would_be_seen(name):
    make, shape, reason = NOT_EXACT[name]
    model, x = make(), torch.randn(shape)
    biases = [path for path, _ in model.named_parameters() if path.endswith("bias")]
    model(x)
    expected = model.eval()(x)
    changes = remove_bias()(model)
    assert not changes
    assert all(reason in left for left in changes.left.values())
    assert [path for path, _ in model.named_parameters() if path.endswith("bias")] == biases
    assert torch.equal(model(x), expected)


def test_a_layer_that_waits_for_its_first_batch_is_left():
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.BatchNorm2d(4))
    for surgery in (remove_bias(), add_bias()):
        assert "waits for a first batch" in surgery(model).left["1"]
    model(torch.randn(COLORED))
    assert remove_bias()(model)


@pytest.mark.parametrize("training", [True, False])
def test_a_bias_before_a_frozen_norm_goes_into_its_mean_in_both_modes(training):
    model, x = build("residual")
    freeze("statistics")(model)
    expected = model.train(training)(x)
    assert len(remove_bias()(model).done) == 2
    assert_close(model(x), expected)


def test_an_undone_bias_comes_back_with_what_training_did_since():
    model, x = build("lenet")
    changes = remove_bias()(model)
    model.train()(x)
    expected = model.eval()(x)
    changes.undo()
    assert_close(model(x), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_add_bias_is_exact_and_undoes_remove_bias(name):
    model, x = build(name)
    remove_bias()(model)
    expected = model.eval()(x)
    changes = add_bias()(model)
    assert len(changes.done) == NETWORKS[name][2]
    assert_close(model(x), expected)
    assert all((model.get_submodule(path).bias == 0).all() for path in changes.done)


def test_links_follow_the_data_not_the_order_of_registration():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm_a, self.conv_b, self.norm_b, self.conv_a = (
                nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1),
            )  # fmt: skip

        def forward(self, x):
            return self.norm_b(self.conv_b(self.norm_a(self.conv_a(x))))

    assert fed_by(Crossed())[0] == {"norm_a": "conv_a", "norm_b": "conv_b"}


def test_keep_keeps():
    model = models.lenet()
    changes = keep((0, 2))(model)
    norms = {path for path, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}
    assert norms == {"norm1", "norm3"} == set(changes.left)
    assert set(changes.done) == {"norm2", "norm4"}
    model = models.lenet()
    keep(paths=("norm4",))(model)
    assert [path for path in ("norm1", "norm2", "norm3", "norm4") if hasattr(model.get_submodule(path), "eps")] == [
        "norm4"
    ]


def train_a_step(model, x):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.train()(x).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize(("part", "moves"), [("gamma", {"bias"}), ("beta", {"weight"}), ("affine", set())])
def test_frozen_parameters_stay(part, moves):
    model, x = build("lenet")
    before = copy.deepcopy(model.norm2.state_dict())
    freeze(part)(model)
    train_a_step(model, x)
    moved = {name for name in ("weight", "bias") if not torch.equal(before[name], getattr(model.norm2, name))}
    assert moved == moves
    assert not torch.equal(before["running_mean"], model.norm2.running_mean)


def test_frozen_averages_stay_while_training_uses_the_batch():
    model, x = build("lenet")
    before = copy.deepcopy(model.norm1.state_dict())
    twin = copy.deepcopy(model)
    freeze("averages")(model)
    assert torch.equal(model.train()(x), twin.train()(x))
    assert torch.equal(model.norm1.running_mean, before["running_mean"])
    assert not torch.equal(twin.norm1.running_mean, before["running_mean"])


@pytest.mark.parametrize("make", [models.lenet, lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))])
def test_frozen_statistics_normalize_in_training_and_survive_train(make):
    torch.manual_seed(0)
    model, x = make(), torch.randn(IMAGES)
    model(x)
    expected = copy.deepcopy(model).eval()(x)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)  # already built: goes on working
    before = {name: value.clone() for name, value in model.named_buffers()}
    assert freeze("statistics")(model)
    assert torch.equal(model.train()(x), expected)
    model(x).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model(x), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    copied = copy.deepcopy(model)
    assert torch.equal(copied.train()(x), model.eval()(x))


def test_freeze_leaves_what_keeps_no_statistics():
    model = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.BatchNorm2d(3, affine=False))
    assert set(freeze("statistics")(model).left) == {"0"}
    assert set(freeze("gamma")(model).left) == {"1.weight"}
    assert set(freeze("averages")(model).left) == {"0"}


def test_reorder_exchanges_neighbours_and_twice_is_once_undone():
    model, x = build("lenet")
    expected = model.eval()(x)
    changes = reorder("norm", "activation")(model)
    assert len(changes.done) == 4
    order = [type(module).__name__ for module in model]
    assert order[:4] == ["Conv2d", "Sigmoid", "BatchNorm2d", "AvgPool2d"]
    assert order[9:12] == ["Linear", "Sigmoid", "BatchNorm1d"]
    assert not torch.equal(model.eval()(x), expected)
    assert len(reorder("activation", "norm")(model).done) == 4
    assert torch.equal(model.eval()(x), expected)


def test_dropout_commutes_with_relu_and_not_with_sigmoid():
    x = torch.randn(64, 10)
    for activation, same in ((nn.ReLU(), True), (nn.Sigmoid(), False)):
        model = nn.Sequential(activation, nn.Dropout(0.5))
        torch.manual_seed(0)
        expected = model(x)
        assert reorder("activation", "dropout")(model)
        torch.manual_seed(0)
        assert torch.equal(model(x), expected) is same


def test_dropout_sets_every_probability_or_puts_layers_behind_linear_activations():
    model = models.lenet(dropout=0.5)
    assert dropout(0.2)(model).done.keys() == {"dropout3", "dropout4"}
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0.2}
    for plain in (models.lenet(), models.lenet(norms="none")):
        changes = dropout(0.4)(plain)
        assert changes.done.keys() == {"activation3", "activation4"}
        assert changes.left.keys() == {"activation1", "activation2"}
        assert [module.p for module in plain.modules() if isinstance(module, nn.Dropout)] == [0.4, 0.4]
        assert list(plain.state_dict()) == list(
            models.lenet(norms="none" if plain[1].__class__ is nn.Sigmoid else "all").state_dict()
        )
    bare = models.lenet()
    assert swap("batch", "none")(bare)
    assert len(dropout(0.4)(bare).done) == 2, "the identity that a norm left stands between"
    assert not dropout(0.0)(models.lenet())


@pytest.mark.parametrize("factor", [0.1, 4.0])
def test_stretched_weights_before_norms_give_the_same_function_and_the_steps_of_another_rate(factor):
    model = models.mlp((5,), 4, widths=[6, 3], seed=0).double()
    swap("batch", "batch", {"eps": 0.0})(model)
    x, y = torch.randn(9, 5, dtype=torch.float64), torch.randint(4, (9,))
    gradients, outputs = [], []
    for stretching in (None, stretch(factor)):
        changes = stretching(model) if stretching else None
        model.zero_grad()
        outputs.append(model(x))
        nn.functional.cross_entropy(outputs[-1], y).backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    assert changes.done.keys() == {f"linear{i}.{name}" for i in (1, 2) for name in ("weight", "bias")}
    assert_close(outputs[1], outputs[0])
    for name, gradient in gradients[0].items():
        rate = 1 / factor if name in ("linear1.weight", "linear2.weight") else 1
        assert_close(gradients[1][name], gradient * rate)


def test_scale_init_sets_the_deviation_of_weights_and_nothing_else():
    model = models.lenet()
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model.output.weight.fill_(1.0)
    changes = scale_init(0.01)(model)
    for path in ("conv1", "conv2", "linear3", "linear4"):
        weight = model.get_submodule(path).weight
        assert weight.std(correction=0).item() == pytest.approx(0.01)
        assert torch.equal(model.get_submodule(path).bias, before[f"{path}.bias"])
        assert_close(weight / weight.norm(), before[f"{path}.weight"] / before[f"{path}.weight"].norm())
    assert changes.left == {"output": "has constant weights"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: freeze("gama"), "did you mean gamma"),
        (lambda: dropout(1.0), r"in \[0, 1\)"),
        (lambda: dropout(float("nan")), r"in \[0, 1\)"),
        (lambda: scale_init(0), "above 0"),
        (lambda: stretch(-1.0), "a factor above 0, got -1.0"),
        (lambda: scale_init(float("inf")), "above 0"),
        (lambda: reorder("norm", "pool"), "kind of layer"),
        (lambda: keep((4,))(models.lenet()), "below 4"),
        (lambda: keep(paths=("norm9",))(models.lenet()), "there are norm1"),
        (lambda: keep()(nn.BatchNorm2d(3)), "the model itself"),
        (lambda: from_plain({"name": "freez"}), "did you mean freeze"),
        (lambda: from_plain({"name": "freeze", "parts": "gamma"}), "arguments of freeze"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(NormlabError, match=message):
        make()


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_frozen_batch_norm_is_evaluation_in_every_mode(dim):
    layer = ours.make_norm("frozen", 3, dim).double()
    with torch.no_grad():
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
    x = torch.randn(4, 3, *[5] * (dim if dim > 1 else 0), dtype=torch.float64, requires_grad=True)
    before = copy.deepcopy(layer.state_dict())
    assert torch.equal(layer.train()(x), layer.eval()(x))
    layer.train()(x).sum().backward()
    torch.testing.assert_close(layer.state_dict(), before, rtol=0, atol=0)
    theirs = getattr(nn, f"BatchNorm{dim}d")(3).double().eval()
    theirs.load_state_dict(layer.state_dict())
    assert_close(layer(x), theirs(x))
    with pytest.raises(NormlabError, match="running statistics"):
        type(layer)(3, track_running_stats=False)
