"""The teachers of today: what each is sent, costs and gives; and no size is ordered that training does not take."""

from __future__ import annotations

import base64
import io
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from collect_server import KEY, running
from PIL import Image
from post_server import serving

from urae.cli.data.collect import make_teacher
from urae.cli.verbs import verb
from urae.collecting import Flux2Teacher, Flux3Image, OpenAIImages, collect, plan_collection
from urae.collecting.plan import with_shapes_for
from urae.collecting.teachers import KNOWN
from urae.data import read_manifest
from urae.data.pixels import split_by_size, training_bucket, trains_at
from urae.io import markdown_table
from urae.recipes import RECIPES

GUIDE = Path(__file__).parents[2] / "docs/guides/data.md"
PROMPTS = ["a cat", "a dog", "a bird", "a fish"]
NAMED = [name for name in KNOWN if name != "openai"]


def flat(size):
    stream = io.BytesIO()
    Image.new("RGB", size, "teal").save(stream, "PNG")
    return stream.getvalue()


def invoke(*arguments):
    return CliRunner().invoke(verb("data"), [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("BFL_API_KEY", KEY)
    with running() as state:
        yield state


def gather(teacher, out, prompts=PROMPTS, **options):
    return collect(prompts, teacher, out, pause=0.01, **options)


def fast(server):
    return {"base_url": server.url, "poll_every": 0.01, "rate": 6e4}


def test_flux_2_is_asked_by_width_and_height_and_never_rewrites_a_prompt(server, tmp_path):
    server.model, server.cost = "flux-2-pro", None
    server.paint = lambda body: flat((body["width"] // 16, body["height"] // 16))
    teacher = Flux2Teacher(model="pro", shapes={"2048x2048": 1, "1024x1024": 1}, **fast(server))
    collection = gather(teacher, tmp_path, [f"scene {n}" for n in range(8)])
    bodies = [task.body for task in server.tasks.values()]
    assert {(b["width"], b["height"]) for b in bodies} == {(2048, 2048), (1024, 1024)}
    assert {b["prompt_upsampling"] for b in bodies} == {False}
    sizes = Counter(record.size for record in collection.records)
    assert sizes.keys() <= {(128, 128), (64, 64)}
    # Four megapixels cost 0.03 + 3 x 0.015 USD, one costs 0.03; the server named no cost.
    ordered = Counter(b["width"] for b in bodies)
    assert collection.spent == pytest.approx(ordered[2048] * 0.075 + ordered[1024] * 0.03)


@pytest.mark.parametrize(
    ("model", "shape", "price"),
    [
        ("max", "2048x2048", 0.16),
        ("flex", "2048x2048", 0.20),
        ("pro", "1920x1088", 0.045),
        ("klein-4b", "1040x1024", 0.015),
        ("klein-9b", "1024x1024", 0.015),
    ],
)
def test_flux_2_costs_by_megapixels_begun(model, shape, price):
    assert Flux2Teacher(model=model, shapes={shape: 1}).price_of(shape) == pytest.approx(price)
    assert Flux2Teacher(model=model, shapes={shape: 1}, price=0.5).price_of(shape) == 0.5


def test_klein_is_not_sent_what_it_does_not_know(server, tmp_path):
    server.model, server.paint = "flux-2-klein-4b", lambda body: flat((48, 32))
    gather(Flux2Teacher(model="klein-4b", **fast(server)), tmp_path, ["a cat"])
    (task,) = server.tasks.values()
    assert "prompt_upsampling" not in task.body


def test_flux_3_draws_by_the_prompt_alone_and_a_failed_task_may_answer_503(server, tmp_path):
    server.model, server.paint = "flux-3-image", lambda body: flat((64, 48))
    collection = gather(Flux3Image(resolution="4k", **fast(server)), tmp_path, ["a cat"])
    (task,) = server.tasks.values()
    assert {k: v for k, v in task.body.items() if k not in ("prompt", "aspect_ratio")} == {
        "resolution": "4k", "grounding": False, "safety_tolerance": 2
    }  # fmt: skip
    assert len(collection.records) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Flux2Teacher(shapes={"4096x4096": 1}), "at most 4 megapixels"),
        (lambda: Flux2Teacher(shapes={"2040x2048": 1}), "expected multiples of 16 px"),
        (lambda: Flux2Teacher(shapes={"16:9": 1}), "expected WIDTHxHEIGHT"),
        (lambda: Flux2Teacher(model="ultra"), "model is 'ultra': expected one of max, pro"),
        (lambda: Flux2Teacher(safety_tolerance=6), r"expected 0 \(strict\) to 5"),
        (lambda: Flux3Image(safety_tolerance=5), r"expected 0 \(strict\) to 4"),
        (lambda: Flux3Image(resolution="8k"), "resolution is '8k': expected one of 768sq, 1k"),
        (lambda: Flux3Image(shapes={"10:9": 1}), "shape is '10:9': expected one of 1:1"),
        (lambda: plan_collection(["a"], Flux3Image(resolution="1.5k"), "x"), "give it with --price"),
        (lambda: plan_collection(["a"], OpenAIImages(model="toy"), "x"), "an image of toy is not known here"),
        (
            lambda: make_teacher("flux-2-max", [], ["1:1=1", "1:1=2"]),
            "the shape '1:1' is given twice: give it once",
        ),
        (lambda: make_teacher("flux-2-max", ["model=pro"], []), "model is not a setting of flux-2-max"),
    ],
)
def test_what_a_teacher_cannot_do_is_refused_before_anything_is_sent(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_seedream_is_asked_for_its_own_sizes_without_a_watermark(tmp_path, monkeypatch):
    monkeypatch.setenv("ARK_API_KEY", "ark-secret")

    def drawn(body, number):
        width, height = map(int, body["size"].split("x"))
        return 200, {"data": [{"b64_json": base64.b64encode(flat((width // 32, height // 32))).decode()}]}

    with serving(drawn) as (url, asked):
        settings = [f"base_url={url}/api/v3", "price=0.03", "rate=60000", "options={seed: 1}"]
        teacher = make_teacher("seedream-4.5", settings, [], size=4096)
        collection = gather(teacher, tmp_path)
    assert {body["_path"] for body in asked} == {"/v1/api/v3/images/generations"}
    assert {(b["model"], b["watermark"], b["response_format"], b["seed"]) for b in asked} == {
        ("seedream-4-5-251128", False, "b64_json", 1)
    }
    assert all(int(b["size"].split("x")[0]) * int(b["size"].split("x")[1]) > 14e6 for b in asked)
    assert collection.spent == pytest.approx(0.12)


@pytest.mark.parametrize("name", NAMED)
def test_price_and_terms_come_before_the_question(name, tmp_path):
    """And nothing is guessed: who names no price is asked for one."""
    command = ["collect", tmp_path / "out", "--teacher", name, "--num", 10, "--dry-run"]
    if name.startswith(("seedream", "gpt")):
        with pytest.raises(ValueError, match="is not known here: give it with --price, 0 if it is free"):
            invoke(*command)
        command += ["--price", 0.25]
    said = invoke(*command).output
    assert said.index("terms: ") < said.index("cost, expected: ")
    provider = "BytePlus" if "seedream" in name else "OpenAI" if "gpt" in name else "Black Forest Labs"
    assert f"terms: {provider}" in said
    if name.startswith(("seedream", "gpt")):
        assert "cost, expected: 2.50 (0.25 each)" in said


# --- sizes: what is asked for is what training takes ----------------------------------------------------------------


def teacher_named(name):
    return make_teacher(name, ["resolution=4k"] if name == "flux-3-image" else [], [])


@pytest.mark.parametrize("size", [1024, 2048, 4096])
@pytest.mark.parametrize("name", NAMED)
def test_the_mix_for_a_size_is_trained_on_whole(name, size):
    """Of every teacher, at every size: all its shapes, or none and a sentence."""
    teacher = with_shapes_for(teacher_named(name), size)
    fitting = {shape for shape, pixels in teacher.sizes.items() if trains_at(pixels, size)}
    if fitting:
        assert teacher.shapes.keys() <= fitting
        assert "1024x1024" in fitting or "1:1" in fitting or max(teacher.shapes.values()) == 2
        plan_collection(PROMPTS, teacher, "nowhere", size=size) if price_known(teacher) else None
    else:
        with pytest.raises(
            ValueError, match=rf"too small to train on at {size} px|is unknown until one of each"
        ):
            _check(teacher, size)


def price_known(teacher):
    return not any(teacher.price_of(s) != teacher.price_of(s) for s in teacher.shapes)


def _check(teacher, size):
    if not price_known(teacher):
        teacher = make_teacher(teacher.model if teacher.model in KNOWN else "seedream-4.0", ["price=1"], [])
    plan_collection(PROMPTS, teacher, "nowhere", size=size)


def test_shapes_that_training_would_leave_out_are_refused_before_the_first_order(server, tmp_path):
    command = [
        "collect",
        tmp_path / "out",
        "--teacher",
        "flux-2-max",
        "--set",
        f"base_url={server.url}",
        "--yes",
    ]
    with pytest.raises(
        ValueError, match=r"too small to train on at 2048 px, for 1024x1024 .*: take 2048x2048"
    ):
        invoke(*command, "--for", "flux_2k", "--shape", "2048x2048", "--shape", "1024x1024=3")
    with pytest.raises(
        ValueError, match=r"at 4096 px, for .*: train at a smaller size, or ask another teacher"
    ):
        invoke(*command, "--for", "flux_4k_synthetic")
    assert not server.tasks
    assert not (tmp_path / "out").exists()


def test_what_a_recipe_is_collected_for_it_trains_on(server, tmp_path):
    """Ultra's real sizes, in the mix for flux_2k: of the paid images none is left out."""
    shapes = make_teacher("flux-pro-1.1-ultra", [], []).sizes
    server.paint = lambda body: flat(shapes[body["aspect_ratio"]])
    command = ["collect", tmp_path, "--for", "flux_2k", "--num", 6, "--set", f"base_url={server.url}"]
    said = invoke(*command, "--set", "poll_every=0.01", "--set", "rate=60000", "--yes").output
    assert "for training at 2048 px: every shape is large enough" in said
    records = read_manifest(tmp_path / "manifest.jsonl")
    fitting, small = split_by_size(records, 2048)
    assert (len(fitting), small) == (len(records), [])


def test_sizes_that_nobody_publishes_are_known_from_the_first_images(server, tmp_path):
    server.model, size = "flux-3-image", (2048, 2048)
    server.paint = lambda body: flat(size)
    teacher = Flux3Image(shapes={"1:1": 1}, **fast(server))
    with pytest.raises(
        ValueError, match="the size that flux-3-image gives for 1:1 is unknown until one of each"
    ):
        gather(teacher, tmp_path, size=2048)
    gather(teacher, tmp_path, ["a cat"])
    assert len(gather(teacher, tmp_path, ["a cat", "a dog"], size=2048).records) == 1  # the same bytes twice
    with pytest.raises(ValueError, match=r"too small to train on at 4096 px, for 1:1 \(2048x2048\)"):
        gather(teacher, tmp_path, [*PROMPTS], size=4096)
    assert len(server.tasks) == 2


def test_the_guides_table_of_teachers_and_recipes_is_what_the_code_does():
    recipes = [name for name in RECIPES if name in ("flux_2k", "flux_4k_synthetic")]
    rows = [
        (name, *(_taken(teacher_named(name), RECIPES[recipe]().size) for recipe in recipes)) for name in NAMED
    ]
    table = markdown_table(("teacher", *recipes), rows)
    assert table in GUIDE.read_text(), f"docs/guides/data.md has another table; it should be\n{table}"


def _taken(teacher, size):
    if not teacher.sizes:
        return "known from the first images"
    shapes = with_shapes_for(teacher, size).shapes
    wide = [shape for shape in shapes if shape in teacher.sizes and trains_at(teacher.sizes[shape], size)]
    sizes = [teacher.sizes[s] for s in wide if teacher.sizes[s][0] >= teacher.sizes[s][1]]
    return ", ".join(_made_of(given, size) for given in sorted(sizes)) or "nothing: too small"


def _made_of(given, size):
    """A size, and in brackets what it is cropped to."""
    bucket = training_bucket(given, size)
    return "x".join(map(str, given)) + ("" if bucket == given else f" ({'x'.join(map(str, bucket))})")


@pytest.mark.parametrize("model", ["Qwen/Qwen-Image", "black-forest-labs/FLUX.2-klein-base-4B"])
def test_local_models_under_apache_say_so_before_they_draw(model):
    """Those that the recipes train, of which a collection would otherwise say that nobody knows."""
    assert "Apache-2.0" in make_teacher("local", [f"model={model}"], ["1024x1024"]).terms
