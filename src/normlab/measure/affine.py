"""affine: the paths of gamma and beta."""

import dataclasses

from normlab.measure.probe import Look
from normlab.measure.reading import Reading, at_least
from normlab.surgery.find import batch_norms


@dataclasses.dataclass(frozen=True)
class affine(Reading):
    """Of every batch norm's gamma and beta the mean, and the first `channels`: `norm1.gamma.mean`, `norm1.beta[0]`.

    A norm without them gives none.
    """

    channels: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, self.channels, "channels")

    def __call__(self, look: Look) -> dict[str, float]:
        found: dict[str, float] = {}
        for path, norm in batch_norms(look.model).items():
            for name, values in (("gamma", norm.weight), ("beta", norm.bias)):
                if values is None:
                    continue
                found[f"{path}.{name}.mean"] = values.detach().double().mean().item()
                first = values.detach()[: self.channels].tolist()
                found |= {f"{path}.{name}[{channel}]": value for channel, value in enumerate(first)}
        return found
