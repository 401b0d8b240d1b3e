import re

import pytest
from PIL import Image

from urae.mini import familiar_scene
from urae.mini.recogniser import recogniser
from urae.quickstart import quickstart
from urae.quickstart.run import FIRST_PROMPT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return quickstart(tmp_path_factory.mktemp("quickstart"), say=lambda line: None)


def numbers(result, name, size):
    return next(c.numbers for c in result.columns if (c.name, c.size) == (name, size))


def test_each_part_of_the_method_helps_where_the_stock_pipeline_fails(result):
    """At both sizes: copies give way to one object, native detail comes closer to the truth with the policy and again
    with the adapter, and more is recognised than without either."""
    ways = ("direct", "policy", "adapted", "shipped")
    for size in (256, 512):
        direct, policy, adapted, shipped = (numbers(result, name, size) for name in ways)
        assert adapted["patches"] < policy["patches"] < direct["patches"]
        assert shipped["patches"] < policy["patches"]
        assert shipped["object"] >= policy["object"]
        assert adapted["repetition"] < direct["repetition"] - 0.2
        # At 256 px any one of the copies is recognised, so the direct pictures may have them all.
        assert adapted["object"] > direct["object"] or adapted["object"] == direct["object"] == 1
        assert adapted["background"] == policy["background"] == 1


def test_the_first_pictures_show_what_was_asked(result):
    """In the last of three columns, 256 px apart, those of the shipped adapter."""
    with Image.open(result.first) as sheet:
        cells = [sheet.crop((536, top, 792, top + 256)) for top in (58, 346, 634)]
    scenes = [familiar_scene(FIRST_PROMPT + i) for i in range(3)]
    seen = recogniser().look(cells, [1] * 3)
    assert sum(look.agrees(scene)["object"] for look, scene in zip(seen, scenes, strict=True)) >= 2


def test_the_report_shows_pictures_that_exist(result):
    page = result.report.read_text()
    files = re.findall(r'<img src="([^"]+)"', page)
    assert len(files) == 2 * 6 * 6
    for file in files:
        with Image.open(result.report.parent / file) as image:
            assert image.width == int(file.split("/")[1].split("-")[0])
    assert len(re.findall(r"loss, mean of 15 steps: [\d.]+ at first, [\d.]+ at last", page)) == 2


def test_started_again_it_trains_nothing_twice(result):
    """Metrics say how many seconds each step took, so that a step taken again would show."""
    folder = result.report.parent
    kept = [*result.adapters.values(), *(folder / f"mini-{factor}x" / "metrics.jsonl" for factor in (2, 4))]
    before = [file.read_bytes() for file in kept]
    quickstart(folder, num_prompts=2, sample_steps=2, say=lambda line: None)
    assert [file.read_bytes() for file in kept] == before
