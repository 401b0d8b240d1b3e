"""What a plan costs, and the batch in parts where a GPU has no room for the whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from judge_server import oracle, running
from plan_material import IDS, write_plan
from safetensors.torch import load_file

from urae import families, planning
from urae.planning import Gpu
from urae.reproduce import expenses, judge_cost, read_plan, reproduce
from urae.reproduce.judging import judged_columns
from urae.reproduce.training import adapter_file, fitted, recipe_of, train_adapter

TABLE = {"changes.batch_size": "4", "changes.steps": "2"}


def tight(recipe) -> Gpu:
    """A GPU on which one image at a time fits and the whole batch does not."""
    plenty = Gpu(name="tight", memory=100, tflops=100)
    whole = planning.plan(recipe, plenty).asked.num_bytes
    part = planning.plan(replace(recipe, gradient_accumulation=recipe.batch_size), plenty).asked.num_bytes
    used = (whole + part) / 2 / 0.95 + 0.6 * 2**30
    return Gpu(name="tight", memory=used / 2**30, tflops=100)


@pytest.fixture(scope="module")
def plan():
    return read_plan("table2", TABLE, miniature=True, quick=True).only(["Major, Syn w/o CFG"], ["repetition"])


def test_what_does_not_fit_is_split_and_nothing_else_of_it_changes(plan, tmp_path):
    recipe = recipe_of(plan, "major_syn", tmp_path)
    needed = planning.plan(recipe, tight(recipe))
    assert not needed.fits
    taken = fitted(needed)
    assert taken.fits
    changed = {name for name in vars(recipe) if getattr(recipe, name) != getattr(taken.recipe, name)}
    assert changed <= {
        "gradient_accumulation",
        "gradient_checkpointing",
        "offload_activations",
        "swap_blocks",
        "compile",
    }
    assert changed
    roomy = planning.plan(recipe, Gpu(name="roomy", memory=100, tflops=100))
    assert fitted(roomy).recipe == recipe
    with pytest.raises(
        ValueError, match="no setting that keeps the result the same makes it fit: give other settings"
    ):
        fitted(planning.plan(recipe, Gpu(name="none", memory=0.601, tflops=100)))


def test_a_batch_in_parts_trains_the_same_adapter(plan, tmp_path):
    """The pictures' folder does not change either: the split is no part of what the adapter is named after."""
    pipe, told, trained = families.open_pipeline("mini"), [], {}
    recipe = recipe_of(plan, "major_syn", tmp_path)
    gpus = {"whole": None, "parts": tight(recipe)}
    for name, gpu in gpus.items():
        out = tmp_path / name
        train_adapter(plan, "major_syn", out, lambda model, dtype: pipe, gpu=gpu, on_plan=told.append)
        trained[name] = load_file(adapter_file(plan, "major_syn", out))
    (said,) = told
    assert "major_syn: mini at 256 px, 2 steps of 4 images" in said
    assert "each step is that of the whole batch" in said
    assert "gradient_accumulation=" in said
    assert any(tensor.any() for tensor in trained["whole"].values())
    for key, tensor in trained["whole"].items():
        torch.testing.assert_close(trained["parts"][key], tensor, rtol=1e-3, atol=1e-5)


def test_hours_of_training_and_drawing_add_up(plan, tmp_path):
    gpu = Gpu(name="roomy", memory=100, tflops=100)
    by_part = {one.part: one for one in expenses(plan, tmp_path, gpu)}
    recipe = recipe_of(plan, "major_syn", tmp_path)
    training = by_part.pop("training major_syn")
    assert training.hours == pytest.approx(planning.plan(recipe, gpu).total_hours)
    assert training.note == "2 steps, 4 of 4 images at a time"
    (drawing,) = by_part.values()
    call = planning.call_seconds("mini", 256, gpu)
    assert drawing.hours == pytest.approx(6 * 4 * call / 3600)
    assert planning.call_seconds("mini", 512, gpu) > 4 * call


def test_what_others_draw_is_counted_and_priced(tmp_path):
    text = write_plan(tmp_path, "name: detail, kind: metric, of: detail, prompts: coco").read_text()
    file = tmp_path / "other.yaml"
    file.write_text(
        text.replace(f"dark: {tmp_path}/dark", "ultra: nowhere").replace("folder: dark", "folder: ultra")
    )
    (one,) = expenses(read_plan(str(file)), tmp_path, Gpu(name="any", memory=80, tflops=100))
    assert (one.usd, one.note) == (pytest.approx(6 * 0.06), "6 pictures, made elsewhere")


def test_the_judges_cost_without_pictures_is_that_with_them(tmp_path):
    columns = [
        "name: overall, kind: score, of: overall, prompts: coco",
        "name: preferred, kind: pair, of: overall, prompts: coco, against: Bright",
    ]
    costs = []
    with running(oracle) as server:
        inputs = {"judge.model": "toy", "judge.base_url": server.url}
        plan = read_plan(str(write_plan(tmp_path, *columns)), inputs)
        reproduce(plan, tmp_path / "out", on_cost=lambda cost, judge: costs.append(cost))
    before = judge_cost(plan)
    assert len(judged_columns(plan)) == 2
    assert before.num_requests == sum(cost.num_requests for cost in costs) == len(IDS) * 4
    assert before.input_tokens == pytest.approx(sum(cost.input_tokens for cost in costs), abs=2)
    assert before.output_tokens == sum(cost.output_tokens for cost in costs)
