"""statistics_graph: the book's layer with `.data` and without, ours and torch's."""

import torch
from looks import book_net, look
from torch import Tensor, nn

from normlab.measure import statistics_graph
from normlab.measure.statistics_graph import nodes
from normlab.models import lenet


def test_ours_torchs_and_the_books_keep_nothing() -> None:
    flat = nn.Sequential(nn.Conv2d(1, 3, 5), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(1728, 10))
    for model in (lenet(), flat, book_net(detached=True)):
        found = statistics_graph(1, steps=4)(look(model))
        assert found == {"nodes after 1": 0, "nodes after 4": 0, "bytes after 1": 0, "bytes after 4": 0}


def test_without_data_the_books_keeps_every_step() -> None:
    first, tenth, last = (statistics_graph(1, steps=steps)(look(book_net(detached=False))) for steps in (2, 10, 18))
    start = first["nodes after 1"]
    assert start == tenth["nodes after 1"] > 20
    # What is new in a step, not shared with the one before: the parameters' own nodes are.
    step = first["nodes after 2"] - start
    assert step > 20
    assert tenth["nodes after 10"] == start + 9 * step
    assert last["nodes after 18"] == start + 17 * step
    assert last["bytes after 18"] == 0, "a backward pass has freed what the nodes saved"


class Remembering(nn.Module):
    """Keeps, of every forward pass, a value whose graph no backward pass goes through."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(10))
        self.register_buffer("kept", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)[:, :10] * self.weight
        self.kept = self.kept + x.exp().sum()
        return x


def test_the_bytes_of_a_graph_that_is_never_gone_through() -> None:
    found = statistics_graph(1, steps=5)(look(Remembering()))
    # exp saves its result: 32 x 10 numbers a step; the product's factors are freed by the loss's backward pass.
    assert found["bytes after 5"] - found["bytes after 1"] == 4 * 32 * 10 * 4
    assert found["nodes after 5"] > 4 * 3


def test_a_graph_deeper_than_recursion_goes() -> None:
    model = Remembering()
    for _ in range(3000):
        model.kept = model.kept + model.weight[0]
    assert len(nodes(model)) == 6001


def test_the_models_own_past_is_neither_counted_nor_touched() -> None:
    model = Remembering()
    fresh = statistics_graph(1, steps=3)(look(model))
    model(torch.randn(2, 10))
    kept = model.kept
    assert statistics_graph(1, steps=3)(look(model)) == fresh
    assert model.kept is kept
