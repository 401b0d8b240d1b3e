"""Building: the right pictures of every prompt, their pixels as they were, and nothing that says who made them."""

from __future__ import annotations

import json
import stat

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin
from study_material import IDS, NAMES, PROMPTS, pixels, small_study

from urae.errors import BadFile
from urae.study.ballots import BallotBox, read_invitations
from urae.study.build import build_study
from urae.study.manifest import read_study


def everything(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def test_native_pictures_are_the_candidates_pixels_under_names_that_say_nothing(study, drawn):
    assert [item.id for item in study.items] == IDS
    assert {item.id: item.prompt for item in study.items} == PROMPTS
    for item in study.items:
        assert sorted(item.pictures.values()) == sorted(NAMES)
        for name, candidate in item.pictures.items():
            assert pixels(study.pictures[name]) == pixels(drawn[candidate] / f"{item.id}.png")
            assert len(name) == 32
            assert int(name, 16) >= 0
    assert len(set(study.pictures)) == len(IDS) * len(NAMES)


def test_pictures_carry_no_metadata(study, drawn):
    assert b"made by sharp" in (drawn["sharp"] / f"{IDS[0]}.png").read_bytes()
    for path in everything(study.folder / "pictures") + everything(study.folder / "previews"):
        with Image.open(path) as opened:
            opened.load()
            assert not set(opened.info) - {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        assert b"made by" not in path.read_bytes()
        assert not any(name in str(path.relative_to(study.folder)) for name in (*NAMES, *IDS))


def test_one_encoder_for_all_and_nothing_is_enlarged(drawn, tmp_path):
    study = small_study(drawn, tmp_path / "s", encoding="jpeg", preview=48)
    for paths, size in ((study.pictures, (96, 96)), (study.previews, (48, 48))):
        for path in paths.values():
            with Image.open(path) as opened:
                assert (opened.format, opened.size) == ("JPEG", size)
    large = small_study(drawn, tmp_path / "large", preview=4096)
    assert Image.open(next(iter(large.previews.values()))).size == (96, 96)


def test_a_study_reads_back_as_it_was_built(study):
    assert read_study(study.folder) == study
    for name in ("invitations.csv", "study.json"):
        assert stat.S_IMODE((study.folder / name).stat().st_mode) == 0o600
    tokens = read_invitations(study.folder)
    assert list(tokens) == ["rater-01", "rater-02"]
    assert len(set(tokens.values())) == 2


def test_pictures_of_generate_are_matched_by_prompt_and_seed_whatever_their_names(candidates, tmp_path):
    for number, (name, folder) in enumerate(candidates.items()):
        for place, path in enumerate(sorted(folder.iterdir())):
            info = PngImagePlugin.PngInfo()
            info.add_text("prompt", PROMPTS[IDS[place]] if place else PROMPTS[IDS[1]])
            info.add_text("seed", "7" if place else "8")
            with Image.open(path) as opened:
                opened.save(folder / f"{5 * number - place}-{name}.png", pnginfo=info)
            path.unlink()
    with pytest.raises(ValueError, match="there are 5 different prompts: expected at least 6"):
        build_study(candidates, tmp_path / "few")
    for name, folder in candidates.items():
        info = PngImagePlugin.PngInfo()
        info.add_text("prompt", "a sixth")
        info.add_text("seed", "7")
        Image.new("RGB", (96, 96), name == "sharp" and "white").save(folder / "last.png", pnginfo=info)
    study = build_study(candidates, tmp_path / "study")
    # The first candidate's files in the order of their names, the two pictures of one prompt as two items.
    assert len(study.items) == 7
    assert len({item.prompt for item in study.items}) == 6
    sixth = next(item for item in study.items if item.prompt == "a sixth")
    white = {candidate: pixels(study.pictures[name])[0] for name, candidate in sixth.pictures.items()}
    assert white == {"sharp": 255, "blurred": 0, "enlarged": 0}
    (candidates["blurred"] / "last.png").unlink()
    with pytest.raises(ValueError, match="sharp has a picture of 'a sixth' with seed 7 and blurred has none"):
        build_study(candidates, tmp_path / "other")
    Image.new("RGB", (96, 96)).save(candidates["sharp"] / "other.png")
    with pytest.raises(BadFile, match="other.png holds no prompt of urae's"):
        build_study(candidates, tmp_path / "other")


def test_a_turned_photograph_is_shown_upright_and_a_profile_is_applied(candidates, tmp_path):
    """The profile is sRGB with red and blue exchanged: what it calls red is blue."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"tmp_").replace(b"bXYZ", b"rXYZ").replace(b"tmp_", b"bXYZ")
    exif = Image.Exif()
    exif[274] = 6
    lying = Image.new("RGB", (96, 96), (200, 30, 30))
    lying.paste((30, 200, 30), (0, 0, 96, 48))
    for folder in candidates.values():
        lying.save(folder / f"{IDS[2]}.png", exif=exif, icc_profile=swapped)
    study = small_study(candidates, tmp_path / "study")
    item = study.item[IDS[2]]
    with Image.open(study.pictures[next(iter(item.pictures))]) as shown:
        # Turned a quarter to the right, the upper half comes to lie on the right.
        assert shown.getpixel((90, 48)) == pytest.approx((30, 200, 30), abs=3)
        assert shown.getpixel((6, 48)) == pytest.approx((30, 30, 200), abs=3)


def test_a_graph_of_comfyui_is_no_prompt(candidates, tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", '{"3": {"class_type": "KSampler"}}')
    Image.new("RGB", (96, 96)).save(candidates["sharp"] / "comfy.png", pnginfo=info)
    with pytest.raises(ValueError, match="comfy.png holds a graph of ComfyUI instead of its prompt"):
        build_study(candidates, tmp_path / "study")


def test_16_bits_are_shown_as_they_look(candidates, tmp_path):
    for folder in candidates.values():
        Image.fromarray(np.full((96, 96), 0x8080, np.uint16)).save(folder / f"{IDS[2]}.png")
    study = small_study(candidates, tmp_path / "study")
    for name in study.item[IDS[2]].pictures:
        assert set(pixels(study.pictures[name])) == {128}


def replace_picture(folder, picture, kind="PNG"):
    picture.save(folder / f"{IDS[3]}.png", kind)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda f: replace_picture(f, Image.new("RGB", (48, 96))), ValueError, "sharp 96x96, blurred 48x96.*one size"),
        (lambda f: (f / f"{IDS[3]}.png").unlink(), ValueError, "blurred has no picture for 1 of 6 prompts"),
        (lambda f: (f / f"{IDS[3]}.png").write_bytes(b"x"), BadFile, "is none of JPEG, PNG"),
        (lambda f: replace_picture(f, Image.new("RGBA", (96, 96))), BadFile, "transparent in places"),
        (lambda f: replace_picture(f, Image.new("CMYK", (96, 96)), "JPEG"), BadFile, "colours that cannot be told"),
    ],
)  # fmt: skip
def test_a_picture_that_does_not_fit_stops_the_build_and_leaves_nothing(
    candidates, tmp_path, spoil, error, message
):
    spoil(candidates["blurred"])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match=message):
        small_study(candidates, tmp_path / "study")
    assert sorted(tmp_path.iterdir()) == before


def test_an_opaque_alpha_channel_is_no_transparency(candidates, tmp_path):
    for folder in candidates.values():
        replace_picture(folder, Image.new("RGBA", (96, 96), (10, 20, 30, 255)))
    study = small_study(candidates, tmp_path / "study")
    assert pixels(study.pictures[next(iter(study.item[IDS[3]].pictures))])[:3] == bytes((10, 20, 30))


def test_what_makes_no_study(drawn, study, tmp_path):
    with pytest.raises(ValueError, match="there are 1 candidates: expected two to 9"):
        small_study({"sharp": drawn["sharp"]}, tmp_path / "s")
    with pytest.raises(ValueError, match="expected two to 9"):
        small_study({f"c{i}": drawn["sharp"] for i in range(10)}, tmp_path / "s")
    with pytest.raises(ValueError, match="study exists already, and may hold votes"):
        small_study(drawn, study.folder)
    with pytest.raises(ValueError, match="there are 5 different prompts"):
        small_study(drawn, tmp_path / "s", prompts={name: PROMPTS[name] for name in IDS[:5]})
    with pytest.raises(ValueError, match="raters are -1"):
        small_study(drawn, tmp_path / "s", num_raters=-1)
    with pytest.raises(ValueError, match="holds no study"):
        read_study(tmp_path)
    assert not (tmp_path / "s").exists()


def test_a_manifest_that_names_other_files_is_damaged(study):
    path = study.folder / "study.json"
    name = next(iter(study.pictures))
    path.write_text(path.read_text().replace(name, "../../secret"))
    with pytest.raises(BadFile, match="'../../secret' is not the name of a picture"):
        read_study(study.folder)


def test_damaged_votes_and_invitations_are_named(study):
    (study.folder / "votes.sqlite").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(BadFile, match="votes.sqlite cannot be opened as the votes of a study"):
        BallotBox(study)
    (study.folder / "invitations.csv").write_text("rater-01,token\nrater-02\n")
    with pytest.raises(BadFile, match="invitations.csv, line 2 is not an invitation"):
        read_invitations(study.folder)


@pytest.mark.parametrize("damage", ["{", "[]", '{"version": 1}', '{"version": 1, "items": [3]}'])
def test_a_damaged_manifest_is_named(study, damage):
    (study.folder / "study.json").write_text(damage)
    with pytest.raises(
        BadFile, match="study.json is (damaged|not JSON|.*: expected an object|.*another version)"
    ):
        read_study(study.folder)


def test_a_manifest_of_another_version_is_not_guessed_at(study):
    path = study.folder / "study.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2}))
    with pytest.raises(BadFile, match="another version of urae: expected version 1"):
        read_study(study.folder)
