"""Thread, line 10: must `batch_norm` return `moving_mean.data`?"""

from typing import Any

import torch
from torch import Tensor, nn

from normlab.lab import RECIPE, Arm, Study, draw, sizes
from normlab.lab.measures import at_start
from normlab.lab.rules import below, superior
from normlab.measure import statistics_graph, to_plain
from normlab.surgery import swap

STEPS = 20


class Book(nn.Module):
    """The book's own layer, whose function returns `moving_mean.data`."""

    detach = True

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, **_: Any) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.gamma, self.beta = nn.Parameter(torch.ones(num_features)), nn.Parameter(torch.zeros(num_features))
        self.moving_mean, self.moving_var = torch.zeros(num_features), torch.ones(num_features)

    def forward(self, x: Tensor) -> Tensor:
        """X (N, C) or (N, C, H, W)."""
        shape = (1, -1, *(1 for _ in x.shape[2:]))
        mean, var = self.moving_mean, self.moving_var
        if self.training:
            reduced = [0, *range(2, x.dim())]
            mean = x.mean(reduced)
            var = ((x - mean.view(shape)) ** 2).mean(reduced)
            share = self.momentum
            moved = (1 - share) * self.moving_mean + share * mean, (1 - share) * self.moving_var + share * var
            self.moving_mean, self.moving_var = (each.data if self.detach else each for each in moved)
        normalized = (x - mean.view(shape)) / torch.sqrt(var.view(shape) + self.eps)
        return self.gamma.view(shape) * normalized + self.beta.view(shape)


class BookWithoutData(Book):
    """The same without `.data`."""

    detach = False


HERE = "normlab.studies.returned_statistics"
nodes = at_start("graph", f"autograd nodes kept alive by running statistics after {STEPS} steps", "statistics_graph",
                f"nodes after {STEPS}")  # fmt: skip

STUDY = Study(
    question="Must batch_norm return moving_mean.data?",
    claim="Without it the moving averages keep nodes of every step's graph alive, more with every step; with it, and in normlab, none.",
    source="D2L discussion, batch normalization",
    thread=(10,),
    recipe=RECIPE.replace(probes=(to_plain(statistics_graph(every=0, steps=STEPS)),), evaluate=("train",)),
    arms={
        "the book's, with .data": Arm(swap("batch", f"{HERE}:Book")),
        "the book's, without": Arm(swap("batch", f"{HERE}:BookWithoutData")),
        "normlab's": Arm(),
    },
    measures=(nodes,),
    rules=(
        below("graph", 0.5, ("the book's, with .data", "normlab's")),
        superior("graph", "the book's, without", "the book's, with .data", STEPS),
    ),
    answers={
        "supported": "Yes, or an equivalent: with it nothing of a step's graph is kept ({rule}: {effect}, n = {n}).",
        "contradicted": "Not as claimed: {rule}, but found {effect} ({low} to {high}, n = {n}).",
        "inconclusive": "Not decided: {rule}; found {effect} ({low} to {high}, n = {n}).",
    },
    sizes=sizes(
        {"train_examples": 640}, {"train_examples": 640}, {"train_examples": 640, "epochs": 1}, seeds=(2, 2, 2)
    ),
    figures=(draw.points("graph"),),
    caveats=(
        "Counted by walking the graph: the same on every machine. The backward pass frees the tensors that these nodes "
        "save; what a process then loses, about 9 MB a step for LeNet at batch 256, is memory that the small nodes that "
        "stay keep the allocator from giving back.",
    ),
)
