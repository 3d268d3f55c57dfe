"""recalibrate on what users have: loaders of pairs, mappings, wrapped models."""

from collections.abc import Callable

import pytest
import torch
from test_surgery_recalibrate import deep, draw, inputs_of, population
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from normlab.errors import NormlabError
from normlab.surgery import recalibrate
from normlab.surgery.feed import feed
from normlab.surgery.find import batch_norms


class ByName(nn.Module):
    """Takes its input by name, beside what it needs not."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = deep()

    def forward(self, *, pixels: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.inner(pixels)


def assert_population(model: nn.Module, x: Tensor) -> None:
    for path, norm in batch_norms(model).items():
        mean, var = population(inputs_of(model, path, x)[0])
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-10, atol=1e-10, msg=path)
        torch.testing.assert_close(norm.running_var, var, rtol=1e-10, atol=1e-10, msg=path)


X, Y = draw(66, 1, 6, 6), torch.arange(66)
X[64:] += 50  # a last batch of 2 that is unlike the one of 64
LOADERS: dict[str, Callable[[], object]] = {
    "a function": lambda: lambda: iter(X.split(64)),
    "a list of inputs": lambda: [*X.split(64)],
    "a tuple of pairs": lambda: ((X[:64], Y[:64]), [X[64:], Y[64:]]),
    "a loader of pairs": lambda: DataLoader(TensorDataset(X, Y), batch_size=64),
    "a loader that shuffles": lambda: DataLoader(TensorDataset(X, Y), batch_size=64, shuffle=True),
    "a loader of lists of one": lambda: DataLoader(TensorDataset(X), batch_size=64),
}


@pytest.mark.parametrize("name", LOADERS)
def test_batches_of_64_and_2_give_the_populations_statistics(name: str) -> None:
    model = deep().train()  # with dropout before two of its three norms
    assert len(recalibrate(model, LOADERS[name]()).done) == 3
    assert_population(model, X)


def test_a_mapping_is_given_by_name() -> None:
    model = ByName()
    recalibrate(model, [{"pixels": X[:64], "labels": Y[:64]}, {"pixels": X[64:]}])
    assert_population(model.inner, X)


def test_a_forward_of_the_users() -> None:
    model = ByName()
    seen: list[str] = []

    def forward(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        seen.extend(batch)
        return model(pixels=batch["image"])

    recalibrate(model, [{"image": X[:64]}, {"image": X[64:]}], forward=forward, at_once=True)
    assert set(seen) == {"image"}
    mean, var = population(model.inner[0](X).detach())
    torch.testing.assert_close(model.inner[1].running_mean, mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model.inner[1].running_var, var, rtol=1e-10, atol=1e-10)


def test_an_iterator_ends_for_good() -> None:
    with pytest.raises(NormlabError, match="several times, got a generator; give the loader itself"):
        recalibrate(deep(), (x for x in X.split(64)))


@pytest.mark.parametrize("batch", [X, (X, Y), {"input": X}], ids=lambda batch: type(batch).__name__)
def test_a_batch_is_moved_to_the_models_device(batch: object) -> None:
    output = feed(nn.Linear(6, 2, device="meta", dtype=torch.float64), batch)
    assert isinstance(output, Tensor)
    assert output.is_meta


def test_wrapped_models() -> None:
    plain, parallel = deep(), nn.DataParallel(deep())
    parallel.module.load_state_dict(plain.state_dict())
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        distributed = nn.parallel.DistributedDataParallel(deep())
        distributed.module.load_state_dict(plain.state_dict())
        recalibrate(plain, [X])
        for model in (parallel, distributed):
            model.register_forward_pre_hook(lambda *_: pytest.fail("copies would each see a part of the batch"))
            changes = recalibrate(model, [X])
            assert list(changes.done) == ["module.1", "module.5", "module.10"]
            torch.testing.assert_close(model.module.state_dict(), plain.state_dict(), rtol=0, atol=0)
    finally:
        torch.distributed.destroy_process_group()
