"""The gradients of a training step whose batch several processes share.

    gradient = sum over processes k of d/dw (sum of the losses of k's part) / (examples of the whole batch)

That is the gradient of the mean loss over the batch, however unevenly it was divided: an empty part adds nothing.
One sum over the processes (an all-reduce) takes the gradients, the loss and what else all must know.

Torch's DistributedDataParallel takes the mean of the processes' gradients, which is this one only once each loss is
scaled by processes * part / batch. Its gain, to send some gradients while others are computed, is small where
networks are; and a loss that is no number, a wish to stop and a parameter that no part used would each need a message
of their own.
"""

import math

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from normlab.kernels import Lanes, Outcome
from normlab.store import Recipe
from normlab.surgery.find import SYNCHRONIZED
from normlab.train.parallel import Team
from normlab.train.prepare import logits_of


class SharedStep:
    """`Step` of one process among several; gives each of them what `Step` gives one that has the whole batch."""

    takes_lanes = False

    def __init__(self, model: nn.Module, recipe: Recipe, team: Team) -> None:
        self._model = model
        self._recipe = recipe
        self._team = team
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def __call__(self, x: Tensor | Lanes, y: Tensor) -> Outcome:
        """Put the gradients of the mean cross-entropy over the whole batch (x, y) into the parameters.

        Also tells all of a wish to stop, and gives all the first process's buffers: those that synchronized norms
        do not keep equal anyway, as the running statistics of norms that keep to their own part.
        """
        assert isinstance(x, Tensor)
        loss, correct = self._backward(x, y, self._team.part(len(y)))
        loss, correct = self._add_up(loss, correct)
        self._team.follow(self._unequal_buffers())
        if not math.isfinite(loss):
            return Outcome(loss, 0, math.nan)
        gradients = [parameter.grad for parameter in self._trained if parameter.grad is not None]
        return Outcome(loss, int(correct), torch.nn.utils.get_total_norm(gradients).item())

    def _backward(self, x: Tensor, y: Tensor, part: slice) -> tuple[float, float]:
        """This part's own gradients, and its share in the loss and in what is correct."""
        self._model.zero_grad()
        own = y[part]
        # Synchronized norms of the others wait for this process even if it has nothing to tell.
        if not len(own) and not self._recipe.sync:
            return 0.0, 0.0
        logits = logits_of(self._model, x[part], self._recipe)
        loss = cross_entropy(logits, own, reduction="sum") / len(y)
        loss.backward()  # of a loss that is no number too: the others wait in theirs
        return loss.item(), float((logits.argmax(1) == own).sum())

    def _add_up(self, loss: float, correct: float) -> tuple[float, float]:
        """Make the gradients the sums over all processes. A parameter that none of them used keeps none."""
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in self._trained]
        told = [loss, correct, float(self._team.stop()), *(float(each.grad is not None) for each in self._trained)]
        dtype = torch.float64 if self._recipe.dtype == "float64" else torch.float32
        pieces = [gradient.reshape(-1).to(dtype) for gradient in gradients]
        pieces.append(torch.tensor(told, dtype=dtype, device=pieces[0].device))
        flat = torch.cat(pieces)
        dist.all_reduce(flat)
        *sums, last = flat.split([len(piece) for piece in pieces])
        loss, correct, stopping, *uses = last.tolist()
        for parameter, gradient, total, used in zip(self._trained, gradients, sums, uses, strict=True):
            parameter.grad = gradient.copy_(total.view_as(gradient)) if used else None
        self._team.stopping = stopping > 0
        return loss, correct

    def _unequal_buffers(self) -> list[Tensor]:
        modules = (module for module in self._model.modules() if not isinstance(module, SYNCHRONIZED))
        return [buffer for module in modules for buffer in module.buffers(recurse=False)]
