import json
import os
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import ExifTags, Image

from tiny import write_images
from urae.data import Record, read_manifest, read_records, scan_folder, write_manifest
from urae.errors import BadFile
from urae.io import read_picture


def test_a_folder_is_read_with_its_captions(tmp_path):
    folder = write_images(tmp_path / "images", [(64, 64), (80, 48)])
    first, second = scan_folder(folder)
    assert first.captions == {"original": "a", "detailed": "a b"}
    assert (first.file, first.size, first.source) == ("00.png", (64, 64), "folder")
    assert second.size == (80, 48)
    assert len({first.id, second.id}) == 2


def test_a_text_file_is_the_original_caption_and_folders_may_be_deep(tmp_path):
    folder = write_images(tmp_path / "images" / "deep", [(64, 64)])
    (folder / "00.json").unlink()
    (folder / "00.txt").write_text("a cat\n")
    (record,) = scan_folder(tmp_path / "images")
    assert (record.file, record.captions) == ("deep/00.png", {"original": "a cat"})


def test_a_manifest_is_read_as_it_was_written(tmp_path):
    folder = write_images(tmp_path, [(64, 64), (80, 48)])
    records = scan_folder(folder)
    write_manifest(records, tmp_path / "train.jsonl")
    assert read_manifest(tmp_path / "train.jsonl") == records
    assert read_records(tmp_path / "train.jsonl") == (records, tmp_path)


def test_where_an_image_came_from_is_kept(tmp_path):
    folder = write_images(tmp_path, [(64, 64), (80, 48)])
    bare, record = scan_folder(folder)
    teacher = {"name": "flux-pro-1.1-ultra", "settings": {"raw": True, "seed": 7}}
    known = replace(record, licence="CC0-1.0", teacher=teacher, time="2026-11-22T12:00:00+00:00")
    write_manifest([bare, known], tmp_path / "m.jsonl")
    assert read_manifest(tmp_path / "m.jsonl") == [bare, known]
    assert (bare.licence, bare.teacher, bare.time) == (None, None, None)


def test_a_line_may_leave_out_where_the_image_came_from(tmp_path):
    (record,) = scan_folder(write_images(tmp_path, [(64, 64)]))
    line = asdict(record)
    for name in ("licence", "teacher", "time"):
        del line[name]
    assert Record.from_dict(line) == record
    with pytest.raises(
        ValueError, match=r"captions, file, id, size, source and may have licence, teacher, time"
    ):
        Record.from_dict(line | {"license": "CC0-1.0"})


def test_the_id_follows_the_content_not_the_name(tmp_path):
    folder = write_images(tmp_path, [(64, 64)])
    (before,) = scan_folder(folder)
    (folder / "00.png").rename(folder / "99.png")
    (folder / "00.json").rename(folder / "99.json")
    assert replace(scan_folder(folder)[0], file="00.png") == before


def test_a_photograph_on_its_side_has_the_size_that_is_seen(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(np.zeros((48, 80, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "a.txt").write_text("a")
    assert scan_folder(tmp_path)[0].size == (48, 80)


def test_a_tiff_on_its_side_is_turned_once(tmp_path):
    """Pillow turns TIFFs when it reads them, and says their size accordingly; other formats are turned by us."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(np.zeros((48, 80, 3), np.uint8)).save(tmp_path / "a.tiff", exif=exif)
    (tmp_path / "a.txt").write_text("a")
    (record,) = scan_folder(tmp_path)
    assert record.size == read_picture(tmp_path / "a.tiff").size == (48, 80)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("id", "../" * 20 + "tmp/x", "expected 64 hexadecimal digits"),
        ("id", "A" * 64, "expected 64 hexadecimal digits"),
        ("file", "/etc/passwd.png", "expected a path in the manifest's folder"),
        ("file", "images/../../x.png", "expected a path in the manifest's folder"),
    ],
)
def test_a_manifest_leads_nowhere_else(tmp_path, name, value, message):
    """The id is the name of what is cached, the file is what captioning sends away."""
    (record,) = scan_folder(write_images(tmp_path, [(64, 64)]))
    (tmp_path / "m.jsonl").write_text(json.dumps(asdict(record) | {name: value}))
    with pytest.raises(BadFile, match=f"m.jsonl, line 1 is not a record: .*{message}"):
        read_manifest(tmp_path / "m.jsonl")


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda f: (f / "00.json").unlink(), ValueError, "1 images in .* have no caption.*00.png"),
        (lambda f: (f / "00.json").write_text("{}"), ValueError, "1 images in .* have no caption.*00.png"),
        (lambda f: (f / "00.json").write_text("{"), BadFile, "00.json is not JSON"),
        (lambda f: (f / "00.png").write_bytes(b"no image"), BadFile, "00.png is none of JPEG"),
        (lambda f: (f / "x.GIF").write_bytes(b""), ValueError, "1 images in .* are not .*x.GIF"),
        (lambda f: (f / "01.png").write_bytes((f / "00.png").read_bytes()), ValueError, "00.png = 01.png"),
    ],
)
def test_nothing_is_left_out_silently(tmp_path, spoil, error, message):
    folder = write_images(tmp_path, [(64, 64), (64, 64)])
    spoil(folder)
    with pytest.raises(error, match=message):
        scan_folder(folder)


def test_long_lists_of_files_are_cut_and_counted(tmp_path):
    folder = write_images(tmp_path, [(64, 64)] * 11)
    for sidecar in folder.glob("*.json"):
        sidecar.unlink()
    with pytest.raises(ValueError, match=r"11 images .* 07.png and 3 more"):
        scan_folder(folder)


def test_sources_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="no data at .*nowhere: expected a folder"):
        read_records(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no images"):
        read_records(tmp_path)


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "x"}'])
def test_a_bad_line_is_named(tmp_path, line):
    write_manifest(scan_folder(write_images(tmp_path, [(64, 64)])), tmp_path / "m.jsonl")
    with (tmp_path / "m.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(BadFile, match=r"m.jsonl, line 2 is not a record"):
        read_manifest(tmp_path / "m.jsonl")


def test_a_manifest_keeps_captions_of_any_language(tmp_path):
    folder = write_images(tmp_path, [(64, 64)])
    (folder / "00.json").write_text(json.dumps({"prompt": "一隻貓"}))
    write_manifest(scan_folder(folder), tmp_path / "m.jsonl")
    assert read_manifest(tmp_path / "m.jsonl")[0].captions == {"original": "一隻貓"}


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\v", "\f", "\x1c"])
def test_a_manifest_is_read_again_whatever_its_captions_hold(tmp_path, end):
    """`str.splitlines` takes these for ends of lines; also those that an earlier version wrote as they are."""
    folder = write_images(tmp_path, [(64, 64), (80, 48)])
    (folder / "00.json").unlink()
    (folder / "00.txt").write_text(f"\ufeffa cat{end}on a mat", encoding="utf-8")
    records = scan_folder(folder)
    assert records[0].captions == {"original": f"a cat{end}on a mat"}
    write_manifest(records, tmp_path / "m.jsonl")
    assert read_manifest(tmp_path / "m.jsonl") == records
    raw = "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records)
    (tmp_path / "m.jsonl").write_text(raw, encoding="utf-8-sig")
    assert read_manifest(tmp_path / "m.jsonl") == records


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", [64]),
        ("size", [64, "64"]),
        ("size", [10**400, -1]),
        ("size", None),
        ("captions", {"original": 7}),
        ("captions", ["a"]),
        ("file", 7),
        ("teacher", "x"),
        ("source", None),
    ],
)
def test_a_value_of_another_type_is_named_with_its_line(tmp_path, name, value):
    (record,) = scan_folder(write_images(tmp_path, [(64, 64)]))
    (tmp_path / "m.jsonl").write_text(json.dumps(asdict(record) | {name: value}))
    with pytest.raises(BadFile, match="m.jsonl, line 1 is not a record: .*expected"):
        read_manifest(tmp_path / "m.jsonl")


def test_hidden_files_are_no_data_and_a_name_that_is_no_text_is_told(tmp_path):
    folder = write_images(tmp_path, [(64, 64)])
    (folder / "._00.png").write_bytes(b"AppleDouble")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.png").write_bytes(b"no picture")
    assert [record.file for record in scan_folder(folder)] == ["00.png"]
    os.rename(folder / "00.png", os.fsencode(folder) + b"/caf\xe9.png")
    with pytest.raises(BadFile, match=r"the name of .*caf\\xe9.png is not UTF-8 text: rename it"):
        scan_folder(folder, captioned=False)
