"""equivalent_rates: a constant rate with weight decay takes the steps of a growing rate without.

The loss of a net does not change with the length of a weight that a batch norm with eps = 0 follows, so its gradient
at a w is that at w over a. With a = 1 - lr * weight_decay the two descents

    u <- a u - lr gradient(u)        w <- w - lr a^(-2t - 1) gradient(w)        t = 0, 1, 2, ...

from one start then keep u = a^t w: Li & Arora 2020, arXiv 1910.07454, theorem 1.1, without momentum. Decay shortens u
by a share of lr * weight_decay a step and the gradient, at a right angle to it, lengthens it; where the two balance a
step turns it by sqrt(2 lr weight_decay): Wan et al. 2021, arXiv 2006.08419, section 3.

Exact in exact arithmetic. Rounding stays where it is, near 1e-14 after a thousand steps, as long as training is no
chaos; with rates at which neighbouring starts part it grows as their distance does.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from normlab.errors import NormlabError
from normlab.measure.angular import angle, scale_invariant
from normlab.measure.asking import without_dropout
from normlab.measure.probe import Look
from normlab.measure.reading import Reading, at_least, copy_of, in_float64
from normlab.surgery.find import BatchNorm, batch_norms
from normlab.surgery.swap import exchange

Batches = Sequence[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]

TORCHS = BatchNorm.__module__
MOST = 600
"""The largest exponent of the growth that float64 holds, with some room."""


@dataclasses.dataclass(frozen=True)
class equivalent_rates(Reading):
    """Of `steps` steps from where the network is, on batches of `examples` in turn, in float64 and at eps = 0, of the
    weights that a batch norm follows directly, all else held fixed:

    - `apart`: the farthest that a weight is from a^t times what the growing rate makes of it, over its length.
    - `turn`: the angle of a step with decay over sqrt(2 lr weight_decay): root mean square over the weights and the
      last quarter of the steps.
    - `growth`: the last of the growing rates over the first.

    NaN for a model without such weights. Raises NormlabError unless 0 < lr * weight_decay < 1, and where the growing
    rate outgrows float64.
    """

    lr: float = 0.3
    weight_decay: float = 0.01
    steps: int = 1_000
    examples: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.lr * self.weight_decay < 1:
            raise NormlabError("lr * weight_decay above 0 and below 1", self.lr * self.weight_decay)
        at_least(4, self.steps, "steps")
        at_least(2, self.examples, "examples")
        if (exponent := -2 * self.steps * math.log1p(-self.lr * self.weight_decay)) > MOST:
            raise NormlabError(f"a rate that grows by e^{MOST} at most", f"e^{exponent:.0f}", "take fewer steps")

    def __call__(self, look: Look) -> dict[str, float]:
        model, x, y = in_float64(copy_of(look.model), look.x, look.y)
        size = min(self.examples, len(x))
        whole = len(x) // size * size  # a batch of one, left over, has no variance
        batches = [*zip(x[:whole].split(size), y[:whole].split(size), strict=True)]
        shrink = 1 - self.lr * self.weight_decay
        rates = [self.lr * shrink ** (-2 * step - 1) for step in range(self.steps)]
        decayed = descent(copy_of(model), batches, look.loss, [self.lr] * self.steps, self.weight_decay)
        grown = descent(model, batches, look.loss, rates)
        distances, angles = [math.nan], [math.nan]
        before: list[Tensor] = []
        for step, (u, w) in enumerate(zip(decayed, grown, strict=True), 1):
            distances += [distance(one, shrink**step * other) for one, other in zip(u, w, strict=True)]
            angles += [angle(one, other) for one, other in zip(before, u, strict=False)]
            before = u
        late = torch.tensor(angles[len(angles) * 3 // 4 :])
        return {
            # Not max(): where a step gave what is no number, that counts.
            "apart": torch.tensor(distances[1:] or distances).max().item(),
            "turn": late.square().mean().sqrt().item() / math.sqrt(2 * self.lr * self.weight_decay),
            "growth": rates[-1] / rates[0],
        }


def descent(
    model: nn.Module, batches: Batches, loss: Loss, rates: Sequence[float], weight_decay: float = 0.0
) -> Iterator[list[Tensor]]:
    """The scale-invariant weights of a model after each step w <- w - rate (gradient + weight_decay w), on one batch
    after the other and again from the first. Changes the model: its norms have an eps of 0 from now on.
    """
    norms = batch_norms(model)
    for norm in norms.values():
        norm.eps = 0.0
    # Torch's own refuse it.
    exchange(model, {path: norm for path, norm in norms.items() if type(norm).__module__ == TORCHS}, "batch", {})
    model.train()
    without_dropout(model)  # two descents must see the same loss
    weights = [*scale_invariant(model).values()]
    for rate, (x, y) in zip(rates if weights else (), itertools.cycle(batches), strict=False):
        gradients = torch.autograd.grad(loss(model(x), y), weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.sub_(gradient + weight_decay * weight, alpha=rate)
        yield [weight.detach().clone() for weight in weights]


def distance(one: Tensor, other: Tensor) -> float:
    """Of two tensors of one shape, relative to the length of the first."""
    return ((one - other).norm() / one.norm()).item()
