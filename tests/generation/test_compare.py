"""Several ways side by side: what is counted, what is drawn, and the command around it."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from urae.adapters import Adapter, Lora, attach
from urae.cli.compare import compare as command
from urae.cli.verbs import Commands
from urae.execution import MemoryPlan
from urae.families import open_pipeline
from urae.generation import (
    Direct,
    Imax,
    Sdedit,
    Tiled,
    Way,
    WayResult,
    compare_ways,
    generate,
    grid,
    read_png_metadata,
)
from urae.pages.sheet import CELL, MARGIN
from urae.resolution import ResolutionPolicy

TIGER = "a flat tiger on a wood background"
SIZE = (128, 64)


def same(left, right):
    return np.array_equal(np.asarray(left), np.asarray(right))


@pytest.fixture
def adapter(small):
    return adapter_of(small, policy=ResolutionPolicy(shift=6.0))


def adapter_of(pipe, *, policy, seed=0):
    attached = attach(pipe.transformer, Lora(rank=2))
    for parameter in attached.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(seed))
    exported = attached.export(policy=policy)
    attached.detach()
    return exported


# What is counted


def test_each_way_is_what_generate_draws_and_what_that_costs(small, adapter):
    ways = [
        Way(label="stock", method=Direct(), policy="none", steps=2),
        Way(label="adapted", method=Direct(), adapter=adapter, steps=2),
        Way(label="tiled", method=Tiled(windows_per_call=1), steps=2),
        Way(label="sdedit", method=Sdedit(native_steps=3), steps=1),
    ]
    steps = []
    measures = {"red": lambda image: float(np.asarray(image)[..., 0].mean())}
    outcomes = compare_ways(
        small, TIGER, ways, size=SIZE, seed=4, measures=measures, on_step=lambda: steps.append(1)
    )
    assert [outcome.label for outcome in outcomes] == ["stock", "adapted", "tiled", "sdedit"]
    settings = {"size": SIZE, "seed": 4}
    alone = [
        generate(small, TIGER, policy="none", steps=2, **settings),
        generate(small, TIGER, adapter=adapter, steps=2, **settings),
        generate(small, TIGER, method="tiled", steps=2, **settings),
        generate(small, TIGER, method=Sdedit(native_steps=3), steps=1, **settings),
    ]
    for outcome, image in zip(outcomes, alone, strict=True):
        assert same(outcome.image, image)
        assert outcome.numbers == {"red": measures["red"](image)}
        assert outcome.image.info["prompt"] == TIGER
    # 128 x 64 px are 32 tokens and three windows of 16; the native picture is 96 x 48 px, 18 tokens.
    assert outcomes[3].native.size == (96, 48)
    assert [outcome.calls for outcome in outcomes] == [2, 2, 2 * 3, 3 + 1]
    assert [outcome.tokens for outcome in outcomes] == [2 * 32, 2 * 32, 2 * 3 * 16, 3 * 18 + 32]
    assert len(steps) == sum(way.num_steps for way in ways) == 2 + 2 + 2 + 4
    assert outcomes[3].seconds > outcomes[3].native_seconds > 0
    assert [outcome.native_seconds for outcome in outcomes[:3]] == [0, 0, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read where Linux tells it")
def test_the_peak_of_memory_is_that_of_each_way(small):
    def large(image):
        # Written to, so that it really takes memory; it is gone before the next way begins.
        return float(np.ones(30_000_000).sum())

    ways = [Way(label=label, method=Direct(), steps=1) for label in "ab"]
    first, second = compare_ways(small, TIGER, ways, size=SIZE, measures={"large": large})
    assert first.peak_bytes > 50e6
    # Measuring is not part of a way: its 240 MB would show.
    assert abs(second.peak_bytes - first.peak_bytes) < 100e6


def test_the_pipeline_is_restored(small):
    before = (small.transformer.pos_embed, small.scheduler, vars(small.transformer).get("forward"))
    ways = [Way(label="imax", method=Imax(native_steps=1), steps=1)]
    compare_ways(small, TIGER, ways, size=SIZE, memory=MemoryPlan(device="cpu", offload="none"))
    after = (small.transformer.pos_embed, small.scheduler, vars(small.transformer).get("forward"))
    assert after == before


def test_labels_are_told_apart(small):
    ways = [Way(label="a", method=Direct()), Way(label="a", method=Imax())]
    with pytest.raises(ValueError, match="the ways are labelled a, a: expected another label for each"):
        compare_ways(small, TIGER, ways, size=SIZE)


# The sheet


def outcome(label, size, *, native=None):
    values = np.random.default_rng(len(label)).integers(0, 256, size=(size[1], size[0], 3), dtype=np.uint8)
    return WayResult(
        label=label,
        image=Image.fromarray(values),
        native=native,
        seconds=1.0,
        native_seconds=0.0,
        calls=1,
        tokens=1,
        peak_bytes=None,
        numbers={},
    )


def is_in(part, sheet, left):
    """Whether the sheet shows `part` pixel by pixel, beginning at `left` pixels from its left side."""
    part, sheet = np.asarray(part), np.asarray(sheet)
    height, width = part.shape[:2]
    places = range(sheet.shape[0] - height + 1)
    return any(np.array_equal(sheet[y : y + height, left : left + width], part) for y in places)


def test_a_large_picture_is_shown_reduced_and_in_part():
    shown = outcome("large", (640, 480))
    sheet = grid([shown], prompt=TIGER)
    whole = shown.image.resize((CELL, 240), Image.Resampling.LANCZOS)
    assert is_in(whole, sheet, MARGIN)
    assert is_in(shown.image.crop((160, 80, 480, 400)), sheet, MARGIN)
    assert sheet.width == CELL + 2 * MARGIN


def test_the_native_picture_comes_first_and_rows_are_even():
    native = Image.new("RGB", (64, 64), "red")
    outcomes = [outcome(label, (CELL, CELL), native=native) for label in ("one", "four2", "five33")]
    sheet = grid(outcomes, prompt=TIGER)
    assert sheet.width == 4 * CELL + 3 * 20 + 2 * MARGIN
    assert is_in(native.resize((CELL, CELL)), sheet, MARGIN)
    for place, one in enumerate(outcomes, start=1):
        assert is_in(one.image, sheet, MARGIN + place * (CELL + 20))
    six = grid([outcome(str(i), (CELL, CELL)) for i in range(6)], prompt=TIGER)
    assert six.width == 3 * CELL + 2 * 20 + 2 * MARGIN


def test_a_long_prompt_takes_more_lines():
    shown = [outcome("one", (CELL, CELL))]
    short, long = grid(shown, prompt=TIGER), grid(shown, prompt=10 * f"{TIGER} and ")
    assert long.width == short.width
    assert long.height > short.height + 100


# The command


@pytest.fixture
def run(small, tmp_path):
    small.save_pretrained(tmp_path / "model")
    app = Commands()
    app.command()(command)

    def run(*arguments):
        settings = ["--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")]
        settings += [] if "--size" in arguments else ["--size", "128x64"]
        result = CliRunner().invoke(app, [TIGER, *settings, *map(str, arguments)])
        if result.exception:
            raise result.exception
        return result.stdout

    return run


def test_a_stack_is_drawn_without_and_with_all_of_it(run, small, adapter, tmp_path):
    size = adapter.save(tmp_path / "size.safetensors")
    style = adapter_of(small, policy=None, seed=1).save(tmp_path / "style.safetensors")
    run("--method", "direct", "--steps", 1, "--adapter", size, "--adapter", f"{style}:0.6")
    table = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [way["label"] for way in table["pictures"]] == ["direct", "direct + adapters"]
    plain, stacked = (read_png_metadata(tmp_path / "out" / way["file"]) for way in table["pictures"])
    assert plain.adapters == ()
    assert [(use.file, use.strength) for use in stacked.adapters] == [
        ("size.safetensors", 1.0),
        ("style.safetensors", 0.6),
    ]
    assert stacked.policy == adapter.policy
    pipe = open_pipeline(tmp_path / "model")
    stack = [Adapter.load(size, base=pipe), (Adapter.load(style, base=pipe), 0.6)]
    expected = generate(pipe, TIGER, size=SIZE, steps=1, adapter=stack)
    assert same(Image.open(tmp_path / "out" / table["pictures"][1]["file"]), expected)


def test_it_writes_pictures_a_sheet_and_a_table(run, adapter, tmp_path):
    file = adapter.save(tmp_path / "tuned.safetensors")
    methods = ["--method", "stock", "--method", "imax:weight=0.5,shift=policy"]
    said = run(*methods, "--adapter", file, "--steps", 1, "--native-steps", 2, "--seed", 3)
    out = tmp_path / "out"
    labels = ["stock", "imax weight=0.5,shift=policy", "imax weight=0.5,shift=policy + adapter"]
    table = json.loads((out / "compare.json").read_text())
    pictures = table["pictures"]
    assert [one["label"] for one in pictures] == labels
    assert [one["calls"] for one in pictures] == [1, 3, 3]
    assert {(one["prompt"], one["seed"]) for one in pictures} == {(TIGER, 3)}
    assert table["size"] == [128, 64]
    assert all(0 <= one["repetition"] <= 1 and one["detail"] > 0 for one in pictures)
    files = [one["file"] for one in pictures]
    assert {file.name for file in out.iterdir()} == {*files, "grid.png", "compare.html", "compare.json"}
    made = read_png_metadata(out / files[2])
    assert (made.adapter_file, made.options["weight"], made.policy) == (
        "tuned.safetensors",
        0.5,
        adapter.policy,
    )
    pipe = open_pipeline(tmp_path / "model")
    method = Imax(weight=0.5, shift="policy", native_steps=2)
    expected = generate(pipe, TIGER, size=SIZE, method=method, seed=3, steps=1)
    assert same(Image.open(out / files[1]), expected)
    assert Image.open(out / "grid.png").width == 4 * CELL + 3 * 20 + 2 * MARGIN
    assert all(label.split()[0] in said for label in labels)
    assert f"wrote {out / 'compare.html'}, {out / 'grid.png'} and {out / 'compare.json'}" in said


@pytest.mark.slow
def test_prompts_and_seeds_are_drawn_beside_pictures_of_others(run, tmp_path):
    """The second prompt's second seed is what `generate` draws; the other model's picture of it stands beside it."""
    from urae.provenance import save_png

    pipe, apple = open_pipeline(tmp_path / "model"), "a red apple"
    for text, seed in [(TIGER, 4), (TIGER, 5), (apple, 4), (apple, 5)]:
        picture = generate(pipe, text, size=SIZE, steps=2, seed=seed, policy="none")
        save_png(picture, tmp_path / "theirs" / f"{len(text)}-{seed}.png")
    options = ["--candidate", f"theirs={tmp_path / 'theirs'}", "--method", "direct", "--steps", 1]
    run(apple, "--seed", "4-5", *options)
    table = json.loads((tmp_path / "out" / "compare.json").read_text())
    named = {(one["prompt"], one["seed"], one["label"]): one["file"] for one in table["pictures"]}
    assert len(named) == 2 * 2 * 2
    drawn = tmp_path / "out" / named[apple, 5, "direct"]
    assert drawn.name == "2-seed5-direct.png"
    assert same(Image.open(drawn), generate(pipe, apple, size=SIZE, steps=1, seed=5))
    page = (tmp_path / "out" / "compare.html").read_text()
    assert page.count("<section>") == 4
    assert [f'href="{file}"' in page for file in named.values()] == [True] * 8
    assert named[apple, 5, "theirs"] == "../theirs/11-5.png"


@pytest.fixture
def folders(tmp_path):
    """Pictures of two other models by id, 640 px wide, and the file of their prompts."""
    for name, colours in {"red": ("#f00", "#a00"), "blue": ("#00f", "#00a")}.items():
        (tmp_path / name).mkdir()
        for id, colour in zip("ab", colours, strict=True):
            Image.new("RGB", (640, 320), colour).save(tmp_path / name / f"{id}.png")
    (tmp_path / "prompts.jsonl").write_text('{"id": "a", "prompt": "one"}\n{"id": "b", "prompt": "two"}\n')
    return {name: f"{name}={tmp_path / name}" for name in ("red", "blue")}


def shown(tmp_path, *arguments):
    app = Commands()
    app.command()(command)
    options = ["--prompts", str(tmp_path / "prompts.jsonl"), "--out", str(tmp_path / "out")]
    return CliRunner().invoke(app, [*options, *map(str, arguments)])


def test_pictures_that_are_there_are_compared_without_a_model(folders, tmp_path):
    picture = Image.open(tmp_path / "red" / "b.png")
    picture.paste("#fff", (40, 120, 80, 200))
    picture.save(tmp_path / "red" / "b.png")
    options = ["--candidate", folders["red"], "--candidate", folders["blue"], "--crop", "0.1,0.5", "--json"]
    result = shown(tmp_path, "--method", "none", *options)
    told = json.loads(result.stdout)
    assert told == json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [(one["label"], one["prompt"]) for one in told["pictures"]] == [
        ("red", "one"),
        ("red", "two"),
        ("blue", "one"),
        ("blue", "two"),
    ]
    sheet = Image.open(tmp_path / "out" / "grid.png").convert("RGB")
    assert is_in(picture.crop((0, 0, 320, 320)), sheet, MARGIN)  # around a tenth of the width, from the edge
    assert "wrote" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the method none shows candidates alone: give it alone, and some --candidate"),
        (("red", "--method", "direct"), "the method none shows candidates alone"),
        (("red", "--size", "64x64"), "size has no effect with the method none, which draws nothing"),
        (("red", "--crop", "0.5"), "crop is '0.5': expected two shares from 0 to 1"),
        (("red", "--crop", "0.5,1.5"), "crop is '0.5,1.5': expected two shares from 0 to 1"),
        (("red", "--seed", "1-2"), "red lacks 4 of 4 pictures: expected .*red/a-seed1.png"),
    ],
)
def test_what_has_no_effect_on_pictures_that_are_there_is_refused(folders, tmp_path, arguments, message):
    given = [
        part for one in arguments for part in (["--candidate", folders[one]] if one in folders else [one])
    ]
    result = shown(tmp_path, "--method", "none", *given)
    with pytest.raises(ValueError, match=message):
        raise result.exception


@pytest.mark.parametrize("kept", ["compare.json", "compare.html", "direct.png"])
def test_an_earlier_comparison_is_never_replaced(run, tmp_path, kept):
    out = tmp_path / "out"
    out.mkdir()
    (out / kept).write_text("earlier")
    with pytest.raises(ValueError, match=f"{kept} exists already, .* give another folder with --out"):
        run("--method", "direct", "--method", "imax")
    assert [(file.name, file.read_text()) for file in out.iterdir()] == [(kept, "earlier")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "magic"], "method is 'magic': expected one of direct"),
        (["--method", "imax:strength=1"], "strength is not an option of imax"),
        (["--method", "stock:weight=1"], "stock has no options: leave 'weight=1' out"),
        (["--method", "direct", "--native-steps", 2], "native_steps has no effect: none of the methods"),
        (["--method", "direct", "--method", "direct"], "the ways are labelled direct, direct"),
        (["--method", "direct", "--steps", 0], "steps is 0: expected 1 or more"),
        (["--size", "96"], "size is '96': expected WIDTHxHEIGHT"),
        (["--crop", "0.5,0.5"], "crop has no effect: the pictures are so small that they are shown whole"),
    ],
)
def test_what_cannot_be_followed_is_refused(run, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(*arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("compile", ["auto", True])
def test_a_way_may_be_compiled(small, monkeypatch, compile):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda forward: compiled.append(forward) or forward)
    way = Way(label="direct", method=Direct(), steps=1, compile=compile)
    compare_ways(small, TIGER, [way], size=(64, 64))
    blocks = [*small.transformer.transformer_blocks, *small.transformer.single_transformer_blocks]
    assert len(compiled) == (len(blocks) if compile is True else 0)
