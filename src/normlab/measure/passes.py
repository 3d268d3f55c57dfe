"""passes: what goes through every layer of a model in one pass, forward and, if asked, backward."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from normlab.errors import one_line
from normlab.measure.held import Held, held_by
from normlab.measure.norms import family_of
from normlab.norms.channels import moments
from normlab.surgery.modes import evaluating

Batch = Tensor | tuple[Any, ...] | Mapping[str, Any]
"""What a model is called with: one tensor, positional arguments, or arguments by name."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """Of one tensor that went through a layer; numbers, not the tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    layout: str
    """contiguous, channels_last or strided."""
    finite: bool
    largest: float
    """The largest absolute value of the finite ones."""
    mean: Tensor | None
    """(C,) over all dimensions but the second, in float64; None for integers and fewer than two dimensions."""
    var: Tensor | None
    """(C,), biased, as the mean."""
    zeros: Tensor | None
    """(C,) the share of exact zeros, as the mean."""
    tail: Tensor | None
    """(N,) how many last positions of (N, C, L) are exactly zero in every channel, as padding is; else None."""


@dataclasses.dataclass
class Use:
    """One call of a layer."""

    path: str
    module: nn.Module
    input: Summary | None
    """Of its first tensor; None where it takes none."""
    training: bool
    """The layer's mode."""
    recomputed: bool
    """Whether the backward pass called it, as it does under activation checkpointing."""
    output: Summary | None = None
    gradient: Summary | None = None
    """Of the loss by its output, where there was a backward pass that reached it."""


@dataclasses.dataclass
class Pass:
    """A pass of one or more batches; `uses` in the order of the calls, batch by batch."""

    training: bool
    uses: list[Use] = dataclasses.field(default_factory=list)
    outputs: list[list[Tensor]] = dataclasses.field(default_factory=list)
    """The floating-point tensors that the model gave for every batch."""
    failure: str | None = None
    """What the model raised, in one line; the pass ends there."""
    held: dict[str, dict[str, Held]] = dataclasses.field(default_factory=dict)
    """Path and name to what the norms over the batch held when all was done: running statistics above all."""

    def of(self, path: str) -> list[Use]:
        """The calls of one layer."""
        return [use for use in self.uses if use.path == path]


def run(model: nn.Module, batches: Sequence[Batch], *, training: bool, backward: bool = False) -> Pass:
    """Every batch through the model, in train mode or under evaluation, watching the layers that hold no others.

    The backward pass is that of a random projection of all outputs, drawn from torch's generator. In train mode each
    layer keeps the mode it had if the model was in train mode already, as a frozen part does. Moves running
    statistics and fills gradients as training would: see `untouched`.
    """
    result = Pass(training)
    with _mode(model, training), _watched(model, result), torch.set_grad_enabled(backward):
        for batch in batches:
            try:
                outputs = [each for each in tensors(call(model, batch)) if each.is_floating_point()]
                result.outputs.append([each.detach() for each in outputs])
                rooted = [each for each in outputs if each.requires_grad]
                if backward and rooted:
                    torch.autograd.backward(rooted, [torch.randn_like(each) for each in rooted])
            except Exception as error:  # whatever a user's forward raises is what a rule may want to tell
                result.failure = one_line(error)
                break
        result.held = {
            path: held_by(module) for path, module in model.named_modules() if family_of(module) == "batch"
        }
    return result


def call(model: nn.Module, batch: Batch) -> Any:
    """The model of a batch; of a parallel one what it wraps, since its own forward waits for others."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, tuple) else model(batch)


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested lists, tuples, mappings (a transformer's output among them)."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from tensors(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors(each)


def summary(x: Tensor) -> Summary:
    """The numbers of one tensor; reads it a few times and keeps nothing of it."""
    x = x.detach()
    floating = x.is_floating_point() and x.numel() > 0
    by_channel = floating and x.dim() >= 2
    largest = x.abs().amax().item() if floating else 0.0
    finite = largest < float("inf")  # NaN is not
    mean = var = zeros = tail = None
    if by_channel:
        count, mean, squares = (each.double() for each in moments(x, None))
        var = squares / count
        zeros = (x == 0).double().mean([dim for dim in range(x.dim()) if dim != 1])
    if by_channel and x.dim() == 3:
        tail = (x == 0).all(1).flip(1).long().cumprod(1).sum(1)
    if floating and not finite:
        largest = x[x.isfinite()].abs().max().item() if bool(x.isfinite().any()) else 0.0
    return Summary(tuple(x.shape), x.dtype, _layout(x), finite, largest, mean, var, zeros, tail)


@contextlib.contextmanager
def _mode(model: nn.Module, training: bool) -> Iterator[None]:
    if not training:
        with evaluating(model):
            yield
        return
    modes = {module: module.training for module in model.modules()}
    if not model.training:
        model.train()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextlib.contextmanager
def _watched(model: nn.Module, result: Pass) -> Iterator[None]:
    handles = []
    for path, module in model.named_modules():
        if not any(module.children()) or family_of(module) is not None:
            before, after = _hooks(path, result)
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hooks(path: str, result: Pass) -> tuple[Callable[..., None], Callable[..., None]]:
    running: list[Use] = []

    def before(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        first = next(tensors([*arguments, *keywords.values()]), None)
        seen = None if first is None else summary(first)
        running.append(Use(path, module, seen, module.training, recomputed=_in_backward()))
        result.uses.append(running[-1])  # here, since a recomputation ends within the last layer that it needs

    def after(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        use = running.pop()
        first = next(tensors(output), None)
        if first is None:
            return
        use.output = summary(first)
        if first.requires_grad:
            first.register_hook(lambda gradient: setattr(use, "gradient", summary(gradient)))

    return before, after


def _in_backward() -> bool:
    """Whether this thread is at work for a backward pass; torch.utils.module_tracker asks in this way too."""
    return torch._C._current_graph_task_id() != -1


def _layout(x: Tensor) -> str:
    """As strides tell it; where both fit (one channel, one pixel) it is contiguous."""
    if x.is_contiguous():
        return "contiguous"
    if (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)) or (
        x.dim() == 5 and x.is_contiguous(memory_format=torch.channels_last_3d)
    ):
        return "channels_last"
    return "strided"
