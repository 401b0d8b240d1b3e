"""PNG texts: what goes in comes out."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import ExifTags, Image

from provenance_made import MADE
from urae.errors import BadFile
from urae.generation import Provenance, generate, read_png_metadata, save_picture, save_png
from urae.io import write_png
from urae.provenance import AdapterUse
from urae.resolution import ResolutionPolicy


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
    assert texts.keys() == {"urae", "parameters"}  # ComfyUI would take a text "prompt" for its graph
    told = json.loads(texts["urae"])
    assert (told["prompt"], told["seed"], told["policy"]["rope_scale"]) == (MADE.prompt, 7, 10.0)
    assert texts["parameters"].splitlines()[-1] == (
        "Steps: 28, Sampler: Euler, CFG scale: 3.5, Seed: 7, Size: 256x128, Model: mini, "
        "Adapters: a.safetensors, Method: direct, Version: urae"
    )


def test_pictures_of_ours_from_before_are_read(tmp_path):
    """They have a text for each entry, under its name."""
    write_png(picture({}), tmp_path / "old.png", texts=MADE.to_info())
    assert read_png_metadata(tmp_path / "old.png") == MADE


@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_round_trip_through_exif(tmp_path, ending):
    made = replace(MADE, adapters=(AdapterUse(file="b.safetensors", hash="ef" * 32, strength=0.6),))
    path = save_picture(picture(made.to_info()), tmp_path / f"a.{ending}")
    assert read_png_metadata(path) == made
    comment = Image.open(path).getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert comment.startswith(b"UNICODE\0")
    assert comment[8:].decode("utf-16-be").startswith(MADE.prompt)


def test_what_a_format_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"too long for the format: save it as PNG"):
        save_picture(picture(replace(MADE, prompt="a" * 70_000).to_info()), tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"no place for the text 'note': save the picture as PNG"):
        save_picture(picture(MADE.to_info() | {"note": "mine"}), tmp_path / "a.webp")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ('{"format": 2}', "has format 2, this urae reads 1"),
        ('{"prompt": 3}', "prompt of .* is 3: expected text"),
        ('{"prompt": "a", "seed": 1.5}', "seed of .* is 1.5"),
        (
            '{"prompt": "a", "seed": 1, "steps": 1, "method": "direct", "size": [1]}',
            "expected width and height",
        ),
        (
            '{"prompt": "a", "seed": 1, "steps": 1, "method": "direct", "size": [1, 1], "policy": {"x": 1}}',
            "policy of .* is not a policy: a resolution policy has no 'x'",
        ),
    ],
)
def test_damaged_texts_are_one_sentence(tmp_path, text, message):
    write_png(picture({}), tmp_path / "a.png", texts={"urae": text})
    with pytest.raises(BadFile, match=message):
        read_png_metadata(tmp_path / "a.png")


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
    with pytest.raises(BadFile, match=r"plain\.png is not a picture that urae has made: it holds no 'size'"):
        read_png_metadata(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(BadFile, match="is not a picture"):
        read_png_metadata(tmp_path / "text.png")
