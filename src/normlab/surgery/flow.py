"""Which module feeds which: found by tracing the data flow, not by the order of registration."""

import dataclasses
from collections import Counter
from collections.abc import Iterator

import torch.fx
from torch import Tensor, nn

from normlab.norms.domain import _Domain
from normlab.surgery.compose import channels_of
from normlab.surgery.find import BatchNorm, batch_norms, is_shapeless
from normlab.surgery.lanes_functions import Rows, as_module
from normlab.surgery.untouched import untouched

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

_KEEP_DIMENSIONS = (
    "torch.nn.modules.linear",
    "torch.nn.modules.batchnorm",
    "torch.nn.modules.activation",
    "torch.nn.modules.dropout",
    "normlab.norms.",
)
"""Where the modules come from whose output has as many dimensions as their input."""


@dataclasses.dataclass(frozen=True)
class Link:
    """A module whose output is the first input of another, by path."""

    source: str
    target: str
    shared: str | None
    """Why they are not a pair apart."""
    single: bool
    """Whether both are called with one tensor and nothing else."""
    rows: bool
    """Whether what goes over is known to be (N, C)."""


def links(model: nn.Module) -> Iterator[Link]:
    """Every link in order of execution, in the modes that the model's modules have; the model is not touched.

    A model whose control flow depends on data is traced part by part: between the parts, and within what cannot be
    traced at all, no link is known. A part is taken to be called as a whole.
    """
    names = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    return _links(model, "", names)


def _links(model: nn.Module, prefix: str, names: Counter[int]) -> Iterator[Link]:
    traced = _trace(model)
    if traced is None:
        for name, child in model.named_children():
            yield from _links(child, f"{prefix}{name}.", names)
        return
    graph, kept = traced
    modules = dict(model.named_modules(remove_duplicate=False))
    called = [node for node in graph.nodes if node.op == "call_module"]
    calls = Counter(str(node.target) for node in called)
    tensors = _tensors(model)
    read = {id(tensors.get(str(node.target))) for node in graph.nodes if node.op == "get_attr" and node.users}
    for node in called:
        source = node.args[0] if node.args else None
        if not isinstance(source, torch.fx.Node) or source.op != "call_module":
            continue
        first, second = str(source.target), str(node.target)
        shared = None
        if len(source.users) > 1 or source in kept:
            shared = f"the output of {prefix}{first} is used elsewhere too"
        elif max(calls[path] * names[id(modules[path])] for path in (first, second)) > 1:
            shared = f"{prefix}{first} or {prefix}{second} is used more than once"
        elif any(id(value) in read for path in (first, second) for value in _tensors(modules[path]).values()):
            shared = f"a tensor of {prefix}{first} or {prefix}{second} is used elsewhere too"
        single = all(len(each.args) == 1 and not each.kwargs for each in (source, node))
        yield Link(prefix + first, prefix + second, shared, single, _is_rows(source, modules))


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers())}


def _is_rows(value: object, modules: dict[str, nn.Module]) -> bool:
    """Whether a value of a trace is known to be (N, C): flattened, and since then through layers that keep that."""
    while isinstance(value, torch.fx.Node):
        if value.op == "call_module":
            module = modules[str(value.target)]
        else:
            made = as_module(value)
            if made is None:
                return False
            module = made[0]
        flattens = isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1)
        if flattens or isinstance(module, Rows):
            return True
        if not type(module).__module__.startswith(_KEEP_DIMENSIONS):
            return False
        value = value.args[0] if value.args else None
    return False


def fed_by(model: nn.Module) -> tuple[dict[str, str], dict[str, str]]:
    """Path of a batch norm to the path of the affine layer that feeds it, and it alone; and why others have none."""
    pairs: dict[str, str] = {}
    norms = batch_norms(model)
    reasons = dict.fromkeys(norms, "no layer feeds it directly, as far as the data flow can be traced")
    for link in links(model):
        if link.target not in reasons:
            continue
        source, norm = model.get_submodule(link.source), norms[link.target]
        if not isinstance(source, Affine):
            reasons[link.target] = f"a {type(source).__name__} feeds it"
        elif link.shared:
            reasons[link.target] = link.shared
        elif is_shapeless(source) or is_shapeless(norm):
            reasons[link.target] = f"it or {link.source} still waits for a first batch"
        elif channels_of(source)[1] != norm.num_features:
            reasons[link.target] = f"its {norm.num_features} channels are not those of {link.source}"
        else:
            pairs[link.target] = link.source
            del reasons[link.target]
    return pairs, reasons


class _Tracer(torch.fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whatever holds no further modules, but those that compute its parameters, and a norm that is several of
        which a trace shows one; all else is traced through.
        """
        return isinstance(m, BatchNorm | _Domain) or hasattr(m, "parametrizations") or not any(m.children())


def _trace(model: nn.Module) -> tuple[torch.fx.Graph, set[torch.fx.Node]] | None:
    """The graph, and the values that the forward left in the model; None where it cannot be traced."""
    try:
        with untouched(model):
            graph = _Tracer().trace(model)
            return graph, _left_in(model)
    except Exception:  # whatever a forward raises that meets a proxy where it wants a tensor
        return None


def _left_in(model: nn.Module) -> set[torch.fx.Node]:
    held = [value for module in model.modules() for value in vars(module).values()]
    held += [each for value in held if isinstance(value, list | tuple) for each in value]
    held += [each for value in held if isinstance(value, dict) for each in value.values()]
    return {value.node for value in held if isinstance(value, torch.fx.Proxy)}
