import pytest
from PIL import Image, ImageFilter

from urae.mini import familiar_scene, render
from urae.quickstart.overview import overview
from urae.quickstart.run import FIRST_PROMPT, measure


def test_the_overview_shows_every_picture_in_its_place():
    colors = ["red", "green", "blue", "yellow"]
    rows = [
        [Image.new("RGB", (128, 128), c) for c in colors[:2]],
        [Image.new("RGB", (512, 512), c) for c in colors[2:]],
    ]
    sheet = overview(["left", "right"], rows, ["first", "second"])
    seen = [sheet.getpixel((x, y)) for y in (190, 480) for x in (136, 400)]
    assert seen == [Image.new("RGB", (1, 1), c).getpixel((0, 0)) for c in colors]


def test_truth_measures_as_truth():
    truth = [render(familiar_scene(FIRST_PROMPT + i), 256) for i in range(4)]
    numbers = measure(truth, truth)
    assert numbers["object"] == numbers["background"] == 1
    assert numbers["detail"] == pytest.approx(1)
    assert numbers["patches"] == pytest.approx(0, abs=1e-3)
    blurred = measure([image.filter(ImageFilter.GaussianBlur(2)) for image in truth], truth)
    assert blurred["patches"] > 0.5
    shuffled = measure(truth[1:] + truth[:1], truth)
    assert shuffled["object"] <= 0.25
