import csv
import hashlib
import json
import os
import shutil
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet
from typer.testing import CliRunner

from small_disk import small_disk
from urae.cli import app
from urae.data import convert, read_manifest, write_manifest
from urae.data.sidecar import parse_values
from urae.errors import BadFile, MissingExtra, StaleCache, UraeError
from urae.intake import Filters, import_images
from urae.intake.rows import Rows, choose_rows, columns_of
from urae.intake.urls import download, not_downloaded
from urae.io.files import MACHINE

SIZE = 64
DEAD = 2**22 + 1
"""No process has this number."""
FILTERS = Filters(size=SIZE)
ROWS = Rows(size=SIZE, max_ratio=2.5)


def texture(seed, size=(96, 80)):
    """Sharp, and unlike that of another seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(40, 216, (6, 8, 3), dtype=np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )
    return Image.fromarray(
        (np.asarray(coarse) + rng.integers(-30, 30, (size[1], size[0], 1))).astype(np.uint8)
    )


@pytest.fixture
def photos(tmp_path):
    """Four that are good, one of them without a caption, and one for each of some reasons."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for index in range(4):
        texture(index).save(folder / "deep" / f"{index}.png")
        if index:
            sidecar = {"prompt": f"caption {index}", "licence": "CC0-1.0"}
            (folder / "deep" / f"{index}.json").write_text(json.dumps(sidecar))
    texture(20).resize((32, 27)).resize((96, 80)).save(folder / "blurred.png")
    texture(9, (40, 40)).save(folder / "small.png")
    texture(8, (400, 80)).save(folder / "wide.png")
    texture(1).save(folder / "other.webp", quality=80)
    Image.new("RGB", (96, 80), "red").save(folder / "red.png")
    shutil.copy(folder / "deep" / "2.png", folder / "same.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "LICENSE").write_text("CC0")
    return folder


EXPECTED = {
    "blurred.png": "sharpness",
    "broken.jpg": "format",
    "red.png": "entropy",
    "other.webp": "duplicate",
    "same.png": "duplicate",
    "small.png": "size",
    "wide.png": "aspect",
}


def reasons(done):
    return {reject.name.partition("photos/")[2]: reject.reason for reject in done.rejects}


def run(photos, out, filters=FILTERS, **options):
    return import_images([photos], out, filters, **options)


def test_what_is_good_is_taken_and_the_rest_named(photos, tmp_path):
    done = run(photos, tmp_path / "out")
    assert reasons(done) == EXPECTED
    assert done.passed_over == {"(none) files, which are neither images nor captions": 1}
    assert done.counts["duplicate"] == 2
    assert [len(record.captions) for record in done.records].count(0) == 1
    assert read_manifest(done.manifest) == list(done.records)


def test_images_are_taken_as_they_are_with_what_is_known_of_them(photos, tmp_path):
    done = run(photos, tmp_path / "out", licence="CC-BY-4.0")
    by_source = {record.source.rpartition("/")[2]: record for record in done.records}
    first = by_source["1.png"]
    content = (done.manifest.parent / first.file).read_bytes()
    assert content == (photos / "deep" / "1.png").read_bytes()
    assert first.id == hashlib.sha256(content).hexdigest()
    assert (first.size, first.captions, first.licence) == ((96, 80), {"original": "caption 1"}, "CC0-1.0")
    assert by_source["0.png"].licence == "CC-BY-4.0"
    assert first.time.endswith("+00:00")


def test_of_duplicates_the_largest_stays(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    large = texture(0, (288, 240))
    large.resize((96, 80), Image.Resampling.LANCZOS).save(folder / "a.png")
    large.save(folder / "b.png")
    large.resize((144, 120), Image.Resampling.LANCZOS).save(folder / "c.png")
    done = run(folder, tmp_path / "out")
    assert [record.size for record in done.records] == [(288, 240)]
    assert all(
        "of 64 bits, at most 6, from" in reject.detail and "b.png" in reject.detail for reject in done.rejects
    )
    kept = run(folder, tmp_path / "out", Filters(size=SIZE, duplicates=-1))
    assert len(kept.records) == 3


def test_several_workers_take_the_same(photos, tmp_path):
    one, two = run(photos, tmp_path / "one"), run(photos, tmp_path / "two", workers=2)
    assert [(r.id, r.file, r.source) for r in one.records] == [(r.id, r.file, r.source) for r in two.records]
    assert one.rejects == two.rejects


class Counting:
    """A detector that finds nothing, counts, and may be interrupted."""

    def __init__(self, stop=-1):
        self.calls, self.stop = 0, stop

    def __call__(self, image):
        if self.calls == self.stop:
            raise KeyboardInterrupt
        self.calls += 1
        return 0.0


def test_a_run_that_is_stopped_goes_on_and_reads_nothing_twice(photos, tmp_path):
    filters = Filters(size=SIZE, detectors={"x": 1.0})
    whole = run(photos, tmp_path / "whole", filters, detectors={"x": Counting()})
    first, second, third = Counting(stop=4), Counting(), Counting()
    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path / "out", filters, detectors={"x": first})
    with (tmp_path / "out" / "import" / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"item": "torn')
    done = run(photos, tmp_path / "out", filters, detectors={"x": second})
    assert first.calls + second.calls == 10  # all but the one that cannot be read
    again = run(photos, tmp_path / "out", filters, detectors={"x": third})
    assert (third.calls, again.num_measured) == (0, 0)
    assert again.records == done.records
    assert [record.id for record in done.records] == [record.id for record in whole.records]
    assert done.rejects == whole.rejects


def test_a_copy_that_was_stopped_half_way_is_made_anew(photos, tmp_path):
    done = run(photos, tmp_path / "out")
    image = done.manifest.parent / done.records[0].file
    whole = image.read_bytes()
    half = image.with_name(f".urae-{MACHINE}-{DEAD}-0-{image.name}.tmp")
    half.write_bytes(whole[:100])
    image.unlink()
    run(photos, tmp_path / "out")
    assert image.read_bytes() == whole
    assert not half.exists()


def test_other_thresholds_read_no_image_again(photos, tmp_path):
    before = run(photos, tmp_path / "out")
    looser = run(photos, tmp_path / "out", Filters(size=SIZE, sharpness=0, max_ratio=9))
    assert looser.num_measured == 0
    assert reasons(looser) == {k: v for k, v in EXPECTED.items() if v not in ("sharpness", "aspect")}
    run(photos, tmp_path / "out")
    images = {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out/images").rglob("*.*")
    }
    assert images == {record.file for record in before.records}


def test_an_image_that_changes_is_measured_again(photos, tmp_path):
    run(photos, tmp_path / "out")
    texture(77).save(photos / "small.png")
    done = run(photos, tmp_path / "out")
    assert done.num_measured == 1
    assert "small.png" not in reasons(done)


def test_captions_that_were_added_to_the_manifest_stay(photos, tmp_path):
    done = run(photos, tmp_path / "out")
    told = [replace(r, captions=r.captions | {"detailed": "told"}) for r in done.records]
    write_manifest(told, done.manifest)
    assert list(run(photos, tmp_path / "out").records) == told


def test_shards_and_manifests_are_sources_too(photos, tmp_path):
    good = run(photos, tmp_path / "good")
    ids = [record.id for record in good.records]
    shards = convert(good.manifest, tmp_path / "shards", form="shards")
    for source in (good.manifest, shards):
        done = import_images([source], tmp_path / f"from-{source.name}", FILTERS)
        assert [record.id for record in done.records] == ids
        assert [record.source for record in done.records] == [record.source for record in good.records]


def test_every_reason_has_a_contact_sheet(photos, tmp_path):
    done = run(photos, tmp_path / "out")
    sheets = {path.stem for path in (tmp_path / "out" / "import" / "sheets").iterdir()}
    assert sheets == set(EXPECTED.values()) == set(done.counts)
    with Image.open(tmp_path / "out" / "import" / "sheets" / "entropy.jpg") as sheet:
        red, green, _ = sheet.convert("RGB").getpixel((100, 80))
    assert red > 240 > 20 > green
    run(photos, tmp_path / "out", Filters.off(SIZE))
    assert not (tmp_path / "out" / "import" / "sheets" / "entropy.jpg").exists()
    lines = (tmp_path / "out" / "import" / "rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["reason"] for line in lines] == ["format", "duplicate", "size"]


def brightness(image):
    return float(np.asarray(image).mean())


def test_a_detector_of_ones_own(photos, tmp_path):
    plain = run(photos, tmp_path / "plain")
    scores = {
        record.source: brightness(Image.open(plain.manifest.parent / record.file)) for record in plain.records
    }
    limit = float(np.median(list(scores.values())))
    filters = Filters(size=SIZE, detectors={"too bright": limit})
    done = run(photos, tmp_path / "out", filters, workers=2, detectors={"too bright": brightness})
    kept = {record.source for record in done.records}
    assert kept & set(scores) == {source for source, score in scores.items() if score <= limit}
    assert "detector too bright" in reasons(done).values()


def test_an_image_that_changes_meanwhile_is_not_taken(photos, tmp_path):
    class Spoiler(Counting):
        def __call__(self, image):
            score = super().__call__(image)
            texture(55 + self.calls).save(photos / "deep" / "1.png")  # another one after each image
            return score

    with pytest.raises(StaleCache, match="deep/1.png changed while it was imported: run the import again"):
        run(photos, tmp_path / "out", Filters(size=SIZE, detectors={"x": 1}), detectors={"x": Spoiler()})
    assert not (tmp_path / "out" / "manifest.jsonl").exists()


def test_two_runs_at_once_are_kept_apart(photos, tmp_path):
    class Second(Counting):
        def __call__(self, image):
            with pytest.raises(UraeError, match="another run is writing"):
                run(photos, tmp_path / "out")
            return super().__call__(image)

    run(photos, tmp_path / "out", Filters(size=SIZE, detectors={"x": 1}), detectors={"x": Second()})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers is 0: expected 1"),
        ({"workers": 100_000}, r"workers is 100000: expected 1 \(this process\) to \d+, eight for each core"),
        ({"detectors": {"x": brightness}}, r"filters name the detectors \[\], given are \['x'\]"),
        ({"urls": {"timeout": "5"}}, "options of img2dataset .* have no effect"),
    ],
)
def test_requests_that_make_no_sense(photos, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(photos, tmp_path / "out", **options)


def test_another_data_set_is_neither_overwritten_nor_cleared(photos, tmp_path):
    """A collection also lies in images/ and manifest.jsonl, and was paid for."""
    out = tmp_path / "out"
    (out / "images").mkdir(parents=True)
    (out / "images" / "0123456789abcdef.png").write_bytes(b"paid")
    (out / "manifest.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="holds a data set that no import made"):
        run(photos, out)
    (out / "manifest.jsonl").unlink()
    run(photos, out)
    assert (out / "images" / "0123456789abcdef.png").read_bytes() == b"paid"


def test_the_data_set_lies_apart_from_its_sources(photos):
    with pytest.raises(ValueError, match="contain one another"):
        run(photos, photos / "out")


def test_from_the_shell(photos, tmp_path):
    arguments = ["data", "import", str(photos), "--out", str(tmp_path / "out"), "--size", "64"]
    result = CliRunner().invoke(app, [*arguments, "--allow", "cc0-1.0", "--licence", "CC0-1.0"])
    assert result.exit_code == 0, result.output
    assert "took 4 of 11 images into" in result.output
    assert "passed over: 1 (none) files" in result.output


# --- tables of URLs ----------------------------------------------------------------------------------------


@pytest.fixture
def served(photos):
    """The address of a server of the photos."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(photos)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def table(tmp_path, address):
    rows = ["url,caption,licence", *(f"{address}/deep/{i}.png,caption {i},CC0-1.0" for i in (0, 1, 7))]
    path = tmp_path / "urls.csv"
    path.write_text("\n".join(rows))
    return path


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("img2dataset"), reason="img2dataset is not on the PATH")
def test_a_table_of_urls_is_downloaded_and_judged(served, photos, tmp_path):
    urls = {"processes_count": "1", "thread_count": "2", "private": "yes"}
    done = import_images([table(tmp_path, served)], tmp_path / "out", FILTERS, urls=urls)
    records = {record.source: record for record in done.records}
    assert records.keys() == {f"{served}/deep/{i}.png" for i in (0, 1)}
    first = records[f"{served}/deep/0.png"]
    assert first.id == hashlib.sha256((photos / "deep" / "0.png").read_bytes()).hexdigest()
    assert (first.captions, first.licence) == ({"original": "caption 0"}, "CC0-1.0")
    assert list(done.not_downloaded.values()) == [1]
    assert "404" in next(iter(done.not_downloaded))


def test_tables_of_one_name_and_tables_with_more_rows_are_downloaded_apart(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "img2dataset"
    program.parent.mkdir()
    shutil.copy(shutil.which("true") or "/bin/true", program)
    monkeypatch.setenv("PATH", str(program.parent))
    path = table(tmp_path, "http://127.0.0.1:1")
    allowed = {"private": "yes"}
    first = download(path, tmp_path / "downloads", rows=ROWS, options=allowed)
    assert download(path, tmp_path / "downloads", rows=ROWS, options=allowed) == first
    path.write_text(path.read_text() + "\nhttp://127.0.0.1:1/8.png,caption 8,CC0-1.0")
    assert download(path, tmp_path / "downloads", rows=ROWS, options=allowed) != first


LAION = {
    "URL": [f"http://93.184.216.34/{place}.jpg" for place in range(7)],
    "TEXT": [f"caption {place}" for place in range(7)],
    "WIDTH": [96.0, 40.0, 96.0, 400.0, None, 96.0, 64.0],
    "HEIGHT": [80.0, 40.0, 80.0, 80.0, 80.0, 80.0, 64.0],
    "similarity": [0.31, 0.35, 0.2, 0.4, 0.4, 0.33, 0.3],
    "LICENSE": ["CC-BY-4.0", "CC-BY-4.0", "CC-BY-4.0", "CC-BY-4.0", "CC-BY-4.0", "?", "cc-by-4.0"],
}
"""As LAION's tables are: names in capitals, sizes as numbers with a point, most licences unknown."""


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_rows_of_laion_are_chosen_before_anything_is_downloaded(tmp_path, suffix):
    path, out = tmp_path / f"laion{suffix}", tmp_path / f"rows{suffix}"
    if suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([list(LAION), *zip(*LAION.values(), strict=True)])
    else:
        parquet.write_table(pyarrow.table(LAION), path)
    rows = replace(ROWS, similarity=0.3, licences=("CC-BY-4.0",))
    left_out = choose_rows(path, out, rows)
    assert sum(left_out.values()) == 5
    assert [count for reason, count in left_out.items() if reason.startswith("too small for 64 px")] == [3]
    assert left_out["similarity below 0.3"] == left_out["not under an allowed licence by the table"] == 1
    if suffix == ".csv":
        with out.open(newline="") as file:
            found = list(csv.DictReader(file))
    else:
        found = parquet.read_table(out).to_pylist()
    assert found == [
        {"url": LAION["URL"][place], "caption": LAION["TEXT"][place], "licence": LAION["LICENSE"][place]}
        for place in (0, 6)
    ]


def test_a_table_is_not_asked_for_what_it_does_not_tell(tmp_path):
    path = table(tmp_path, "http://93.184.216.34")
    assert not choose_rows(path, tmp_path / "rows.csv", ROWS)
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 4
    with pytest.raises(ValueError, match=r"similarity is 0.3, and .* has the columns url, caption, licence"):
        choose_rows(path, tmp_path / "rows.csv", replace(ROWS, similarity=0.3))


def test_what_img2dataset_is_given_are_the_chosen_rows_by_our_names(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "img2dataset"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/asked\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    parquet.write_table(pyarrow.table(LAION), tmp_path / "laion.parquet")
    folder = download(tmp_path / "laion.parquet", tmp_path / "downloads", rows=ROWS, options={})
    asked = dict(line[2:].split("=", 1) for line in (tmp_path / "asked").read_text().splitlines())
    assert (asked["url_col"], asked["caption_col"]) == ("url", "caption")
    assert json.loads(asked["save_additional_columns"]) == ["licence"]
    assert parquet.read_table(asked["url_list"]).num_rows == 4
    assert sum(not_downloaded(folder).values()) == 3


def test_a_licence_in_capitals_is_kept_and_a_question_mark_is_none():
    known = {"TEXT": "a cat", "LICENSE": "CC-BY-4.0", "URL": "http://x/1.jpg"}
    assert parse_values(known, name="x").facts == {"source": "http://x/1.jpg", "licence": "CC-BY-4.0"}
    assert parse_values(known, name="x").captions == {"original": "a cat"}
    assert "licence" not in parse_values({**known, "LICENSE": "?"}, name="x").facts


def test_without_img2dataset_the_way_to_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(MissingExtra, match="pipx install img2dataset"):
        import_images([table(tmp_path, "http://127.0.0.1")], tmp_path / "out", FILTERS)


def test_a_table_needs_urls(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "img2dataset"
    program.parent.mkdir()
    shutil.copy(shutil.which("false") or "/bin/false", program)
    monkeypatch.setenv("PATH", str(program.parent))
    (tmp_path / "x.csv").write_text("link,text\n")
    with pytest.raises(ValueError, match=r"has the columns link, text: expected one named url"):
        import_images([tmp_path / "x.csv"], tmp_path / "out", FILTERS)
    with pytest.raises(UraeError, match="img2dataset ended with 1"):
        import_images(
            [table(tmp_path, "http://192.0.2.1")], tmp_path / "out", FILTERS, urls={"private": "yes"}
        )
    with pytest.raises(ValueError, match=r"there is no table .*nowhere.csv"):
        import_images([tmp_path / "nowhere.csv"], tmp_path / "out", FILTERS)


# --- what is odd -------------------------------------------------------------------------------------------


def test_one_odd_file_is_one_rejected_file(photos, tmp_path):
    """A name that is no UTF-8, a PNG that ends in a chunk's name, AppleDouble files, half a surrogate in a sidecar."""
    good = run(photos, tmp_path / "before")
    os.rename(photos / "small.png", os.fsencode(photos) + b"/caf\xe9.png")
    (photos / "end.png").write_bytes((photos / "red.png").read_bytes()[:-8] + b"\0\0\0\4cICP")
    (photos / "._red.png").write_bytes(b"AppleDouble")
    texture(50).save(photos / "half.png")
    (photos / "half.json").write_text('{"prompt": "\\ud800"}')
    done = run(photos, tmp_path / "out")
    changed = {"caf\\xe9.png": "sidecar", "end.png": "damaged", "half.png": "sidecar"}
    assert reasons(done) == {k: v for k, v in EXPECTED.items() if k != "small.png"} | changed
    assert done.passed_over["hidden files"] == 1
    assert [record.id for record in done.records] == [record.id for record in good.records]
    assert read_manifest(done.manifest) == list(done.records)
    assert run(photos, tmp_path / "out").records == done.records


@pytest.mark.parametrize("end", ["\u2028", "\x85", "\v"])
def test_an_import_reads_its_own_manifest_whatever_the_captions_hold(photos, tmp_path, end):
    (photos / "deep" / "1.json").write_text(json.dumps({"prompt": f"one{end}two"}))
    done = run(photos, tmp_path / "out")
    assert run(photos, tmp_path / "out").records == done.records
    assert f"one{end}two" in [record.captions.get("original") for record in read_manifest(done.manifest)]


def test_an_output_that_is_no_folder_is_named_before_the_work(photos, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="out is not a folder"):
        run(photos, tmp_path / "out")


def test_a_table_from_a_spreadsheet_is_read(tmp_path):
    """Which begins with a byte order mark."""
    (tmp_path / "x.csv").write_text("url,caption\n", encoding="utf-8-sig")
    assert columns_of(tmp_path / "x.csv") == ["url", "caption"]


@pytest.mark.parametrize("num_bytes", [1000, 10_000])
def test_a_disk_without_room_is_one_sentence_and_the_same_call_goes_on(photos, tmp_path, num_bytes):
    whole = run(photos, tmp_path / "whole")
    with small_disk(num_bytes), pytest.raises(UraeError, match=r"cannot be written: .*run again"):
        run(photos, tmp_path / "out")
    assert not list((tmp_path / "out").rglob(".urae-*"))
    done = run(photos, tmp_path / "out")
    assert [record.id for record in done.records] == [record.id for record in whole.records]


PRIVATE = [
    "http://127.0.0.1:8080/admin",
    "http://localhost/x.png",
    "https://me:pw@10.0.0.7/x.png",
    "http://[::1]/x.png",
    "http://[::ffff:192.168.1.1]/x.png",
    "http://169.254.169.254/latest/meta-data",
    "http://0x7f.1/x.png",
    "http://2130706433/x.png",
    "HTTP://LOCALHOST./x.png",
]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_addresses_in_private_networks_are_refused_before_anything_is_asked(tmp_path, monkeypatch, suffix):
    program = tmp_path / "bin" / "img2dataset"
    program.parent.mkdir()
    shutil.copy(shutil.which("true") or "/bin/true", program)
    monkeypatch.setenv("PATH", str(program.parent))
    path, public = tmp_path / f"x{suffix}", ["https://example.org/a.png", "http://93.184.216.34/b.png"]
    for urls, private in ((public + PRIVATE, True), (public, False)):
        if suffix == ".csv":
            rows = [["url", "caption"], *([url, "two\nlines"] for url in urls)]
            with path.open("w", newline="") as file:
                csv.writer(file).writerows(rows)
        else:
            parquet.write_table(
                pyarrow.table({"url": [*urls, None], "caption": ["x"] * (len(urls) + 1)}), path
            )
        if private:
            with pytest.raises(ValueError, match=f"{len(PRIVATE)} addresses in .* such as {PRIVATE[0]}"):
                download(path, tmp_path / "downloads", rows=ROWS, options={})
        else:
            download(path, tmp_path / "downloads", rows=ROWS, options={})


@pytest.mark.parametrize(
    "change", [{"id": "../../x"}, {"suffix": "/x"}, {"measures": {}}, {"scores": [1]}, {"item": ["x"]}]
)
def test_a_journal_of_something_else_is_named(photos, tmp_path, change):
    run(photos, tmp_path / "out")
    journal = tmp_path / "out" / "import" / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    number = next(number for number, line in enumerate(lines) if "id" in line)
    lines[number] |= change
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(BadFile, match=f"journal.jsonl, line {number + 1}"):
        run(photos, tmp_path / "out")


def test_a_detector_that_gives_no_number_is_named(photos, tmp_path):
    filters = Filters(size=SIZE, detectors={"x": 1.0})
    with pytest.raises(ValueError, match="the detector x says nan: expected a finite number"):
        run(photos, tmp_path / "out", filters, detectors={"x": lambda image: float("nan")})
