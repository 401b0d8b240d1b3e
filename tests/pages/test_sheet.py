"""A sheet of pictures as a page: what it holds, and what a narrow and dark screen shows of it."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from browser import browsing, needs_chromium, resize
from urae.pages import SheetPart, sheet_page, tile_of
from urae.pages.sheet import CELL


def noise(width, height):
    values = np.random.default_rng(0).integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def page_of(tiles):
    return sheet_page([SheetPart(heading="a <b> & c", note="seed 3", tiles=tiles)], title="compared")


def test_crops_are_exact_and_stay_within_the_picture():
    picture = noise(640, 400)
    tile = tile_of(picture, label="one", crops=[(0.5, 0.5), (0, 0), (1, 1)])
    boxes = [(160, 40, 480, 360), (0, 0, 320, 320), (320, 80, 640, 400)]
    found = re.findall(r"data:image/png;base64,([\w+/=]+)", page_of([tile]))
    assert len(found) == len(boxes)
    for text, box in zip(found, boxes, strict=True):
        shown = Image.open(io.BytesIO(base64.b64decode(text)))
        assert np.array_equal(np.asarray(shown), np.asarray(picture.crop(box)))


def test_a_small_picture_has_no_crop_and_texts_are_escaped():
    page = page_of([tile_of(noise(CELL, CELL), label="<i>", file="a b&c.png")])
    assert "image/png" not in page
    assert not re.search("<b>|<i>", page)
    assert 'href="a%20b%26c.png"' in page


@needs_chromium
@pytest.mark.slow
def test_a_phone_shows_two_columns_pixel_by_pixel_and_dark(tmp_path):
    picture = noise(640, 640)
    (tmp_path / "page.html").write_text(page_of([tile_of(picture, label=str(i)) for i in range(4)]))
    with browsing(tmp_path / "profile") as driver:
        resize(driver, 390, 844, phone=True)
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": dark})
        driver.get((tmp_path / "page.html").as_uri())
        assert driver.execute_script("return document.documentElement.scrollWidth") == 390
        figures = driver.execute_script(
            "return [...document.querySelectorAll('figure')].map(f => f.getBoundingClientRect().toJSON())"
        )
        assert len({round(figure["left"]) for figure in figures}) == 2
        paper = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert max(map(int, re.findall(r"\d+", paper))) < 64
        left, top, width, height = driver.execute_script(
            "const r = document.querySelector('.crop').getBoundingClientRect();"
            "return [r.left, r.top, r.width, r.height]"
        )
        shot = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    middle = (int(left + width / 2) - 40, int(top + height / 2) - 40)
    seen = np.asarray(shot.crop((*middle, middle[0] + 80, middle[1] + 80)))
    # The crop is the picture's own pixels around its middle, up to where the browser puts half a pixel.
    values = np.asarray(picture)
    offsets = [(y, x) for y in range(276, 286) for x in range(276, 286)]
    assert any(np.array_equal(seen, values[y : y + 80, x : x + 80]) for y, x in offsets)
