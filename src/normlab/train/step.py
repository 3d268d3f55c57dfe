"""The gradients of training steps."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from normlab.kernels import Lanes, Outcome, unpack
from normlab.store import Recipe
from normlab.surgery import lanes_step
from normlab.train.prepare import logits_of


class Step:
    """Steps of a model that nobody but them changes. A network that is one run in lanes does without autograd."""

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        self._model = model
        self._recipe = recipe
        self._in_lanes = lanes_step(model) if recipe.lanes else None
        self.takes_lanes = self._in_lanes is not None
        """Whether batches in lanes save it the packing."""

    def __call__(self, x: Tensor | Lanes, y: Tensor) -> Outcome:
        """Put the gradients of the mean cross-entropy into the parameters, in the place of those that are there.

        Where the loss is no number nothing but the loss of what comes back is of use.
        """
        found = self._in_lanes(x, y) if self._in_lanes is not None and isinstance(x, Lanes) else None
        return self._by_autograd(unpack(x) if isinstance(x, Lanes) else x, y) if found is None else found

    def _by_autograd(self, x: Tensor, y: Tensor) -> Outcome:
        self._model.zero_grad()
        logits = logits_of(self._model, x, self._recipe)
        loss = cross_entropy(logits, y)
        if not math.isfinite(value := loss.item()):
            return Outcome(value, 0, math.nan)
        loss.backward()
        gradients = [parameter.grad for parameter in self._model.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).item()
        return Outcome(value, int((logits.argmax(1) == y).sum()), norm)
