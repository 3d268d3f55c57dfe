"""Whose hooks are in the way when several modules run as one."""

import operator
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn
from torch.nn.modules import module as shared

Hook = TypeVar("Hook", bound=Callable[..., Any])

_of_one = operator.attrgetter("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def reads_no_input(hook: Hook) -> Hook:
    """Mark a hook that neither reads nor changes what goes through its module: it only wants to be called."""
    vars(hook)["reads_no_input"] = True
    return hook


def hooked(module: nn.Module) -> bool:
    """Whether a hook waits for the module to be called, or its forward is replaced."""
    return any(_of_one(module)) or "forward" in vars(module)


def watched(module: nn.Module) -> bool:
    """Whether a hook may read or change what goes through the module, or its forward is replaced."""
    if not hooked(module):
        return False
    marks = (getattr(hook, "reads_no_input", False) for hooks in _of_one(module) for hook in hooks.values())
    return not all(marks) or "forward" in vars(module)


def hooked_everywhere() -> bool:
    """Whether a hook waits for every module of the process."""
    return bool(
        shared._global_forward_hooks
        or shared._global_forward_pre_hooks
        or shared._global_backward_hooks
        or shared._global_backward_pre_hooks
    )
