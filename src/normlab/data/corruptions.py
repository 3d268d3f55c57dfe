"""Corruptions of images, at severities from 1 to 5: what a network meets that was trained on clean ones.

Hendrycks & Dietterich 2019, arXiv 1903.12261 (ImageNet-C), section 4.1; rotation and translation as in Mu & Gilmer
2019, arXiv 1906.02337 (MNIST-C). Noise, contrast, brightness and JPEG have the published strengths of ImageNet-C,
which depend on no number of pixels. Blur, pixelation, rotation and translation have ours, chosen for 28x28 images:
results at them compare with each other, not with published ones. The JPEG here is its lossy part, for each channel.
"""

import dataclasses
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from normlab.errors import NormlabError, choose

Images = Float[Tensor, "N C H W"]
"""In [0, 1]."""

SEVERITIES = (1, 2, 3, 4, 5)

# Annex K.1 of the JPEG standard (ITU T.81): quantization steps of luminance at quality 50.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
BLOCK = 8


@dataclasses.dataclass(frozen=True)
class Corruption:
    """One kind of damage."""

    apply: Callable[[Images, float, torch.Generator], Images]
    """Of images, a strength and what it draws from; may leave [0, 1]."""
    strengths: tuple[float, float, float, float, float]
    """By severity."""
    unit: str


def corrupt(x: Tensor, name: str, severity: int, *, seed: int = 0) -> Tensor:
    """Images x (N, C, H, W), floats in [0, 1] or uint8, after a corruption; of their dtype, clamped to their range.

    What is drawn depends on the seed, the kind and the shape alone, so that severities share it. `CORRUPTIONS` has
    the kinds by name.

    Raises NormlabError on another kind or severity, and on what are no such images.
    """
    corruption = choose(CORRUPTIONS, name, "corruption")
    if severity not in SEVERITIES:
        raise NormlabError("a severity from 1 to 5", repr(severity))
    if x.dim() != 4 or not x.numel() or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise NormlabError("images (N, C, H, W) of uint8 or floats", f"{x.dtype} of shape {tuple(x.shape)}")
    images = x.float() / 255 if x.dtype == torch.uint8 else x
    low, high = images.aminmax()
    if not (low >= 0 and high <= 1):
        raise NormlabError("images in [0, 1]", f"from {low:g} to {high:g}", "corrupt them before you scale them")
    draw = torch.Generator().manual_seed(seed)
    damaged = corruption.apply(images, corruption.strengths[severity - 1], draw).clamp(0, 1)
    return damaged.mul(255).round().to(torch.uint8) if x.dtype == torch.uint8 else damaged


def _normal(x: Images, draw: torch.Generator) -> Images:
    """Drawn on the CPU in float32, so that it is the same everywhere."""
    return torch.randn(x.shape, generator=draw).to(x)


def _uniform(x: Images, draw: torch.Generator) -> Images:
    return torch.rand(x.shape, generator=draw).to(x)


def gaussian_noise(x: Images, deviation: float, draw: torch.Generator) -> Images:
    """Normal noise of this standard deviation on every number."""
    return x + deviation * _normal(x, draw)


def shot_noise(x: Images, photons: float, draw: torch.Generator) -> Images:
    """As if white were so many photons: Poisson counts."""
    return torch.poisson((x.float() * photons).cpu(), generator=draw).to(x) / photons


def impulse_noise(x: Images, share: float, draw: torch.Generator) -> Images:
    """Salt and pepper: this share of all numbers becomes 0 or 1."""
    drawn = _uniform(x, draw)
    return torch.where(drawn < share / 2, 0.0, torch.where(drawn < share, 1.0, x))


def blur(x: Images, deviation: float, _: torch.Generator) -> Images:
    """With a Gaussian of this standard deviation in pixels; beyond the border lies the border."""
    reach = math.ceil(3 * deviation)
    at = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    weights = torch.exp(-at.square() / (2 * deviation**2))
    weights = (weights / weights.sum()).expand(x.shape[1], 1, 1, -1)
    padded = functional.pad(x, (reach,) * 4, mode="replicate")
    across = functional.conv2d(padded, weights, groups=x.shape[1])
    return functional.conv2d(across, weights.transpose(2, 3), groups=x.shape[1])


def contrast(x: Images, factor: float, _: torch.Generator) -> Images:
    """Each channel of an image drawn towards its mean, to this share of its distance."""
    mean = x.mean((2, 3), keepdim=True)
    return mean + factor * (x - mean)


def brightness(x: Images, shift: float, _: torch.Generator) -> Images:
    """All channels lighter by the same."""
    return x + shift


def pixelate(x: Images, side: float, _: torch.Generator) -> Images:
    """In squares of so many pixels a side, each of its mean."""
    size = int(side)
    means = functional.avg_pool2d(x, size, ceil_mode=True)
    return means.repeat_interleave(size, 2).repeat_interleave(size, 3)[:, :, : x.shape[2], : x.shape[3]]


def jpeg(x: Images, quality: float, _: torch.Generator) -> Images:
    """The rounding of JPEG at this quality: blocks of 8 x 8, their cosine transform in the standard's steps."""
    scale = 50 / quality if quality < 50 else 2 - quality / 50
    steps = torch.floor(torch.tensor(_LUMINANCE) * scale + 0.5).clamp(1, 255).to(x)
    basis = _cosines().to(x)
    height, width = x.shape[2:]
    padded = functional.pad(x, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate") * 255 - 128
    blocks = padded.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK)  # (N, C, rows, columns, 8, 8)
    rounded = torch.round(basis @ blocks @ basis.T / steps) * steps
    whole = (basis.T @ rounded @ basis).transpose(3, 4).reshape(padded.shape)
    return (whole[..., :height, :width] + 128) / 255


def _cosines() -> Tensor:
    """The orthonormal type-II cosine transform of 8 numbers, (8, 8)."""
    frequency, at = torch.arange(BLOCK)[:, None], torch.arange(BLOCK)[None]
    rows = torch.cos(math.pi * (2 * at + 1) * frequency / (2 * BLOCK)) * math.sqrt(2 / BLOCK)
    rows[0] /= math.sqrt(2)
    return rows


def rotation(x: Images, degrees: float, draw: torch.Generator) -> Images:
    """By this angle, to the left or to the right; beyond the border it is black."""
    angle = math.radians(degrees) * _signs(x, draw)
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    stretch = x.shape[2] / x.shape[3]  # coordinates run from -1 to 1 along either side
    rows = torch.stack([cosine, -sine * stretch, zero, sine / stretch, cosine, zero], 1)
    return _resampled(x, rows.view(-1, 2, 3))


def translation(x: Images, share: float, draw: torch.Generator) -> Images:
    """By this share of both sides, in one of the four diagonal directions; beyond the border it is black."""
    right, down = 2 * share * _signs(x, draw), 2 * share * _signs(x, draw)
    one, zero = torch.ones_like(right), torch.zeros_like(right)
    return _resampled(x, torch.stack([one, zero, right, zero, one, down], 1).view(-1, 2, 3))


def _signs(x: Images, draw: torch.Generator) -> Tensor:
    """-1 or 1 for each image: (N,), in float64."""
    return 2 * torch.randint(2, (len(x),), generator=draw).double() - 1


def _resampled(x: Images, maps: Tensor) -> Images:
    """Bilinear, at where the affine maps (N, 2, 3) take each pixel."""
    grid = functional.affine_grid(maps.to(x), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="zeros", align_corners=False)


CORRUPTIONS = {
    "gaussian-noise": Corruption(gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38), "standard deviation"),
    "shot-noise": Corruption(shot_noise, (60, 25, 12, 5, 3), "photons of white"),
    "impulse-noise": Corruption(impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27), "share of the pixels"),
    "blur": Corruption(blur, (0.5, 0.75, 1.0, 1.5, 2.0), "pixels"),
    "contrast": Corruption(contrast, (0.4, 0.3, 0.2, 0.1, 0.05), "share that is left"),
    "brightness": Corruption(brightness, (0.1, 0.2, 0.3, 0.4, 0.5), "added"),
    "pixelate": Corruption(pixelate, (2, 3, 4, 5, 7), "pixels of a side"),
    "jpeg": Corruption(jpeg, (25, 18, 15, 10, 7), "quality"),
    "rotation": Corruption(rotation, (10, 20, 30, 45, 60), "degrees"),
    "translation": Corruption(translation, (0.05, 0.1, 0.15, 0.2, 0.25), "share of the side"),
}
