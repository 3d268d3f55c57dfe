"""Stages natively: a chain of them is one op forward and one backward.

What Python and autograd do between the stages of a small network takes longer than the stages: 0.6 of 1.1 ms in the
forward pass of LeNet on 64 images.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from normlab.kernels.lanes import Lanes, native
from normlab.kernels.loss import Outcome
from normlab.kernels.program import GRADIENT_PLACES, INPUT, SAVED, Head, Link, Program, Tensors, written
from normlab.kernels.settings import Settings
from normlab.kernels.stage import stage_reference

_KEPT = (4, 5, 6, 7)
"""Of those that a norm keeps: mean, variance and its counts."""
_MASK = Tensors._fields.index("mask")
_SIZE = len(Tensors._fields)
_NONE = torch.empty(0)
_NO_MASKS: Mapping[int, Tensor] = {}


class Chain:
    """Stages of which each takes what others before it give, on tensors that are theirs; natively, for what
    `kernels.native` says True of: float32 on the CPU.

    `masks` below are lanes of what a dropout multiplies by, by the number of its stage.
    """

    def __init__(self, links: Sequence[Link], tensors: Sequence[Tensors]) -> None:
        """Whether a gradient is wanted is asked of the tensors here; the last stage gives the result."""
        self.links, self.tensors = tuple(links), tuple(tensors)
        self._flat: list[Tensor | None] = [value for each in tensors for value in each]
        self._wanting = [
            (stage * len(GRADIENT_PLACES) + number, tensor)
            for stage, each in enumerate(tensors)
            for number, place in enumerate(GRADIENT_PLACES)
            if (tensor := each[place]) is not None and tensor.requires_grad
        ]
        stages = {at // len(GRADIENT_PLACES) for at, _ in self._wanting}
        self._program = written(links, [each in stages for each in range(len(links))])
        self._owners = list(dict.fromkeys(self.wanting))  # a tensor may serve in several places
        numbers = {tensor: number for number, tensor in enumerate(self._owners)}
        self._gradients = [at for at, _ in self._wanting], [numbers[tensor] for tensor in self.wanting]

    @property
    def wanting(self) -> list[Tensor]:
        """The tensors that want a gradient."""
        return [tensor for _, tensor in self._wanting]

    def __call__(self, x: Lanes, masks: Mapping[int, Tensor] = _NO_MASKS) -> Lanes:
        """The last result. Moves the running statistics among the tensors in place. Differentiable twice."""
        out, _, _ = _Chain.apply(x.data, x.count, self._program, *self._given(masks))
        return Lanes(out, x.count)

    @torch.no_grad()
    def backpropagate(self, x: Lanes, targets: Tensor, masks: Mapping[int, Tensor] = _NO_MASKS) -> Outcome:
        """Leave the gradients of the mean cross-entropy in the `grad` of all tensors that want one, in the place of
        what was there: the numbers of `cross_entropy(chain(x), targets).backward()`, without a graph, which costs a
        small network as much as its arithmetic.

        Args:
            x: N examples, contiguous, without gradient. All that wants one is a contiguous leaf.
            targets: (N,), int64, each the number of a class.
            masks: see above.

        """
        links, numbers, factors = self._program
        given = _contiguous(self._given(masks))
        outcome, *gradients = torch.ops.normlab.training_step.default(
            x.data, x.count, targets, given, numbers, factors, *self._gradients
        )
        _moved(links, given)
        for tensor, its in zip(self._owners, gradients, strict=True):
            tensor.grad = its
        loss, correct, norm = outcome.tolist()
        return Outcome(loss, int(correct), norm)

    @torch.no_grad()
    def judge(self, x: Lanes, targets: Tensor) -> tuple[float, int]:
        """The mean cross-entropy of the last result, and the examples whose largest logit is the target's."""
        logits = self(x)
        outcome, _ = torch.ops.normlab.cross_entropy.default(logits.data, logits.count, targets)
        loss, correct = outcome.tolist()
        return loss, int(correct)

    @torch.no_grad()
    def moments(self, x: Lanes) -> list[tuple[Tensor, Tensor]]:
        """Mean and biased variance (C,) of the batch at the norm of every stage, empty where it takes none of the
        batch's. No running statistics move, and no dropout is at work.
        """
        links, numbers, factors = self._program
        saved = torch.ops.normlab.chain.default(x.data, x.count, _contiguous(self._flat), numbers, factors)
        return [(saved[at + 2], saved[at + 3]) for at in range(0, SAVED * len(links), SAVED)]

    def _given(self, masks: Mapping[int, Tensor]) -> list[Tensor | None]:
        if not masks:
            return self._flat
        flat = list(self._flat)
        for stage, mask in masks.items():
            flat[stage * _SIZE + _MASK] = mask
        return flat


def stage(
    x: Lanes,
    settings: Settings,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    mean: Tensor | None = None,
    var: Tensor | None = None,
    residual: Lanes | None = None,
    mask: Lanes | None = None,
) -> tuple[Lanes, Tensor | None, Tensor | None]:
    """One stage, natively where the kernels serve x, else by `stage_reference`; differentiable twice.

    Args:
        x: N examples (C, H, W) or (F,).
        settings: all that is no tensor.
        weight: of the head, (out, C, kh, kw) or (out, F); none is no head.
        bias: of the head, (out,).
        gamma, beta: of the norm, (out,).
        mean, var: what norm "fixed" normalizes by, (out,); no gradient flows there.
        residual: added before the activation, of the same shape.
        mask: multiplies what the activation gives: a dropout's, of the same shape.

    Returns:
        The result; mean and biased variance of the batch where norm is "batch", without autograd history.

    """
    if not native(x.data):
        return stage_reference(x, settings, weight, bias, gamma, beta, mean, var, residual, mask)
    head: Head = "none" if weight is None else "conv2d" if weight.dim() == 4 else "linear"
    added, factors = (None if each is None else each.data for each in (residual, mask))
    if settings.norm != "fixed":
        mean = var = None
    tensors = Tensors(weight, bias, gamma, beta, mean, var, residual=added, mask=factors)
    program = written([Link(settings, head)], [any(each is not None and each.requires_grad for each in tensors)])
    out, batch_mean, batch_var = _Chain.apply(x.data, x.count, program, *tensors)
    return Lanes(out, x.count), batch_mean, batch_var


def _run(x: Tensor, count: int, program: Program, flat: Sequence[Tensor | None]) -> tuple[list[Tensor], list[Tensor]]:
    """What the native ops are given, and what they save, outside of autograd."""
    links, numbers, factors = program
    given = _contiguous(flat)
    saved = torch.ops.normlab.chain.default(x, count, given, numbers, factors)
    if any(link.tracking != "none" for link in links):
        torch.ops.normlab.track.default(x, count, given, saved, numbers, factors)
        _moved(links, given)
    return given, saved


def _moved(links: Sequence[Link], given: Sequence[Tensor]) -> None:
    """Tell autograd, to which an op of ours is not known, nor what it moves."""
    if not torch.compiler.is_compiling():
        tracking = (at for at, link in enumerate(links) if link.tracking != "none")
        kept = [given[at * _SIZE + place] for at in tracking for place in _KEPT]
        torch.autograd.graph.increment_version([each for each in kept if each is not _NONE])


def _contiguous(flat: Sequence[Tensor | None]) -> list[Tensor]:
    """As the native ops take them: a weight may be channels-last."""
    return [_NONE if each is None else each.contiguous() for each in flat]


class _Chain(Function):
    """The result, and the statistics of the last stage's batch. Where somebody differentiates the backward, that is
    the reference's.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, count: int, program: Program, *flat: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        x = x.contiguous()
        given, saved = _run(x, count, program, flat)
        ctx.save_for_backward(x, *given, *saved)
        ctx.count, ctx.program = count, program
        ctx.set_materialize_grads(False)
        out, _, mean, var = saved[-SAVED:]
        if program.links[-1].settings.norm != "batch":
            return out, None, None
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        g = gradients[0]
        if g is None:
            return (None,) * len(ctx.needs_input_grad)
        x, *rest = ctx.saved_tensors
        size = len(ctx.program.links) * _SIZE
        given, saved = rest[:size], rest[size:]
        needed = ctx.needs_input_grad
        if torch.is_grad_enabled():
            return _differentiable_gradients(ctx, x, given, g)
        found = torch.ops.normlab.chain_backward.default(
            g.contiguous(), x, ctx.count, given, saved, ctx.program.numbers, ctx.program.factors, needed[0]
        )
        result: list[Tensor | None] = [None] * len(needed)
        result[0] = found[0] if needed[0] else None
        for index in range(len(ctx.program.links)):
            for number, place in enumerate(GRADIENT_PLACES):
                if needed[at := 3 + index * _SIZE + place]:
                    result[at] = found[1 + index * len(GRADIENT_PLACES) + number]
        return tuple(result)


def _differentiable_gradients(ctx: Any, x: Tensor, given: list[Tensor], g: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients as a composition that can be differentiated again."""
    inputs = [x, None, None, *given]
    wanted = [each for each, need in zip(inputs, ctx.needs_input_grad, strict=True) if need and each is not None]
    values: list[Lanes] = []
    for index, link in enumerate(ctx.program.links):
        mine = Tensors(*(each if each.numel() else None for each in given[index * _SIZE : (index + 1) * _SIZE]))
        sources = [x if source == INPUT else values[source].data for source in link.sources]
        value = Lanes(sources[0] if len(sources) == 1 else torch.cat(sources, 1), ctx.count)
        if link.flatten:
            value = Lanes(value.data.flatten(1, -2), ctx.count)
        statistics = (mine.mean, mine.var) if link.settings.norm == "fixed" else (None, None)
        added = None if mine.residual is None else Lanes(mine.residual, ctx.count)
        added = added if link.residual is None else values[link.residual]
        mask = None if mine.mask is None else Lanes(mine.mask, ctx.count)
        value, _, _ = stage_reference(
            value, link.settings, mine.weight, mine.bias, mine.gamma, mine.beta, *statistics, added, mask
        )
        values.append(value)
    found = iter(torch.autograd.grad(values[-1].data, wanted, g, create_graph=True, allow_unused=True))
    return tuple(next(found) if need else None for need in ctx.needs_input_grad)
