import numpy as np
import pytest
from PIL import Image, ImageFilter

from urae.metrics import relative_detail
from urae.metrics.detail import detail
from urae.metrics.repetition import repetition
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


@pytest.mark.parametrize("copies", [2, 4])
def test_copies_are_told_from_truth(copies):
    truth = [repetition(render(scene(i), 256)) for i in range(12)]
    repeated = [repetition(grid(render(scene(i), 128), copies)) for i in range(12)]
    assert min(repeated) > 0.98
    assert np.median(truth) < 0.4


def test_repetition_does_not_depend_on_size():
    at = [repetition(render(scene(4), size)) for size in (128, 256, 512)]
    assert max(at) - min(at) < 0.03


def test_a_flat_picture_repeats_nothing():
    assert repetition(Image.new("RGB", (128, 128), "teal")) == 0


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
