"""uniformity: how near to uniform a probability integral transform brings the inputs of norms, by the sample's size.

A number put through the distribution function of its own distribution is uniform on (0, 1) (Rosenblatt 1952). The
function must be estimated: here in three ways, from the very values that are transformed, as a layer does.
"""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from normlab.functional import gaussian_pit, rank_pit
from normlab.measure.probe import Look
from normlab.measure.reading import Reading, at_least, inputs_of
from normlab.surgery.find import batch_norms

NORMAL = "normal"
"""In the place of a path: the same of normal random numbers, for which the Gaussian fit is right."""

Samples = Float[Tensor, "C n"]


@dataclasses.dataclass(frozen=True)
class uniformity(Reading):
    """`{path} {fit} {n}`: the distance to uniform of n inputs of a batch norm after the transform by a fit.

    The distance is that of Kolmogorov and Smirnov, averaged over the first `channels` channels. The n values are
    drawn from the batch and all positions: `values` of them, or as many as there are, and a fourth, a 16th and a
    64th of it.
    """

    channels: int = 4
    values: int = 2_000

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.channels, "channels")
        at_least(2, self.values, "values")

    def __call__(self, look: Look) -> dict[str, float]:
        with torch.no_grad(), inputs_of(batch_norms(look.model), self._by_channel) as inputs:
            look.model(look.x)
        samples = {path: torch.cat(uses, 1) for path, uses in inputs.items()}
        draw = torch.Generator().manual_seed(look.recipe.seed)
        samples[NORMAL] = torch.randn(self.channels, self.values, generator=draw, dtype=torch.float64)
        found = {}
        for path, x in samples.items():
            x = x[:, torch.randperm(x.shape[1], generator=draw)[: self.values]]
            for n in sorted({x.shape[1] // part for part in (1, 4, 16, 64)} - {0, 1}):
                for name, fit in FITS.items():
                    found[f"{path} {name} {n}"] = distance(fit(x[:, :n])).mean().item()
        return found

    def _by_channel(self, x: Tensor) -> Samples:
        """Of x (N, C, *spatial); a copy, since the layer may work in place."""
        return x[:, : self.channels].movedim(1, 0).flatten(1).cpu().double().clone()


def gaussian(x: Samples) -> Samples:
    """By the normal distribution with each channel's mean and variance: what the norm `pit` does."""
    return gaussian_pit(x.T, training=True, eps=0.0)[0].T


def kernel(x: Samples) -> Samples:
    """By a kernel density estimate, Gaussian kernels of the width n^(-1/5) standard deviations (Scott 1992)."""
    widths = x.std(1, keepdim=True) * x.shape[1] ** -0.2
    by_channel = zip(x, widths, strict=True)
    return torch.stack([torch.special.ndtr((c[:, None] - c) / width).mean(1) for c, width in by_channel])


def ranks(x: Samples) -> Samples:
    """By ranks, (r - 1/2) / n: what the norm `rank-pit` does."""
    return rank_pit(x.T, training=True)[0].T


def distance(u: Samples) -> Float[Tensor, " C"]:
    """Of Kolmogorov and Smirnov: between each channel's empirical distribution function and that of U(0, 1)."""
    n = u.shape[1]
    steps = torch.arange(n + 1, dtype=u.dtype, device=u.device) / n
    ordered = u.sort(1).values
    return torch.maximum(steps[1:] - ordered, ordered - steps[:-1]).amax(1)


FITS = {"gaussian": gaussian, "kernel": kernel, "ranks": ranks}
