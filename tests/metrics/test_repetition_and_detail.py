import numpy as np
import pytest
from PIL import Image, ImageFilter

from urae.metrics import relative_detail
from urae.metrics.detail import detail
from urae.metrics.repetition import autocorrelation, repetition
from urae.mini import render, scene


def grid(image: Image.Image, copies: int) -> Image.Image:
    """`image` repeated in rows and columns: the failure above the native size."""
    side = image.width
    sheet = Image.new("RGB", (side * copies, side * copies))
    for x in range(copies):
        for y in range(copies):
            sheet.paste(image, (x * side, y * side))
    return sheet


def add_noise(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image) + np.random.default_rng(0).normal(0, 25, (image.height, image.width, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def test_truth_repeats_nothing():
    assert np.median([repetition(render(scene(i), 256)) for i in range(12)]) < 0.4


@pytest.mark.parametrize("copies", [2, 4])
def test_copies_are_told_from_truth(copies):
    repeated = [repetition(grid(render(scene(i), 128), copies)) for i in range(12)]
    assert min(repeated) > 0.98


def test_repetition_does_not_depend_on_size():
    at = [repetition(render(scene(4), size)) for size in (128, 256, 512)]
    assert max(at) - min(at) < 0.05


ROWS, COLUMNS = np.mgrid[:256, :256]
GRAIN = np.random.default_rng(0).normal(size=(256, 256))
WITHOUT_COPIES = {
    "gradient": COLUMNS,
    "faint gradient": 100 + COLUMNS / 16,
    "slanted gradient": (ROWS + COLUMNS) / 2,
    "vignette": 255 - np.hypot(ROWS - 128, COLUMNS - 128),
    "two halves": np.where(COLUMNS < 128, 60, 190),
    "two unequal halves": np.where(ROWS < 90, 60, 190),
    "sky over ground": np.where(ROWS < 130, 180 + ROWS / 5 + 3 * GRAIN, 90 + ROWS / 6 + 25 * GRAIN),
    "a pole": np.where(abs(COLUMNS - 100) < 6, 30, 200),
    "a slanted pole": np.where(abs(COLUMNS - ROWS) < 6, 30, 200),
    "a pole before the horizon": np.where(abs(COLUMNS - 100) < 5, 20, np.where(ROWS < 150, 200, 90)),
    "a cross": np.where((abs(COLUMNS - 100) < 6) | (abs(ROWS - 150) < 6), 30, 200),
    "a corner": np.where((COLUMNS > 100) & (ROWS > 75), 60, 200),
    "a disc": np.where(np.hypot(ROWS - 128, COLUMNS - 128) < 40, 30, 200),
    "a frame": np.where(np.maximum(abs(ROWS - 128), abs(COLUMNS - 128)) > 108, 30, 200),
}


@pytest.mark.parametrize("name", WITHOUT_COPIES)
def test_what_is_alike_along_a_line_is_no_copy(name):
    picture = Image.fromarray(WITHOUT_COPIES[name].clip(0, 255).astype(np.uint8))
    assert repetition(picture) < 0.12


def test_two_of_a_thing_are_a_copy():
    near, far = (np.hypot(ROWS - 128, COLUMNS - x) < 30 for x in (75, 175))
    assert repetition(Image.fromarray(np.where(near | far, 30, 200).astype(np.uint8))) > 0.85


@pytest.mark.parametrize("copies", [2, 3, 4, 5])
def test_copies_before_a_gradient_are_seen_as_without(copies):
    """The sky behind a grid of objects does not return; the objects do."""
    sky = np.linspace(-40, 40, 256)[:, None, None]
    for i in range(4):
        tiles = grid(render(scene(i), 128), copies).resize((256, 256), Image.Resampling.BOX)
        behind = (np.asarray(tiles) * 0.6 + 50 + sky).clip(0, 255).astype(np.uint8)
        assert repetition(Image.fromarray(behind)) > 0.9


def test_the_earlier_measure_is_kept_for_comparison():
    """Values of `repetition` at commit 2e0c584: it took a pole and a gradient for copies."""
    values = [autocorrelation(render(scene(i), 256)) for i in range(3)]
    assert values == pytest.approx([0.1303818249694696, 0.16295307554983812, 0.15697747548529248], abs=1e-9)
    assert autocorrelation(Image.fromarray(WITHOUT_COPIES["a pole"].astype(np.uint8))) > 0.99


def test_a_flat_picture_repeats_nothing():
    assert repetition(Image.new("RGB", (128, 128), "teal")) < 1e-9


def test_noise_does_not_repeat():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert repetition(Image.fromarray(noise)) < 0.2


def test_detail_of_a_known_pattern():
    """Columns of 0 and 1: block means are 0.5, the rest is 0.5 everywhere."""
    columns = np.tile(np.array([0, 255], np.uint8), (8, 4))
    assert detail(Image.fromarray(columns).convert("RGB")) == pytest.approx(0.5)
    assert detail(Image.new("RGB", (8, 8), "red")) == 0


def test_relative_detail_orders_blur_truth_and_noise():
    truth = [render(scene(i), 256) for i in range(5)]
    blurred = [image.filter(ImageFilter.GaussianBlur(1)) for image in truth]
    noisy = [add_noise(image) for image in truth]
    assert relative_detail(blurred, truth) < 0.7
    assert relative_detail(truth, truth) == 1
    assert relative_detail(noisy, truth) > 1.3
