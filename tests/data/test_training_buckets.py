"""What becomes of the sizes in which services and cameras deliver."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from tiny import with_text_encoders
from urae.data import cache, open_cache
from urae.data.pixels import assign_buckets, cover_scale, split_by_size, training_bucket, training_buckets
from urae.data.record import Record

ULTRA = [(2048, 2048), (2368, 1792), (2496, 1664), (2752, 1536), (3136, 1344)]
SEEDREAM_2K = [(2048, 2048), (2304, 1728), (2496, 1664), (2560, 1440), (3024, 1296)]
SEEDREAM_4K = [(4096, 4096), (4704, 3520), (4992, 3328), (5504, 3040), (6240, 2656)]
FLUX_2 = [(2048, 2048), (2304, 1728), (2352, 1568), (2480, 1648), (2720, 1520)]
GPT_IMAGE = [(1024, 1024), (1536, 1024)]


def both_ways(sizes):
    return [*sizes, *((height, width) for width, height in sizes if width != height)]


SIZES = [
    *((2048, image) for image in both_ways([*ULTRA, *SEEDREAM_2K, *FLUX_2])),
    *((4096, image) for image in both_ways(SEEDREAM_4K)),
    *((1024, image) for image in both_ways(GPT_IMAGE)),
]


@pytest.mark.parametrize(("size", "image"), SIZES)
def test_every_size_of_every_teacher_is_trained_on(size, image):
    """Nothing is enlarged, at most a tenth is cut away beyond the resize, and the area is that of the size."""
    bucket = training_bucket(image, size)
    assert cover_scale(image, bucket) <= 1
    assert bucket[0] % 16 == bucket[1] % 16 == 0
    assert 0.85 <= bucket[0] * bucket[1] / size**2 <= 1.06
    shape, kept = image[0] / image[1], bucket[0] / bucket[1]
    assert 0.9 < shape / kept < 1.12


def test_mirrored_images_have_mirrored_buckets():
    for size, image in SIZES:
        assert training_bucket(image[::-1], size) == training_bucket(image, size)[::-1]


@pytest.mark.parametrize("size", [256, 1024, 2048, 4096])
def test_whatever_fills_the_grid_stays_on_it(size):
    """So the caches of earlier versions remain valid."""
    grid = training_buckets(size)
    for width, height in grid:
        for factor in (1, 1.3, 2.5):
            assert training_bucket((round(width * factor), round(height * factor)), size) == (width, height)


@pytest.mark.parametrize(
    ("size", "image"),
    [
        (2048, (1900, 1900)),  # a square of less than the side
        (2048, (1536, 1024)),
        (2048, (2560, 1300)),  # too few pixels
        (2048, (4096, 1024)),  # 4 to 1
        (4096, (3840, 2160)),
        (128, (9, 400)),  # thinner than a token
        (128, (1, 1)),
    ],
)
def test_what_is_too_small_is_never_enlarged(size, image):
    assert cover_scale(image, training_bucket(image, size)) > 1
    record = Record(id="0" * 64, file="a.png", size=image, captions={"detailed": "a"}, source="folder")
    assert split_by_size([record], size) == ([], [record])
    with pytest.raises(ValueError, match=rf"1 images are too small for {size} px.*{image[0]}x{image[1]}"):
        assign_buckets([record], size)


def test_a_service_fills_few_buckets():
    """So that batches of one shape fill up."""
    images = both_ways(ULTRA) * 40
    found = Counter(training_bucket(image, 2048) for image in images)
    assert set(found.values()) == {40}


def test_what_does_not_fit_is_left_out_by_a_sentence_and_the_rest_is_cached(pipe, tmp_path, capfd):
    """A paid image that is too small is no dead end: it is counted, named, and not in the cache."""
    sizes = {"a": (64, 64), "b": (48, 48), "c": (96, 64), "d": (20, 90)}
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, (width, height) in sizes.items():
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text("a thing")
    made = cache(with_text_encoders(pipe), folder, tmp_path / "cache", size=64)
    said = capfd.readouterr().err
    assert "2 of 4 images are left out, being too small for 64 px: b.png (48x48), d.png (20x90)" in said
    assert [entry.record.file for entry in made.entries] == ["a.png", "c.png"]
    assert open_cache(tmp_path / "cache").digest == made.digest
