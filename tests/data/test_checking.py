"""Everything that is wrong with a data set is said at once, before anything slow."""

import json

import pytest

from tiny import write_images
from urae import recipes
from urae.data import cache, check_data, scan_folder, write_manifest
from urae.errors import BadFile
from urae.training import check_inputs


@pytest.fixture
def folder(tmp_path):
    return write_images(tmp_path / "images", [(128, 128)] * 6)


def spoil(folder):
    """A missing caption, a small image, a cut one, a format that is not read, a caption that is no JSON."""
    names = sorted(path.name for path in folder.glob("*.png"))
    (folder / names[0]).with_suffix(".json").unlink()
    (folder / names[1]).write_bytes(
        (write_images(folder.parent / "small", [(32, 32)]) / names[0]).read_bytes()
    )
    (folder / names[2]).write_bytes(b"no picture")
    (folder / names[3]).with_suffix(".json").write_text("{")
    (folder / "odd.gif").write_bytes(b"GIF89a")
    return names


def test_one_sentence_names_every_fault_and_file(folder, pipe):
    names = spoil(folder)
    for check in (
        lambda: check_data([str(folder)], size=128),
        lambda: cache(pipe, folder, folder.parent / "cache", size=128),
        lambda: check_inputs(recipes.mini_2x(data=str(folder), size=128)),
    ):
        with pytest.raises(ValueError, match="1 images in .* are not") as caught:
            check()
        said = str(caught.value)
        assert 'have no caption: run `urae data caption`, or put a .json with "prompt" or' in said
        assert f"beside each of {names[0]};" in said
        assert (
            "1 images are too small for 128 px, and images are never enlarged: remove them or train at a smaller"
            in said
        )
        assert f"{names[1]} (32x32)" in said
        for file in (names[2], names[3].replace("png", "json"), "odd.gif"):
            assert file in said
    assert not (folder.parent / "cache").exists()


def test_several_sources_are_looked_at_together(folder, tmp_path):
    other = write_images(tmp_path / "other", [(32, 32)] * 2)
    next(folder.glob("*.json")).unlink()
    with pytest.raises(ValueError, match="have no caption.*; 2 images are too small for 128 px"):
        check_data([str(folder), str(other)], size=128)


def test_what_cannot_be_read_alone_is_a_bad_file(folder):
    images = sorted(folder.glob("*.png"))
    for image in images[:2]:
        image.write_bytes(b"no picture")
    with pytest.raises(BadFile, match=rf"{images[0].name}.*; .*{images[1].name}"):
        check_data([str(folder)], size=128)


def test_a_few_small_images_are_no_fault(folder, tmp_path):
    write_images(folder, [(32, 32)])
    check_data([str(folder), "mini:clean:4", str(tmp_path / "nothing")], size=128)


def test_captions_and_sizes_of_a_manifest_are_checked_without_its_images(folder):
    write_manifest(scan_folder(folder), folder / "manifest.jsonl")
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    lines[0]["captions"], lines[1]["size"] = {}, [16, 16]
    (folder / "manifest.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for image in folder.glob("*.png"):
        image.unlink()
    with pytest.raises(
        ValueError, match=rf"{lines[0]['file']}; 1 images are too small.*{lines[1]['file']} \(16x16\)"
    ):
        check_data([str(folder)], size=128)


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        (
            "no such folder",
            "there is no transformer 'no such folder': expected a folder in the diffusers layout",
        ),
        ("{folder}", "has no transformer/config.json"),
        ("{other}", "is a Krea2Transformer2DModel: expected a FluxTransformer2DModel, as mini has"),
        ("{empty}", "holds no weights"),
    ],
)
def test_a_teacher_that_is_not_there_is_refused_before_data_is_looked_at(folder, tmp_path, teacher, said):
    for name, kind in (("other", "Krea2Transformer2DModel"), ("empty", "FluxTransformer2DModel")):
        (tmp_path / name / "transformer").mkdir(parents=True)
        (tmp_path / name / "transformer" / "config.json").write_text(json.dumps({"_class_name": kind}))
    named = teacher.format(folder=folder, other=tmp_path / "other", empty=tmp_path / "empty")
    recipe = recipes.mini_2x(data="nothing", distill_weight=0.5, teacher=named)
    with pytest.raises((ValueError, BadFile), match=said):
        check_inputs(recipe)
