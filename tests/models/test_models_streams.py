"""Streams keyed by (seed, path, step, use): one layer more or less shifts no draw of another."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from normlab.models import DropoutStreams, borrowed, generator, key, seed_everything_else

CPU = torch.device("cpu")
WIDTH = 256


def dropouts(*names: str) -> nn.ModuleDict:
    """Layers by name: dropout what begins with drop, else a norm."""
    layers = {name: nn.Dropout(0.5) if name.startswith("drop") else nn.BatchNorm1d(WIDTH) for name in names}
    return nn.ModuleDict(layers)


def masks(model: nn.ModuleDict, *step: int, seed: int = 0) -> dict[str, Tensor]:
    """Path to the mask that each dropout draws, in the order of the layers."""
    with DropoutStreams(model, seed, CPU) as streams:
        streams.at(*step)
        drawn = {name: layer(torch.ones(2, WIDTH)) != 0 for name, layer in model.items()}
    return {name: mask for name, mask in drawn.items() if name.startswith("drop")}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[bool]:
    return [torch.equal(one[name], other[name]) for name in one.keys() & other.keys()]


@pytest.mark.parametrize(
    "fewer", [("drop1", "drop2"), ("drop2", "drop3"), ("drop3",), ("norm", "drop1", "drop3"), ("drop3", "drop1")]
)
def test_one_layer_more_or_less_leaves_the_masks_of_the_others(fewer: tuple[str, ...]) -> None:
    whole = masks(dropouts("drop1", "norm", "drop2", "drop3"), 3, 4)
    assert all(same(whole, masks(dropouts(*fewer), 3, 4)))


def test_each_seed_step_and_path_has_a_mask_of_its_own() -> None:
    model = dropouts("drop1", "drop2")
    drawn = [
        mask
        for seed in (0, 1)
        for step in ((0, 0), (0, 1), (1, 0))
        for mask in masks(model, *step, seed=seed).values()
    ]
    assert len({tuple(mask.flatten().tolist()) for mask in drawn}) == len(drawn) == 12
    share = torch.stack(drawn).double().mean().item()
    assert abs(share - 0.5) < 0.03


def test_the_ambient_generator_does_not_enter_the_masks() -> None:
    model = dropouts("drop1", "drop2")
    torch.manual_seed(1)
    first = masks(model, 0, 0)
    torch.manual_seed(2)
    assert all(same(first, masks(model, 0, 0)))


def test_a_dropout_used_twice_draws_twice_and_the_same_in_every_step_of_that_name() -> None:
    layer = nn.Dropout(0.5)
    model = nn.ModuleDict({"once": layer, "again": layer})
    with DropoutStreams(model, 0, CPU) as streams:
        streams.at(0, 0)
        first, second = layer(torch.ones(WIDTH)), layer(torch.ones(WIDTH))
        streams.at(0, 1)
        layer(torch.ones(WIDTH))
        streams.at(0, 0)
        assert torch.equal(layer(torch.ones(WIDTH)), first)
        assert torch.equal(layer(torch.ones(WIDTH)), second)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("names", [(), ("drop1",), ("drop1", "norm", "drop2")])
def test_what_else_is_random_draws_as_if_there_were_no_dropout(names: tuple[str, ...]) -> None:
    """A functional dropout or noise in the user's forward, after any layers."""
    model = dropouts(*names)
    with DropoutStreams(model, 0, CPU) as streams:
        streams.at(2, 5)
        for layer in model.values():
            layer(torch.ones(2, WIDTH))
        drawn = torch.rand(3)
    assert torch.equal(drawn, torch.rand(3, generator=generator(0, "step", 2, 5)))


def drawn_by(process: int) -> list[Tensor]:
    """The batch that a process draws, then the mask of a dropout module, and what else it draws for its part."""
    layer = nn.Dropout(0.5)
    with DropoutStreams(nn.ModuleDict({"drop": layer}), 0, CPU, process) as streams:
        streams.at(2, 5)
        batch = torch.rand(9)
        streams.part_ways()
        return [batch, layer(torch.ones(2, WIDTH)), torch.rand(9)]


def test_processes_draw_the_same_batch_and_then_each_its_own() -> None:
    (batch, *first), (same_batch, *second), (_, *third) = map(drawn_by, range(3))
    assert torch.equal(batch, same_batch)
    for one, other, another in zip(first, second, third, strict=True):
        assert not torch.equal(one, other)
        assert not torch.equal(other, another)
    assert all(map(torch.equal, second, drawn_by(1)[1:]))


def test_the_first_of_several_processes_draws_as_one_alone() -> None:
    _, mask, _ = drawn_by(0)
    assert torch.equal(mask != 0, masks(dropouts("drop"), 2, 5)["drop"])


def test_in_evaluation_mode_nothing_is_drawn() -> None:
    model = dropouts("drop1").eval()
    torch.manual_seed(4)
    before = torch.get_rng_state()
    with DropoutStreams(model, 0, CPU):
        assert torch.equal(model["drop1"](torch.ones(WIDTH)), torch.ones(WIDTH))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Dropout(0.5),
        nn.Dropout1d(0.5),
        nn.Dropout2d(0.5),
        nn.Dropout3d(0.5),
        nn.AlphaDropout(0.5),
        nn.FeatureAlphaDropout(0.5),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_every_dropout_of_torch(layer: nn.Module) -> None:
    x = torch.ones(8, 8, 2, 2, 2) if isinstance(layer, nn.Dropout3d) else torch.ones(8, 8, 2, 2)
    x = torch.ones(8, 8, 2) if isinstance(layer, nn.Dropout1d) else x
    drawn = []
    for ambient in (1, 2):
        with DropoutStreams(layer, 0, CPU) as streams:
            streams.at(0, 0)
            torch.manual_seed(ambient)
            drawn.append(layer(x))
    assert torch.equal(*drawn)
    assert not torch.equal(drawn[0], x)


def test_the_hooks_go_and_an_error_inside_leaves_the_generator() -> None:
    class Broken(nn.Dropout):
        def forward(self, input: Tensor) -> Tensor:
            torch.rand(3)
            raise OSError

    model = nn.Sequential(Broken(), nn.Dropout())
    with DropoutStreams(model, 0, CPU) as streams:
        streams.at(0, 0)
        before = torch.get_rng_state()
        with pytest.raises(OSError):  # noqa: PT011
            model(torch.ones(3))
        assert torch.equal(torch.get_rng_state(), before)
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_meets_its_mask_again(reentrant: bool) -> None:
    linear, dropout = nn.Linear(WIDTH, WIDTH), nn.Dropout(0.5)
    model = nn.Sequential(linear, dropout)
    x = torch.randn(4, WIDTH, generator=generator(0), requires_grad=True)
    gradients = []
    for forward in (model, lambda x: checkpoint(model, x, use_reentrant=reentrant)):
        linear.zero_grad()
        with DropoutStreams(model, 0, CPU) as streams:
            streams.at(0, 0)
            forward(x).sum().backward()
        gradients.append(linear.weight.grad.clone())
    assert torch.equal(*gradients)


@given(st.integers(0, 2**63 - 1), st.lists(st.integers(0, 9) | st.text(max_size=5), max_size=3))
def test_a_key_is_a_seed_that_torch_takes(seed: int, path: list) -> None:
    assert 0 <= key(seed, *path) < 2**63
    assert key(seed, *path) == key(seed, *path)
    assert key(seed, *path) != key(seed, *path, 0)
    torch.Generator().manual_seed(key(seed, *path))


def test_keys_do_not_run_into_each_other() -> None:
    assert len({key(1, 23), key(12, 3), key(123), key(1, "2/3"), key(1, 2, 4)}) == 5


def test_a_key_is_the_same_on_every_machine() -> None:
    assert key(0, "dropout", "dropout3", 1, 2, 0) == 6_555_268_794_173_378_323


@pytest.mark.parametrize("device", [None, CPU])
def test_borrowed_gives_the_generator_back(device: torch.device | None) -> None:
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    with pytest.raises(OSError), borrowed(device):  # noqa: PT011, PT012
        seed_everything_else(CPU, 3, "anything")
        assert torch.equal(torch.rand(2), torch.rand(2, generator=generator(3, "anything")))
        raise OSError
    assert torch.equal(torch.rand(3), expected)
