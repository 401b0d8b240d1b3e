"""Enlarging: what the model is given, what comes back, and the command around it."""

import base64
import io
import json
import re
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from PIL import Image
from typer.testing import CliRunner

from urae.cli.enlarge import enlarge as command
from urae.cli.verbs import Commands
from urae.enlarging import EnlargeRequest, before_after_page, plan_enlarging
from urae.generation import Sdedit, generate, read_png_metadata
from urae.resolution import ResolutionPolicy

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("collecting", "flux_road")]
from flux_dev import save_flux_dev
from post_server import serving

TIGER = "a flat tiger"


def photo(width=48, height=40, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def enlarged(pipe, picture=None, steps=1, seed=0, **asked):
    plan = plan_enlarging(
        pipe, EnlargeRequest(picture=picture or photo(), **({"scale": 2} | asked)), steps=steps, seed=seed
    )
    return plan, plan.run()


def test_it_is_sdedit_of_the_padded_picture_cut_to_size(small):
    plan, (image,) = enlarged(small, change=0.4, prompt=TIGER)
    assert plan.fit.drawn == (96, 80)
    assert image.size == (96, 80)
    native = photo().resize((96, 80), Image.Resampling.BICUBIC)
    expected = generate(
        small, TIGER, size=(96, 80), method=Sdedit(start_sigma=0.4), native=native, steps=1, guidance=3.5
    )
    assert np.array_equal(np.asarray(image), np.asarray(expected))


def test_any_shape_comes_out_at_its_size(small):
    plan, (image,) = enlarged(small, photo(37, 23), scale=2.5)
    assert (image.size, plan.fit.drawn) == ((92, 57), (96, 64))
    assert (image.info["size"], json.loads(image.info["enlarged"])["drawn"]) == ("92x57", [96, 64])


@contextmanager
def calls_of(pipe):
    """Noise level and number of image tokens of each call of the transformer."""
    calls, forward = [], pipe.transformer.forward

    def seen(**inputs):
        calls.append((float(inputs["timestep"][0]), inputs["hidden_states"].shape[1]))
        return forward(**inputs)

    pipe.transformer.forward = seen
    try:
        yield calls
    finally:
        del pipe.transformer.forward


@pytest.mark.parametrize(("change", "sigma"), [("little", 0.3), ("some", 0.5), ("much", 0.7), (0.25, 0.25)])
def test_change_is_the_noise_level_from_which_it_is_drawn(small, change, sigma):
    with calls_of(small) as calls:
        enlarged(small, change=change, steps=2)
    assert calls[0][0] == pytest.approx(sigma, abs=2e-3)


def test_at_a_change_of_1_the_layout_alone_leads(small):
    plan, _ = enlarged(small, change=1.0)
    assert plan.drawing.asked.method.name == "imax"


def test_outside_a_mask_it_is_the_picture_to_the_bit(small):
    mask = Image.new("L", (48, 40))
    mask.paste(255, (0, 0, 24, 40))
    plan, (image,) = enlarged(small, mask=mask, change="much")
    drawn, before = np.asarray(image), np.asarray(plan.before)
    assert np.array_equal(drawn[:, 52:], before[:, 52:])
    assert not np.array_equal(drawn[:, :40], before[:, :40])
    _, (whole,) = enlarged(small, change="much")
    assert image.info != whole.info  # else one file would be taken for the other


def test_tiles_show_the_model_windows_of_its_native_size(small):
    with calls_of(small) as calls:
        enlarged(small, tiles=True)
    assert {tokens for _, tokens in calls} == {16}  # 64 x 64 px in tokens of 16
    with calls_of(small) as calls:
        enlarged(small)
    assert {tokens for _, tokens in calls} == {30}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"scale": None}, "the size is given twice or not at all"),
        ({"size": "96x80"}, "the size is given twice or not at all"),
        ({"scale": 1.0}, "scale is 1.0: expected a number above 1"),
        ({"change": 0}, "change is 0: expected above 0 and up to 1, or one of little, some, much"),
        ({"change": "more"}, "change is more: expected above 0"),
        ({"crop": True}, "crop has no effect with a scale"),
        ({"change": 1, "tiles": True}, "tiles at a change of 1"),
        ({"mask": Image.new("L", (8, 8))}, "the mask is 8x8, the picture 48x40: expected one size"),
        ({"mask": Image.new("L", (48, 40))}, "the mask is black everywhere"),
    ],
)
def test_what_cannot_be_followed_is_refused(small, asked, message):
    with pytest.raises(ValueError, match=message):
        enlarged(small, **asked)


def test_the_page_shows_both_and_escapes(small, tmp_path):
    plan, (image,) = enlarged(small, prompt="<script>alert(1)</script>")
    page = before_after_page(plan, [(tmp_path / "a.png", image)])
    assert page.count("<img ") == 2  # a small picture has no part to be shown pixel by pixel
    assert "<script" not in page
    assert "96 x 80 px" in page
    assert "size: 48x40 to 96x80, 2 times" in page


def test_the_command(untrained, tmp_path):
    folder = tmp_path / "model"
    untrained.save_pretrained(folder)
    photo(40, 28).save(tmp_path / "My photo.png")
    app = Commands()
    app.command()(command)

    def run(*more):
        arguments = [
            tmp_path / "My photo.png",
            "--scale",
            2,
            "--steps",
            1,
            "--model",
            folder,
            "--out",
            tmp_path / "o",
        ]
        result = CliRunner().invoke(app, list(map(str, [*arguments, *more])))
        if result.exception:
            raise result.exception
        return result.stdout

    said = run("--seed", 1, "--seed", 2, "--format", "webp")
    assert (
        "size: 40x28 to 80x56, 2 times; drawn at 80x64, with 0 columns and 8 rows of mirrored border" in said
    )
    one, two = sorted((tmp_path / "o").glob("*.webp"))
    assert re.fullmatch(r"my-photo-80x56-sdedit-seed1-[0-9a-f]{8}\.webp", one.name)
    made = read_png_metadata(two)
    assert (made.native_file, made.seed, made.size, made.enlarged["change"]) == (
        "My photo.png",
        2,
        (80, 56),
        0.5,
    )
    page = one.with_suffix(".html").read_text()
    assert page.count('type="range"') == 2
    assert re.findall("<h2>my-photo.*, (seed .*)</h2>", page) == ["seed 1", "seed 2"]
    before = {path: path.read_bytes() for path in (tmp_path / "o").iterdir()}
    assert run("--seed", 1, "--format", "webp").count("finished already") == 1
    assert {path: path.read_bytes() for path in (tmp_path / "o").iterdir()} == before
    with pytest.raises(ValueError, match="caption_url has no effect without a model"):
        run("--caption-url", "http://127.0.0.1:1/v1")


def test_a_vision_language_model_says_what_the_picture_shows(untrained, tmp_path, monkeypatch):
    """It is shown the picture, and its answer is the prompt."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    untrained.save_pretrained(tmp_path / "model")
    photo(40, 32).save(tmp_path / "photo.png")
    app = Commands()
    app.command()(command)

    said = "a flat tiger left of a glossy umbrella on a wood background, under a flat castle"

    def describing(body, number):
        answer = {"content": f" {said}\n" if number else TIGER}
        return 200, {"choices": [{"message": answer, "finish_reason": "stop"}]}

    with serving(describing) as (url, asked):
        model = ["--model", str(tmp_path / "model"), "--caption-model", "seer", "--caption-url", f"{url}/v1"]
        rest = ["--scale", "2", "--steps", "1", "--out", str(tmp_path / "o")]
        short, result = (
            CliRunner().invoke(app, [str(tmp_path / "photo.png"), *model, *rest]) for _ in range(2)
        )
    assert "it has 3 words, expected 12 or more" in str(short.exception)
    assert result.exit_code == 0, result.output
    assert f"prompt, by seer: {said}" in result.stdout
    body = asked[1]
    assert body["model"] == "seer"
    text, picture = body["messages"][0]["content"]
    data = base64.b64decode(picture["image_url"]["url"].partition("base64,")[2])
    assert Image.open(io.BytesIO(data)).size == (40, 32)
    (made,) = (tmp_path / "o").glob("*.png")
    assert read_png_metadata(made).prompt == said


@pytest.mark.slow
@pytest.mark.parametrize("change", ["little", 1])
def test_flux_1_enlarges_a_picture_past_its_native_size(change, tmp_path):
    """The rehearsal's model, of FLUX.1-dev's configuration and a toy's width, to 1536 x 1024 px."""
    folder = save_flux_dev(tmp_path, blocks=(2, 2))
    photo(760, 508).save(tmp_path / "photo.png")
    pipe = FluxPipeline.from_pretrained(folder, torch_dtype=torch.bfloat16)
    asked = EnlargeRequest(
        picture=tmp_path / "photo.png", size=(1520, 1016), change=change, prompt="a lighthouse"
    )
    plan = plan_enlarging(pipe, asked, steps=2, seed=3)
    assert plan.fit.drawn == (1520, 1024)
    expected = ResolutionPolicy.for_size(pipe, plan.fit.drawn)
    assert expected.scale > 1.2
    assert expected.rope_clip
    (image,) = plan.run()
    assert image.size == (1520, 1016)
    native, found = (np.asarray(one, dtype=float) for one in (plan.before, image))
    assert np.abs(found - native).mean() > 1
    said = str(plan)
    assert "size: 760x508 to 1520x1016, 2 times" in said
    assert ("sdedit" if change == "little" else "imax") in said
