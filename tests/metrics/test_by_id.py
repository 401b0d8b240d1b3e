"""Ids from the prompts to the verdict: a collection is a candidate's folder as it is."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from urae.collecting import LocalPipeline, collect
from urae.errors import BadFile
from urae.judge import Endpoint, plan_judging
from urae.metrics.matching import match_pictures, picture_files, pictures_by_id, prompts_by_id
from urae.metrics.pictures import collect as measured
from urae.study import build_study

PROMPTS = {f"p-{n}": f"a scene number {n}" for n in range(6)}


def collected(folder, shade, prompts=PROMPTS, **options):
    def draw(prompt, size, seed):
        return Image.new("RGB", size, (shade, len(prompt), int(prompt[-1]) * 40))

    teacher = LocalPipeline(draw=draw, name="walls", shapes={"64x64": 1}, described={"shade": shade})
    return collect(prompts, teacher, folder, **options)


@pytest.fixture
def candidates(tmp_path):
    for name, shade in (("dark", 10), ("bright", 200)):
        collected(tmp_path / name, shade)
    return {name: tmp_path / name for name in ("dark", "bright")}


def test_images_are_called_by_the_ids_of_their_prompts(candidates):
    for folder in candidates.values():
        assert {path.name for path in (folder / "images").iterdir()} == {f"{name}.png" for name in PROMPTS}
        found = pictures_by_id("it", folder)
        assert found.keys() == PROMPTS.keys()
        assert all(path.is_file() for path in found.values())


def test_a_collection_is_judged_and_studied_as_it_is(candidates, tmp_path):
    items, unused = match_pictures(candidates, PROMPTS)
    assert [item.id for item in items] == list(PROMPTS)
    assert unused == {"dark": [], "bright": []}
    plan = plan_judging(candidates, PROMPTS, endpoint=Endpoint(model="toy"), aspects=("overall",))
    assert len(plan.items) == 6
    study = build_study(candidates, tmp_path / "study", prompts=PROMPTS)
    assert {item.id for item in study.items} == set(PROMPTS)


def test_its_manifest_tells_the_prompts_to_those_who_measure(candidates):
    pictures = measured("dark", candidates["dark"], "png")
    assert {picture.name: picture.prompt for picture in pictures} == PROMPTS


def test_copies_and_collections_without_ids_keep_their_names(tmp_path):
    collected(tmp_path / "copies", 10, dict(list(PROMPTS.items())[:1]), copies=2)
    (first,) = pictures_by_id("it", tmp_path / "copies")  # the second has the same bytes here
    assert first == "p-0"
    assert {path.name for path in (tmp_path / "copies/images").iterdir()} == {"p-0.png", "p-0-2.png"}
    collected(tmp_path / "plain", 10, list(PROMPTS.values()))
    names = {path.stem for path in picture_files("it", tmp_path / "plain")}
    assert all(len(name) == 16 for name in names)


def test_a_collection_from_before_the_ids_is_not_paid_for_again(tmp_path):
    before = collected(tmp_path, 10, list(PROMPTS.values()))
    after = collected(tmp_path, 10, PROMPTS)
    assert [record.file for record in after.records] == [record.file for record in before.records]


def test_two_prompts_of_the_same_words_are_two_images(tmp_path):
    collected(tmp_path, 10, {"a": "the same 1", "b": "the same 1"})
    assert {path.name for path in (tmp_path / "images").iterdir()} == {"a.png", "b.png"}


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"../a": "x 1"}, r"the id '\.\./a' cannot be a file's name"),
        ({"A": "x 1", "a": "y 2"}, "several images would be called a"),
    ],
)
def test_ids_that_cannot_name_files_are_refused(tmp_path, prompts, message):
    with pytest.raises(ValueError, match=message):
        collected(tmp_path / "out", 10, prompts)


def test_a_strangers_journal_writes_nothing_elsewhere(tmp_path):
    collected(tmp_path, 10)
    lines = (tmp_path / "orders.jsonl").read_text().replace('"name":"p-1"', '"name":"../../p-1"')
    lines = lines.replace('"name": "p-1"', '"name": "../../p-1"')
    assert "../../p-1" in lines
    (tmp_path / "orders.jsonl").write_text(lines)
    with pytest.raises(BadFile, match="cannot be a file's name"):
        collected(tmp_path, 10)


def test_numbers_are_ids_too(tmp_path):
    (tmp_path / "p.jsonl").write_text(json.dumps({"id": 139, "prompt": "a cat"}) + "\n")
    assert prompts_by_id(tmp_path / "p.jsonl") == {"139": "a cat"}
