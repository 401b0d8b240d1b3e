"""PixArt-Sigma and Sana by their own pipelines: nothing of ours, and what was made is known."""

from __future__ import annotations

import json

import huggingface_hub
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from tiny_stock import PROMPT, save_pixart, save_sana
from urae import mini
from urae.baselines import local_folder, open_stock, plan_stock, stock_of
from urae.cli.verbs import verb
from urae.errors import BadFile
from urae.execution import MemoryPlan
from urae.generation import read_png_metadata

HERE = MemoryPlan(device="cpu", offload="unchanged")


@pytest.fixture(scope="module")
def pixart(tmp_path_factory):
    return save_pixart(tmp_path_factory.mktemp("stock") / "pixart")


@pytest.fixture(scope="module")
def sana(tmp_path_factory):
    return save_sana(tmp_path_factory.mktemp("stock") / "sana")


@pytest.mark.parametrize("family", ["pixart", "sana"])
def test_it_is_the_stock_pipeline_at_the_size_asked_for(family, request):
    """Against a call of the pipeline by hand: 96x64 is in no table of sizes, and is not resized to one."""
    folder = request.getfixturevalue(family)
    pipe, steps = open_stock(folder, dtype=torch.float32), []
    pipe.set_progress_bar_config(disable=True)
    plan = plan_stock(pipe, [PROMPT], size=(96, 64), seeds=[3], steps=2, memory=HERE)
    (image,) = plan.run(on_step=lambda: steps.append(1))
    plain = pipe(
        PROMPT,
        width=96,
        height=64,
        num_inference_steps=2,
        guidance_scale=4.5,
        generator=torch.Generator().manual_seed(3),
        use_resolution_binning=False,
        clean_caption=False,
    ).images[0]
    assert (image.size, len(steps), plan.num_steps) == ((96, 64), 2, 2)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(plain))
    assert (image.info["model"], image.info["method"]) == (family, type(pipe).__name__)


def test_the_command_draws_each_prompt_with_each_seed_and_says_what_with(pixart, tmp_path):
    arguments = ["generate", PROMPT, "--model", pixart, "--size", "64x64", "--steps", 1, "--out", tmp_path]
    result = CliRunner().invoke(
        verb("generate"), [str(a) for a in [*arguments[1:], "--seed", 1, "--seed", 2]], catch_exceptions=False
    )
    files = sorted(tmp_path.iterdir())
    assert [str(file) for file in files] == [
        line.removeprefix("wrote ") for line in result.output.splitlines() if line.startswith("wrote ")
    ]
    made = [read_png_metadata(file) for file in files]
    assert [(one.seed, one.method, one.policy, one.guidance) for one in made] == [
        (seed, "PixArtSigmaPipeline", None, 4.5) for seed in (1, 2)
    ]


@pytest.mark.parametrize(
    "ours", [["--adapter", "a.safetensors"], ["--method", "imax"], ["--policy", "reference"], ["--base", "b"]]
)
def test_what_is_ours_has_no_effect_on_it(pixart, ours):
    with pytest.raises(ValueError, match=f"{ours[0]} has no effect on a PixArtSigmaPipeline"):
        CliRunner().invoke(verb("generate"), [PROMPT, "--model", str(pixart), *ours], catch_exceptions=False)


def test_what_is_no_such_model(tmp_path):
    assert stock_of("mini") is None
    assert stock_of(mini.WEIGHTS) is None
    with pytest.raises(ValueError, match="is not a model to compare with"):
        open_stock(mini.WEIGHTS, dtype=torch.float32)
    (tmp_path / "model_index.json").write_text("[]")
    with pytest.raises(BadFile, match="names no pipeline"):
        stock_of(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "SanaPipeline"}))
    with pytest.raises(BadFile, match="cannot be read as a SanaPipeline"):
        open_stock(tmp_path, dtype=torch.float32)


def test_steps_out_of_range(pixart):
    with pytest.raises(ValueError, match="steps is -1: expected 1 or more"):
        plan_stock(open_stock(pixart, dtype=torch.float32), [PROMPT], size=64, steps=-1, memory=HERE)


def test_a_hub_id_is_found_in_the_cache_and_nothing_is_downloaded(pixart, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert local_folder("somebody/pixart") is None
    kept = tmp_path / "models--somebody--pixart"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0123")
    (kept / "snapshots").mkdir()
    (kept / "snapshots" / "0123").symlink_to(pixart, target_is_directory=True)
    assert local_folder("somebody/pixart") == kept / "snapshots" / "0123"
    assert stock_of("somebody/pixart").name == "PixArtSigmaPipeline"
    assert type(open_stock("somebody/pixart", dtype=torch.float32)).__name__ == "PixArtSigmaPipeline"
