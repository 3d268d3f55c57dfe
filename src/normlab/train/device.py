"""Where and in which arithmetic a recipe runs; what it borrows goes back."""

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import nn

from normlab.errors import NormlabError, one_line
from normlab.kernels import serving
from normlab.store import Recipe
from normlab.surgery.find import batch_norms, is_shapeless
from normlab.train import parallel


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with nothing left open: the device that there is, the number of threads, the processes' shares in
    a batch, whether lanes serve, which know no synchronized norm.

    Raises NormlabError for a device that is not there, and for shares of more or fewer processes than there are.
    """
    count = parallel.processes()
    shares = recipe.shares if len(recipe.shares) > 1 else (1,) * count
    if len(shares) != count:
        raise NormlabError(
            f"{len(shares)} processes for the shares {shares}",
            count,
            f"start them with torchrun --nproc-per-node {len(shares)} -m normlab train",
        )
    sync = recipe.sync or count == 1
    device = recipe.device
    if device == "auto":
        mps = torch.backends.mps.is_available() and count == 1
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    if count > 1:
        parallel.check_device(device)
    try:
        torch.zeros((), device=device, dtype=getattr(torch, recipe.dtype)).item()
    except (RuntimeError, AssertionError, TypeError) as error:
        raise NormlabError(
            f"a device of this machine that computes in {recipe.dtype}",
            f"{device!r} ({one_line(error)})",
            "take auto or cpu",
        ) from error
    served = device == "cpu" and recipe.dtype == "float32" and (count == 1 or not sync)
    lanes = recipe.lanes and served and serving.path().name == "native"
    own = {"device": device, "threads": recipe.threads or torch.get_num_threads(), "lanes": lanes}
    return recipe.replace(shares=shares, sync=sync, **own)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch's CPU threads, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def place(model: nn.Module, recipe: Recipe) -> None:
    """Move a model to the recipe's device and dtype, in place. Batch norms never go below float32."""
    norms = [] if recipe.dtype != "bfloat16" else [*batch_norms(model).values()]
    kept = [(norm, copy.deepcopy(norm.state_dict())) for norm in norms if not is_shapeless(norm)]
    model.to(torch.device(recipe.device), getattr(torch, recipe.dtype))
    for norm, state in kept:
        norm.float().load_state_dict(state)
