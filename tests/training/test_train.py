import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from urae.adapters import Adapter, Full, Lora, Minor
from urae.adapters.targets import resolved
from urae.data.cache_files import Folder, parsed
from urae.errors import MissingExtra, StaleCache, TrainingDiverged
from urae.resolution import ResolutionPolicy
from urae.training import load_recipe, read_metrics, to_dict, train


def run_of(recipe) -> Path:
    return Path(recipe.out)


def same_tensors(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_leaves_its_directory(pipe, recipe, capsys):
    made = recipe(steps=4, checkpoint_every=2, num_validation=2, validate_every=2, loggers=("tensorboard",))
    made = replace(made, sample_every=4, sample_prompts=("a", "b"), sample_steps=2)
    adapter = train(pipe, made)
    out = run_of(made)
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"step-000002", "step-000004"}
    assert {path.name for path in (out / "samples").iterdir()} == {
        "base-00.png",
        "base-01.png",
        "step-000004-00.png",
        "step-000004-01.png",
    }
    (events,) = (out / "tensorboard").rglob("events*")
    tracked = EventAccumulator(str(events), size_guidance={"images": 0}).Reload()
    shown = {name: tracked.Images(name)[0] for name in tracked.Tags()["images"]}
    assert {name: one.step for name, one in shown.items()} == {"samples/00": 4, "samples/01": 4}
    second = Image.open(io.BytesIO(shown["samples/01"].encoded_image_string))
    assert np.array_equal(np.asarray(second), np.asarray(Image.open(out / "samples" / "step-000004-01.png")))
    assert same_tensors(load_file(out / "adapter.safetensors"), adapter.state_dict())
    rows = read_metrics(out / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    said = [f"step {step}: validation loss {rows[step]['validation_loss']:.4f}" for step in (0, 2, 4)]
    assert [line for line in capsys.readouterr().err.splitlines() if "validation" in line] == said


def test_the_pipeline_is_as_before(pipe, recipe):
    before = {name: tensor.clone() for name, tensor in pipe.transformer.state_dict().items()}
    flags = [parameter.requires_grad for parameter in pipe.transformer.parameters()]
    scheduler, modules = pipe.scheduler, [name for name, _ in pipe.transformer.named_modules()]
    train(pipe, recipe(gradient_checkpointing=True))
    assert same_tensors(pipe.transformer.state_dict(), before)
    assert [parameter.requires_grad for parameter in pipe.transformer.parameters()] == flags
    assert [name for name, _ in pipe.transformer.named_modules()] == modules
    assert pipe.scheduler is scheduler
    assert not pipe.transformer.is_gradient_checkpointing


def test_training_lowers_the_loss(pipe, recipe):
    made = recipe(steps=30, lr=1e-2, batch_size=4, num_validation=2, validate_every=30)
    train(pipe, made)
    rows = read_metrics(run_of(made) / "metrics.jsonl")
    assert rows[-1]["validation_loss"] < 0.97 * rows[0]["validation_loss"]


def test_prodigy_finds_a_step_size(pipe, recipe):
    made = recipe(steps=30, optimizer="prodigy", lr=1.0)
    train(pipe, made)
    sizes = [row["step_size"] for row in read_metrics(run_of(made) / "metrics.jsonl")]
    assert sizes[0] == pytest.approx(1e-6)
    assert sizes[-1] > 1.2 * sizes[0]


def test_the_adapter_says_how_it_was_made(pipe, recipe):
    made = recipe(seed=3)
    train(pipe, made)
    loaded = Adapter.load(run_of(made) / "adapter.safetensors", base=pipe)
    assert loaded.policy == ResolutionPolicy.for_size(pipe, 128)
    assert loaded.recipe["seed"] == 3
    assert loaded.data["records"] == 9
    assert "out" not in loaded.recipe
    assert not any("/" in str(value) for value in (loaded.recipe["data"], loaded.data["source"]))


def test_however_the_data_are_named_the_adapter_is_the_same(pipe, recipe, images, tmp_path, monkeypatch):
    """Also its hash, by which pictures and further runs know it."""
    monkeypatch.chdir(images.parent)
    names = (str(images), f"./{images.name}/")
    hashes = {
        train(pipe, recipe(steps=1, data=name, out=str(tmp_path / f"run{number}"))).hash
        for number, name in enumerate(names)
    }
    assert len(hashes) == 1


def test_the_written_recipe_repeats_the_run(pipe, recipe, tmp_path):
    made = recipe()
    first = train(pipe, made)
    written = load_recipe(run_of(made) / "recipe.yaml")
    assert written.policy == ResolutionPolicy.for_size(pipe, 128)
    assert train(pipe, replace(written, out=str(tmp_path / "again"))).hash == first.hash
    files = [(folder / "adapter.safetensors").read_bytes() for folder in (run_of(made), tmp_path / "again")]
    assert files[0] == files[1]


def test_splitting_loading_and_recomputing_leave_the_result(pipe, recipe, tmp_path):
    plain = train(pipe, recipe(batch_size=4)).state_dict()
    for place, change in enumerate(
        [
            {"gradient_accumulation": 4},
            {"num_workers": 2},
            {"gradient_checkpointing": True},
            {"gradient_checkpointing": "attention"},
        ]
    ):
        other = train(pipe, recipe(batch_size=4, out=str(tmp_path / str(place)), **change)).state_dict()
        for name, tensor in plain.items():
            torch.testing.assert_close(other[name], tensor, atol=1e-6, rtol=0, msg=f"{change}: {name}")


def test_what_should_matter_does(pipe, recipe, tmp_path):
    plain = train(pipe, recipe()).state_dict()
    for place, change in enumerate(
        [{"seed": 1}, {"guidance": 3.5}, {"caption_mix": 1.0}, {"sigma_shift": 3.0}]
    ):
        other = train(pipe, recipe(out=str(tmp_path / str(place)), **change)).state_dict()
        assert not same_tensors(plain, other), change


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("native", ResolutionPolicy(native_tokens=24)),
        ("reference", ResolutionPolicy.reference()),
        (ResolutionPolicy(rope_scale=2.0), ResolutionPolicy(rope_scale=2.0)),
    ],
)
def test_the_policy_of_training_is_the_adapters(pipe, recipe, policy, expected):
    assert train(pipe, recipe(policy=policy, steps=1)).policy == expected


def test_positions_that_follow_the_noise_level_take_one_image_a_part(pipe, recipe):
    policy = ResolutionPolicy(rope="dype", scale=2.0, native_grid=4)
    with pytest.raises(ValueError, match="set gradient_accumulation=2, one image per part"):
        train(pipe, recipe(policy=policy))
    assert train(pipe, recipe(policy=policy, gradient_accumulation=2, steps=1)).policy == policy


@pytest.mark.parametrize("spec", [Minor(rank=2), Full(targets=("attn.to_q",))])
def test_every_kind_trains_under_bf16(pipe, recipe, spec):
    made = recipe(adapter=spec, base_dtype="bf16", steps=2)
    adapter = train(pipe, made)
    assert adapter.spec == resolved(spec, pipe.transformer)
    assert all(tensor.dtype == torch.float32 for tensor in adapter.state_dict().values())
    assert any(tensor.abs().max() > 0 for tensor in adapter.state_dict().values())


def test_a_bf16_base_trains_fp32_parameters(pipe, recipe):
    pipe.transformer.to(torch.bfloat16)
    adapter = train(pipe, recipe(base_dtype="bf16", steps=2))
    assert all(tensor.dtype == torch.float32 for tensor in adapter.state_dict().values())
    assert pipe.transformer.dtype == torch.bfloat16
    with pytest.raises(
        ValueError, match=r"base_dtype is fp32 but the transformer was loaded as torch.bfloat16"
    ):
        train(pipe, recipe(base_dtype="fp32"))


def test_a_run_starts_from_another_adapter(pipe, recipe, tmp_path):
    train(pipe, recipe(lr=1e-2))
    start = run_of(recipe()) / "adapter.safetensors"
    second = recipe(start=str(start), out=str(tmp_path / "second"), adapter=Minor(rank=2), steps=1)
    adapter = train(pipe, second)
    assert adapter.start == Adapter.load(start).hash
    # One step of the minor components is small beside the start, which the result contains.
    difference = (effect(adapter) - effect(Adapter.load(start))).norm()
    assert 0 < difference < 0.2 * effect(adapter).norm()


def effect(adapter: Adapter) -> torch.Tensor:
    A, B = adapter.factors["transformer_blocks.0.attn.to_q"]
    return B @ A


def test_the_average_is_the_result(pipe, recipe, tmp_path):
    plain = train(pipe, recipe(steps=1, lr=1e-2))
    averaged = train(pipe, recipe(steps=1, lr=1e-2, ema=0.75, out=str(tmp_path / "average")))
    for name, tensor in plain.state_dict().items():
        if "lora_B" in name:  # from 0, so a quarter of the way is a quarter of the value
            torch.testing.assert_close(averaged.state_dict()[name], tensor / 4)


def test_samples_stand_beside_the_bases(pipe, recipe):
    made = recipe(steps=2, lr=0.1, sample_every=1, sample_prompts=("a",), sample_steps=2)
    train(pipe, made)
    folder = run_of(made) / "samples"
    base, pair = Image.open(folder / "base-00.png"), Image.open(folder / "step-000002-00.png")
    assert (base.size, pair.size) == ((128, 128), (256, 128))
    left, right = pair.crop((0, 0, 128, 128)), pair.crop((128, 0, 256, 128))
    assert left.tobytes() == base.tobytes()
    assert right.tobytes() != base.tobytes()


def test_the_bases_images_are_drawn_again_only_where_they_would_differ(pipe, recipe):
    made = recipe(steps=1, sample_every=1, sample_prompts=("a", "b"), sample_steps=2)
    train(pipe, made)
    bases = [run_of(made) / "samples" / f"base-0{index}.png" for index in range(2)]
    before = [path.stat().st_mtime_ns for path in bases]
    pixels = [Image.open(path).tobytes() for path in bases]
    train(pipe, replace(made, steps=2, sample_prompts=("a", "c")))
    after = [path.stat().st_mtime_ns for path in bases]
    assert after[0] == before[0]
    assert after[1] > before[1]
    assert Image.open(bases[1]).tobytes() != pixels[1]


def test_distilling_the_base_from_itself_costs_nothing(pipe, recipe):
    made = recipe(steps=1, distill_weight=1.0)
    train(pipe, made)
    assert read_metrics(run_of(made) / "metrics.jsonl")[0]["distill"] == 0


def test_distillation_approaches_the_teacher(pipe, recipe):
    made = recipe(steps=25, lr=1e-2, flow_weight=0.0, distill_weight=1.0, teacher_guidance=5.0)
    train(pipe, made)
    losses = [row["distill"] for row in read_metrics(run_of(made) / "metrics.jsonl")]
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])


def test_another_transformer_teaches(pipe, recipe, tmp_path):
    pipe.transformer.save_pretrained(tmp_path / "teacher" / "transformer")
    made = recipe(steps=1, distill_weight=0.5, teacher=str(tmp_path / "teacher"))
    train(pipe, made)
    row = read_metrics(run_of(made) / "metrics.jsonl")[0]
    assert row["distill"] == 0
    assert row["loss"] == row["flow"]


def test_a_poisoned_record_is_named_and_the_last_state_kept(pipe, recipe, images, tmp_path):
    train(pipe, recipe(steps=1, out=str(tmp_path / "before")))
    cache = Path(shutil.copytree(next(images.with_name("images.cache").iterdir()), tmp_path / "cache"))
    made = recipe(steps=9, batch_size=1, data=str(cache))
    poisoned = next((cache / "entries").glob("*.latents.safetensors"))
    tensors, key = parsed(poisoned.read_bytes(), poisoned.name)
    tensors["mean"][0, 0, 0] = float("nan")
    Folder(cache).write_entry(poisoned.name, tensors, key=key)
    record = poisoned.name.partition(".")[0]
    with pytest.raises(TrainingDiverged, match=rf"loss is NaN .* in step \d.*{record}.*lower lr"):
        train(pipe, made)
    rows = read_metrics(run_of(made) / "metrics.jsonl")
    kept = load_file(run_of(made) / "checkpoints" / f"step-{len(rows):06d}" / "adapter.safetensors")
    assert all(tensor.isfinite().all() for tensor in kept.values())


def test_a_missing_logger_answers_with_the_install_line(pipe, recipe):
    with pytest.raises(MissingExtra, match="logger wandb is not installed: pip install wandb"):
        train(pipe, recipe(loggers=("wandb",)))


def test_a_cache_may_be_the_data_and_must_fit(pipe, recipe, images, tmp_path):
    first = train(pipe, recipe())
    cache = next(images.with_name("images.cache").iterdir())
    again = train(pipe, recipe(data=str(cache), out=str(tmp_path / "again")))
    assert same_tensors(first.state_dict(), again.state_dict())
    with pytest.raises(ValueError, match="was cached at 128 px, asked for 64 px"):
        train(pipe, recipe(data=str(cache), size=64, out=str(tmp_path / "small")))
    with torch.no_grad():
        pipe.vae.encoder.conv_in.weight[0] += 0.1
    with pytest.raises(StaleCache):
        train(pipe, recipe(data=str(cache), out=str(tmp_path / "other")))


def test_metrics_are_json_and_complete(pipe, recipe):
    made = recipe(steps=2)
    train(pipe, made)
    rows = [json.loads(line) for line in (run_of(made) / "metrics.jsonl").read_text().splitlines()]
    assert all(
        {"step", "loss", "flow", "gradient_norm", "step_size", "seconds"} <= row.keys() for row in rows
    )
    assert to_dict(load_recipe(run_of(made) / "recipe.yaml"))["steps"] == 2


def test_guidance_without_effect_is_refused(pipe, recipe, tmp_path):
    pipe.transformer = FluxTransformer2DModel.from_config(pipe.transformer.config, guidance_embeds=False)
    train(pipe, recipe(adapter=Lora(rank=2), steps=1))
    with pytest.raises(ValueError, match=r"guidance is 3.5: this transformer takes none"):
        train(pipe, recipe(adapter=Lora(rank=2), steps=1, guidance=3.5, out=str(tmp_path / "other")))
