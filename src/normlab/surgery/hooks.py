"""Whose hooks are in the way when several modules run as one."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn
from torch.nn.modules import module as shared

Hook = TypeVar("Hook", bound=Callable[..., Any])


def reads_no_input(hook: Hook) -> Hook:
    """Mark a hook that neither reads nor changes what goes through its module: it only wants to be called."""
    vars(hook)["reads_no_input"] = True
    return hook


def hooked(module: nn.Module, ignores: object = None) -> bool:
    """Whether a hook waits for the module to be called, or its forward is replaced, but by what is ignored."""
    own = module.__dict__
    return bool(
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
        or own.get("forward") is not ignores
    )


def watched(module: nn.Module) -> bool:
    """Whether a hook may read or change what goes through the module, or its forward is replaced."""
    if not hooked(module):
        return False
    if module._backward_hooks or module._backward_pre_hooks or "forward" in vars(module):
        return True
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return not all(getattr(hook, "reads_no_input", False) for hook in hooks)


def hooked_between(model: nn.Module, source: str, target: str) -> str | None:
    """The path of a module whose hooks may see or change what goes from one module, by path, to another.

    Those of a container see what the last layer in it gives, and what the first one gets.
    """
    between = _containers(source) ^ _containers(target) | {source, target}
    return next((path for path in sorted(between) if watched(model.get_submodule(path))), None)


def _containers(path: str) -> set[str]:
    parts = path.split(".")
    return {".".join(parts[:depth]) for depth in range(1, len(parts))}


def hooked_everywhere() -> bool:
    """Whether a hook waits for every module of the process."""
    return bool(
        shared._global_forward_hooks
        or shared._global_forward_pre_hooks
        or shared._global_backward_hooks
        or shared._global_backward_pre_hooks
    )
