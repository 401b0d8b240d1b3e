"""PNG texts: what goes in comes out."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from urae.errors import BadFile
from urae.generation import Provenance, generate, read_png_metadata, save_png
from urae.resolution import ResolutionPolicy

MADE = Provenance(
    prompt='a "glossy" tiger,\nnoch ein Bär, 猫',
    seed=7,
    size=(256, 128),
    steps=28,
    guidance=3.5,
    method="direct",
    options={},
    native="",
    policy=ResolutionPolicy.reference(),
    adapter_hash="ab" * 32,
    adapter_file="a.safetensors",
    model="mini",
    memory="as it is on cpu: no CUDA device here",
    versions={"torch": "2.13.0"},
)


def picture(info):
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    image.info.update(info)
    return image


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"guidance": None},
        {"base_weights": "nf4"},
        {"policy": None},
        {"adapter_hash": "", "adapter_file": ""},
        {"prompt": ""},
        {"method": "sdedit", "options": {"start_sigma": 0.5, "native_policy": "none"}, "native": "cd" * 32},
    ],
    ids=str,
)
def test_round_trip_through_a_file(tmp_path, change):
    made = Provenance(**{**vars(MADE), **change})
    path = save_png(picture(made.to_info()), tmp_path / "new" / "a.png")
    assert read_png_metadata(path) == made
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(picture({})))


def test_saving_again_what_was_read_keeps_the_texts(tmp_path):
    first = save_png(picture(MADE.to_info()), tmp_path / "a.png")
    assert read_png_metadata(save_png(Image.open(first), tmp_path / "b.png")) == MADE


def test_the_texts_are_there_for_other_programs(tmp_path):
    texts = Image.open(save_png(picture(MADE.to_info()), tmp_path / "a.png")).text
    assert texts["prompt"] == MADE.prompt
    assert texts["seed"] == "7"
    assert json.loads(texts["policy"])["rope_scale"] == 10.0


def test_a_generated_image_says_what_it_was_made_from(tmp_path, speaking):
    image = generate(speaking, "a tiger", size=(256, 128), steps=1, seed=9, guidance=2.0)
    made = read_png_metadata(save_png(image, tmp_path / "a.png"))
    assert (made.prompt, made.seed, made.size, made.steps, made.guidance) == (
        "a tiger",
        9,
        (256, 128),
        1,
        2.0,
    )
    assert made.policy == ResolutionPolicy.for_size(speaking, (256, 128))
    assert (made.method, made.model, made.adapter_hash) == ("direct", "FluxPipeline", "")
    assert set(made.versions) == {"urae", "diffusers", "torch"}
    again = generate(speaking, made.prompt, size=made.size, steps=made.steps, seed=made.seed, guidance=2.0)
    assert np.array_equal(np.asarray(again), np.asarray(Image.open(tmp_path / "a.png")))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = save_png(picture(MADE.to_info()), tmp_path / "a.png")
    before = path.read_bytes()
    broken = picture({"prompt": "\ud800"})  # no encoding takes a lone surrogate
    with pytest.raises(UnicodeEncodeError):
        save_png(broken, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.png"]


def test_other_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected a name that ends in \.png"):
        save_png(picture({}), tmp_path / "a.jpg")


def test_other_files_are_refused(tmp_path):
    picture({}).save(tmp_path / "plain.png")
    with pytest.raises(BadFile, match=r"plain\.png is no PNG image that urae has made: it holds no 'size'"):
        read_png_metadata(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(BadFile, match="is no PNG image"):
        read_png_metadata(tmp_path / "text.png")
