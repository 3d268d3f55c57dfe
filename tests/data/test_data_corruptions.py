"""Corruptions: each by a formula of its own, deterministic, in range, and the harder the severer."""

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
import torch

from normlab.data import CORRUPTIONS, corrupt
from normlab.errors import NormlabError

X = torch.rand(6, 3, 16, 28, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
GREY = torch.full((4, 1, 28, 28), 0.5)
each_kind = pytest.mark.parametrize("name", CORRUPTIONS)


@each_kind
@pytest.mark.parametrize("severity", [1, 5])
def test_shape_dtype_range_and_the_original_stay(name: str, severity: int) -> None:
    for x in (X, X.float(), (X * 255).round().to(torch.uint8)):
        before = x.clone()
        found = corrupt(x, name, severity)
        assert (found.shape, found.dtype) == (x.shape, x.dtype)
        assert torch.equal(x, before)
        assert found.min() >= 0
        assert found.max() <= (255 if x.dtype == torch.uint8 else 1)
        assert not torch.equal(found, x)


@each_kind
def test_a_seed_decides_it_and_leaves_torchs_generator(name: str) -> None:
    state = torch.get_rng_state()
    assert torch.equal(corrupt(X, name, 3, seed=4), corrupt(X, name, 3, seed=4))
    assert torch.equal(torch.get_rng_state(), state)
    draws = name.endswith("noise") or name in ("rotation", "translation")
    assert torch.equal(corrupt(X, name, 3, seed=4), corrupt(X, name, 3, seed=5)) != draws


@each_kind
def test_severer_is_farther_from_the_original(name: str) -> None:
    yy, xx = torch.meshgrid(torch.linspace(-1, 1, 28), torch.linspace(-1, 1, 28), indexing="ij")
    shapes = torch.exp(-4 * (xx - 0.2).square() - 40 * (yy + 0.1 * xx).square()).expand(40, 1, 28, 28)
    distances = [(corrupt(shapes, name, severity) - shapes).square().mean().item() for severity in range(1, 6)]
    assert distances == sorted(distances)
    assert distances[0] > 0


@each_kind
def test_bytes_are_what_their_floats_are(name: str) -> None:
    raw = (X * 255).round().to(torch.uint8)
    floats = corrupt(raw.float() / 255, name, 2)
    assert torch.equal(corrupt(raw, name, 2), (floats * 255).round().to(torch.uint8))


def test_noise_has_its_strength() -> None:
    grey = GREY.expand(-1, -1, 28, 28).repeat(20, 1, 1, 1)
    assert (corrupt(grey, "gaussian-noise", 2) - grey).std().item() == pytest.approx(0.12, rel=0.02)
    shot = corrupt(grey, "shot-noise", 1)
    assert shot.mean().item() == pytest.approx(0.5, rel=0.01)
    assert shot.var().item() == pytest.approx(0.5 / 60, rel=0.03)
    impulse = corrupt(grey, "impulse-noise", 4)
    for value in (0, 1):
        assert (impulse == value).float().mean().item() == pytest.approx(0.17 / 2, rel=0.05)


def test_severities_share_their_draws() -> None:
    one, two = (corrupt(GREY, "gaussian-noise", severity) - 0.5 for severity in (1, 2))
    assert torch.allclose(two, one * 1.5, atol=1e-6)


def test_blur_is_scipys() -> None:
    expected = scipy.ndimage.gaussian_filter(X.numpy(), (0, 0, 1.5, 1.5), mode="nearest", radius=(0, 0, 5, 5))
    assert np.allclose(corrupt(X, "blur", 4).numpy(), expected, atol=1e-12)


def test_contrast_and_brightness() -> None:
    mean = X.mean((2, 3), keepdim=True)
    assert torch.allclose(corrupt(X, "contrast", 1), mean + 0.4 * (X - mean))
    assert torch.allclose(corrupt(X, "brightness", 3), (X + 0.3).clamp(max=1))


def test_pixels_are_means() -> None:
    found = corrupt(X, "pixelate", 1)
    means = X.reshape(6, 3, 8, 2, 14, 2).mean((3, 5))
    assert torch.allclose(found, means.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_jpeg_rounds_scipys_cosine_transform() -> None:
    x = 0.4 + 0.2 * X[:, :, :, :24]  # whole blocks, and far from where clamping would change them
    found = corrupt(x, "jpeg", 1)
    luminance = torch.tensor([16, 11, 10, 16, 24, 40, 51, 61]) * 2  # the table's first row, at quality 25

    def first_row(images: torch.Tensor) -> torch.Tensor:
        block = images[2, 1, 8:16, 16:24].numpy() * 255 - 128
        return torch.from_numpy(scipy.fft.dctn(block, norm="ortho"))[0]

    assert torch.allclose(first_row(found), (first_row(x) / luminance).round() * luminance, atol=1e-4)
    assert first_row(found).abs().max() > 0


def test_jpeg_keeps_an_even_image_and_pads_one_that_is_no_whole_block() -> None:
    assert torch.allclose(corrupt(GREY, "jpeg", 1), GREY, atol=16 / 255)
    assert corrupt(X[..., :13, :27], "jpeg", 5).shape == (6, 3, 13, 27)


def test_rotation_turns_by_its_angle_to_either_side() -> None:
    found = corrupt(X, "rotation", 3).numpy()
    images = X.numpy()
    matches = set()
    for index in range(6):
        for sign in (-1, 1):
            turned = scipy.ndimage.rotate(images[index, 0], 30 * sign, reshape=False, order=1, mode="grid-constant")
            if np.allclose(found[index, 0], turned, atol=1e-6):
                matches.add((index, sign))
    assert {index for index, _ in matches} == set(range(6))
    assert {sign for _, sign in matches} == {-1, 1}


def test_translation_moves_by_whole_pixels_where_its_share_is_whole() -> None:
    x = torch.rand(12, 1, 20, 40, dtype=torch.float64)
    found = corrupt(x, "translation", 2)
    ways = set()
    for index in range(12):
        for down in (-2, 2):
            for right in (-4, 4):
                moved = torch.zeros_like(x[index, 0])
                rows, columns = slice(max(down, 0), 20 + min(down, 0)), slice(max(right, 0), 40 + min(right, 0))
                from_rows = slice(max(-down, 0), 20 + min(-down, 0))
                from_columns = slice(max(-right, 0), 40 + min(-right, 0))
                moved[rows, columns] = x[index, 0, from_rows, from_columns]
                if torch.allclose(found[index, 0], moved, atol=1e-9):
                    ways.add((index, down, right))
    assert {index for index, *_ in ways} == set(range(12))
    assert len({(down, right) for _, down, right in ways}) > 1


@pytest.mark.parametrize(
    ("x", "name", "severity", "message"),
    [
        (X, "fog", 1, "a known corruption, got 'fog'"),
        (X, "blur", 0, "a severity from 1 to 5, got 0"),
        (X, "blur", 6, "a severity from 1 to 5, got 6"),
        (X[0], "blur", 1, r"images \(N, C, H, W\) of uint8 or floats, got torch.float64 of shape \(3, 16, 28\)"),
        (X[:0], "blur", 1, r"got torch.float64 of shape \(0, 3, 16, 28\)"),
        (X.long(), "blur", 1, "of uint8 or floats, got torch.int64"),
        (X * 2, "blur", 1, r"images in \[0, 1\], got from .*; corrupt them before you scale them"),
        (X * torch.nan, "blur", 1, r"images in \[0, 1\]"),
    ],
)
def test_what_cannot_be_corrupted(x: torch.Tensor, name: str, severity: int, message: str) -> None:
    with pytest.raises(NormlabError, match=message):
        corrupt(x, name, severity)
