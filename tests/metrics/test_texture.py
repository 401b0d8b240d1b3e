"""Busyness and seams, against scikit-image's numbers and pictures whose answer is known."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from urae.metrics import (
    compression_ratio,
    consistency,
    flatness,
    glcm_entropy,
    glcm_score,
    grid,
    psnr,
    spectrum_slope,
    stripes,
)
from urae.metrics.detail import detail
from urae.mini import render, scene


def gray(levels: np.ndarray) -> Image.Image:
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def noise(side: int = 256, spread: float = 20) -> np.ndarray:
    return 128 + np.random.default_rng(0).normal(0, spread, (side, side))


ROWS, COLUMNS = np.mgrid[:64, :64]
TILES = {
    "noise": np.random.default_rng(0).integers(0, 64, (64, 64)),
    "pattern": ROWS * COLUMNS // 32 % 64,
    "flat": np.full((64, 64), 7),
}


@pytest.mark.parametrize(
    ("name", "score", "entropy"),
    [
        ("noise", 3.534562218005126, 7.721701705017035),
        ("pattern", 0.9515742079562437, 5.392678058996043),
        ("flat", 0.0032818649698048933, 0.0),
    ],
)
def test_co_occurrence_is_that_of_scikit_image(name, score, entropy):
    """Measured with 0.26: graycomatrix(tile, [1, 2, 3, 4], 4 angles, levels=64, normed=True), its shannon_entropy, and
    the mean of its graycoprops "entropy"."""
    picture = gray(4 * TILES[name])
    assert glcm_score(picture) == pytest.approx(score, abs=1e-12)
    assert glcm_entropy(picture) == pytest.approx(entropy, abs=1e-12)


def test_tiles_are_averaged_and_a_rest_is_left_out():
    two = np.concatenate([TILES["noise"], TILES["flat"]], axis=1)
    expected = np.mean([glcm_entropy(gray(4 * TILES[name])) for name in ("noise", "flat")])
    padded = np.pad(two, ((0, 13), (0, 50)))
    assert glcm_entropy(gray(4 * two)) == pytest.approx(expected)
    assert glcm_entropy(gray(4 * padded)) == pytest.approx(expected)
    with pytest.raises(ValueError, match="63x64 px holds no 64 px tile"):
        glcm_score(gray(np.zeros((64, 63))))


def test_compression_counts_bytes_of_pixels_over_bytes_of_jpeg():
    assert compression_ratio(gray(np.full((256, 256), 90))) > 40
    assert compression_ratio(gray(noise(spread=60))) < 4


def test_flatness_is_the_share_of_flat_tiles():
    half = np.concatenate([np.full((240, 240), 90.0), noise(240, 60)], axis=1)
    assert flatness(gray(half)) == 0.5


def test_spectrum_slope_of_known_spectra():
    rng, side = np.random.default_rng(0), 256
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1
    pink = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) / frequency, (side, side))
    pink = 128 + 40 * pink / pink.std()
    assert spectrum_slope(gray(pink)) == pytest.approx(-2, abs=0.15)
    assert spectrum_slope(gray(noise())) == pytest.approx(0, abs=0.1)
    assert spectrum_slope(gray(pink).filter(ImageFilter.GaussianBlur(2))) < -3
    with pytest.raises(ValueError, match="without any structure"):
        spectrum_slope(gray(np.full((64, 64), 9)))


@pytest.mark.parametrize("kind", ["pink", "scene"])
def test_the_more_blur_the_steeper_the_spectrum(kind):
    """8 bits leave a floor of rounding: what it fills of the upper rings is not counted."""
    side = 256
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1
    pink = np.fft.irfft2(np.fft.rfft2(noise(side) - 128) / frequency, (side, side))
    picture = gray(128 + 40 * pink / pink.std()) if kind == "pink" else render(scene(4), side)
    slopes = [
        spectrum_slope(picture.filter(ImageFilter.GaussianBlur(sigma))) for sigma in (0, 1, 2, 4, 8, 12)
    ]
    assert slopes == sorted(slopes, reverse=True)


@pytest.mark.parametrize("measure", [grid, stripes, detail, spectrum_slope, flatness, glcm_score])
def test_a_picture_too_small_for_a_metric_is_a_sentence(measure):
    with pytest.raises(ValueError, match=r"a picture (of 1x1 px|1 px wide or high)"):
        measure(Image.new("RGB", (1, 1)))


@pytest.mark.parametrize("period", [4, 8, 16])
def test_a_faint_grid_is_found_at_the_periods_of_tokens(period):
    lines = 6 * (np.arange(256) % period == 0)
    assert grid(gray(noise(spread=3) + lines)) > 3 * grid(gray(noise(spread=3)))
    assert grid(gray(noise(spread=3).T + lines[:, None])) > 3 * grid(gray(noise(spread=3)))


def test_stripes_see_a_seam_and_no_texture_or_gradient():
    """A step of 9 levels between two tiles; second differences have it once up and once down."""
    ramp = np.linspace(0, 60, 256)[None] + noise(spread=2)
    seam = np.where(np.arange(256) >= 100, 9, 0)[:, None]
    assert stripes(gray(ramp)) < 2
    assert stripes(gray(ramp + seam)) == pytest.approx(9, abs=2)


def test_psnr_of_a_known_difference():
    picture = gray(np.full((8, 8), 100)).convert("RGB")
    brighter = gray(np.full((8, 8), 110)).convert("RGB")
    assert psnr(picture, brighter) == pytest.approx(20 * np.log10(255 / 10))
    assert psnr(picture, picture) == pytest.approx(58.92, abs=0.01)
    with pytest.raises(ValueError, match="8x8 px cannot be compared pixel by pixel with one of 4x4 px"):
        psnr(picture, picture.resize((4, 4)))


def test_consistency_sees_the_native_picture_below_added_detail():
    native = render(scene(3), 128)
    twice = native.resize((256, 256), Image.Resampling.NEAREST)
    checkers = np.where(np.indices((256, 256)).sum(0) % 2, 6, -6)[..., None]
    detailed = Image.fromarray((np.asarray(twice) * 0.9 + 12 + checkers).astype(np.uint8))
    plain = Image.fromarray((np.asarray(twice) * 0.9 + 12).astype(np.uint8))
    assert consistency(twice, native) == pytest.approx(58.92, abs=0.01)
    assert consistency(detailed, native) == pytest.approx(consistency(plain, native), abs=0.5)
    assert consistency(render(scene(4), 256), native) < 20
    with pytest.raises(ValueError, match="expected the same shape"):
        consistency(twice.resize((256, 128)), native)
