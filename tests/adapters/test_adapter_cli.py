import json

import pytest
from tiny_flux import GOLDEN, fresh_transformer, trained_adapter
from typer.testing import CliRunner

from urae.adapters import Adapter, Full, Lora, Minor, merge
from urae.cli import adapter as adapter_commands
from urae.cli.adapter import app
from urae.resolution import ResolutionPolicy

POLICY = ResolutionPolicy(rope_scale=10, native_tokens=71)


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr(adapter_commands.console, "width", 200)

    def invoke(*arguments, fails=False):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if not fails and result.exception is not None:
            raise result.exception
        return result

    return invoke


@pytest.fixture
def minor(tmp_path):
    adapter = trained_adapter(Minor(rank=4), policy=POLICY, recipe={"steps": 2}, data={"name": "scenes"})
    return adapter.save(tmp_path / "minor.safetensors")


@pytest.fixture
def lora(tmp_path):
    return trained_adapter(Lora(rank=3), seed=1).save(tmp_path / "lora.safetensors")


def test_show(run, minor):
    printed = run("show", minor).output
    facts = {
        row.split("│")[1].strip(): row.split("│")[2].strip() for row in printed.splitlines() if "│" in row
    }
    assert facts["layout"] == "diffusers"
    assert facts["kind"] == "minor"
    assert facts["rank"] == "8 (trained: 4)"
    assert set(facts["targets"].split(", ")) == {
        "attn.to_q x5",
        "attn.to_k x5",
        "attn.to_v x5",
        "attn.to_out.0 x2",
    }
    assert facts["policy"] == "rope theta x 10, timestep shift 3"
    assert facts["recipe"] == "steps=2"
    assert facts["data"] == "name=scenes"
    assert facts["base"].startswith("FluxTransformer2DModel (")
    assert facts["size on disk"] == f"{minor.stat().st_size / 1000:.1f} kB"
    dense = sum(
        float((B @ A).square().sum())
        for name, (A, B) in Adapter.load(minor).factors.items()
        if name.startswith("single")
    )
    assert float(facts["norm of single_transformer_blocks"]) == pytest.approx(dense**0.5, rel=1e-3)


def test_a_script_reads_all_of_it(run, minor):
    told, adapter = json.loads(run("show", minor, "--json").stdout), Adapter.load(minor)
    assert told["policy"] == adapter.policy.to_dict()
    assert told["ranks"] == {name: A.shape[0] for name, (A, _) in adapter.factors.items()}
    assert (told["hash"], told["bytes"], told["kind"]) == (adapter.hash, minor.stat().st_size, "minor")
    assert "rope_scale" in run("show", minor, "-v").stdout


def test_show_a_file_that_says_nothing(run):
    printed = run("show", GOLDEN / "urae_2k_adapter.safetensors").output
    assert "LoRA of unknown origin" in printed
    assert printed.count("not recorded") == 5


def test_published_4k_needs_its_base(run, tmp_path):
    with pytest.raises(ValueError, match="only makes sense on its base"):
        run("show", GOLDEN / "urae_4k_adapter.safetensors")
    folder = tmp_path / "flux"
    fresh_transformer().save_pretrained(folder / "transformer")
    start = GOLDEN / "urae_2k_adapter.safetensors"
    out = tmp_path / "plain.safetensors"
    run("convert", GOLDEN / "urae_4k_adapter.safetensors", out, "--base", folder, "--start", start)
    adapter = Adapter.load(out)
    assert {A.shape[0] for A, _ in adapter.factors.values()} == {12}
    assert adapter.base.name == "flux"


@pytest.mark.parametrize("layout", ["diffusers", "kohya", "comfy"])
def test_convert(run, minor, tmp_path, layout):
    out = tmp_path / "out.safetensors"
    assert str(out) in run("convert", minor, out, "--to", layout).output
    assert Adapter.load(out).layout == layout
    assert Adapter.load(out).metadata() == Adapter.load(minor).metadata()


def test_convert_says_what_other_tools_leave_out(run, minor, tmp_path):
    out = tmp_path / "out.safetensors"
    policy = "note: the resolution policy stays behind"
    printed = run("convert", minor, out).output
    assert policy in printed
    assert "ModelSamplingFlux with max_shift and base_shift" in " ".join(printed.split())
    assert "note: diffusers" not in printed
    assert "note: ComfyUI" not in printed
    assert "InvokeAI leaves out 17 of 17 layers of this layout" in printed
    printed = run("convert", minor, out, "--to", "comfy").output
    assert "diffusers leaves out 17 of 17 layers of this layout" in printed
    assert "InvokeAI" not in printed
    wide = trained_adapter(Lora(rank=2, targets=("attn.to_q", "x_embedder"))).save(tmp_path / "w.safetensors")
    printed = run("convert", wide, out, "--to", "kohya").output
    assert "diffusers leaves out 1 of 6 layers of this layout, such as x_embedder" in printed
    assert "InvokeAI leaves out 6 of 6" in printed
    assert "sd-scripts" not in printed
    assert policy not in printed
    full = trained_adapter(Full(targets=("proj_out",))).save(tmp_path / "full.safetensors")
    printed = run("convert", full, out, "--to", "comfy").output
    count = 2 * len(
        {name for name in trained_adapter(Full(targets=("proj_out",))).differences if "weight" in name}
    )
    assert f"diffusers leaves out {count} of {count}" in printed
    assert "ComfyUI leaves out" not in printed


def test_the_layout_that_no_tool_read_is_refused_with_the_one_that_they_do(run, minor, tmp_path):
    with pytest.raises(ValueError, match="no tool reads the bare names of the original: use comfy"):
        run("convert", minor, tmp_path / "out.safetensors", "--to", "bfl")
    assert not (tmp_path / "out.safetensors").exists()


def test_convert_prints_the_error_of_a_truncation(run, minor, tmp_path):
    printed = run("convert", minor, tmp_path / "out.safetensors", "--rank", 3).output
    assert "truncated to rank 3: relative error 0." in printed
    assert {A.shape[0] for A, _ in Adapter.load(tmp_path / "out.safetensors").factors.values()} == {3}


@pytest.mark.filterwarnings("ignore:the merged adapter has rank")
def test_merge(run, minor, lora, tmp_path):
    out = tmp_path / "both.safetensors"
    printed = run("merge", minor, lora, "-w", 1, "-w", 0.5, "--policy", minor, "--out", out).output
    assert "the merged adapter has rank 11" in printed
    expected = merge([Adapter.load(minor), Adapter.load(lora)], weights=[1, 0.5], policy=POLICY)
    assert Adapter.load(out).hash == expected.hash


def test_merge_refuses_policies_that_differ(run, minor, lora, tmp_path):
    out = tmp_path / "both.safetensors"
    with pytest.raises(ValueError, match="different policies"):
        run("merge", minor, lora, "--out", out)
    run("merge", minor, lora, "--out", out, "--policy", "none")
    assert Adapter.load(out).policy is None
    run("merge", minor, lora, "--out", out, "--policy", POLICY.to_json(), "--rank", 2)
    assert Adapter.load(out).policy == POLICY
    (file := out.with_suffix(".json")).write_text(POLICY.to_json())
    run("merge", minor, lora, "--out", out, "--policy", file, "--rank", 2)
    assert Adapter.load(out).policy == POLICY
    assert {A.shape[0] for A, _ in Adapter.load(out).factors.values()} == {2}


@pytest.mark.parametrize("verb", ["show", "convert", "merge"])
def test_help_has_an_example(run, verb):
    assert f"Example: urae adapter {verb}" in run(verb, "--help").output
