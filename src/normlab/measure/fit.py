"""fit: how well the network fits training examples, more often than once an epoch."""

import dataclasses

import torch

from normlab.measure.probe import Look
from normlab.measure.reading import Reading


@dataclasses.dataclass(frozen=True)
class fit(Reading):
    """Loss (nats) and accuracy (a share) of the batch in train mode, under its own statistics: `loss`, `accuracy`."""

    def __call__(self, look: Look) -> dict[str, float]:
        with torch.no_grad():
            logits = look.model(look.x)
            return {
                "loss": look.loss(logits.float(), look.y).item(),
                "accuracy": (logits.argmax(1) == look.y).float().mean().item(),
            }
