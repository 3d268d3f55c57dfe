"""fit: how well the network fits training examples, more often than once an epoch."""

import dataclasses

import torch

from normlab.measure.probe import Look
from normlab.measure.reading import Reading, at_least


@dataclasses.dataclass(frozen=True)
class fit(Reading):
    """Loss (nats) and accuracy (a share) of the first `examples` of the batch in train mode, under their own
    statistics: `loss`, `accuracy`.
    """

    examples: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.examples, "examples")

    def __call__(self, look: Look) -> dict[str, float]:
        x, y = look.x[: self.examples], look.y[: self.examples]
        with torch.no_grad():
            logits = look.model(x)
            return {
                "loss": look.loss(logits.float(), y).item(),
                "accuracy": (logits.argmax(1) == y).float().mean().item(),
            }
