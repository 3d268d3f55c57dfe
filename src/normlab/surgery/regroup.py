"""regroup: other options for some parameters of an optimizer that is built already."""

import functools
import itertools
from collections.abc import Iterable, Set
from typing import Any

from torch import nn
from torch.optim import Optimizer

from normlab.surgery.changes import Changes


def regroup(optimizer: Optimizer, parameters: Iterable[nn.Parameter], **options: Any) -> Changes:
    """Give these parameters other options, in groups of their own, in place.

    `regroup(optimizer, norm.parameters(), weight_decay=0.0)` takes them out of the weight decay. Whatever else their
    groups say stays, and so does the optimizer's state (momenta, counts). Parameters that it does not know yet are
    added with its defaults. `left` says why where nothing was done: a learning rate scheduler counts the groups when
    it is built, and fails with another number of them.
    """
    meant = dict.fromkeys(parameters)
    if not meant:
        return Changes()
    groups = [group for group in optimizer.param_groups if not meant.keys().isdisjoint(group["params"])]
    added = meant.keys() - {each for group in groups for each in group["params"]}
    kept_whole = all(meant.keys() >= set(group["params"]) for group in groups)
    if (added or not kept_whole) and any("initial_lr" in group for group in optimizer.param_groups):  # a scheduler's
        return Changes(left={"": "a scheduler counts the optimizer's groups: make them before it"})
    if added and any("param_names" in group for group in optimizer.param_groups):
        return Changes(left={"": "the optimizer was given names: build it anew"})
    before = [(group, dict(group)) for group in optimizer.param_groups]
    for group in groups:
        part = group
        if not meant.keys() >= set(group["params"]):
            part = _part(group, meant.keys())
            optimizer.param_groups.append(part)
        part.update(options)
    if added:
        optimizer.add_param_group({"params": [each for each in meant if each in added], **options})
    said = ", ".join(f"{name} {value}" for name, value in options.items())
    return Changes(
        {"": f"{len(meant)} parameters with {said}"}, _undo=[functools.partial(_restore, optimizer, before)]
    )


def _part(group: dict[str, Any], meant: Set[nn.Parameter]) -> dict[str, Any]:
    """Take the parameters that are meant out of a group; they and its options are a group of their own."""
    taken = [each in meant for each in group["params"]]
    part = dict(group)
    for name in {"params", "param_names"} & group.keys():
        part[name] = list(itertools.compress(group[name], taken))
        group[name] = list(itertools.compress(group[name], [not each for each in taken]))
    return part


def _restore(optimizer: Optimizer, before: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    optimizer.param_groups[:] = [group for group, _ in before]
    for group, held in before:
        group.clear()
        group.update(held)
