"""recalibrate: against the plain population statistics, layer by layer; what it borrows goes back."""

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from compare import assert_close
from normlab.errors import NormlabError
from normlab.models import lenet
from normlab.nn import BatchNorm1d, BatchNorm2d, BatchNorm3d, PIT2d
from normlab.surgery import Changes, recalibrate
from normlab.surgery.find import batch_norms

CHANNELS = 3


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Far from mean 0 and variance 1."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 3 + 5


def population(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) of x (N, C, *spatial): the naive twin."""
    values = x.double().transpose(0, 1).flatten(1)
    return values.mean(1), values.var(1, correction=0)


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.named_buffers()}


def inputs_of(model: nn.Module, path: str, x: Tensor) -> list[Tensor]:
    """What evaluation feeds the module at `path`, at each of its uses."""
    seen: list[Tensor] = []
    hook = model.get_submodule(path).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.eval()
    with torch.no_grad():
        model(x)
    hook.remove()
    return seen


def deep(dtype: torch.dtype = torch.float64) -> nn.Module:
    """Three norms of two dimensions, ours and torch's, with dropout between them."""
    return nn.Sequential(
        nn.Conv2d(1, CHANNELS, 3), BatchNorm2d(CHANNELS), nn.Sigmoid(), nn.Dropout(0.5),
        nn.Conv2d(CHANNELS, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Dropout(0.5),
        nn.Linear(16, 5), BatchNorm1d(5, momentum=None), nn.Linear(5, 2),
    ).to(dtype)  # fmt: skip


@pytest.mark.parametrize("sizes", [[7], [4, 3], [3, 1, 3]])
@torch.no_grad()
def test_at_once_each_layer_sees_what_training_would_feed_it(sizes: list[int]) -> None:
    model = deep()
    batches = draw(sum(sizes), 1, 6, 6).split(sizes)
    before = statistics(model)
    passes = 0

    def every_batch() -> Iterator[Tensor]:
        nonlocal passes
        passes += 1
        return iter(batches)

    changes = recalibrate(model, every_batch, at_once=True)
    assert passes == 1
    after = statistics(model)
    seen: dict[str, list[Tensor]] = {path: [] for path in batch_norms(model)}
    for x in batches:  # the naive twin: the layers by hand, each normalized by the batch's own statistics
        for path, layer in model.named_children():
            if path in seen:
                seen[path].append(x)
                mean, var = population(x)
                x = nn.functional.batch_norm(x, mean, var, layer.weight, layer.bias, eps=layer.eps)
            elif not isinstance(layer, nn.Dropout):
                x = layer(x)
    for path, inputs in seen.items():
        mean, var = population(torch.cat(inputs))
        assert_close(after[f"{path}.running_mean"], mean.detach(), what=path)
        assert_close(after[f"{path}.running_var"], var.detach(), what=path)
        assert after[f"{path}.num_batches_tracked"] == 0
    changes.undo()
    assert all(torch.equal(value, before[name]) for name, value in statistics(model).items())


# --- the statistics ------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=5), st.sampled_from([(), (4,), (2, 3), (2, 1, 3)]),
    st.integers(0, 99), st.booleans(), st.sampled_from([0.0, 1e4]),
)  # fmt: skip
def test_unequal_batches_give_the_populations_statistics(
    sizes: list[int], spatial: tuple[int, ...], seed: int, own: bool, mean: float
) -> None:
    layers = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    ours = (BatchNorm1d, BatchNorm1d, BatchNorm2d, BatchNorm3d)
    model = nn.Sequential((ours if own else layers)[len(spatial)](CHANNELS, dtype=torch.float64))
    x = draw(sum(sizes), CHANNELS, *spatial, seed=seed) + mean
    changes = recalibrate(model, lambda: x.split(sizes))
    assert changes.done == {"0": "running statistics recomputed"}
    assert changes.left == {}
    expected_mean, expected_var = population(x)
    torch.testing.assert_close(model[0].running_mean, expected_mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model[0].running_var, expected_var, rtol=1e-10, atol=1e-10)


def test_a_large_mean_in_float32_does_not_cancel() -> None:
    model = nn.Sequential(BatchNorm1d(CHANNELS))
    x = draw(1000, CHANNELS, dtype=torch.float32) + 1e4
    recalibrate(model, lambda: x.split(170))
    assert_close(model[0].running_var, population(x)[1], scale=10)


@pytest.mark.parametrize("sizes", [[12], [5, 7], [1, 2, 9], [4, 4, 4]], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_each_layer_sees_what_evaluation_will_feed_it(sizes: list[int], training: bool) -> None:
    model = deep().train(training)
    x = draw(12, 1, 6, 6)
    assert list(recalibrate(model, lambda: x.split(sizes)).done) == ["1", "5", "10"]
    for path, norm in batch_norms(model).items():
        mean, var = population(inputs_of(model, path, x)[0])
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-10, atol=1e-10, msg=path)
        torch.testing.assert_close(norm.running_var, var, rtol=1e-10, atol=1e-10, msg=path)


def test_evaluation_then_equals_one_batch_of_all() -> None:
    """Without dropout the recomputed statistics of the whole are those that training on it in one batch uses."""
    model = lenet(seed=0).double()
    x = draw(40, 1, 28, 28)
    recalibrate(model, lambda: x.split(7))
    with torch.no_grad():
        evaluated = model.eval()(x)
        assert_close(evaluated, model.train()(x), scale=100)


class Reused(nn.Module):
    """One norm, used twice in a pass."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = BatchNorm1d(CHANNELS, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x[:, :CHANNELS]) + self.norm(x[:, CHANNELS:])


def test_a_norm_used_twice_has_the_statistics_of_both_uses() -> None:
    model, x = Reused(), draw(11, 2 * CHANNELS) * torch.arange(1, 2 * CHANNELS + 1)
    recalibrate(model, lambda: x.split(4))
    mean, var = population(torch.cat([x[:, :CHANNELS], x[:, CHANNELS:]]))
    torch.testing.assert_close(model.norm.running_mean, mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model.norm.running_var, var, rtol=1e-10, atol=1e-10)


class Masked(nn.Module):
    """A norm that gets a mask: the elements that are 0."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.norm = BatchNorm1d(CHANNELS, dtype=torch.float64)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        mask = x[:, 0] != 0
        calls: dict[str, Callable[[], Tensor]] = {
            "by position": lambda: self.norm(x, mask),
            "by keyword": lambda: self.norm(x, mask=mask),
            "both by keyword": lambda: self.norm(input=x, mask=mask),
        }
        return calls[self.how]()


@pytest.mark.parametrize("how", ["by position", "by keyword", "both by keyword"])
def test_masked_elements_enter_no_statistic(how: str) -> None:
    x = draw(8, CHANNELS, 6)
    x[:5, :, 4:] = 0
    x[0] = 0
    model = Masked(how)
    recalibrate(model, lambda: x.split(3))
    kept = x.transpose(0, 1).flatten(1)
    kept = kept[:, kept[0] != 0]
    assert kept.shape[1] == 4 * 4 + 3 * 6
    torch.testing.assert_close(model.norm.running_mean, kept.mean(1), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model.norm.running_var, kept.var(1, correction=0), rtol=1e-10, atol=1e-10)


def test_where_all_is_masked_the_statistics_stay() -> None:
    model = Masked("by position")
    changes = recalibrate(model, lambda: torch.zeros(8, CHANNELS, 6, dtype=torch.float64).split(3))
    assert changes.left == {"norm": "its inputs give no finite statistics"}
    assert torch.equal(model.norm.running_var, torch.ones(CHANNELS, dtype=torch.float64))


# --- what is left, and why -----------------------------------------------------------------------------------------


class Several(nn.Module):
    """Norms that recalibrate has reasons to leave, and one that it has not."""

    def __init__(self) -> None:
        super().__init__()
        self.never = nn.BatchNorm1d(CHANNELS)
        self.untracked = nn.BatchNorm1d(CHANNELS, track_running_stats=False)
        self.frozen = nn.BatchNorm1d(CHANNELS).eval()
        self.broken = nn.BatchNorm1d(CHANNELS)
        self.plain = nn.BatchNorm1d(CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(self.untracked(x)) + self.frozen(x) + self.broken(x / 0).nan_to_num()


def test_what_is_left_is_named_with_its_reason() -> None:
    model = Several()
    before = statistics(model)
    changes = recalibrate(model, lambda: draw(8, CHANNELS, dtype=torch.float32).split(3))
    assert list(changes.done) == ["plain"]
    assert changes.left == {
        "never": "no input reached it",
        "untracked": "keeps no running statistics",
        "frozen": "is frozen: in evaluation mode while the model is in train mode",
        "broken": "its inputs give no finite statistics",
    }
    moved = {name for name, value in statistics(model).items() if not torch.equal(value, before[name])}
    assert moved == {"plain.running_mean", "plain.running_var"}


@pytest.mark.parametrize("norm", [PIT2d(4), nn.InstanceNorm2d(4, track_running_stats=True)])
def test_statistics_of_another_kind_are_left(norm: nn.Module) -> None:
    model = nn.Sequential(BatchNorm2d(4), norm)
    changes = recalibrate(model, [draw(8, 4, 3, 3, dtype=torch.float32)])
    assert list(changes.done) == ["0"]
    assert changes.left == {"1": "keeps statistics that are not batch norm's: they stay as training left them"}


def test_in_a_model_in_evaluation_mode_no_norm_counts_as_frozen() -> None:
    assert "frozen" in recalibrate(Several().eval(), lambda: draw(8, CHANNELS, dtype=torch.float32).split(3)).done


def test_a_model_without_norms_is_not_even_run() -> None:
    assert not recalibrate(nn.Linear(3, 3), lambda: pytest.fail("asked for batches"))


def test_no_batch_at_all() -> None:
    used_up = iter([draw(4, 1, 6, 6)])
    model = deep()
    before = statistics(model)
    with pytest.raises(NormlabError, match="a batch at least, to recompute statistics over, got none"):
        recalibrate(model, list)
    next(used_up)
    with pytest.raises(NormlabError, match="let each call begin anew"):
        recalibrate(model, lambda: used_up)
    assert all(torch.equal(value, before[name]) for name, value in statistics(model).items())


# --- what is borrowed ----------------------------------------------------------------------------------------------


def assert_nothing_else_moved(
    model: nn.Module, changes: Changes, before: dict[str, Tensor], modes: list[bool]
) -> None:
    assert [module.training for module in model.modules()] == modes
    for name, value in model.named_buffers():
        path, _, kept = name.rpartition(".")
        if kept == "num_batches_tracked":
            counts_anew = path in changes.done and batch_norms(model)[path].momentum is not None
            assert value == (0 if counts_anew else before[name])
        elif "running" not in name:
            assert torch.equal(value, before[name]), name
    for module in model.modules():
        assert not module._forward_pre_hooks
        assert not module._forward_hooks
    assert all(parameter.grad is None for parameter in model.parameters())


@settings(deadline=None, max_examples=10)
@given(st.lists(st.booleans(), min_size=13, max_size=13))
def test_modes_counts_and_generator_go_back_and_undo_gives_the_statistics_back(modes: list[bool]) -> None:
    model = deep()
    model(draw(4, 1, 6, 6, seed=3))
    for module, training in zip(model.modules(), modes, strict=True):
        module.training = training
    parameters = [parameter.detach().clone() for parameter in model.parameters()]
    before, generator = statistics(model), torch.get_rng_state()
    changes = recalibrate(model, lambda: draw(12, 1, 6, 6).split(5))
    assert len(changes.done) + len(changes.left) == 3
    assert torch.equal(torch.get_rng_state(), generator)
    assert_nothing_else_moved(model, changes, before, modes)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), parameters, strict=True))
    changes.undo()
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


@pytest.mark.parametrize("good", range(8))
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_in_the_middle_leaves_the_model_as_before(good: int, error: type[BaseException]) -> None:
    """Three batches, four times: the error comes after any number of good ones, in the data or in the model."""
    model = deep()
    before, modes = statistics(model), [module.training for module in model.modules()]
    left = itertools.count()

    def batches() -> Iterator[Tensor]:
        for x in draw(12, 1, 6, 6).split(4):
            if next(left) == good:
                raise error
            yield x

    with pytest.raises(error):
        recalibrate(model, batches)
    assert_nothing_else_moved(model, Changes(), before, modes)
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_an_error_of_the_model_gets_out() -> None:
    model = deep()
    before = statistics(model)
    with pytest.raises(RuntimeError, match="channels"):
        recalibrate(model, lambda: iter([draw(4, 1, 6, 6), draw(4, 2, 6, 6)]))
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


class Cautious(nn.Module):
    """Catches what its parts raise, as users' models do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = deep()

    def forward(self, x: Tensor) -> Tensor:
        try:
            return self.inner(x)
        except Exception as error:
            raise ValueError("something went wrong inside") from error


def test_a_model_that_catches_every_exception() -> None:
    model, twin = Cautious(), deep()
    twin.load_state_dict(model.inner.state_dict())
    x = draw(12, 1, 6, 6)
    assert len(recalibrate(model, lambda: x.split(5)).done) == 3
    recalibrate(twin, lambda: x.split(5))
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), twin.buffers(), strict=True))


def test_a_loader_that_shuffles_draws_the_same_for_every_layer() -> None:
    x = draw(12, 1, 6, 6)
    loader = DataLoader(TensorDataset(x), batch_size=5, shuffle=True, drop_last=True)
    seen: list[Tensor] = []

    def batches() -> Iterator[Tensor]:
        for (batch,) in loader:
            seen.append(batch)
            yield batch

    model, generator = deep(), torch.get_rng_state()
    recalibrate(model, batches)
    first, *rest = seen
    passes = [rest[index : index + 2] for index in range(0, 6, 2)]
    assert len(rest) == 6
    assert all(torch.equal(each[0], first) and torch.equal(each[1], passes[0][1]) for each in passes)
    assert torch.equal(torch.get_rng_state(), generator)


def test_it_does_not_follow_the_model_into_later_layers() -> None:
    """One forward pass for every norm and batch, cut short behind the norm."""
    model, calls = deep(), []
    for path in ("0", "4", "9", "11"):
        model.get_submodule(path).register_forward_pre_hook(lambda *_, path=path: calls.append(path))
    recalibrate(model, lambda: draw(12, 1, 6, 6).split(6))
    first, rest = calls[:4], calls[4:]
    assert first == ["0", "4", "9", "11"]
    assert [rest.count(path) for path in first] == [6, 4, 2, 0]
