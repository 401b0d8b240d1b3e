import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from urae.data.sidecar import Sidecar
from urae.intake import Filters, Measures, measure
from urae.intake.duplicates import Hashes
from urae.intake.measures import Tiles, blockiness, perceptual_hash
from urae.mini import render, scene

SIZE = 512


@pytest.fixture(scope="module")
def pictures():
    return [render(scene(seed), SIZE) for seed in (0, 2, 6, 9)]


def measured(image, bucket=(SIZE, SIZE)):
    grey = image.convert("L")
    return measure(grey, Tiles.of(grey, bucket))


def scaled(image, factor, how=Image.Resampling.LANCZOS):
    return image.resize((round(image.width * factor), round(image.height * factor)), how)


def jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def smooth(seed):
    """A random picture without edges or texture: all that is fine in it comes after."""
    coarse = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC)


RESAMPLINGS = [Image.Resampling.LANCZOS, Image.Resampling.BICUBIC, Image.Resampling.BILINEAR]


def test_sharp_pictures_pass_and_enlarged_or_blurred_ones_do_not(pictures):
    least = Filters(size=SIZE).sharpness
    for picture in pictures:
        assert measured(picture).sharpness > least
        for how in RESAMPLINGS:
            assert measured(scaled(scaled(picture, 0.5), 2, how)).sharpness < least
        blurred = measured(picture.filter(ImageFilter.GaussianBlur(2)))
        assert Filters(size=SIZE).reject("x", Sidecar(), blurred, {}).reason in ("sharpness", "flatness")


def test_sharpness_is_that_of_the_size_that_is_trained_on(pictures):
    """Enlarged to 1024 and trained on at 512 again, a picture has lost nothing; at 1024 it has."""
    least = Filters(size=SIZE).sharpness
    for picture in pictures:
        large = scaled(picture, 2)
        assert measured(large, (SIZE, SIZE)).sharpness > least > measured(large, (1024, 1024)).sharpness


def test_a_white_spectrum_has_the_sharpness_of_its_area():
    """The finest octave is a ring of four times the area."""
    noise = np.random.default_rng(0).normal(128, 30, (SIZE, SIZE)).clip(0, 255).astype(np.uint8)
    assert measured(Image.fromarray(noise).convert("RGB")).sharpness == pytest.approx(4, rel=0.05)


def test_a_wave_is_measured_in_its_octave():
    x = np.arange(SIZE)
    for wavelength, octave in ((3, "fine"), (6, "next")):
        wave = np.broadcast_to(128 + 100 * np.sin(2 * np.pi * x / wavelength), (SIZE, SIZE))
        tiles = Tiles.of(Image.fromarray(wave.round().astype(np.uint8)), (SIZE, SIZE))
        assert getattr(tiles, octave).mean() == pytest.approx(100**2 / 2, rel=0.02)


def test_blockiness_follows_the_quality():
    for seed in range(3):
        soft = smooth(seed)
        series = [blockiness(jpeg(soft, quality).convert("L")) for quality in (95, 75, 40, 10)]
        assert series == sorted(series)
        assert blockiness(soft.convert("L")) < 1.3 < Filters(size=SIZE).blockiness < series[-1]


def test_blocks_are_found_where_a_crop_has_put_them():
    damaged = jpeg(smooth(0), 15)
    cropped = damaged.crop((3, 5, SIZE - 5, SIZE - 3)).convert("L")
    assert blockiness(cropped) == pytest.approx(blockiness(damaged.convert("L")), rel=0.25)


def test_stripes_are_no_blocks():
    stripes = np.broadcast_to(np.where(np.arange(SIZE) % 8 < 4, 100, 106).astype(np.uint8), (SIZE, SIZE))
    assert blockiness(Image.fromarray(stripes)) < 1.5


def test_entropy_and_flatness_of_what_has_nothing_to_see():
    grey = Image.new("RGB", (SIZE, SIZE), "grey")
    assert (measured(grey).entropy, measured(grey).flatness, measured(grey).sharpness) == (0, 1, 0)
    half = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
    half.paste("grey", (0, 0, SIZE, SIZE // 2))
    assert measured(half).flatness == 0.5


@pytest.mark.parametrize("size", [(1, 1), (2, 900), (900, 1), (257, 255)])
def test_pictures_of_any_shape_are_measured(size):
    assert measured(Image.new("RGB", size)).size == size


def test_a_hash_survives_what_does_not_change_the_picture(pictures):
    changed = [lambda i: scaled(i, 0.3), lambda i: jpeg(i, 20), lambda i: i.point(lambda v: v * 0.8 + 20)]
    hashes = [perceptual_hash(picture.convert("L")) for picture in pictures]
    for picture, own in zip(pictures, hashes, strict=True):
        others = [perceptual_hash(change(picture).convert("L")) for change in changed]
        assert max((own ^ other).bit_count() for other in others) <= 6
    assert min((a ^ b).bit_count() for a in hashes for b in hashes if a != b) > 10


@pytest.mark.parametrize("distance", [0, 3, 6, 16])
def test_lookup_finds_what_a_search_through_all_finds(distance):
    rng = np.random.default_rng(distance)
    filed, hashes = Hashes(distance), []
    for index in range(500):
        value = int(rng.integers(2**63))
        if index % 2:  # near one that is filed, by up to 20 bits
            value = hashes[int(rng.integers(len(hashes)))]
            for bit in rng.choice(64, size=int(rng.integers(21)), replace=False):
                value ^= 1 << int(bit)
        distances = [(value ^ other).bit_count() for other in hashes]
        found = filed.nearest(value)
        assert (found[0] if found else None) == min((d for d in distances if d <= distance), default=None)
        filed.add(value, str(index))
        hashes.append(value)


GOOD = Measures(size=(SIZE, SIZE), entropy=7, flatness=0.1, sharpness=0.3, blockiness=1.1, hash=0)
BESIDE = Sidecar(captions={"original": "a cat"}, facts={"licence": "CC0-1.0"})


@pytest.mark.parametrize(
    ("reason", "change", "detail"),
    [
        ("size", {"size": (540, 360)}, "540x360, 640x416 is enough for its shape at 512 px"),
        ("aspect", {"size": (4000, 1000)}, "4.00 to 1, at most 2.5"),
        ("entropy", {"entropy": 2.5}, "2.5, at least 3"),
        ("flatness", {"flatness": 0.95}, "0.95, at most 0.9"),
        ("sharpness", {"sharpness": 0.1}, "0.1, at least 0.125"),
        ("blockiness", {"blockiness": 4.0}, "4, at most 3.5"),
    ],
)
def test_each_filter_says_what_it_found_and_expected(reason, change, detail):
    assert Filters(size=SIZE).reject("x", BESIDE, GOOD, {}) is None
    found = Filters(size=SIZE).reject("x", BESIDE, replace(GOOD, **change), {})
    assert (found.reason, found.detail) == (reason, detail)
    assert Filters.off(SIZE).reject("x", BESIDE, replace(GOOD, **change), {}) is None or reason == "size"


@pytest.mark.parametrize(
    ("filters", "reason", "detail"),
    [
        ({"captions": (6, 100)}, "caption", "5 characters, expected 6 to 100"),
        ({"captions": (0, 4)}, "caption", "5 characters, expected 0 to 4"),
        ({"licences": ("CC-BY-4.0", "mit")}, "licence", "CC0-1.0, expected CC-BY-4.0 or mit"),
        ({"detectors": {"watermark": 0.5}}, "detector watermark", "0.7, at most 0.5"),
    ],
)
def test_captions_licences_and_detectors(filters, reason, detail):
    found = Filters(size=SIZE, **filters).reject("x", BESIDE, GOOD, {"watermark": 0.7})
    assert (found.reason, found.detail) == (reason, detail)


def test_what_has_no_caption_or_licence():
    bare = Sidecar()
    assert Filters(size=SIZE).reject("x", bare, GOOD, {}) is None
    asked = Filters(size=SIZE, captions=(1, 100)).reject("x", bare, GOOD, {})
    assert (asked.reason, asked.detail) == ("caption", "0 characters, expected 1 to 100")
    found = Filters(size=SIZE, licences=("CC0-1.0",)).reject("x", bare, GOOD, {})
    assert found.detail == "not known, expected CC0-1.0"
    assert Filters(size=SIZE, licences=("cc0-1.0",)).reject("x", BESIDE, GOOD, {}) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sharpness": -1}, "sharpness is -1: expected 0 to 4"),
        ({"flatness": 2}, "flatness is 2: expected 0 to 1"),
        ({"max_ratio": 0.5}, "max_ratio is 0.5"),
        ({"captions": (5, 1)}, r"captions is \(5, 1\)"),
        ({"duplicates": 40}, "duplicates is 40: expected 0 to 16 bits"),
        ({"size": 100}, "side is 100: expected a positive multiple of 16"),
    ],
)
def test_thresholds_that_make_no_sense(values, message):
    with pytest.raises(ValueError, match=message):
        Filters(**{"size": SIZE} | values)
