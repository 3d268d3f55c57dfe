"""Batch norms under DistributedDataParallel, in a process group of which one process is here."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from states import state_of
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore

from normlab import check
from normlab.surgery import synchronize


@pytest.fixture
def four_processes() -> Iterator[None]:
    dist.init_process_group("fake", rank=0, world_size=4, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU())


@pytest.mark.usefixtures("four_processes")
@pytest.mark.parametrize(
    ("examples", "found"),
    [
        (
            8,
            [
                "",
            ],
        ),
        (16, []),
    ],
)
def test_the_batch_of_a_process_counts(examples: int, found: list[str]):
    model = DistributedDataParallel(network())
    before = state_of(model)
    batch = torch.ones(examples, 3, 4, 4)
    diagnosis = check(model, batch, train=True, select=["NL406"])
    assert diagnosis.found.get("NL406", []) == found
    assert state_of(model) == before


@pytest.mark.usefixtures("four_processes")
def test_synchronized_norms_see_all_of_them():
    model = network()
    synchronize()(model)
    diagnosis = check(DistributedDataParallel(model), torch.randn(8, 3, 4, 4), select=["NL406"])
    assert (diagnosis.found, diagnosis.unasked) == ({}, {})
