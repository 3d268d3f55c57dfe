"""synchronized: whether two processes that share a batch get the gradients that one gets with the whole of it.

They do where every norm takes its statistics over both (Peng et al. 2018, arXiv 1711.07240).
"""

import dataclasses
import datetime
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from loky import ProcessPoolExecutor
from torch import Tensor, nn

from normlab.measure.probe import Look
from normlab.measure.reading import Reading, at_least, in_float64

PROCESSES = 2
PATIENCE = datetime.timedelta(minutes=2)

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class synchronized(Reading):
    """`difference`: the largest difference between the gradients of two processes, summed, and those of one.

    The two share the first `examples` of the batch as one to two, over gloo, in float64; the difference is relative
    to the largest gradient. Without synchronized norms it is of the gradients' size.
    """

    examples: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(6, self.examples, "examples")

    def __call__(self, look: Look) -> dict[str, float]:
        model, x, y = in_float64(look, self.examples)
        model, x, y = model.cpu(), x.cpu(), y.cpu()
        whole = gradients(model, x, y, look.loss, len(y))
        cut = len(y) // 3
        with tempfile.TemporaryDirectory() as folder:
            share = functools.partial(_share, (Path(folder) / "store").as_uri(), model, look.loss, len(y))
            with ProcessPoolExecutor(PROCESSES) as pool:
                parts = [*pool.map(share, range(PROCESSES), (x[:cut], x[cut:]), (y[:cut], y[cut:]))]
        apart = (sum(parts) - whole).abs().max() / whole.abs().max()
        return {"difference": apart.item()}


def gradients(model: nn.Module, x: Tensor, y: Tensor, loss: Loss, count: int) -> Tensor:
    """Of the summed loss over `count`: all parameters' in one vector."""
    model.zero_grad()
    (loss(model(x), y) * len(y) / count).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


def _share(store: str, model: nn.Module, loss: Loss, count: int, rank: int, x: Tensor, y: Tensor) -> Tensor:
    """What one of the processes has of the gradients."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store, world_size=PROCESSES, rank=rank, timeout=PATIENCE)
    try:
        return gradients(model, x, y, loss, count)
    finally:
        dist.destroy_process_group()
