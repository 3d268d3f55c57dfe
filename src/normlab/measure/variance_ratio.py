"""variance_ratio: what dropout does to the variance that a batch norm behind it expects.

Li, Chen, Hu & Yang 2018, arXiv 1801.05134, section 3: with a kept fraction q, the variance in evaluation is q times
that in training where the dropped values have mean 0.
"""

import dataclasses

import torch
from torch import Tensor, nn

from normlab.measure.probe import Look
from normlab.measure.reading import Reading, at_least, inputs_of
from normlab.norms.channels import moments
from normlab.surgery.find import batch_norms


@dataclasses.dataclass(frozen=True)
class variance_ratio(Reading):
    """Of every batch norm, by its path: the variance of its input with dropout off over that with dropout on.

    Both with the same batch, and with the statistics of that batch in the norms before it: dropout alone differs.
    A variance is over the batch (and positions), averaged over the channels, and with dropout on over `draws`.
    """

    draws: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.draws, "draws")

    def __call__(self, look: Look) -> dict[str, float]:
        norms = batch_norms(look.model)
        dropouts = [layer for layer in look.model.modules() if isinstance(layer, nn.modules.dropout._DropoutNd)]
        modes = [layer.training for layer in dropouts]
        with torch.no_grad():
            with inputs_of(norms, _variance) as training:
                for _ in range(self.draws):
                    look.model(look.x)
            try:
                for layer in dropouts:
                    layer.eval()
                with inputs_of(norms, _variance) as evaluation:
                    look.model(look.x)
            finally:
                for layer, mode in zip(dropouts, modes, strict=True):
                    layer.train(mode)
        return {
            path: (torch.stack(evaluation[path]).mean() / torch.stack(uses).mean()).item()
            for path, uses in training.items()
        }


def _variance(x: Tensor) -> Tensor:
    """Of x (N, C, *spatial): the biased variance of a channel, averaged over the channels; of shape ()."""
    count, _, squares = moments(x)
    return (squares / count).double().mean()
