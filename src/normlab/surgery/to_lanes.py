"""to_lanes: a small network as stages on lane tensors, in the place of its forward."""

import contextlib
import functools
from typing import Any

import torch
from torch import Tensor, nn

from normlab.kernels import Lanes, missing, serves, unpack
from normlab.norms.standardize import transformed
from normlab.surgery.changes import Changes
from normlab.surgery.hooks import hooked, hooked_everywhere
from normlab.surgery.lanes_plan import Plan
from normlab.surgery.lanes_run import Run
from normlab.surgery.lanes_stage import Value
from normlab.surgery.lanes_trace import Flow, Unsafe


def to_lanes(model: nn.Module) -> Changes:
    """Run a model's convolutions and linear layers, with the batch norms (whole, frozen, of the mean or the variance
    alone), activations, dropouts, residuals and pooling around them, in stages on lane tensors: as many images side
    by side as the vector unit has lanes. The norms of `normlab.nn` to which it is all one how a channel's values are
    spread over examples and positions (whitening, integral transforms, renormalization) are called on the lanes as
    they lie.

    The modules stay as they are, with their parameters, buffers, hooks and modes; only `forward` of the model, or
    of the largest parts that can be traced, is shadowed by an attribute of the instance. It takes a tensor or
    `Lanes` and gives a tensor. What the kernels do not serve (other devices and dtypes, autocast, torch.func) takes
    the forward of the class, and a module with a hook is called as ever. Modules exchanged and settings changed
    later are noticed.

    Returns:
        Changes, with undo; `done` has each stage by the path of its first module, `left` the modules that torch
        runs and the parts that cannot be traced, with the reason.

    """
    changes = Changes()
    reason = missing()
    if reason is not None:
        changes.left[""] = reason
    elif not any(model.children()):
        changes.left[""] = "it is a single layer, and packing would cost what lanes gain"
    else:
        _convert(model, "", changes, set())
    return changes


class LanesForward:
    """Stands for the forward of one module, its owner. A copy of the owner, deep or pickled, gets its own."""

    def __init__(self, owner: nn.Module) -> None:
        self._owner = owner
        self._flow: Flow | Unsafe | None = None
        self._plan: Plan | None = None

    @property
    def plan(self) -> Plan:
        """As the owner is now. Raises Unsafe where it cannot be traced, and from then on."""
        if self._flow is None or (isinstance(self._flow, Flow) and not self._flow.holds()):
            self._plan = None
            try:
                self._flow = Flow(self._owner)
            except Unsafe as unsafe:
                self._flow = unsafe
        if isinstance(self._flow, Unsafe):
            raise self._flow
        if self._plan is None or not self._plan.holds():
            self._plan = Plan(self._flow)
        return self._plan

    @property
    def whole(self) -> Run | None:
        """All of the owner as one run, where it is one and no hook is in the way."""
        if _disturbed() or hooked(self._owner, ignores=self):
            return None
        with contextlib.suppress(Unsafe):
            return None if self.plan.hooked else self.plan.whole
        return None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the owner's class would return."""
        if len(args) == 1 and not kwargs and _may_run(args[0]):
            with contextlib.suppress(Unsafe):
                plan = self.plan
                if not plan.hooked:
                    return plan(Value(args[0])).plain
        plain = (unpack(each) if isinstance(each, Lanes) else each for each in args)
        return type(self._owner).forward(self._owner, *plain, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {"_owner": self._owner}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_owner"])  # type: ignore[misc]


def _may_run(x: object) -> bool:
    data = x.data if isinstance(x, Lanes) else x
    if type(data) is not Tensor or data.dim() < 2 or not len(data) or not serves(data):
        return False
    return not _disturbed()


def _disturbed() -> bool:
    """Whether somebody wants to see every module called, or every operation of torch."""
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch.is_autocast_enabled("cpu")
        or transformed()
        or hooked_everywhere()
    )


def _convert(module: nn.Module, path: str, changes: Changes, met: set[nn.Module]) -> None:
    if module in met or not any(module.children()):
        return
    met.add(module)
    reason = None
    if type(module).forward is not nn.Module.forward:  # a ModuleList has none
        reason = _take_over(module, path, changes)
        if reason is None:
            return
        changes.left[path] = reason
    for name, child in module.named_children():
        _convert(child, f"{path}.{name}".lstrip("."), changes, met)


def _take_over(module: nn.Module, path: str, changes: Changes) -> str | None:
    """Why not, or None where it was done."""
    if "forward" in vars(module):
        return "its forward is replaced already"
    forward = LanesForward(module)
    try:
        plan = forward.plan
    except Unsafe as unsafe:
        return str(unsafe)
    if plan.hooked:
        return f"hooks watch a {plan.hooked} in it"
    if not plan.has_heads:
        return "no convolution or linear layer in it that lanes would serve"
    prefix = f"{path}." if path else ""
    module.forward = forward  # type: ignore[method-assign]
    done, left = plan.report()
    for name, what in done.items():
        changes.record(prefix + name, what, functools.partial(_give_back, module, forward))
    changes.left |= {prefix + name: why for name, why in left.items()}
    return None


def _give_back(module: nn.Module, forward: LanesForward) -> None:
    if vars(module).get("forward") is forward:
        del module.forward
