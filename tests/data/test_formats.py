import io
import json
import re
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from small_disk import small_disk
from tiny import write_images
from urae.data import convert, list_images, read_manifest, read_records, scan_folder, write_manifest
from urae.data.formats import passed_over
from urae.data.formats.converting import FORMS
from urae.errors import BadFile, CannotWrite
from urae.io import Unreadable

LOSSLESS = [form for form in FORMS if form != "captions"]


@pytest.fixture
def manifest(tmp_path):
    """Two records that know everything, one that waits for its caption."""
    folder = write_images(tmp_path / "made", [(64, 64), (80, 48), (48, 80)])
    first, second, third = scan_folder(folder)
    teacher = {"name": "a teacher", "settings": {"seed": 7, "raw": True}}
    known = {
        "source": "a teacher",
        "licence": "CC0-1.0",
        "teacher": teacher,
        "time": "2026-11-22T12:00:00+00:00",
    }
    records = [
        replace(first, **known),
        replace(second, captions={"original": "一隻貓"}),
        replace(third, captions={}),
    ]
    write_manifest(records, folder / "manifest.jsonl")
    return folder / "manifest.jsonl"


def contents(source):
    return [(item.place.read(), item.sidecar) for item in list_images(source)]


@pytest.mark.parametrize("form", LOSSLESS)
def test_every_form_gives_back_what_was_written(manifest, tmp_path, form):
    written = convert(manifest, tmp_path / form, form=form)
    assert contents(written) == contents(manifest)


@pytest.mark.parametrize("form", LOSSLESS)
def test_every_form_leads_back_to_the_manifest(manifest, tmp_path, form):
    written = convert(manifest, tmp_path / form, form=form)
    back = convert(written, tmp_path / "back", form="manifest")
    records, root = read_records(back, captioned=False)
    assert [replace(record, file="") for record in records] == [
        replace(record, file="") for record in read_manifest(manifest)
    ]
    assert all((root / record.file).is_file() for record in records)


def test_text_files_keep_the_original_caption(manifest, tmp_path):
    records = [record for record in read_manifest(manifest) if record.captions]
    write_manifest(records, manifest)
    written = convert(manifest, tmp_path / "txt", form="captions")
    assert [record.captions for record in scan_folder(written)] == [{"original": "a"}, {"original": "一隻貓"}]


def test_text_files_cannot_hold_what_has_no_original_caption(manifest, tmp_path):
    with pytest.raises(ValueError, match="has no original caption.*use the form sidecars"):
        convert(manifest, tmp_path / "txt", form="captions")
    assert not (tmp_path / "txt").exists()


def test_sidecars_are_those_of_the_published_layout(manifest, tmp_path):
    written = convert(manifest, tmp_path / "x", form="sidecars")
    values = json.loads((written / "00000000.json").read_text())
    assert (values["prompt"], values["generated_prompt"], values["licence"]) == ("a", "a b", "CC0-1.0")
    assert json.loads((written / "00000001.json").read_text()) == {"prompt": "一隻貓", "source": "folder"}


def test_shards_are_split_by_size_and_the_same_data_gives_the_same_bytes(manifest, tmp_path):
    once, again = (convert(manifest, tmp_path / n, form="shards", shard_bytes=2000) for n in ("a", "b"))
    shards = sorted(path.name for path in once.iterdir())
    assert len(shards) == 3
    assert all((once / name).read_bytes() == (again / name).read_bytes() for name in shards)
    assert contents(once) == contents(manifest)
    assert contents(once / shards[1]) == contents(manifest)[1:2]


def test_shards_of_other_tools_are_read(tmp_path):
    """As img2dataset writes them: a caption in .txt and again in .json, a url, nulls, folders in names."""
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        members = {
            "0/1.jpg": jpeg(),
            "0/1.json": json.dumps({"caption": "a cat", "url": "https://example.org/1", "key": "1"}).encode(),
            "0/2.input.jpg": jpeg(),
            "0/2.txt": b"a dog\n",
            "0/2.json": b'{"caption": null}',
            "0/3.json": b'{"caption": "failed"}',
        }
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    first, second = list_images(tmp_path / "x.tar")
    assert (first.name, first.place.read()) == ("0/1.jpg", jpeg())
    assert (first.sidecar.captions, first.sidecar.facts) == (
        {"original": "a cat"},
        {"source": "https://example.org/1"},
    )
    assert (second.name, second.sidecar.captions) == ("0/2.input.jpg", {"original": "a dog"})


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(768, dtype=np.uint8).reshape(16, 16, 3)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_a_shard_that_ends_early_says_so_after_what_it_holds(manifest, tmp_path):
    (shard,) = convert(manifest, tmp_path / "a", form="shards").iterdir()
    whole, before = list(list_images(shard)), contents(shard)
    shard.write_bytes(shard.read_bytes()[: whole[2].place.start + 100])
    *images, rest = list_images(shard)
    assert [image.name for image in images] == [image.name for image in whole]
    assert [image.place.read() for image in images[:2]] == [content for content, _ in before[:2]]
    with pytest.raises(Unreadable, match="ends within the image"):
        images[2].place.read()
    assert "is damaged as a tar file" in rest.problem


def test_a_saved_data_set_of_another_maker_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {"picture": [{"bytes": jpeg(), "path": None}], "text": ["a cat"], "width": [16]}
    made = datasets.Dataset.from_dict(rows).cast_column("picture", datasets.Image())
    made.save_to_disk(str(tmp_path / "x"))
    (item,) = list_images(tmp_path / "x")
    assert (item.place.read(), item.sidecar.captions) == (jpeg(), {"original": "a cat"})


def test_a_saved_data_set_with_splits_asks_for_one(tmp_path):
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict({"text": ["a"]})
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(str(tmp_path / "x"))
    with pytest.raises(ValueError, match=r"has several splits: name one of .*x/test, .*x/train"):
        list_images(tmp_path / "x")
    with pytest.raises(ValueError, match="0 columns of images"):
        list(list_images(tmp_path / "x" / "train"))


def test_a_folder_with_a_manifest_is_what_the_manifest_says(manifest):
    assert read_records(manifest.parent, captioned=False) == read_records(manifest, captioned=False)
    (manifest.parent / "new.png").write_bytes(b"")
    assert len(list(list_images(manifest.parent))) == 3


def test_images_without_captions_are_asked_for(manifest):
    with pytest.raises(ValueError, match="1 images in .* have no caption: run `urae data caption`.*02.png"):
        read_records(manifest)


@pytest.mark.parametrize(
    ("sidecar", "message"),
    [
        ("[]", r"is \[\]: expected an object"),
        ('{"prompt": 3}', "has prompt 3: expected text"),
        ('{"teacher": ["x"]}', "has teacher"),
        (b"\xff\xfe", "is not UTF-8"),
        ("[" * 100000, "is nested more than 100 levels deep"),
    ],
)
def test_a_sidecar_that_cannot_be_understood_is_named(manifest, tmp_path, sidecar, message):
    folder = convert(manifest, tmp_path / "x", form="sidecars")
    (folder / "00000001.json").write_bytes(sidecar if isinstance(sidecar, bytes) else sidecar.encode())
    with pytest.raises(BadFile, match=f"00000001.json {message}"):
        scan_folder(folder, captioned=False)
    assert re.search(message, [image.problem for image in list_images(folder)][1])
    with pytest.raises(BadFile, match=f"1 of 3 images in .* cannot be used: .*{message}"):
        convert(folder, tmp_path / "y", form="shards")


def test_requests_that_cannot_be_met(manifest, tmp_path):
    with pytest.raises(ValueError, match="there is no form 'zip': expected one of manifest, sidecars"):
        convert(manifest, tmp_path / "x", form="zip")
    with pytest.raises(ValueError, match="exists already: remove it, or give another name"):
        convert(manifest, manifest.parent, form="shards")
    with pytest.raises(ValueError, match="no data set at .*nowhere: expected a folder"):
        list_images(tmp_path / "nowhere")
    (tmp_path / "x.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is a shard: take its images out"):
        read_records(tmp_path / "x.tar")


# --- names of texts in shards --------------------------------------------------------------------------------


def shard_of(path, members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def captions_of(source):
    return {image.name: image.sidecar.captions.get("original", "") for image in list_images(source)}


@pytest.mark.parametrize(
    ("order", "passed"),
    [
        (["a.b.1.jpg", "a.b.1.txt", "a.b.2.jpg", "a.b.2.txt"], {}),  # dots in names
        (["a.b.1.jpg", "a.b.2.jpg", "a.b.1.txt", "a.b.2.txt"], {}),  # grouped by kind
        (["a.b.1.txt", "a.b.2.txt", "a.b.1.jpg", "a.b.2.jpg"], {}),
        (
            ["._a.b.1.jpg", "a.b.1.jpg", "._a.b.1.txt", "a.b.1.txt", "a.b.2.txt", "a.b.2.jpg"],
            {"hidden files": 2},
        ),
        (
            ["a.b.1.jpg", "a.b.1.txt", "a.b.3.txt", "a.b.2.jpg", "a.b.2.txt", "a.b.1.cls"],
            {
                ".txt files, which belong to no image": 1,
                ".cls files, which are neither images nor captions": 1,
            },
        ),
    ],
)
def test_captions_of_a_shard_find_their_image_and_the_others_are_counted(tmp_path, order, passed, capfd):
    """By the full name less its last ending; no text goes to an image that merely begins alike."""
    shard = shard_of(tmp_path / "x.tar", {n: jpeg() if n.endswith("jpg") else n.encode() for n in order})
    expected = {"a.b.1.jpg": "a.b.1.txt", "a.b.2.jpg": "a.b.2.txt"}
    assert captions_of(shard) == expected
    assert passed_over(shard) == passed
    converted = convert(shard, tmp_path / "out", form="sidecars")
    assert sorted(captions_of(converted).values()) == sorted(expected.values())
    said = " ".join(capfd.readouterr().err.split())
    assert all(f"passed over: {count} {what}" in said for what, count in passed.items())


def test_by_the_rule_of_webdataset_a_text_belongs_to_all_images_of_its_stem(tmp_path):
    """Where no text has an image's full name: the stem ends at the first dot."""
    names = ["1.left.jpg", "1.right.jpg", "1.txt", "2.left.jpg", "2.left.txt", "2.txt"]
    shard = shard_of(tmp_path / "x.tar", {n: jpeg() if n.endswith("jpg") else n.encode() for n in names})
    assert captions_of(shard) == {"1.left.jpg": "1.txt", "1.right.jpg": "1.txt", "2.left.jpg": "2.left.txt"}
    assert passed_over(shard) == {".txt files, which belong to no image": 1}


def test_a_name_of_a_member_that_is_no_text_is_one_refused_image(tmp_path):
    shard_of(tmp_path / "x.tar", {"caf\udce9.jpg": jpeg(), "b.jpg": jpeg()})
    bad, good = list_images(tmp_path / "x.tar")
    assert (bad.name, good.problem) == ("caf\\xe9.jpg", "")
    assert "is not UTF-8 text: rename it" in bad.problem


def test_of_members_of_one_name_none_is_taken_for_the_other(tmp_path):
    """Of two texts nobody knows which is whose; of two images the first is kept."""
    shard = shard_of(tmp_path / "x.tar", {"a.jpg": jpeg(), "a.txt": b"one", "b.jpg": jpeg(), "b.txt": b"b"})
    shard_of(shard, {"a.txt": b"other", "b.jpg": jpeg(), "b\x07.jpg": jpeg()}, mode="a")
    problems = [(image.name, image.problem) for image in list_images(shard)]
    again = "b.jpg is the name of another image too, control characters aside: rename one"
    assert problems == [("a.jpg", "a.txt is there twice"), ("b.jpg", ""), ("b.jpg", again), ("b.jpg", again)]


def test_names_in_a_folder_differ_by_more_than_control_characters(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "a\x01.jpg").write_bytes(jpeg())
    assert [image.problem.partition(",")[0] for image in list_images(tmp_path)] == [
        "",
        "a.jpg is the name of another image too",
    ]


def test_links_in_a_shard_are_counted(tmp_path):
    shard = shard_of(tmp_path / "x.tar", {"a.jpg": jpeg()})
    with tarfile.open(shard, "a") as tar:
        for name, kind in (("b.jpg", tarfile.SYMTYPE), ("c.jpg", tarfile.LNKTYPE), ("d", tarfile.DIRTYPE)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "a.jpg"
            tar.addfile(link)
    assert passed_over(shard) == {"links and devices": 2}


def test_a_second_archive_in_a_shard_is_not_lost_in_silence(tmp_path):
    one, two = (shard_of(tmp_path / name, {f"{name}.jpg": jpeg()}) for name in ("a.tar", "b.tar"))
    one.write_bytes(one.read_bytes() + two.read_bytes())
    first, rest = list_images(one)
    assert (first.problem, rest.name) == ("", "(the rest)")
    assert "another archive begins behind its end" in rest.problem


def test_a_name_without_room_for_a_longer_ending_has_no_sidecar(tmp_path):
    (tmp_path / f"{'x' * 251}.jpg").write_bytes(jpeg())
    (tmp_path / "y.jpg").write_bytes(jpeg())
    (tmp_path / "y.json").write_text('{"prompt": "y"}')
    assert sorted(captions_of(tmp_path).values()) == ["", "y"]


def test_texts_beside_no_image_are_counted_in_folders_too(manifest, tmp_path):
    folder = convert(manifest, tmp_path / "x", form="sidecars")
    for name in ("notes.txt", "lost.json", "page.pdf", ".DS_Store"):
        (folder / name).write_text("x")
    assert passed_over(folder) == {
        ".txt files, which belong to no image": 1,
        ".json files, which belong to no image": 1,
        ".pdf files, which are neither images nor captions": 1,
        "hidden files": 1,
    }


def test_detailed_captions_that_a_text_file_cannot_hold_are_counted(manifest, tmp_path, capfd):
    write_manifest([record for record in read_manifest(manifest) if record.captions], manifest)
    convert(manifest, tmp_path / "txt", form="captions")
    assert "left out: 1 detailed captions" in " ".join(capfd.readouterr().err.split())


def test_a_shard_that_is_no_file_is_one_refused_image(tmp_path):
    (tmp_path / "x.tar").symlink_to("nowhere")
    (tmp_path / "a.jpg").write_bytes(jpeg())
    assert [bool(image.problem) for image in list_images(tmp_path)] == [False, True]


@pytest.mark.parametrize("form", FORMS)
def test_a_disk_without_room_is_one_sentence_and_leaves_nothing(manifest, tmp_path, form):
    write_manifest([record for record in read_manifest(manifest) if record.captions], manifest)
    with small_disk(1000), pytest.raises(CannotWrite, match="out cannot be written: .*run again"):
        convert(manifest, tmp_path / "out", form=form)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    convert(manifest, tmp_path / "out", form=form)
