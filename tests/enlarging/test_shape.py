"""From size to size: one factor for both sides, cut and padded to the pixel, and said."""

import numpy as np
import pytest
from PIL import Image

from urae.enlarging import fitted


def fit(source, **asked):
    return fitted(source, **({"scale": None, "size": None, "crop": False, "multiple": 16} | asked))


def ramp(width, height):
    """Red counts columns, green rows."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = np.arange(width) * 2
    pixels[..., 1] = np.arange(height)[:, None] * 2
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("source", "asked", "size", "drawn"),
    [
        ((100, 60), {"scale": 2}, (200, 120), (208, 128)),
        ((64, 48), {"scale": 2}, (128, 96), (128, 96)),
        ((33, 17), {"scale": 1.5}, (49, 25), (64, 32)),
        ((100, 67), {"size": (200, 134)}, (200, 134), (208, 144)),
        ((101, 67), {"size": (300, 199)}, (300, 199), (304, 208)),
        ((100, 60), {"size": (200, 200), "crop": True}, (200, 200), (208, 208)),
    ],
)
def test_sizes(source, asked, size, drawn):
    found = fit(source, **asked)
    assert (found.size, found.drawn) == (size, drawn)
    picture = ramp(*source)
    before = found.enlarged(picture)
    padded = found.padded(before)
    assert (before.size, padded.size) == (size, drawn)
    assert np.array_equal(np.asarray(found.cropped(padded)), np.asarray(before))


@pytest.mark.parametrize("asked", [{"scale": 2}, {"scale": 1.5}, {"size": (200, 200), "crop": True}])
def test_nothing_is_stretched(asked):
    """Both ramps rise by 2 / scale a pixel, and are the source's own about the middle."""
    found = fit((100, 60), **asked)
    pixels = np.asarray(found.enlarged(ramp(100, 60))).astype(float)
    inner = pixels[10:-10, 10:-10]
    across = (inner[0, -1, 0] - inner[0, 0, 0]) / (inner.shape[1] - 1)
    down = (inner[-1, 0, 1] - inner[0, 0, 1]) / (inner.shape[0] - 1)
    assert (across, down) == pytest.approx((2 / found.scale, 2 / found.scale), rel=0.02)
    assert pixels[..., 0].mean() == pytest.approx(99, abs=0.7)
    assert pixels[..., 1].mean() == pytest.approx(59, abs=0.7)


def test_it_says_what_it_does():
    assert str(fit((64, 48), scale=2)) == "size: 64x48 to 128x96, 2 times"
    assert str(fit((100, 60), scale=2)) == (
        "size: 100x60 to 200x120, 2 times; drawn at 208x128, with 8 columns and 8 rows of mirrored border that are cut "
        "off again"
    )
    assert "cut to the shape: 133 columns and 0 rows, half on each side" in str(
        fit((100, 60), size=(200, 200), crop=True)
    )


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"size": (200, 200)},
            "of another shape than the picture, which is 100x60: take 200x120 or 333x200, or let",
        ),
        ({"size": (50, 30)}, "50x30 is no larger than the picture, which is 100x60"),
        ({"size": (200, 120), "crop": True}, "crop has no effect, as 200x120 is of the picture's shape"),
    ],
)
def test_what_does_not_fit_is_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        fit((100, 60), **asked)
