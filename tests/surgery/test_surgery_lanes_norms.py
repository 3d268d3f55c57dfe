"""to_lanes: norms that torch runs on lanes as they are, and layers between stages that somebody watches."""

import pytest
import torch
from lanes_twins import assert_same_training, images, twins
from torch import Tensor, nn

from normlab.errors import NormlabError
from normlab.kernels.lanes import REFERENCE_WIDTH as LANES
from normlab.nn import make_norm, norm_names
from normlab.norms.shapes import Shaped

pytestmark = pytest.mark.usefixtures("reference")

EXCHANGEABLE = [name for name in norm_names() if getattr(make_norm(name, 4, 2), "exchangeable", False)]

NATIVE = ("mean-only", "variance-only")


def network(name: str) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), make_norm(name, 6, 2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 4, 3), make_norm(name, 4, 2), nn.Tanh(), nn.Flatten(),
        nn.Linear(100, 8), make_norm(name, 8, 1), nn.Sigmoid(), nn.Linear(8, 5),
    )  # fmt: skip


@pytest.mark.parametrize("name", EXCHANGEABLE)
@pytest.mark.parametrize("dim", [1, 2])
def test_what_is_called_exchangeable_is(name: str, dim: int) -> None:
    layer = make_norm(name, 6, dim).double()
    x = torch.randn(8, 6, *([4] * dim), dtype=torch.float64)
    values = x.movedim(1, 0).flatten(1)
    order = torch.randperm(values.shape[1])
    y = layer(values[:, order].reshape(6, 8, *x.shape[2:]).movedim(0, 1)).movedim(1, 0).flatten(1)
    torch.testing.assert_close(y, layer(x).movedim(1, 0).flatten(1)[:, order], rtol=1e-9, atol=1e-9)


def test_the_whole_family_was_asked() -> None:
    assert sorted(EXCHANGEABLE) == [
        "cholesky", "mean-only", "newton-schulz", "pca", "pit", "rank-pit", "renorm", "tanh", "variance-only", "zca",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NATIVE)
def test_mean_and_variance_alone_are_in_the_stages(name: str) -> None:
    plain, fast, changes = twins(lambda: network(name))
    assert changes.done == {
        "0": f"conv 3x3, {name} batch norm, relu, max pool 2x2 in lanes",
        "4": f"conv 3x3, {name} batch norm, tanh in lanes",
        "8": f"linear, {name} batch norm, sigmoid in lanes",
        "11": "linear in lanes",
    }
    assert not changes.left
    assert_same_training(fast, plain, (2 * LANES, LANES + 1, LANES))


@pytest.mark.parametrize("name", sorted({*EXCHANGEABLE} - {*NATIVE}))
def test_the_others_train_on_lanes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fast, changes = twins(lambda: network(name))
    assert changes.done["1"] == f"{type(plain[1]).__name__} by torch, on lanes"
    assert not changes.left
    for norm in (*plain, *fast):
        if hasattr(norm, "reset_running_stats"):
            norm.reset_running_stats()  # random numbers are no covariance
    seen: list[int] = []
    forward = type(fast[1]).forward

    def watched(self: nn.Module, input: Tensor) -> Tensor:
        if self is fast[1]:
            seen.append(len(input))
        return forward(self, input)

    monkeypatch.setattr(type(fast[1]), "forward", watched)
    assert_same_training(fast, plain, (2 * LANES, LANES + 1, LANES))
    assert seen == [2, LANES + 1, 1, 7], "two whole vectors, a tail, one vector, a tail in evaluation"


def test_a_norm_that_does_not_fit_says_so_as_ever() -> None:
    model = nn.Sequential(nn.Conv2d(1, 6, 3), make_norm("pit", 5, 2), nn.Conv2d(6, 4, 3)).double()
    with pytest.raises(NormlabError) as plain:
        model(images(LANES))
    fast = twins(lambda: nn.Sequential(nn.Conv2d(1, 6, 3), make_norm("pit", 5, 2), nn.Conv2d(6, 4, 3)))[1]
    with pytest.raises(NormlabError) as lanes:
        fast(images(LANES))
    assert str(lanes.value) == str(plain.value)


class Mine(type(make_norm("pit", 4, 2))):  # type: ignore[misc]
    """What a subclass does, only its forward knows."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * torch.arange(len(input)).reshape(-1, 1, 1, 1)


def test_a_subclass_is_not_taken_for_its_parent() -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 6, 3), Mine(6), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(576, 5))

    plain, fast, _ = twins(make)
    assert isinstance(plain[1], Shaped)
    assert_same_training(fast, plain, (LANES,))


@pytest.mark.parametrize("place", [1, 7], ids=["a norm", "a flatten"])
def test_hooks_see_plain_tensors(place: int) -> None:
    plain, fast, _ = twins(lambda: network("pit"))
    assert_same_training(fast, plain, (LANES,))
    shapes: list[tuple[int, ...]] = []
    handles = [
        model[place].register_forward_hook(lambda _, given, __: shapes.append(given[0].shape))
        for model in (fast, plain)
    ]
    assert_same_training(fast, plain, (LANES,))
    assert len(shapes) == 4
    assert shapes[0] == shapes[1] and len(shapes[0]) == 4 and shapes[0][0] == LANES  # noqa: PT018 - one shape
    for handle in handles:
        handle.remove()
    assert_same_training(fast, plain, (LANES,))
    assert len(shapes) == 4
