"""Which module feeds which: found by tracing the data flow, not by the order of registration."""

import dataclasses
from collections import Counter
from collections.abc import Iterator

import torch.fx
from torch import nn

from normlab.surgery.find import BatchNorm, batch_norms

Affine = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
"""Layers whose bias is one number per channel of their output."""


@dataclasses.dataclass(frozen=True)
class Link:
    """A module whose output is the first input of another, by path; `shared` says why they are not a pair apart."""

    source: str
    target: str
    shared: str | None


def links(model: nn.Module, prefix: str = "") -> Iterator[Link]:
    """Every link in order of execution. A model whose control flow depends on data is traced part by part;
    between the parts, and within what cannot be traced at all, no link is known.
    """
    graph = _trace(model)
    if graph is None:
        for name, child in model.named_children():
            yield from links(child, f"{prefix}{name}.")
        return
    modules = dict(model.named_modules(remove_duplicate=False))
    names = Counter(id(module) for module in modules.values())
    called = [node for node in graph.nodes if node.op == "call_module"]
    calls = Counter(str(node.target) for node in called)
    for node in called:
        source = node.args[0] if node.args else None
        if not isinstance(source, torch.fx.Node) or source.op != "call_module":
            continue
        first, second = str(source.target), str(node.target)
        shared = None
        if len(source.users) > 1:
            shared = f"the output of {prefix}{first} is used elsewhere too"
        elif max(calls[path] * names[id(modules[path])] for path in (first, second)) > 1:
            shared = f"{prefix}{first} or {prefix}{second} is used more than once"
        yield Link(prefix + first, prefix + second, shared)


def fed_by(model: nn.Module) -> tuple[dict[str, str], dict[str, str]]:
    """Path of a batch norm to the path of the affine layer that feeds it, and it alone; and why others have none."""
    pairs: dict[str, str] = {}
    reasons = dict.fromkeys(batch_norms(model), "no layer feeds it directly, as far as the data flow can be traced")
    for link in links(model):
        if link.target not in reasons:
            continue
        source = model.get_submodule(link.source)
        if not isinstance(source, Affine):
            reasons[link.target] = f"a {type(source).__name__} feeds it"
        elif link.shared:
            reasons[link.target] = link.shared
        else:
            pairs[link.target] = link.source
            del reasons[link.target]
    return pairs, reasons


class _Tracer(torch.fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whatever holds no further modules; all else is traced through."""
        return isinstance(m, BatchNorm) or not any(m.children())


def _trace(model: nn.Module) -> torch.fx.Graph | None:
    try:
        return _Tracer().trace(model)
    except Exception:  # whatever a forward raises that meets a proxy where it wants a tensor
        return None
