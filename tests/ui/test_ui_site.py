"""The page over HTTP: what it draws, and whom and what it refuses."""

import io
import json
import os
import re
import signal
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from ui_page import serving, wait_for

import processes
from provenance_made import MADE
from urae.generation import read_png_metadata
from urae.provenance import AdapterUse, save_png
from urae.ui.server import make_server

TIGER = {"prompt": "a flat tiger on a wood background", "size": "128x128", "steps": "2"}


def pixels(path):
    return np.asarray(Image.open(path))


def test_pictures_are_those_of_the_command_line(page, tmp_path):
    """Names, pixels and metadata."""
    assert page.wait(page.draw(**TIGER, seeds="3-4")) == "done"
    words = ("generate", TIGER["prompt"], "--size", "128x128", "--steps", 2, "--seed", 3, "--seed", 4)
    made = processes.urae(*words, "--out", tmp_path / "cli")
    assert made.returncode == 0, made.stderr
    names = sorted(path.name for path in (tmp_path / "cli").glob("*.png"))
    assert len(names) == 2
    for name in names:
        assert (pixels(page.out / name) == pixels(tmp_path / "cli" / name)).all()
        assert read_png_metadata(page.out / name) == read_png_metadata(tmp_path / "cli" / name)


def test_a_picture_that_is_looked_at_names_its_adapters(page):
    uses = tuple(AdapterUse(file=name, hash="ab", strength=1.0) for name in ("a", "b"))
    for name, made in {"one": MADE, "two": replace(MADE, adapter_file="", adapters=uses)}.items():
        picture = Image.new("RGB", MADE.size)
        picture.info.update(made.to_info())
        save_png(picture, page.out / f"{name}.png")
    shown = re.findall("<figcaption>([^<]*)<", page.get("/look?p=one.png,two.png").text)
    assert shown == ["256x128 direct, a.safetensors", "256x128 direct, several adapters"]


def test_a_native_picture_is_drawn_larger(page):
    job = page.draw(**TIGER, seeds="0")
    page.wait(job)
    (name,) = re.findall(r'data-larger="2x" data-native="([^"]+)"', page.get(f"/job/{job}").text)
    larger = page.draw(prompt=TIGER["prompt"], native=name, larger="2x", method="sdedit", steps="1")
    assert page.wait(larger) == "done"
    (drawn,) = re.findall(r'href="/picture/([^"]+)"', page.get(f"/job/{larger}").text)
    made = read_png_metadata(page.out / drawn)
    assert (made.size, made.method) == ((256, 256), "sdedit")
    assert len(made.native) == 64
    assert "data-larger" not in page.get(f"/job/{larger}").text


def test_a_picture_of_ones_own(page):
    stream = io.BytesIO()
    Image.new("RGB", (200, 100), (10, 200, 30)).save(stream, "JPEG")
    answer = page.post("/upload", stream.getvalue(), Content_Type="application/octet-stream")
    name = json.loads(answer.text)["next"].removeprefix("/?native=")
    job = page.draw(prompt="x", native=name, larger="2x", method="sdedit", steps="1")
    assert page.wait(job) == "done"
    (drawn,) = re.findall(r'href="/picture/([^"]+)"', page.get(f"/job/{job}").text)
    width, height = Image.open(page.out / drawn).size
    assert width / height == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("content", [b"", b"%!PS-Adobe-3.0\n", b"\x89PNG\r\n\x1a\n junk"])
def test_what_is_no_picture_is_refused(page, content):
    answer = page.post("/upload", content, Content_Type="application/octet-stream")
    assert answer.status == 422
    assert "your picture" in json.loads(answer.text)["detail"]


def test_a_refused_request_says_why_and_makes_no_job(page):
    before = page.get("/jobs").text.count("data-job")
    for changed, said in (("size", "multiple of 16"), ("adapters", "not a file")):
        answer = page.post("/draw", {"fields": {**TIGER, changed: "130x128"}})
        assert answer.status == 422
        assert said in json.loads(answer.text)["detail"]
    assert page.get("/jobs").text.count("data-job") == before


def test_what_only_the_model_can_refuse_fails_with_its_sentence(page):
    job = page.draw(**{**TIGER, "prompt": "x"}, negative="blur")
    assert page.wait(job) == "failed"
    assert "takes no negative prompt" in page.get(f"/job/{job}").text


def test_stop_and_go_on_lose_nothing(page):
    job = page.draw(**{**TIGER, "prompt": "a glossy apple on a brick background", "steps": "12"}, seeds="0-5")
    wait_for(lambda: ".png" in page.get(f"/job/{job}").text)
    assert page.post("/cancel", {"name": job}).status == 200
    assert page.wait(job) == "stopped"
    kept = {path: path.stat().st_mtime_ns for path in page.out.glob("1-a-glossy-apple*.png")}
    assert 1 <= len(kept) < 6
    assert page.post("/again", {"name": job}).status == 200
    assert page.wait(job) == "done"
    assert len(list(page.out.glob("1-a-glossy-apple*.png"))) == 6
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())


@pytest.mark.thorough
def test_a_killed_drawing_process_fails_its_job_alone(tmp_path):
    with serving(tmp_path) as page:
        job = page.draw(**{**TIGER, "steps": "20"}, seeds="0-9")
        wait_for(lambda: ".png" in page.get(f"/job/{job}").text)
        for child in drawing_processes():
            os.kill(child, signal.SIGKILL)
        assert page.wait(job) == "failed"
        assert "ended by signal 9; finished pictures are kept" in page.get(f"/job/{job}").text
        assert page.wait(page.draw(**TIGER)) == "done"
    assert not [path for path in page.out.rglob("*") if path.name.startswith(".urae-")]


def drawing_processes():
    import multiprocessing

    return [child.pid for child in multiprocessing.active_children() if child.name.startswith("SpawnProcess")]


def test_nobody_comes_in_without_the_link(page):
    stranger = type(page)(page.link, page.out)
    for path in ("/", "/jobs", "/events", "/static/ui.css", "/?token=wrong", "/picture/x.png"):
        answer = stranger.get(path)
        assert answer.status == 403, path
        assert "set-cookie" not in answer.headers
    assert stranger.post("/draw", {"fields": TIGER}).status == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_other_sites_cannot_post(page, headers, status):
    assert page.post("/draw", {"fields": TIGER}, **headers).status == status


@pytest.mark.parametrize(
    "path",
    [
        "/picture/..%2f..%2fetc%2fpasswd",
        "/picture/.ui",
        "/picture/%2e%2e/%2e%2e/secret.png",
        "/thumb/none.png",
        "/job/none",
        "/preview/none",
        "/run/..",
        "/run/../images",
        "/sample/x.png/..",
        "/look?p=../../secret.png",
        "/static/site.py",
    ],
)
def test_only_what_is_listed_can_be_asked_for(page, path):
    (page.out.parent / "secret.png").write_bytes(b"secret")
    answer = page.get(path)
    assert answer.status == 404
    assert "secret" not in answer.text


def test_two_pages_cannot_share_a_folder(page):
    from urae.errors import UraeError
    from urae.generation.asking import ModelRequest

    with (
        pytest.raises(UraeError, match="the page of"),
        make_server(ModelRequest(), page.out, page.out, port=1),
    ):
        pass


def test_strange_names_are_shown_as_text(page):
    job = page.draw(**{**TIGER, "prompt": '<script>alert(1)</script> & "quotes"'})
    page.wait(job)
    for path in (f"/job/{job}", "/jobs", "/"):
        assert "<script>alert" not in page.get(path).text
