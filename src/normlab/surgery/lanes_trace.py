"""The data flow of a model, found by tracing its forward with torch.fx, where what the trace shows is all there is.

A trace runs Python once, on no data. It is trusted only where the forward is the same in train and evaluation mode,
writes nothing into the model, draws no random number and calls nothing unknown.
"""

import dataclasses
import operator
from collections.abc import Callable
from typing import Any

from torch import fx, nn

from normlab.errors import one_line
from normlab.surgery.find import BatchNorm
from normlab.surgery.lanes_functions import Add, as_module, is_batch_size, is_shape
from normlab.surgery.untouched import untouched

INPUT = -1
"""The model's own input, among the values that operations take."""

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
"""What `nn.Module` itself keeps in an instance."""
_ALIASING = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd)


_TRIES = 5
"""Traces in a row that meet a draw of random numbers before it is the model's: another thread may have drawn."""


class Unsafe(Exception):  # noqa: N818 - says of a model what it is
    """Why a trace of a model is not the model."""


class _Draws(Unsafe):
    """Somebody drew random numbers meanwhile."""


@dataclasses.dataclass(frozen=True, eq=False)
class Operation:
    """One use of a module; its value is known by its position in the flow."""

    name: str
    """The module's path, or a name of its own where it stands for a function."""
    module: nn.Module
    inputs: tuple[int, ...]
    """The positions of the values that it takes, or INPUT."""
    is_function: bool


class Flow:
    """What a model computes: operations in the order of the forward, and the position of the result."""

    def __init__(self, model: nn.Module) -> None:
        """Raises Unsafe, with the reason in a few words; the model is then as before."""
        graph, containers = _trace(model)
        self.operations: list[Operation] = []
        self.output = INPUT
        self._read(model, graph)
        self._check_writes()
        self.containers: list[nn.Module] = [each for each in containers if each is not model]
        """The modules whose forwards were traced through, but for the model itself."""
        self._seen = [_Container(model, ignores="forward")]
        self._seen += [_Container(each) for each in self.containers]

    def holds(self) -> bool:
        """Whether the model is still made of the same modules, and its own attributes are the same."""
        return all(each.holds() for each in self._seen)

    def uses(self, position: int) -> int:
        """How often the value at this position is used, the result counted."""
        return sum(each.inputs.count(position) for each in self.operations) + (position == self.output)

    def _read(self, model: nn.Module, graph: fx.Graph) -> None:
        positions: dict[fx.Node, int] = {}
        for node in graph.nodes:
            if node.op == "placeholder":
                if positions:
                    raise Unsafe("its forward takes more than one argument")
                positions[node] = INPUT
            elif node.op == "output":
                if node.args[0] not in positions:
                    raise Unsafe("its result is not one tensor")
                self.output = positions[node.args[0]]
            elif not is_batch_size(node) and not is_shape(node):
                name, module, inputs = self._made(model, node)
                if not all(each in positions for each in inputs):
                    raise Unsafe(f"{name} computes with a shape")
                positions[node] = len(self.operations)
                taken = tuple(positions[each] for each in inputs)
                self.operations.append(Operation(name, module, taken, node.op != "call_module"))

    def _made(self, model: nn.Module, node: fx.Node) -> tuple[str, nn.Module, tuple[fx.Node, ...]]:
        if node.op == "call_module":
            path = str(node.target)
            if node.kwargs or len(node.args) != 1 or not isinstance(node.args[0], fx.Node):
                raise Unsafe(f"it calls {path} with more than one tensor")
            return path, model.get_submodule(path), (node.args[0],)
        if node.op == "get_attr":
            raise Unsafe(f"its forward computes with {node.target} itself")
        made = as_module(node)
        if made is None:
            raise Unsafe(f"its forward calls {getattr(node.target, '__name__', node.target)}")
        return node.name, *made

    def _check_writes(self) -> None:
        """Where something writes into its input, nothing else may read that; raises Unsafe."""
        for operation in self.operations:
            if getattr(operation.module, "inplace", False):
                self._check_fresh(operation.inputs[0], operation.name)

    def _check_fresh(self, position: int, writer: str) -> None:
        if position == INPUT or self.uses(position) > 1:
            raise Unsafe(f"{writer} writes into a tensor that is used elsewhere too")
        source = self.operations[position]
        module = source.module
        ours_or_torchs = type(module).__module__.startswith(("torch.nn.", Add.__module__, "normlab.norms."))
        if not ours_or_torchs or isinstance(module, _ALIASING) or getattr(module, "inplace", False):
            self._check_fresh(source.inputs[0], writer)


class _Proxy(fx.Proxy):
    def __iadd__(self, other: Any) -> fx.Proxy:
        """Torch.fx takes x += y for x + y; other names of x tell them apart."""
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})


class _Tracer(fx.Tracer):
    def __init__(self) -> None:
        super().__init__()
        self.containers: list[nn.Module] = []

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return (
            isinstance(m, BatchNorm)
            or not any(m.children())
            or hasattr(m, "parametrizations")
            or super().is_leaf_module(m, module_qualified_name)
        )

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        path = self.path_of_module(m)
        if self.is_leaf_module(m, path):
            return self.create_proxy("call_module", path, args, kwargs)
        if "forward" in vars(m):
            raise Unsafe(f"the forward of {path} is replaced")
        self.containers.append(m)  # traced by its class's forward, behind its hooks
        return type(m).forward(m, *args, **kwargs)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


def _trace(model: nn.Module) -> tuple[fx.Graph, list[nn.Module]]:
    graphs = []
    for training in (True, False):
        for left in reversed(range(_TRIES)):
            tracer = _Tracer()
            try:
                graphs.append(_traced(tracer, model, training))
                break
            except _Draws:
                if not left:
                    raise
        if all(type(each) is nn.Sequential for each in (model, *tracer.containers)):
            return graphs[0], tracer.containers  # whose forward asks for no mode: half the time of a trial's trace
    if str(graphs[0]) != str(graphs[1]):
        raise Unsafe("its forward is another in evaluation mode")
    return graphs[0], tracer.containers


def _traced(tracer: _Tracer, model: nn.Module, training: bool) -> fx.Graph:
    with untouched(model) as traces:
        for module in model.modules():
            module.training = training
        try:
            graph = tracer.trace(model)
        except Unsafe:
            raise
        except Exception as error:  # whatever a forward raises that meets a proxy where it wants a tensor
            raise Unsafe(f"its forward cannot be traced: {one_line(error)}") from error
    if traces.wrote:
        raise Unsafe("its forward writes into the model")
    if traces.drew:
        raise _Draws("its forward draws random numbers")
    return graph


class _Container:
    """All of a module that its forward may depend on, apart from the layers in it."""

    def __init__(self, module: nn.Module, ignores: str = "") -> None:
        self._module, self._kind, self._ignores = module, type(module), ignores
        self._children = tuple(module._modules.values())
        own = vars(module)
        self._own = [(name, own[name]) for name in own if name not in _OF_EVERY_MODULE and name != ignores]
        self._size = len(own) - (ignores in own)

    def holds(self) -> bool:
        own = self._module.__dict__
        return (
            type(self._module) is self._kind
            and tuple(own["_modules"].values()) == self._children
            and len(own) - (self._ignores in own) == self._size
            and all(own.get(name) is value for name, value in self._own)
        )
