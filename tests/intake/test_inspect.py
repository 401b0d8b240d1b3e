import base64
import io
import json
import re
from dataclasses import replace

import pytest
from PIL import Image
from typer.testing import CliRunner

from tiny import write_images
from urae.cli import app
from urae.data import scan_folder, write_manifest
from urae.intake import Filters, import_images, inspect_data
from urae.intake.inspecting import histogram


@pytest.fixture
def manifest(tmp_path):
    folder = write_images(tmp_path / "made", [(64, 64), (80, 48), (48, 80), (96, 96)])
    records = scan_folder(folder)
    teacher = {"name": "a <b>teacher</b>"}
    changed = [
        replace(records[0], licence="CC0-1.0", teacher=teacher),
        replace(records[1], captions={}),
        *records[2:],
    ]
    write_manifest(changed, folder / "manifest.jsonl")
    return folder / "manifest.jsonl"


def rows(page):
    """The cells of every table row."""
    return [re.findall(r"<td.*?>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)]


def test_the_page_counts_captions_licences_and_teachers(manifest, tmp_path):
    page = inspect_data(manifest, tmp_path / "deep" / "page.html").read_text()
    found = rows(page)
    assert ["original and detailed", "3"] in found
    assert ["none", "1"] in found
    assert ["CC0-1.0", "1", "25.0%"] in found
    assert ["not known", "3", "75.0%"] in found
    assert ["a &lt;b&gt;teacher&lt;/b&gt;", "1", "25.0%"] in found
    assert "<b>4</b>" in page


def test_the_page_stands_alone_and_shows_the_pictures(manifest, tmp_path):
    page = inspect_data(manifest, tmp_path / "page.html", num_pictures=3).read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    pictures = re.findall(r'src="data:image/jpeg;base64,(.*?)"', page)
    assert len(pictures) == 3
    sizes = [Image.open(io.BytesIO(base64.b64decode(data))).size for data in pictures]
    assert set(sizes) <= {(64, 64), (80, 48), (48, 80), (96, 96)}


def test_the_same_seed_shows_the_same_pictures(manifest, tmp_path):
    pages = [
        inspect_data(manifest, tmp_path / "p.html", num_pictures=2, seed=seed).read_text()
        for seed in (1, 1, 2)
    ]
    assert pages[0] == pages[1] != pages[2]


def test_rejects_are_shown_with_their_sheets(manifest, tmp_path):
    done = import_images([manifest], tmp_path / "out", Filters.off(80))
    rejected = inspect_data(done.manifest, tmp_path / "page.html").read_text()
    assert "of 4 images were taken" in rejected
    assert len(re.findall("<details>", rejected)) == len(done.counts) > 0
    assert "would have to be enlarged" in rejected


def test_what_a_collection_cost_is_shown(manifest, tmp_path):
    key = {"key": "a", "time": "2026-11-22T12:00:00+00:00"}
    image = {"id": "0" * 64, "file": "a.png", "size": [8, 8], "time": key["time"]}
    lines = [
        {"event": "sending", "prompt": "p", "shape": "1:1", "seed": 0, "price": 0.06, **key},
        {"event": "ordered", "ticket": {}, "cost": 0.06, **key},
        {"event": "arrived", "image": image, "cost": 0.06, **key},
    ]
    (manifest.parent / "orders.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = inspect_data(manifest, tmp_path / "page.html").read_text()
    assert "0.06 in the teacher" in page
    assert "1 arrived" in page


def test_bars_are_as_high_as_their_counts():
    chart = histogram("", [1, 1, 1, 1, 3, 3, 5], label="x")
    assert [height for height in chart["heights"] if height] == [100, 50, 25]
    assert (chart["most"], chart["marks"]) == (4, ["1", "1", "5"])


def test_bars_of_equal_ratio(manifest, tmp_path):
    chart = histogram("", [0.5, 1.0, 2.0], label="x", logarithmic=True)
    assert [index for index, height in enumerate(chart["heights"]) if height] == [0, 12, 23]
    page = inspect_data(manifest, tmp_path / "page.html").read_text()
    assert page.count('<i style="height: ') == 5 * 24


@pytest.mark.parametrize("values", [[5.0], [7.0, 7.0], [0.5, 1.0, 2.0]])
def test_any_values_have_a_histogram(values):
    for logarithmic in (False, True):
        chart = histogram("", values, label="x", logarithmic=logarithmic)
        assert sum(height > 0 for height in chart["heights"]) == len(set(values))


def test_from_the_shell(manifest, tmp_path):
    result = CliRunner().invoke(
        app, ["data", "inspect", str(manifest.parent), "--out", str(tmp_path / "p.html")]
    )
    assert result.exit_code == 0, result.output
    assert "4 of 4 images" in (tmp_path / "p.html").read_text()
    result = CliRunner().invoke(
        app, ["data", "convert", str(manifest), "--to", "shards", "--out", str(tmp_path / "shards")]
    )
    assert result.exit_code == 0, result.output
    assert (tmp_path / "shards" / "000000.tar").is_file()
