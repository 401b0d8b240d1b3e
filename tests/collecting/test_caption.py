"""Captioning by a server that answers, refuses, fails and dies."""

from __future__ import annotations

import base64
import io
import json
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import pytest
from killed_run import kill_when, process, run_caption
from PIL import ExifTags, Image
from post_server import serving
from typer.testing import CliRunner

from small_disk import small_disk
from tiny import write_images
from urae.cli import app
from urae.collecting import Captioner, caption, plan_captions
from urae.collecting.captioner import own_instruction, shown
from urae.data import read_manifest, read_records, scan_folder, write_manifest
from urae.errors import BadFile, StaleCache, UraeError
from urae.io import Unanswered, file_hash, read_journal

KEY = "sk-very-secret"


def described(text=None, *, ended="stop", status=200):
    """A chat completion; by default its text is long enough and tells the request's picture from others."""

    def react(body, number):
        picture = decoded(body)
        words = (
            text
            or f"Picture of {picture.width} by {picture.height} px, "
            + "with a red roof, two lit windows and a garden full of grey stones"
        )
        message = {"role": "assistant", "content": words}
        counted = {"prompt_tokens": 100, "completion_tokens": 20}
        choices = [{"index": 0, "finish_reason": ended, "message": message}]
        return status, {"id": "x", "model": "toy-2026", "choices": choices, "usage": counted}

    return react


def failed(status, code=""):
    return lambda *_: (status, {"error": {"message": f"no: {KEY}", "code": code}})


def decoded(body) -> Image.Image:
    uri = body["messages"][0]["content"][1]["image_url"]["url"]
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))))


@contextmanager
def answering(react):
    """A captioner at a server that reacts so, and what it was asked."""
    with serving(react) as (url, asked):
        yield Captioner(model="toy", base_url=url, retries=3), asked


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def manifest(tmp_path):
    """Six images of different sizes, the last with a detailed caption already."""
    folder = write_images(tmp_path / "set", [(64 + 16 * n, 48) for n in range(6)])
    records = scan_folder(folder)
    bare = [replace(record, captions={"original": record.captions["original"]}) for record in records[:5]]
    write_manifest([*bare, records[5]], folder / "manifest.jsonl")
    return folder / "manifest.jsonl"


def test_every_image_gets_its_own_detailed_caption(manifest):
    before = read_manifest(manifest)
    with answering(described()) as (captioner, asked):
        captioned = caption(manifest, captioner)
    after = read_manifest(manifest)
    for old, new in zip(before[:5], after[:5], strict=True):
        assert new.captions["detailed"].startswith(f"Picture of {new.size[0]} by 48 px")
        assert replace(new, captions=old.captions) == old
    assert after[5] == before[5]
    assert (captioned.num_written, captioned.missing, len(asked)) == (5, {}, 5)
    assert captioned.usage == {"prompt_tokens": 500, "completion_tokens": 100}


def test_what_is_sent(manifest):
    with answering(described()) as (captioner, asked):
        caption(manifest, replace(captioner, instruction="What is there?", options={"max_tokens": 9}))
    assert {
        (body["model"], body["max_tokens"], body["messages"][0]["content"][0]["text"]) for body in asked
    } == {("toy", 9, "What is there?")}


def test_images_are_shown_upright_reduced_never_enlarged_and_without_metadata(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Artist] = "somebody"
    turned = Image.new("RGB", (400, 200), "white")
    turned.paste("black", (0, 0, 200, 200))
    turned.save(tmp_path / "a.jpg", exif=exif, comment="made by somebody")
    uri = shown(tmp_path / "a.jpg", 100)
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert picture.size == (50, 100)
    assert picture.getpixel((25, 10)) == (0, 0, 0), "the left half is on top when upright"
    assert not picture.getexif()
    assert not {"comment", "icc_profile"} & picture.info.keys()
    Image.new("L", (80, 60)).save(tmp_path / "b.png")
    small = Image.open(io.BytesIO(base64.b64decode(shown(tmp_path / "b.png", 100).partition(",")[2])))
    assert (small.size, small.mode) == ((80, 60), "RGB")


def test_a_second_run_asks_nothing_and_another_question_everything(manifest):
    with answering(described()) as (captioner, asked):
        caption(manifest, captioner)
        caption(manifest, captioner)
        assert len(asked) == 5
        caption(manifest, replace(captioner, instruction="What else?"), renew=True)
        assert len(asked) == 5 + 6
        caption(manifest, captioner, renew=True)
        assert len(asked) == 5 + 6 + 1, "only the one that had a caption of its own was not answered yet"


def test_an_answer_is_known_by_all_that_it_depends_on():
    captioner = Captioner(model="toy")
    changes = ({}, {"model": "other"}, {"instruction": "Else?"}, {"max_side": 512}, {"options": {}})
    assert len({replace(captioner, **change).key("a") for change in changes} | {captioner.key("b")}) == 6
    assert replace(captioner, base_url="http://elsewhere", retries=1).key("a") == captioner.key("a")


def test_a_manifest_without_its_captions_gets_them_back_for_nothing(manifest):
    before = read_manifest(manifest)
    with answering(described()) as (captioner, asked):
        caption(manifest, captioner)
        after = read_manifest(manifest)
        write_manifest(before, manifest)
        caption(manifest, captioner)
        assert len(asked) == 5
    assert read_manifest(manifest) == after


def test_a_folder_without_captions_becomes_a_captioned_manifest(tmp_path):
    folder = write_images(tmp_path / "photographs", [(64, 48), (80, 48)])
    for sidecar in folder.glob("*.json"):
        sidecar.unlink()
    with answering(described()) as (captioner, _):
        captioned = caption(folder, captioner)
    assert captioned.manifest == folder / "manifest.jsonl"
    records, _ = read_records(folder)
    assert [list(record.captions) for record in records] == [["detailed"], ["detailed"]]


def test_answers_that_are_no_captions_are_asked_for_once_more_and_listed(manifest):
    cases = {
        64: described("A house."),
        80: described("A long caption that is cut off in the middle of what it was about to", ended="length"),
        96: described(ended="content_filter"),
        112: failed(400, "content_policy_violation"),
        128: described(),
    }
    with answering(lambda body, number: cases[decoded(body).width](body, number)) as (captioner, asked):
        captioned = caption(manifest, captioner)
        assert caption(manifest, captioner).missing == captioned.missing
    times = Counter(decoded(body).width for body in asked)
    assert times == {64: 2, 80: 2, 96: 1, 112: 1, 128: 1}
    assert captioned.num_written == 1
    assert {file: reason.partition(":")[0] for file, reason in captioned.missing.items()} == {
        "00.png": "invalid", "01.png": "invalid", "02.png": "refused", "03.png": "refused"
    }  # fmt: skip


def test_a_busy_server_is_asked_again_and_a_dead_one_ends_the_run_with_what_is_there(manifest):
    def mostly_busy(body, number):
        return described()(body, number) if number % 2 else failed(429)(body, number)

    with answering(mostly_busy) as (captioner, asked):
        assert caption(manifest, captioner, concurrency=1).num_written == 5
    manifest.with_suffix(".captions.jsonl").unlink()

    def dies(body, number):
        return described()(body, number) if number < 2 else failed(401)(body, number)

    with answering(dies) as (captioner, asked):
        with pytest.raises(Unanswered, match=r"toy at .* gave no answer.*\*\*\*") as raised:
            caption(manifest, replace(captioner, max_side=512), renew=True, concurrency=1)
        assert len(asked) == 3
    assert KEY not in str(raised.value)
    assert manifest.with_suffix(".captions.jsonl").read_text().count("\n") == 2


def test_the_manifest_must_be_that_of_the_images(manifest):
    write_images(manifest.parent, [(64, 48)] * 6, seed=9)
    with answering(described()) as (captioner, asked):
        with pytest.raises(StaleCache, match="not the image that the manifest names"):
            caption(manifest, captioner)
        assert not asked


def test_a_damaged_image_is_listed_and_the_others_captioned(manifest):
    first, *others = read_manifest(manifest)
    path = manifest.parent / first.file
    path.write_bytes(path.read_bytes()[:-200])
    write_manifest([replace(first, id=file_hash(path)), *others], manifest)
    with answering(described()) as (captioner, asked):
        captioned = caption(manifest, captioner)
    assert (captioned.num_written, len(asked)) == (4, 4)
    assert list(captioned.missing) == [first.file]
    assert "cannot be read as an image" in captioned.missing[first.file]


def test_an_image_that_is_gone_is_listed_and_the_others_captioned(manifest):
    first, *_ = read_manifest(manifest)
    (manifest.parent / first.file).unlink()
    with answering(described()) as (captioner, asked):
        captioned = caption(manifest, captioner)
    assert (captioned.num_written, len(asked)) == (4, 4)
    assert "cannot be opened" in captioned.missing[first.file]


def test_the_plan_is_what_the_run_then_does(manifest, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    plan = plan_captions(manifest, Captioner(model="toy"), tokens_per_picture=100)
    assert (plan.num_images, plan.num_captioned, plan.num_answered, plan.num_requests) == (6, 1, 0, 5)
    assert plan.input_tokens == 5 * (100 + len(own_instruction()) // 4)
    assert plan.price(per_million_in=1e6, per_million_out=0) == plan.input_tokens
    assert not manifest.with_suffix(".captions.jsonl").exists()


def test_a_run_that_is_killed_pays_for_no_answer_twice(manifest):
    """SIGKILL while two requests are under way: those are asked again, those that were answered are not."""
    gate, answered = threading.Event(), []

    def react(body, number):
        if number >= 2 and not gate.is_set():
            gate.wait(300)
        else:
            answered.append(decoded(body).width)
        return described()(body, number)

    with answering(react) as (captioner, asked):
        started = process(run_caption, captioner.base_url, str(manifest))
        assert kill_when(started, lambda: len(asked) == 4)
        gate.set()
        journal = manifest.with_suffix(".captions.jsonl")
        assert journal.read_text().count("\n") == 2
        assert "detailed" not in read_manifest(manifest)[0].captions
        assert caption(manifest, captioner).num_written == 5
        assert len(asked) == 4 + 3
    assert max(Counter(answered).values()) == 1


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda m: Captioner(model="toy", instruction=" "), ValueError, "instruction is empty"),
        (
            lambda m: Captioner(model="toy", max_side=16),
            ValueError,
            "max_side is 16 px: expected at least 64",
        ),
        (lambda m: caption(m, Captioner(model="toy"), concurrency=0), ValueError, "concurrency is 0"),
        (lambda m: shown(m, 100), BadFile, "is none of JPEG, PNG"),
    ],
)
def test_wrong_settings(manifest, make, error, message):
    with pytest.raises(error, match=message):
        make(manifest)


def test_answers_of_an_earlier_version_are_judged_anew(manifest):
    """It stored refusals and loops as captions, and did not say why a text ends."""
    records = read_manifest(manifest)[:2]
    with answering(described()) as (captioner, asked):
        lines = [
            {"key": captioner.key(record.id), "image": record.id, "text": text, "outcome": "caption"}
            for record, text in zip(
                records, ["I'm sorry, but I cannot describe it.", "a b " * 20], strict=True
            )
        ]
        journal = manifest.with_suffix(".captions.jsonl")
        journal.write_text(
            "".join(json.dumps({**line, "model": "toy", "usage": {}}) + "\n" for line in lines)
        )
        captioned = caption(manifest, captioner)
    assert list(captioned.missing) == [records[0].file]
    assert captioned.missing[records[0].file].startswith("refused: the model refuses")
    assert (captioned.num_written, len(asked)) == (4, 4), "a loop is asked for once more, a refusal is not"


@pytest.mark.parametrize("num_bytes", [300, 1500])
def test_a_disk_without_room_is_one_sentence_and_no_answer_that_is_kept_is_paid_twice(manifest, num_bytes):
    before = manifest.read_bytes()
    with answering(described()) as (captioner, asked):
        with small_disk(num_bytes), pytest.raises(UraeError, match=r"cannot be written: .*run again"):
            caption(manifest, captioner, concurrency=1)
        assert manifest.read_bytes() == before
        kept, num_asked = len(read_journal(manifest.with_suffix(".captions.jsonl"))), len(asked)
        assert num_asked - kept <= 1
        assert caption(manifest, captioner).num_written == 5
        assert len(asked) == num_asked + 5 - kept


def test_the_command_fails_where_no_caption_came(manifest):
    with answering(described("I'm sorry, but I can't help with that.")) as (captioner, _):
        command = [
            "data",
            "caption",
            str(manifest),
            "--model",
            "toy",
            "--base-url",
            captioner.base_url,
            "--yes",
        ]
        result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "none of 5 captions came: the messages above say why" in result.stderr
