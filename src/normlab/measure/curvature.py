"""curvature: the largest eigenvalues of the Hessian of the training loss, and the learning rate that they allow."""

import dataclasses

from normlab.errors import choose
from normlab.measure.probe import Look
from normlab.measure.reading import Reading, at_least
from normlab.measure.sharpness import MODES, sharpness


@dataclasses.dataclass(frozen=True)
class curvature(Reading):
    """Of the loss on the first `examples` of the batch in `mode`, "train" or "eval", as `sharpness` finds them:

    - `largest`: the largest eigenvalue of its Hessian; NaN if `iterations` restarts of Lanczos do not find it.
    - `eigenvalue 2` to `eigenvalue {count}`: those that follow.
    - `two_over_largest`: the learning rate that it allows; inf where nothing curves upwards.
    - `self_check`: how far a central difference of the gradient is from the Hessian, relative: about 1e-8.
    """

    iterations: int = 100
    count: int = 1
    mode: str = "train"
    examples: int = 256
    """In float64, with a graph of the gradient, more take long."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.iterations, "iterations")
        at_least(1, self.count, "count")
        at_least(1, self.examples, "examples")
        choose(MODES, self.mode, "mode")

    def __call__(self, look: Look) -> dict[str, float]:
        x, y = look.x[: self.examples], look.y[: self.examples]
        found = sharpness(look.model, x, y, look.loss, mode=self.mode, count=self.count, iterations=self.iterations)
        largest, *others = found.eigenvalues
        return {
            "largest": largest,
            **{f"eigenvalue {place}": value for place, value in enumerate(others, 2)},
            "two_over_largest": found.two_over_largest,
            "self_check": found.self_check,
        }
