"""freeze and unfreeze: of every kind of norm, and whoever froze it."""

import copy

import pytest
import torch
from torch import Tensor, nn

from normlab.errors import NormlabError
from normlab.nn import BatchNorm2d, make_norm, norm_names
from normlab.surgery import adapt, checkpoint_safe, freeze, from_plain, to_plain, unfreeze

CHANNELS = 4
SHAPES = {1: (6, CHANNELS), 2: (6, CHANNELS, 3, 2), 3: (6, CHANNELS, 2, 1, 2)}


class Activated(nn.BatchNorm2d):
    """As others derive from it: a forward of its own."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu()


def keeping() -> list[nn.Module]:
    """Every norm with running statistics, of every dimension."""
    made = [make_norm(name, CHANNELS, dim) for name in norm_names() if name != "domain" for dim in (1, 2, 3)]
    theirs = [getattr(nn, f"{kind}Norm{dim}d") for kind in ("Batch", "Instance") for dim in (1, 2, 3)]
    made += [
        kind(CHANNELS, affine=True, track_running_stats=True) for kind in theirs if kind is not nn.InstanceNorm1d
    ]
    made += [Activated(CHANNELS), nn.SyncBatchNorm(CHANNELS)]
    return [norm for norm in made if getattr(norm, "track_running_stats", False)]


def trained(norm: nn.Module) -> tuple[nn.Sequential, Tensor]:
    """In float64, two batches on, and the next batch."""
    digit = type(norm).__name__[-2]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SHAPES[int(digit) if digit in "123" else 2], generator=generator, dtype=torch.float64)
    model = nn.Sequential(norm).double()
    if not isinstance(norm, nn.SyncBatchNorm):  # which trains on no CPU
        model(x + 1), model(3 * x)
    return model, x


@pytest.mark.parametrize(
    "norm", keeping(), ids=lambda norm: type(norm).__module__.split(".")[0] + type(norm).__name__
)
def test_frozen_statistics_make_training_what_evaluation_is(norm: nn.Module) -> None:
    model, x = trained(copy.deepcopy(norm))
    kind, already = type(model[0]), "Frozen" in type(model[0]).__name__
    expected, before = model.eval()(x), copy.deepcopy(model.state_dict())
    changes = freeze("statistics", "all")(model)
    assert list(changes.left if already else changes.done) == ["0"]
    assert torch.equal(model.train()(x), expected)
    assert model[0].training
    model(x).square().sum().backward()
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert freeze("statistics", "all")(model).left == {"0": "uses running statistics in training already"}
    thawed = unfreeze("statistics", "all")(model)
    assert list(thawed.done) == ["0"]
    assert type(model[0]) is (kind if not already else type(make_norm("batch", CHANNELS, int(kind.__name__[-2]))))
    thawed.undo()
    assert torch.equal(model(x), expected)
    changes.undo()
    assert type(model[0]) is kind


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNorm2d])
def test_unfrozen_training_is_training(kind: type[nn.Module]) -> None:
    model, x = trained(kind(CHANNELS))
    twin = copy.deepcopy(model)
    freeze("statistics")(model)
    freeze("averages")(model)
    freeze("affine")(model)
    for part in ("statistics", "averages", "affine"):
        assert unfreeze(part)(model)
        assert not unfreeze(part)(model)
    assert torch.equal(model(x), twin(x))
    torch.testing.assert_close(model.state_dict(), twin.state_dict(), rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_unfreeze_knows_what_others_do() -> None:
    model = nn.Sequential(*(nn.BatchNorm2d(CHANNELS) for _ in range(4)), nn.GroupNorm(2, CHANNELS))
    model[0].requires_grad_(False)
    model[1].momentum = 0
    model[2].eval()
    model[4].requires_grad_(False)
    before = [copy.deepcopy({**vars(module), "_parameters": None, "_buffers": None}) for module in model]
    changes = [unfreeze("affine")(model), unfreeze("averages", momentum=None)(model), unfreeze("statistics")(model)]
    assert [each.done for each in changes] == [
        {"0.weight": "takes a gradient", "0.bias": "takes a gradient"},
        {"1": "momentum 0 -> None"},
        {"2": "uses the batch in training"},
    ]
    assert model[1].momentum is None
    assert model[2].training
    assert not model[4].weight.requires_grad
    assert list(unfreeze("gamma", "all")(model).done) == ["4.weight"]
    for each in reversed(changes):
        each.undo()
    assert [{**vars(module), "_parameters": None, "_buffers": None} for module in model] == before
    assert not model[0].weight.requires_grad


def test_a_second_time_there_is_nothing_to_freeze() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3))
    for part, paths in (("affine", ["0.weight", "0.bias"]), ("averages", ["0"]), ("statistics", ["0"])):
        assert list(freeze(part)(model).done) == paths
        again = freeze(part)(model)
        assert not again.done
        assert list(again.left) == paths


def test_norms_of_one_example_have_no_statistics_to_thaw() -> None:
    model = nn.Sequential(nn.LayerNorm(3).eval(), nn.BatchNorm1d(3, track_running_stats=False).eval())
    assert not unfreeze("statistics", "all")(model)


def test_in_a_model_in_evaluation_mode_no_norm_is_put_into_training() -> None:
    assert not unfreeze("statistics")(nn.Sequential(nn.BatchNorm1d(3)).eval())


def test_norms_of_one_example_keep_their_gamma_and_beta_too() -> None:
    model = nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 3), nn.RMSNorm(3), make_norm("layer", 3, 1))
    assert not freeze("affine")(model)
    changes = freeze("affine", "all")(model)
    assert list(changes.done) == ["0.weight", "0.bias", "2.weight", "3.weight", "3.bias"]
    assert changes.left == {"2.bias": "there is none"}
    assert [name for name, value in model.named_parameters() if value.requires_grad] == ["1.weight", "1.bias"]
    assert set(freeze("averages", "all")(model).left.values()) == {"keeps no running statistics"}


def test_lazy_norms_can_be_frozen_but_for_statistics_that_they_do_not_have() -> None:
    model = nn.Sequential(nn.LazyBatchNorm1d())
    assert freeze("statistics")(model).left == {"0": "is lazy and has not seen its first batch: run one through"}
    freeze("affine")(model)
    freeze("averages")(model)
    model(torch.randn(5, 3))
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(model[0].running_mean, torch.zeros(3))
    assert freeze("statistics")(model)


def test_over_adapted_and_checkpointed_norms() -> None:
    model, x = trained(nn.BatchNorm2d(CHANNELS))
    first, second = adapt()(model), checkpoint_safe()(model)
    expected = model.eval()(x)
    frozen = freeze("statistics")(model)
    assert torch.equal(model.train()(x), expected)
    for each in (first, frozen, second):
        each.undo()
    assert type(model[0]) is nn.BatchNorm2d


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: unfreeze("gama"), "did you mean gamma"),
        (lambda: unfreeze("gamma", "al"), "did you mean all"),
        (lambda: freeze("gamma", "layer"), "selection of norms"),
        (lambda: unfreeze("averages", momentum=2), r"momentum in \[0, 1\]"),
    ],
)
def test_mistakes_are_named(make, message: str) -> None:
    with pytest.raises(NormlabError, match=message):
        make()


def test_it_survives_as_plain_data() -> None:
    asked = unfreeze("averages", "all", 0.3)
    assert from_plain(to_plain(asked)) == asked
