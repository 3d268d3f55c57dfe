"""percentiles: how the inputs of the activations are distributed, over training.

Ioffe & Szegedy 2015, arXiv 1502.03167, figure 1 (b, c): the percentiles 15, 50 and 85 of the inputs to a sigmoid,
which wander less with batch normalization.
"""

import dataclasses

import numpy as np
import torch

from normlab.errors import NormlabError, choose
from normlab.measure.probe import Look
from normlab.measure.reading import Reading, check_percentiles, inputs_of
from normlab.surgery.reorder import KINDS


@dataclasses.dataclass(frozen=True)
class percentiles(Reading):
    """Percentiles of the inputs of every layer of a kind, over the batch and all channels: `{path} p{q}`.

    `of` is "activation", "norm" or "dropout"; `at` is in percent. Layers count that are modules: the tracing
    of functions is nobody's business here.

    Raises NormlabError on another kind, a percentile outside 0 to 100, and, read, where the model has no such layer.
    """

    of: str = "activation"
    at: tuple[float, ...] = (15, 50, 85)

    def __post_init__(self) -> None:
        super().__post_init__()
        choose(KINDS, self.of, "kind of layer")
        object.__setattr__(self, "at", tuple(self.at))  # from JSON it comes as a list
        check_percentiles(self.at)

    def __call__(self, look: Look) -> dict[str, float]:
        layers = {path: layer for path, layer in look.model.named_modules() if isinstance(layer, KINDS[self.of])}
        if not layers:
            kinds = ", ".join(kind.__name__.lstrip("_") for kind in KINDS[self.of])
            raise NormlabError(f"layers that are modules ({kinds})", "none", "write functions as layers")
        with torch.no_grad(), inputs_of(layers, lambda x: x.double().flatten().cpu().numpy()) as inputs:
            look.model(look.x)
        found = {path: np.percentile(np.concatenate(values), self.at) for path, values in inputs.items()}
        return {
            f"{path} p{q:g}": float(value)
            for path, values in found.items()
            for q, value in zip(self.at, values, strict=True)
        }
