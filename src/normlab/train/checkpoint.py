"""Checkpoints: one safetensors file that holds the model, the optimizer and the progress. Nothing is unpickled."""

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from normlab.errors import NormlabError, one_line
from normlab.store import Recipe
from normlab.store.files import write_atomically
from normlab.train import state
from normlab.train.progress import Progress

_NAME = re.compile(r"epoch-(\d+)(?:-step-(\d+))?\.safetensors")


def check_folder(folder: Path) -> None:
    """Make the folder if there is none. Raises NormlabError, before the work, where `save` would after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error


def save(
    folder: Path,
    trial: str,
    recipe: Recipe,
    progress: Progress,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> Path:
    """Write epoch-E.safetensors after a whole epoch, epoch-E-step-S.safetensors in the middle of one.

    A file in the middle of an epoch goes once a later one is there. Raises NormlabError where it cannot be
    written; earlier files are untouched then.
    """
    step = f"-step-{progress.sums.steps:06d}" if progress.sums.steps else ""
    path = folder / f"epoch-{len(progress.epochs):04d}{step}.safetensors"
    # Copies: safetensors refuses tensors that share memory, as a buffer may that is a view of a weight.
    tensors = {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in _tensors(model, optimizer)
    }
    facts = {"trial": trial, "recipe": recipe.model_dump_json(), "progress": progress.model_dump_json()}
    facts["sha256"] = _digest(tensors, facts)
    older = [old for old in _found(folder) if "-step-" in old.name and old != path]
    try:
        write_atomically(path, safetensors.torch.save(tensors, facts))
        for old in older:
            old.unlink()
    except OSError as error:
        raise _unwritable(folder, error) from error
    return path


def _unwritable(folder: Path, error: OSError) -> NormlabError:
    return NormlabError(
        f"to write a checkpoint into {folder}", one_line(error), "free the disk, or name another folder"
    )


def restore(
    folder: Path, trial: str, recipe: Recipe, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Progress | None:
    """Load the newest checkpoint of a folder into the model and the optimizer; None where there is none.

    Raises NormlabError for a damaged file, and for one of another recipe or program.
    """
    found = _found(folder)
    if not found:
        return None
    path = found[-1]
    try:
        with safetensors.safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if facts.pop("sha256") != _digest(tensors, facts):
            raise NormlabError("its own hash", "another")
        made_by = Recipe.model_validate_json(facts["recipe"])
        progress = Progress.model_validate_json(facts["progress"])
    except Exception as error:  # what the reader raises on a damaged header is not documented
        raise NormlabError(
            f"a whole checkpoint at {path}",
            f"a damaged one ({one_line(error)})",
            "delete it to go on from the one before",
        ) from error
    _same_run(path, made_by, facts["trial"], recipe, trial)
    _load(tensors, model, optimizer)
    return progress


def _same_run(path: Path, made_by: Recipe, its_trial: str, recipe: Recipe, trial: str) -> None:
    differing = [
        f"{name} {theirs!r} there, {ours!r} here"
        for (name, theirs), ours in zip(made_by.model_dump().items(), recipe.model_dump().values(), strict=True)
        if theirs != ours
    ]
    if differing:
        raise NormlabError(
            f"a checkpoint of this recipe at {path}",
            f"one of another ({', '.join(differing)})",
            "give its recipe, or another --checkpoints folder",
        )
    if its_trial != trial:
        raise NormlabError(
            f"a checkpoint of trial {trial} at {path}",
            f"trial {its_trial}: torch, normlab or your source has changed since",
            "start anew in another --checkpoints folder",
        )


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a run by name."""
    for name, value in state.tensors(model).items():
        yield f"model/{name}", value
    for index, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            if isinstance(value, Tensor):
                yield f"optimizer/{index}/{name}", value


def _load(tensors: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    moments: dict[int, dict[str, Tensor]] = {}
    remembered: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/")
            moments.setdefault(int(index), {})[key] = value
        else:
            remembered[name.removeprefix("model/")] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    state.put_back(model, remembered)


def _digest(tensors: dict[str, Tensor], facts: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _found(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    named = [(match, path) for path in folder.glob("epoch-*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(named, key=lambda pair: (int(pair[0][1]), int(pair[0][2] or 0)))]
