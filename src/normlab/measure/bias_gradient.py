"""bias_gradient: the bias before a batch norm takes no gradient, since the batch's mean absorbs it.

Ioffe & Szegedy 2015, arXiv 1502.03167, section 3.2.
"""

import dataclasses

from torch import Tensor, nn

from normlab.measure.probe import Look
from normlab.measure.reading import Reading, at_least, copy_of, in_float64
from normlab.surgery.flow import fed_by


@dataclasses.dataclass(frozen=True)
class bias_gradient(Reading):
    """Over all conv and linear layers that a batch norm follows directly, in float64:

    - `bias`: the largest absolute gradient of a bias; 0 in exact arithmetic.
    - `relative`: the same over the largest of a weight of these layers.
    - `biases`: how many biases, each a number, were looked at. Where there are none all three are 0.

    Of the loss of the first `examples` of the batch, under their own statistics.
    """

    examples: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(2, self.examples, "examples")

    def __call__(self, look: Look) -> dict[str, float]:
        model, x, y = in_float64(copy_of(look.model), look.x[: self.examples], look.y[: self.examples])
        model.train()
        layers = [model.get_submodule(path) for path in fed_by(model)[0].values()]
        look.loss(model(x), y).backward()
        pairs = [dict(layer.named_parameters()) for layer in layers]
        biases = _gradients([pair.get("bias") for pair in pairs])
        weights = _gradients([pair["weight"] for pair in pairs if pair.get("bias") is not None])
        bias, weight = _largest(biases), _largest(weights)
        count = float(sum(gradient.numel() for gradient in biases))
        return {"bias": bias, "relative": bias / weight if weight else 0.0, "biases": count}


def _gradients(parameters: list[nn.Parameter | None]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter is not None and parameter.grad is not None]


def _largest(gradients: list[Tensor]) -> float:
    return max((gradient.abs().max().item() for gradient in gradients), default=0.0)
