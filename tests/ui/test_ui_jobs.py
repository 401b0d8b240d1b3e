"""The queue and the form, without a server."""

import json
import math

import pytest

from small_disk import small_disk
from urae.errors import BadFile, CannotWrite
from urae.pages.curves import curves_svg
from urae.ui.asking import fitted, presets, request_of
from urae.ui.jobs import JobBook


@pytest.fixture
def folder(tmp_path):
    return tmp_path


@pytest.mark.parametrize(("native", "multiple"), [(1024, 16), (128, 16), (1328, 16), (1024, 32)])
def test_presets_have_the_area_and_the_shape(native, multiple):
    for times, shapes in presets(native, multiple).items():
        for shape, size in shapes.items():
            width, height = map(int, size.split("x"))
            assert width % multiple == height % multiple == 0
            assert math.sqrt(width * height) == pytest.approx(native * int(times[:-1]), abs=multiple)
            if ":" in shape:
                wanted = int(shape.split(":")[0]) / int(shape.split(":")[1])
                assert width / height == pytest.approx(wanted, rel=2 * multiple / min(width, height))


def test_a_size_for_ones_own_shape():
    assert fitted((1000, 500), 1024, 16) == (1456, 720)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"size": "256x256"}, "prompt is empty"),
        ({"prompt": "x", "size": "256"}, "expected WIDTHxHEIGHT"),
        ({"prompt": "x", "size": "256x256", "steps": "many"}, "steps is 'many'"),
        ({"prompt": "x", "size": "256x256", "method": "magic"}, "method is 'magic'"),
        ({"prompt": "x", "size": "250x256"}, "multiple of 16"),
    ],
)
def test_a_form_is_refused_as_the_command_refuses(fields, said):
    with pytest.raises(ValueError, match=said):
        request_of(fields, None)


def test_empty_fields_are_the_defaults():
    asked = request_of(
        {"prompt": " x ", "size": "256x128", "steps": "", "guidance": " ", "seeds": "1-2"}, None
    )
    assert (asked.prompt, asked.size, asked.seeds) == ("x", (256, 128), [1, 2])
    assert (asked.steps, asked.guidance, asked.method.name) == ("auto", "auto", "direct")


def test_jobs_outlive_the_server(folder):
    book = JobBook(folder)
    done, drawing, waiting = (book.add({"prompt": name}) for name in "abc")
    book.change(done.id, state="done", pictures=("a.png",))
    book.change(drawing.id, state="drawing", pictures=("b.png",), num_steps=4)

    again = JobBook(folder)
    assert [job.asked["prompt"] for job in again.all()] == ["c", "b", "a"]
    assert [again[job.id].state for job in (done, drawing, waiting)] == ["done", "stopped", "stopped"]
    assert again[done.id].pictures == ("a.png",)
    assert again[drawing.id].pictures == ("b.png",)
    assert "the server ended" in again[drawing.id].message
    assert again.next() is None


def test_the_oldest_job_is_next(folder):
    book = JobBook(folder)
    first, second = book.add({"prompt": "a"}), book.add({"prompt": "b"})
    assert book.next().id == first.id
    book.change(first.id, state="done")
    assert book.next().id == second.id


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"id": "x", "asked": {}, "pictures": []}', '{"id": 1, "asked": {}, "pictures": [2]}'],
)
def test_a_damaged_job_is_named(folder, text):
    (folder / "1-00000000.json").write_text(text)
    with pytest.raises(BadFile, match="1-00000000.json"):
        JobBook(folder)


def test_steps_write_nothing_and_pictures_do(folder):
    book = JobBook(folder)
    job = book.add({"prompt": "a"})
    book.change(job.id, state="drawing")
    before = (folder / f"{job.id}.json").stat().st_mtime_ns
    version = book.version
    book.change(job.id, step=3)
    assert book.version > version
    assert (folder / f"{job.id}.json").stat().st_mtime_ns == before
    book.change(job.id, pictures=("a.png",))
    assert json.loads((folder / f"{job.id}.json").read_text())["pictures"] == ["a.png"]


def test_a_full_disk_loses_no_job_and_stops_no_queue(folder):
    book = JobBook(folder)
    job = book.add({"prompt": "a"})
    with small_disk(0):
        with pytest.raises(CannotWrite):
            book.add({"prompt": "b"})
        changed = book.change(job.id, state="failed", message="no room for the picture")
    assert [one.id for one in book.all()] == [job.id]
    assert changed.state == book[job.id].state == "failed"
    assert changed.message.startswith("no room for the picture; ")
    assert [path.name for path in folder.iterdir()] == [f"{job.id}.json"]


def test_curves_keep_their_ends_and_leave_out_what_is_not_finite():
    svg = curves_svg({"loss": [(1, 2.0), (2, math.nan), (3, 1.0)]}, across="step")
    points = svg.split('points="')[1].split('"')[0].split()
    assert len(points) == 2
    (left, top), (right, bottom) = (tuple(map(float, point.split(","))) for point in points)
    assert left < right
    assert top < bottom  # SVG counts downwards: the higher loss is the higher point
    assert curves_svg({"loss": []}, across="step") == ""
    assert "<script" not in curves_svg({"<script>": [(0, 1.0)]}, across="<script>")
