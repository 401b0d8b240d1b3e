import re
import time

import pytest
from PIL import Image

from urae.quickstart import quickstart

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return quickstart(tmp_path_factory.mktemp("quickstart"), say=lambda line: None)


def numbers(result, name, size):
    return next(c.numbers for c in result.columns if (c.name, c.size) == (name, size))


@pytest.mark.xfail(strict=True, reason="the first miniature is trained too briefly: docs/LOG.md")
def test_the_adapter_helps_where_the_stock_pipeline_fails(result):
    """At both sizes: more objects recognised than direct, fewer copies than direct."""
    for size in (256, 512):
        direct, adapted = numbers(result, "direct", size), numbers(result, "adapted", size)
        assert adapted["object"] >= direct["object"] + 0.3
        assert adapted["background"] >= direct["background"]


def test_the_report_shows_pictures_that_exist(result):
    page = result.report.read_text()
    files = re.findall(r'<img src="([^"]+)"', page)
    assert len(files) == 2 * 5 * 6
    for file in files:
        with Image.open(result.report.parent / file) as image:
            assert image.width == int(file.split("/")[1].split("-")[0])
    assert page.count("<polyline") == 4


def test_started_again_it_trains_nothing_twice(result):
    before = {size: file.read_bytes() for size, file in result.adapters.items()}
    start = time.time()
    again = quickstart(result.report.parent, num_prompts=1, sample_steps=2, say=lambda line: None)
    assert time.time() - start < result.seconds / 2
    assert {size: file.read_bytes() for size, file in again.adapters.items()} == before
