"""`urae theory`: the files it writes, the words it says, and the mixtures of options it refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tiny import with_text_encoders
from urae.cli.theory import app
from urae.data import read_records, write_manifest
from urae.errors import BadFile


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def test_plot_writes_pictures_and_a_page(tmp_path):
    output = run("plot", "--noise", 0.1, "--noise", 0.4, "--repeats", 20, "--out", tmp_path)
    names = {"theory-share.png", "theory-bound.png", "theory.html"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert all(name in output for name in names)
    assert "0.4" in (tmp_path / "theory.html").read_text()


def test_simulate_says_which_bound_holds():
    output = run("simulate", "--problems", 5, "--repeats", 50)
    assert "valid bound: exceeded in" in output
    assert "0 of 5 problems" in output
    assert "5 of 5 problems" in output


def test_widths_compares_networks_with_their_linearisation():
    rows = [
        line
        for line in run("widths", "--width", 8, "--width", 128, "--networks", 2).splitlines()
        if "%" in line
    ]
    differences = [float(row.split("%")[0].split()[-1]) for row in rows]
    assert differences[1] < differences[0]


def test_advice_on_numbers_and_again_on_the_file_it_wrote(tmp_path):
    first = run("advise", "--noise", 0.5, "--gap", 0.1, "--gain", 0.2, "--out", tmp_path)
    assert "Train on 50% synthetic images" in first
    again = run(
        "advise", "--estimates", tmp_path / "estimates.json", "--gain", 0.2, "--out", tmp_path / "again"
    )
    assert first.splitlines()[:4] == again.splitlines()[:4]
    assert {path.name for path in tmp_path.glob("advice.*")} == {"advice.png", "advice.html"}


def test_the_bias_can_differ_from_the_gap(tmp_path):
    output = run("advise", "--noise", 0.5, "--gap", 0.1, "--bias", 4, "--out", tmp_path)
    assert "squared bias: 4" in output
    assert f"Train on {0.4 / (2 * 3.9):.0%} synthetic images" in output


@pytest.mark.parametrize(
    ("noise", "gap", "bias", "command"),
    [
        (0, 1, 1, "at 4K: urae train flux_4k\n"),
        (1, 0, 0, "at 4K: urae train flux_4k_synthetic\n"),
        (0.5, 0.1, 4, "at 4K: urae train flux_4k data=data/4k_synthetic:0.05,data/4k:0.95\n"),
    ],
)
def test_it_says_which_recipe_to_take_at_4k(tmp_path, noise, gap, bias, command):
    given = ("--noise", noise, "--gap", gap, "--bias", bias)
    assert command in run("advise", *given, "--out", tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "got none of them"),
        (("--noise", 1, "--gap", 1, "--estimates", "e.json"), "got --estimates, --gap, --noise"),
        (("--noise", 1), "--gap is missing"),
        (("--noise", 1, "--gap", -1), "--gap is -1.0"),
        (("--manifest", "m.jsonl"), "--truth is missing"),
        (("--noise", 1, "--gap", 1, "--model", "mini"), "got --gap, --model, --noise"),
    ],
)
def test_options_without_effect_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        run("advise", *options)


def test_a_file_without_estimates_is_named(tmp_path):
    path = tmp_path / "e.json"
    path.write_text(json.dumps({"noise": 3}))
    with pytest.raises(BadFile, match="holds no estimates"):
        run("advise", "--estimates", path)


# --- from images -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Six captions: smooth truths, a teacher that brightens them, real images of which half show something else."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    kinds = {"truth": truthful, "synthetic": brightened, "real": often_wrong}
    for index in range(6):
        picture = smooth(rng)
        for kind, change in kinds.items():
            path = folder / ("truth" if kind == "truth" else "training") / f"{kind}-{index}.png"
            path.parent.mkdir(exist_ok=True)
            change(picture, rng, index).save(path)
            path.with_suffix(".txt").write_text(f"caption {index}")
    records, root = read_records(folder / "training")
    labelled = [replace(record, source=record.file.split("-")[0]) for record in records]
    write_manifest(labelled, root / "data.jsonl")
    return folder


def smooth(rng):
    coarse = Image.fromarray(rng.integers(40, 200, (4, 4, 3), dtype=np.uint8))
    return coarse.resize((64, 64), Image.Resampling.BICUBIC)


def truthful(picture, rng, index):
    return picture


def brightened(picture, rng, index):
    return picture.point(lambda value: min(value + 4, 255))


def often_wrong(picture, rng, index):
    return smooth(rng) if index % 2 else picture.point(lambda value: max(value - 1, 0))


@pytest.fixture
def model(pipe, tmp_path):
    with_text_encoders(pipe).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def from_images(images, model, out, *more):
    data, truth = images / "training" / "data.jsonl", images / "truth"
    return run("advise", "--manifest", data, "--truth", truth, "--model", model, "--out", out, *more)


def test_wrong_real_images_speak_for_the_teacher(images, model, tmp_path):
    output = from_images(images, model, tmp_path / "out")
    values = json.loads((tmp_path / "out" / "estimates.json").read_text())
    assert values["noise"]["value"] > 5 * values["teacher_gap"]["value"] > 0
    assert values["teacher_gap"] == values["teacher_bias"]
    assert "Train on only synthetic images" in output
    assert "6 real images against the truth of 6 captions" in output


def test_the_source_names_the_synthetic_images(images, model, tmp_path):
    swapped = from_images(images, model, tmp_path / "out", "--teacher", "real")
    assert "Train on only real images" in swapped
    with pytest.raises(ValueError, match="sources are real, synthetic"):
        from_images(images, model, tmp_path / "out", "--teacher", "nobody")


def test_small_images_are_not_enlarged(images, model, tmp_path):
    with pytest.raises(ValueError, match=r"smaller than 128 px, such as real-0.png \(64x64\)"):
        from_images(images, model, tmp_path / "out", "--size", 128)
