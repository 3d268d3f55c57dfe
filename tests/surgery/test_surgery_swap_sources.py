"""swap: every norm can be the one that is replaced; what takes its place normalizes what it normalized."""

from collections.abc import Callable

import pytest
import torch
from test_surgery_swap import assert_as_before, snapshot, used
from torch import Tensor, nn
from torch.nn import functional
from users_norms import Scale

from compare import assert_close
from normlab import nn as ours
from normlab.nn import make_norm, norm_names
from normlab.surgery import swap
from normlab.surgery.last_dimension import LastDimension

C = 6
SHAPES = {1: (8, C, 5), 2: (8, C, 3, 2), 3: (8, C, 2, 1, 3)}
NAMES = sorted({*norm_names()} - {"none"})
OVER_POSITIONS = {"instance", "filter-response"}


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3 + 5


def spread(norm: nn.Module) -> nn.Module:
    """`used`, with a gamma and a beta that differ from channel to channel."""
    norm = used(norm, torch.float64)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter *= torch.linspace(0.5, 2, len(parameter)).reshape(-1, *[1] * (parameter.dim() - 1))
    return norm


# --- the last dimension --------------------------------------------------------------------------------------------

TOKENS: dict[str, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {
    "layer": lambda x, gamma, beta, eps: functional.layer_norm(x, (C,), gamma, beta, eps),
    "rms": lambda x, gamma, beta, eps: functional.rms_norm(x, (C,), gamma, eps),
    "batch": lambda x, gamma, beta, eps: (
        (x - x.mean((0, 1))) / (x.var((0, 1), correction=0) + eps).sqrt() * gamma + beta
    ),
    "tanh": lambda x, gamma, beta, eps: torch.tanh(0.5 * x) * gamma + beta,
    "group": lambda x, gamma, beta, eps: (
        functional.group_norm(x.flatten(0, 1), 3, eps=eps).reshape(x.shape) * gamma + beta
    ),
    "none": lambda x, gamma, beta, eps: x,
}  # fmt: skip


@pytest.mark.parametrize("target", TOKENS)
@pytest.mark.parametrize("shape", [(4, 7, C), (28, 1, C)], ids=str)
def test_what_replaces_a_norm_of_tokens_normalizes_tokens(target: str, shape: tuple[int, ...]) -> None:
    norm, x = spread(nn.LayerNorm(C, eps=1e-2)), draw(*shape)
    model = nn.Sequential(norm)
    assert list(swap("layer", target)(model).done) == ["0"]
    assert_close(model(x), TOKENS[target](x, norm.weight, norm.bias, 1e-2), scale=10)


@pytest.mark.parametrize("source", ["layer", "rms"])
@pytest.mark.parametrize("target", NAMES)
def test_every_norm_takes_the_place_of_one_of_tokens(target: str, source: str) -> None:
    norm = spread(nn.LayerNorm(C) if source == "layer" else nn.RMSNorm(C))
    model = nn.Sequential(nn.Linear(C, C).double(), norm).eval()
    before = snapshot(model)
    changes = swap(source, target)(model)
    if target in OVER_POSITIONS:
        assert "is over positions" in changes.left["1"]
        assert_as_before(model, before)
        return
    assert isinstance(model[1], LastDimension)
    held = {name.rpartition(".")[2]: value for name, value in model[1].named_parameters()}
    assert torch.equal(held["weight"], norm.weight)
    assert not any(module.training for module in model.modules())
    y = model.train()(draw(4, 60, C))
    assert y.shape == (4, 60, C)
    assert y.isfinite().all()
    changes.undo()
    model.eval()
    assert_as_before(model, before)


def test_a_norm_that_stands_in_place_of_one_of_tokens_can_be_replaced_again() -> None:
    model, x = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ModuleDict({"norm": spread(nn.LayerNorm(C))})), draw(4, 7, C)
    expected = model[1]["norm"](x)
    swap("layer", "group")(model)
    swap("group", "layer")(model)
    assert_close(model[1]["norm"](x), expected, scale=10)


def test_the_native_path_of_an_encoder_does_not_pass_it_by() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).double()
    model, x = nn.Sequential(nn.TransformerEncoder(layer, 2)).eval(), torch.randn(3, 5, 8, dtype=torch.float64)
    with torch.no_grad():
        native = model(x)
        changes = swap("layer", "layer")(model)
        assert len(changes.done) == 4
        assert_close(model(x), native, scale=10)
        swap("layer", "none")(model)
        assert (model(x) - native).abs().max() > 0.1
        changes.undo()
        assert all(layer.activation_relu_or_gelu == 1 for layer in model[0].layers)


# --- channels first ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("source", sorted({*NAMES} - {"domain"}))
def test_every_norm_of_ours_can_be_replaced(source: str, dim: int) -> None:
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dim - 1]
    options = {} if source in ("sync",) else {"affine": True}
    model = nn.Sequential(conv(C, C, 1), spread(make_norm(source, C, dim, **options))).double()
    old = model[1]
    changes = swap(source, "layer")(model)
    assert list(changes.done) == ["1"]
    assert type(model[1]) is getattr(ours, f"LayerNorm{dim}d")
    assert torch.equal(model[1].weight, old.weight)
    assert model(draw(*SHAPES[dim])).isfinite().all()
    changes.undo()
    assert model[1] is old


# Source, target, options: the same function, by the laws.
SAME = {
    "a layer norm is one group": (lambda: ours.LayerNorm2d(C, eps=0.1), "layer", "group", {"num_groups": 1}),
    "one group is a layer norm": (lambda: nn.GroupNorm(1, C, eps=0.1), "group", "layer", {}),
    "an instance norm is C groups": (
        lambda: nn.InstanceNorm2d(C, eps=0.1, affine=True), "instance", "group", {"num_groups": C}
    ),
    "C groups are an instance norm": (lambda: nn.GroupNorm(C, C, eps=0.1), "group", "instance", {}),
    "without gamma too": (lambda: nn.GroupNorm(C, C, affine=False), "group", "instance", {}),
    "groups stay as many": (lambda: nn.GroupNorm(2, C, eps=0.1), "group", "group", {}),
    "over images": (lambda: nn.LayerNorm((C, 3, 2), eps=0.1, elementwise_affine=False), "layer", "layer", {}),
    "root mean squares over images": (lambda: nn.RMSNorm((C, 3, 2)), "rms", "rms", {}),
    "torch's synchronized": (lambda: nn.SyncBatchNorm(C).eval(), "sync", "batch", {}),
    "each domain begins with what there was": (lambda: nn.BatchNorm2d(C, eps=0.1).eval(), "batch", "domain", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_where_two_norms_are_the_same_the_swap_changes_nothing(name: str) -> None:
    make, source, target, options = SAME[name]
    norm = make().double()
    if "over images" not in name:
        norm = spread(norm)
    model, x = nn.Sequential(norm), draw(*SHAPES[2])
    expected = model(x)
    assert list(swap(source, target, options)(model).done) == ["0"]
    assert_close(model(x), expected, scale=10)


def test_gamma_of_each_position_is_carried_where_positions_agree() -> None:
    norm, x = nn.LayerNorm((C, 3, 2)).double(), draw(*SHAPES[2])
    with torch.no_grad():
        norm.weight *= torch.linspace(1, 2, C).reshape(C, 1, 1)
        norm.bias += torch.linspace(0, 1, C).reshape(C, 1, 1)
    model = nn.Sequential(norm)
    expected = model(x)
    swap("layer", "layer")(model)
    assert_close(model(x), expected, scale=10)


def test_what_a_root_mean_square_has_no_place_for_is_said() -> None:
    model = nn.Sequential(nn.LayerNorm(C))
    assert swap("layer", "rms")(model).done["0"].endswith(", without its bias")


def test_a_users_class_can_be_the_source() -> None:
    model = nn.Sequential(nn.Linear(3, C), Scale(C))
    model[1].num_features = C
    assert list(swap("users_norms:Scale", "batch")(model).done) == ["1"]
    assert type(model[1]) is ours.BatchNorm1d


@pytest.mark.parametrize("name", ["two dimensions", "domains", "dimensions unknown", "gamma by position"])
def test_an_identity_fits_everywhere(name: str) -> None:
    others, norm, source, *_ = LEFT[name]
    model = nn.Sequential(*others, norm)
    assert list(swap(source, "none")(model).done) == [str(len(others))]
    assert type(model[-1]) is nn.Identity


def test_statistics_of_another_shape_than_the_channels_are_carried() -> None:
    model = nn.Sequential(nn.Conv2d(C, C, 1), make_norm("zca", C, 2)).double()
    for _ in range(3):
        model(draw(*SHAPES[2]))
    old = model[1]
    swap("zca", "zca")(model)
    assert model[1] is not old
    assert any(value.dim() > 1 for value in old.buffers())
    torch.testing.assert_close(model[1].state_dict(), old.state_dict(), rtol=0, atol=0)


# --- what is left, and why -----------------------------------------------------------------------------------------


class LayerNorm2d(nn.LayerNorm):
    """Channels first, as others derive it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def position_dependent() -> nn.Module:
    norm = nn.LayerNorm((C, 3, 2))
    with torch.no_grad():
        norm.weight[0, 1, 1] = 7
    return norm


MLP, IMAGES, BOTH = (nn.Linear(C, C),), (nn.Conv2d(C, C, 1),), (nn.Conv1d(1, 1, 1), nn.Conv2d(1, 1, 1))
LEFT = {
    "derived": ((), LayerNorm2d(C), "layer", "batch", {}, "is a LayerNorm2d, whose forward is its own"),
    "two dimensions": ((), nn.LayerNorm((3, 2)), "layer", "batch", {}, "does not say which of the two are channels"),
    "dimensions unknown": (BOTH, nn.GroupNorm(2, C), "group", "batch", {}, "convolutions of several dimensions"),
    "gamma by position": (IMAGES, position_dependent(), "layer", "batch", {}, "differ from position to position"),
    "one channel": (MLP, nn.BatchNorm1d(1), "batch", "group", {}, "group normalization of one value gives beta"),
    "one token channel": (MLP, nn.LayerNorm(1), "layer", "layer", {}, "layer normalization of one value gives beta"),
    "groups of one value": (MLP, nn.BatchNorm1d(C), "batch", "group", {"num_groups": C}, "of one value gives beta"),
    "domains": (IMAGES, make_norm("domain", C, 2), "domain", "batch", {}, "holds norms of its own"),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_is_named_with_its_reason(name: str) -> None:
    others, norm, source, target, options, reason = LEFT[name]
    model = nn.Sequential(*others, norm)
    before = snapshot(model)
    changes = swap(source, target, options)(model)
    assert not changes.done
    assert list(changes.left) == [str(len(others))]
    assert reason in changes.left[str(len(others))]
    assert_as_before(model, before)


@pytest.mark.parametrize("source", sorted({*NAMES} - {"batch"}))
def test_a_name_means_no_other_norm(source: str) -> None:
    model = nn.Sequential(*(make_norm(name, C, 2) for name in NAMES if name != source), nn.Linear(C, C))
    changes = swap(source, "none")(model)
    assert not changes.done
    assert not changes.left
