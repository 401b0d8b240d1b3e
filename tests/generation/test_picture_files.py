"""The files of a run's pictures, called by ids where the prompts have them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from provenance_made import MADE
from urae.generation import PictureFiles

PROMPTS = {"p.1": "a cat", "p 2": "a dog", "7": "a cat"}


def planned(seeds=(0,), **changes):
    return [
        replace(MADE, prompt=prompt, seed=seed, **changes) for prompt in PROMPTS.values() for seed in seeds
    ]


def draw(folder, made):
    files = PictureFiles(folder, PROMPTS)
    for place in files.missing(made):
        image = Image.new("RGB", (16, 16), (place, 0, 0))
        image.info.update(made[place].to_info())
        files.save(image)
    return files


def test_a_picture_has_its_prompts_id_also_where_two_prompts_are_the_same(tmp_path):
    files = draw(tmp_path, planned())
    assert [path.name for path in files.written] == ["p.1.png", "p 2.png", "7.png"]
    again = draw(tmp_path, planned())
    assert (again.written, len(again.there)) == ([], 3)


def test_several_seeds_are_told_apart(tmp_path):
    names = {path.name for path in draw(tmp_path, planned(seeds=(0, 3))).written}
    assert names == {f"{name}-seed{seed}.png" for name in PROMPTS for seed in (0, 3)}


def test_another_picture_of_the_name_is_never_taken_for_this_one(tmp_path):
    draw(tmp_path, planned())
    with pytest.raises(ValueError, match=r"p\.1\.png is another picture, or was made with other settings"):
        draw(tmp_path, planned(steps=MADE.steps + 1))
    Image.new("RGB", (8, 8)).save(tmp_path / "p.1.png")
    with pytest.raises(ValueError, match=r"p\.1\.png is another picture"):
        draw(tmp_path, planned())
