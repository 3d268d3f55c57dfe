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


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with nothing left open: the device that there is, the number of threads, whether lanes serve.

    Raises NormlabError for a device that is not there.
    """
    device = recipe.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros((), device=device, dtype=getattr(torch, recipe.dtype)).item()
    except (RuntimeError, AssertionError, TypeError) as error:
        raise NormlabError(
            f"a device of this machine that computes in {recipe.dtype}",
            f"{device!r} ({one_line(error)})",
            "take auto or cpu",
        ) from error
    lanes = recipe.lanes and device == "cpu" and recipe.dtype == "float32" and serving.path().name == "native"
    return recipe.replace(device=device, threads=recipe.threads or torch.get_num_threads(), lanes=lanes)


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
