"""swap: what it carries over, what it leaves alone, and the way back."""

import copy
import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from users_norms import Scale

from compare import assert_close
from normlab import surgery
from normlab.errors import NormlabError
from normlab.models import lenet, mlp
from normlab.nn import BatchNorm1d, BatchNorm2d, BatchNorm3d, norm_names
from normlab.surgery import swap

OURS = {1: BatchNorm1d, 2: BatchNorm2d, 3: BatchNorm3d}
TORCHS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INPUTS = {1: (6, 5), 2: (6, 5, 2, 3), 3: (6, 5, 2, 3, 2)}


def used(norm: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A norm that has seen training: no number in it is a default."""
    norm = norm.to(dtype)
    with torch.no_grad():
        for value in (*norm.parameters(), *norm.buffers()):
            value.copy_(torch.rand(value.shape, generator=torch.Generator().manual_seed(value.numel())) * 9 + 2)
    return norm


def snapshot(model: nn.Module) -> tuple:
    """Everything of a model that a surgery that failed, or was undone, must leave."""
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    return list(model.named_modules()), [module.training for module in model.modules()], tensors


def assert_as_before(model: nn.Module, before: tuple) -> None:
    modules, modes, tensors = before
    now = list(model.named_modules())
    assert len(now) == len(modules)
    assert all(path == its and module is same for (path, module), (its, same) in zip(now, modules, strict=True))
    assert [module.training for module in model.modules()] == modes
    state = model.state_dict()
    assert list(state) == list(tensors)
    assert all(torch.equal(state[name], value) for name, value in tensors.items())


# --- what is changed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "count"), [(lenet, 4), (mlp, 3)])
def test_without_norms_a_network_is_the_plain_one(model, count: int) -> None:
    swapped, plain = model(seed=3), model(seed=3, norms="none")
    changes = swap("batch", "none")(swapped)
    assert changes
    assert list(changes.done) == [f"norm{index}" for index in range(1, count + 1)]
    assert all("BatchNorm" in done and done.endswith("-> Identity()") for done in changes.done.values())
    assert changes.left == {}
    x = torch.randn(3, 1, 28, 28)
    assert torch.equal(swapped(x), plain(x))
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in swapped.modules())


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([1, 2, 3]), st.booleans(), st.booleans(), st.booleans(), st.sampled_from([None, 0.3]),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]), st.booleans(), st.booleans(),
)  # fmt: skip
def test_ours_in_torchs_place_computes_stores_and_trains_the_same(
    dim: int,
    affine: bool,
    tracks: bool,
    training: bool,
    momentum: float | None,
    dtype: torch.dtype,
    gamma: bool,
    beta: bool,
) -> None:
    norm = used(TORCHS[dim](5, 1e-2, momentum, affine, tracks), dtype).train(training)
    if affine:
        norm.weight.requires_grad_(gamma)
        norm.bias.requires_grad_(beta)
    model = nn.Sequential(norm)
    twin = copy.deepcopy(model)
    changes = swap("batch", "batch")(model)
    assert list(changes.done) == ["0"]
    new = model[0]
    assert type(new) is OURS[dim]
    assert new.training == training
    settings_of = ("eps", "momentum", "affine", "track_running_stats", "num_features")
    assert [getattr(new, name) for name in settings_of] == [getattr(norm, name) for name in settings_of]
    for (name, value), (its_name, its) in zip(new.state_dict().items(), norm.state_dict().items(), strict=True):
        assert name == its_name
        assert value.dtype == its.dtype
        assert torch.equal(value, its)
        assert value.data_ptr() != its.data_ptr(), "a copy: undo gives the old layer back as it was"
    assert [p.requires_grad for p in new.parameters()] == [p.requires_grad for p in norm.parameters()]
    x = torch.randn(INPUTS[dim], generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    assert_close(model(x), twin(x))
    for name, value in twin.named_buffers():
        assert_close(model.get_buffer(name), value, what=name)


def test_statistics_of_another_precision_than_the_parameters_keep_it() -> None:
    norm = used(nn.BatchNorm1d(5), torch.bfloat16)
    norm.running_mean, norm.running_var = torch.rand(5), torch.rand(5)
    model = nn.Sequential(norm)
    swap("batch", "batch")(model)
    assert model[0].weight.dtype == torch.bfloat16
    assert model[0].running_var.dtype == torch.float32
    assert torch.equal(model[0].running_var, norm.running_var)


def test_options_say_otherwise() -> None:
    model = nn.Sequential(nn.BatchNorm1d(5, eps=0.1, momentum=0.2))
    swap("batch", "batch", {"eps": 0.5, "affine": False})(model)
    assert (model[0].eps, model[0].momentum, model[0].weight) == (0.5, 0.2, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_users_layer_gets_what_both_hold(dim: int, training: bool, dtype: torch.dtype) -> None:
    norm = used(TORCHS[dim](5), dtype).train(training)
    norm.bias.requires_grad_(False)
    model = nn.Sequential(norm)
    swap("batch", "users_norms:Scale", {"power": 2.0})(model)
    new = model[0]
    assert isinstance(new, Scale)
    assert (new.dim, new.power, new.training) == (dim, 2.0, training)
    for name in ("weight", "bias", "running_mean"):
        assert torch.equal(getattr(new, name), getattr(norm, name)), name
    assert torch.equal(new.own, torch.full((5,), 0.5, dtype=dtype))
    assert torch.equal(new.running_var, torch.ones(1, dtype=dtype)), "another shape is its own"
    assert [new.weight.requires_grad, new.bias.requires_grad, new.own.requires_grad] == [True, False, True]
    assert {value.dtype for value in (*new.parameters(), *new.buffers())} == {dtype}
    assert all(isinstance(value, nn.Parameter) for value in (new.weight, new.bias, new.own))


def test_counts_that_no_state_dict_holds_are_carried() -> None:
    model = nn.Sequential(BatchNorm1d(2))
    model(torch.full((3, 2), torch.inf))
    swap("batch", "batch")(model)
    assert int(model[0].nonfinite_batches) == 1


def test_synchronized_norms_and_nested_ones() -> None:
    model = nn.Sequential(
        nn.SyncBatchNorm(3), nn.ModuleDict({"a": nn.Sequential(nn.BatchNorm3d(3))}), nn.LayerNorm(3)
    )
    assert list(swap("batch", "batch")(model).done) == ["0", "1.a.0"]
    assert [type(model[0]), type(model[1]["a"][0]), type(model[2])] == [BatchNorm2d, BatchNorm3d, nn.LayerNorm]


def test_instance_and_other_norms_are_left() -> None:
    model = nn.Sequential(nn.InstanceNorm2d(3, affine=True), nn.GroupNorm(1, 3))
    before = snapshot(model)
    changes = swap("batch", "none")(model)
    assert not changes
    assert changes.done == {}
    assert_as_before(model, before)


class Twice(nn.Module):
    """One norm under two names of one parent and one of another."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm1d(3)
        self.second = self.first
        self.inner = nn.Sequential(nn.Linear(3, 3), self.first)


def test_a_shared_norm_is_replaced_by_one_shared_norm() -> None:
    model = Twice()
    before = snapshot(model)
    changes = swap("batch", "batch")(model)
    assert list(changes.done) == ["first"]
    assert type(model.first) is BatchNorm1d
    assert model.first is model.second is model.inner[1]
    changes.undo()
    assert_as_before(model, before)
    assert model.first is model.second is model.inner[1]


def test_the_order_of_a_models_parts_stays() -> None:
    model = lenet(seed=0)
    names = [name for name, _ in model.named_children()]
    swap("batch", "users_norms:Scale")(model)
    assert [name for name, _ in model.named_children()] == names


# --- the way back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["none", "batch", "users_norms:Scale"])
def test_undo_gives_the_very_same_modules_back(target: str) -> None:
    model = lenet(seed=0)
    model(torch.randn(4, 1, 28, 28))
    model.norm2.eval()
    before = snapshot(model)
    changes = swap("batch", target)(model)
    assert len(changes.done) == 4
    model(torch.randn(4, 1, 28, 28))
    changes.undo()
    assert_as_before(model, before)
    changes.undo()
    assert_as_before(model, before)


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("users_norms:Wide", {}, r"users_norms:Wide\(16\) to make a layer, got ValueError: too wide"),
        ("users_norms:no_layer", {}, "users_norms:no_layer to make an nn.Module, got a int"),
        ("users_norms:Scale", {"powr": 2}, "got TypeError: .*'powr'"),
        ("batch", {"eps": -1.0}, "eps >= 0, got -1.0"),
        ("batch", {"size": 3}, "to make a layer, got TypeError"),
    ],
)
def test_an_error_in_the_middle_leaves_the_model(target: str, options: dict, message: str) -> None:
    model = lenet(seed=0)
    before = snapshot(model)
    with pytest.raises(NormlabError, match=message):
        swap("batch", target, options)(model)
    assert_as_before(model, before)


def test_the_root_is_refused() -> None:
    norm = nn.BatchNorm1d(3)
    with pytest.raises(NormlabError, match=r"a norm inside a model, got .* a BatchNorm1d; wrap it: nn.Sequential"):
        swap("batch", "none")(norm)


def test_a_lazy_norm_is_refused_until_it_has_a_width() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.LazyBatchNorm1d())
    modules = dict(model.named_modules())
    with pytest.raises(NormlabError, match="norms of a known width, got a LazyBatchNorm1d at 2; run a batch through"):
        swap("batch", "batch")(model)
    assert dict(model.named_modules()) == modules
    model(torch.randn(4, 3))
    assert list(swap("batch", "batch")(model).done) == ["1", "2"]


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"name": "swop", "source": "batch", "target": "none"}, r"a known surgery, got 'swop'; did you mean swap\?"),
        ({"source": "batch", "target": "none"}, "a known surgery, got None"),
        ({"name": "swap", "source": "none", "target": "batch"}, "a norm to be swapped, got 'none'"),
        ({"name": "swap", "source": "bach", "target": "none"}, r"a known normalization, got 'bach'"),
        (
            {"name": "swap", "source": "batch", "target": "bach"},
            r"a known normalization, got 'bach'; did you mean batch\?",
        ),
        ({"name": "swap", "source": "batch", "target": "users_norms:Scal"}, r"did you mean Scale\?"),
        ({"name": "swap", "source": "batch", "target": 3}, "the arguments of swap"),
        ({"name": "swap", "source": "batch"}, "the arguments of swap, got .*'target'"),
        ({"name": "swap", "source": "batch", "target": "none", "to": 1}, "the arguments of swap, got .*'to'"),
    ],
)
def test_plain_data_that_is_no_surgery(plain: dict, message: str) -> None:
    with pytest.raises(NormlabError, match=message):
        surgery.from_plain(plain)


def test_a_surgery_survives_as_plain_data() -> None:
    asked = swap("batch", "users_norms:Scale", {"power": 3.0})
    plain = {"name": "swap", **dataclasses.asdict(asked)}
    assert surgery.from_plain(plain) == asked
    assert plain["name"] == "swap", "what was handed over stays"


@pytest.mark.parametrize("target", sorted(set(norm_names()) - {"none"}))
def test_every_norm_takes_the_place_of_a_batch_norm(target: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 5, 3), used(nn.BatchNorm2d(5, eps=0.1, momentum=0.3)))
    old = model[1]
    changes = swap("batch", target)(model)
    assert list(changes.done) == ["1"]
    held = dict(model[1].named_parameters()) | dict(model[1].named_buffers())
    for name, value in old.state_dict().items():
        assert name not in held or torch.equal(held[name], value)
    if isinstance(model[1], nn.BatchNorm2d):
        assert (model[1].eps, model[1].momentum) == (0.1, 0.3)
    assert model(torch.randn(3, 1, 6, 6)).isfinite().all()
    changes.undo()
    assert model[1] is old
