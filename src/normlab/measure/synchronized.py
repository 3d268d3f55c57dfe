"""synchronized: whether two processes that share a batch get the gradients that one gets with the whole of it.

They do where every norm takes its statistics over both (Peng et al. 2018, arXiv 1711.07240).
"""

import dataclasses
import datetime
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from loky import get_reusable_executor
from torch import Tensor, nn

from normlab.measure.asking import without_dropout
from normlab.measure.probe import Look
from normlab.measure.reading import Reading, at_least, copy_of
from normlab.surgery.find import SYNCHRONIZED

PROCESSES = 2
PATIENCE = datetime.timedelta(minutes=2)
DECIMALS = 10

Loss = Callable[[Tensor, Tensor], Tensor]
Part = Callable[[int, Tensor, Tensor], Tensor]

_ONE_AT_A_TIME = threading.Lock()
"""Two readings that each have one of the two processes would wait for ever."""


@dataclasses.dataclass(frozen=True)
class synchronized(Reading):
    """`difference`: the largest difference between the gradients of two processes, summed, and those of one.

    The two share the first `examples` of the batch as one to two, over gloo, in float64 and without dropout. The
    difference is relative to the largest gradient, to ten decimals: below lie roundings, which differ with where in
    memory a tensor lies.
    Without synchronized norms it is of the gradients' size.
    """

    examples: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(6, self.examples, "examples")

    def __call__(self, look: Look) -> dict[str, float]:
        model = copy_of(look.model).to("cpu", torch.float64)
        x, y = look.x[: self.examples].to("cpu", torch.float64), look.y[: self.examples].cpu()
        without_dropout(model)  # whose masks would be others in each process
        shared = copy_of(model)
        for norm in shared.modules():
            if isinstance(norm, SYNCHRONIZED):
                norm.process_group = None  # whom it asks in training is not there; all that are, are the two
        whole = _gradients(model, look.loss, len(y))(x, y)
        cut = len(y) // 3
        with _ONE_AT_A_TIME, tempfile.TemporaryDirectory() as folder:
            part = _part((Path(folder) / "store").as_uri(), shared, look.loss, len(y))
            # Alive between readings: one that left for idleness might be missed while the other waits for it.
            two = get_reusable_executor(max_workers=PROCESSES, timeout=None)
            parts = [*two.map(part, range(PROCESSES), (x[:cut], x[cut:]), (y[:cut], y[cut:]))]
        apart = (sum(parts) - whole).abs().max() / whole.abs().max()
        return {"difference": round(apart.item(), DECIMALS)}


def _gradients(model: nn.Module, loss: Loss, count: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Gives all parameters' gradients of the summed loss over `count`, in one vector.

    A function made here travels to another process by value: that one need not import this package's measures,
    which is half of what it would take to start.
    """

    def gradients(x: Tensor, y: Tensor) -> Tensor:
        model.zero_grad()
        (loss(model(x), y) * len(y) / count).backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])

    return gradients


def _part(store: str, model: nn.Module, loss: Loss, count: int) -> Part:
    """Gives what the process of a rank has of the gradients; travels by value too."""
    gradients, processes, patience = _gradients(model, loss, count), PROCESSES, PATIENCE

    def part(rank: int, x: Tensor, y: Tensor) -> Tensor:
        torch.set_num_threads(1)
        torch.manual_seed(rank)  # a noisy norm's noise is the same again
        dist.init_process_group("gloo", store, world_size=processes, rank=rank, timeout=patience)
        try:
            dist.barrier()  # where norms ask nobody one might be done, and gone, while the other still connects
            return gradients(x, y)
        finally:
            dist.destroy_process_group()

    return part
