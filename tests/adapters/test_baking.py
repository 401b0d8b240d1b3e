"""Baked models: they draw as the base does with the adapter, in both layouts, and say what rounding cost."""

import json
import weakref
from dataclasses import replace

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_flux import SPECS, fresh_transformer, name_of, output, trained_adapter, with_transformer
from typer.testing import CliRunner

from cases import thorough
from urae import mini
from urae.adapters import Adapter, Full, Lora, Minor, attach, merge
from urae.baking import bake, writing
from urae.baking.stored import StoredTransformer
from urae.cli.adapter import app
from urae.errors import WrongBase
from urae.families import open_pipeline
from urae.generation import generate
from urae.resolution import ResolutionPolicy

every_spec = pytest.mark.parametrize("spec", SPECS, ids=name_of)
DATA = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def model(untrained, tmp_path_factory):
    """A folder in the diffusers layout."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    with_transformer(untrained, fresh_transformer()).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def in_bf16(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "bf16"
    FluxPipeline.from_pretrained(model, torch_dtype=torch.bfloat16).save_pretrained(path)
    return path


def drawn_with(adapter):
    transformer = fresh_transformer()
    with adapter.on(transformer, policy=None):
        return output(transformer)


@every_spec
@pytest.mark.parametrize("start", [thorough(None, id="alone"), pytest.param(Lora(rank=3), id="started")])
def test_both_layouts_are_the_base_with_the_adapter(spec, start, model, tmp_path):
    transformer = fresh_transformer()
    attached = attach(transformer, spec, start=trained_adapter(start) if start else None)
    for parameter in attached.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    adapter = attached.export()
    made = bake(adapter, model, tmp_path / "baked")
    bake(adapter, model, tmp_path / "baked.safetensors")
    expected = drawn_with(adapter)
    assert (expected - output(fresh_transformer())).abs().max() > 1e-3
    assert made.num_changed == len(adapter.factors) + len(adapter.differences)
    assert made.error < 1e-5
    for opened in (
        open_pipeline(tmp_path / "baked"),
        FluxPipeline.from_pretrained(tmp_path / "baked"),
        open_pipeline(tmp_path / "baked.safetensors", base=model),
    ):
        torch.testing.assert_close(output(opened.transformer), expected, atol=1e-5, rtol=0)


def test_what_is_not_changed_is_kept_to_the_bit(model, tmp_path):
    adapter = trained_adapter(Lora(rank=2))
    bake(adapter, model, tmp_path / "baked")
    before, after = load_file(model / DATA), load_file(tmp_path / "baked" / DATA)
    changed = {f"{name}.weight" for name in adapter.factors}
    assert before.keys() == after.keys()
    assert {name for name in before if not torch.equal(before[name], after[name])} == changed
    others = {path.relative_to(model) for path in model.rglob("*") if path.is_file()}
    written = {
        path.relative_to(tmp_path / "baked") for path in (tmp_path / "baked").rglob("*") if path.is_file()
    }
    assert {str(path) for path in written - others} == {"baked.json"}


def test_the_original_names_hold_the_same_numbers(model, tmp_path):
    bake(trained_adapter(Full()), model, tmp_path / "a.safetensors")
    tensors = load_file(tmp_path / "a.safetensors")
    assert {
        "img_in.weight",
        "double_blocks.0.img_attn.qkv.weight",
        "final_layer.adaLN_modulation.1.bias",
    } <= set(tensors)
    assert "double_blocks.0.img_attn.norm.query_norm.scale" in tensors
    # From one file to the other, and nothing on top.
    nothing = Adapter(factors={})
    bake(nothing, tmp_path / "a.safetensors", tmp_path / "b.safetensors", base=model)
    again = load_file(tmp_path / "b.safetensors")
    assert tensors.keys() == again.keys()
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)


@pytest.mark.parametrize("to", ["folder", "file.safetensors"])
def test_types_are_kept_and_rounding_is_measured(in_bf16, tmp_path, to):
    adapter = trained_adapter(Lora(rank=4))
    made = bake(adapter, in_bf16, tmp_path / to)
    file = tmp_path / to if to.endswith("s") else tmp_path / to / DATA
    assert {tensor.dtype for tensor in load_file(file).values()} == {torch.bfloat16}
    weights, lost, whole = load_file(in_bf16 / DATA), 0.0, 0.0
    for name, (A, B) in adapter.factors.items():
        exact = weights[f"{name}.weight"].float() + B @ A
        lost += float((exact.bfloat16().float() - exact).square().sum())
        whole += float((B @ A).square().sum())
    assert made.error == pytest.approx((lost / whole) ** 0.5, rel=1e-4)
    assert 0 < made.error <= made.worst[1]


def test_an_adapter_below_a_step_of_bf16_is_better_kept(in_bf16, tmp_path):
    adapter = trained_adapter(Lora(rank=4))
    made = bake(scaled(adapter, 0.005), in_bf16, tmp_path / "baked")
    assert made.error > 0.5
    assert "better keep it as a file beside the base" in str(made)
    assert "better keep" not in str(bake(scaled(adapter, 20), in_bf16, tmp_path / "other"))


def scaled(adapter, weight):
    return replace(adapter, factors={name: (A, weight * B) for name, (A, B) in adapter.factors.items()})


def test_shards_are_written_and_read(model, tmp_path, monkeypatch):
    adapter = trained_adapter(Minor(rank=2))
    monkeypatch.setattr(writing, "SHARD", 40_000)
    bake(adapter, model, tmp_path / "baked")
    files = sorted((tmp_path / "baked" / "transformer").glob("*.safetensors"))
    assert len(files) > 2
    assert files[0].name == f"diffusion_pytorch_model-00001-of-{len(files):05d}.safetensors"
    index = json.loads(
        (tmp_path / "baked" / "transformer" / "diffusion_pytorch_model.safetensors.index.json").read_text()
    )
    assert index["metadata"]["total_size"] == sum(
        t.nbytes for file in files for t in load_file(file).values()
    )
    stock = FluxTransformer2DModel.from_pretrained(tmp_path / "baked", subfolder="transformer")
    torch.testing.assert_close(output(stock), drawn_with(adapter), atol=1e-5, rtol=0)
    bake(
        trained_adapter(Lora(rank=2)),
        tmp_path / "baked",
        tmp_path / "twice.safetensors",
        allow_other_base=True,
    )


@pytest.mark.parametrize("to", ["folder", "file.safetensors"])
def test_one_matrix_at_a_time_is_in_memory(model, tmp_path, monkeypatch, to):
    alive, most = weakref.WeakSet(), [0]
    read = StoredTransformer.read

    def watched(self, name):
        tensor = read(self, name)
        alive.add(tensor)
        most[0] = max(most[0], len(alive))
        return tensor

    monkeypatch.setattr(StoredTransformer, "read", watched)
    bake(trained_adapter(Lora(rank=2)), model, tmp_path / to)
    assert 1 <= most[0] <= 5  # a fused matrix has four parts


def test_the_model_says_what_is_in_it_and_draws_under_its_policy(untrained, tmp_path):
    untrained.save_pretrained(tmp_path / "model")
    pipe = open_pipeline(tmp_path / "model")
    torch.manual_seed(0)
    attached = attach(pipe.transformer, Lora(rank=2))
    for parameter in attached.parameters():
        parameter.data += 0.05
    policy = ResolutionPolicy.for_size(pipe, 128)
    adapter = attached.export(policy=policy, recipe={"steps": 3})
    attached.detach()
    adapter.save(tmp_path / "adapter.safetensors")
    arguments = ["--model", str(tmp_path / "model"), "--out"]
    for out in ("baked", "file.safetensors"):
        given = ["bake", str(tmp_path / "adapter.safetensors"), *arguments, str(tmp_path / out)]
        result = CliRunner().invoke(app, given)
        assert result.exit_code == 0, result.output
        assert "rounding differs from the unbaked adapter by" in result.output
        assert "urae generate --policy" in result.output
    with safe_open(tmp_path / "file.safetensors", "pt") as file:
        said = json.loads(file.metadata()["urae"])
    assert said == json.loads((tmp_path / "baked" / "baked.json").read_text())
    assert (said["baked"]["recipe"], said["baked"]["spec"]["kind"]) == ({"steps": 3}, "lora")
    assert said["into"]["weights"] == adapter.base.weights
    assert (tmp_path / "file.policy.json").read_text() == (tmp_path / "baked" / "policy.json").read_text()
    settings = {"size": (128, 128), "steps": 2, "seed": 1}
    with_adapter = generate(pipe, "a tiger", adapter=adapter, **settings)
    baked = open_pipeline(tmp_path / "baked")
    alone = generate(baked, "a tiger", policy=tmp_path / "baked" / "policy.json", **settings)
    plain = generate(pipe, "a tiger", policy=tmp_path / "baked" / "policy.json", **settings)
    assert largest_difference(with_adapter, alone) <= 1
    assert largest_difference(with_adapter, plain) > 1


def largest_difference(one, other):
    return max(high for _, high in difference(one, other).getextrema())


def difference(one, other):
    from PIL import ImageChops

    return ImageChops.difference(one, other)


def test_several_adapters_are_baked_with_their_weights(model, tmp_path):
    one, other = trained_adapter(Lora(rank=2)), trained_adapter(Minor(rank=3), seed=1)
    for name, adapter in (("one", one), ("other", other)):
        adapter.save(tmp_path / f"{name}.safetensors")
    paths = [str(tmp_path / "one.safetensors"), str(tmp_path / "other.safetensors")]
    given = ["bake", *paths, "-w", "0.5", "-w", "2", "--model", str(model), "--out", str(tmp_path / "baked")]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    with pytest.warns(UserWarning, match="has rank"):
        expected = drawn_with(merge([one, other], weights=[0.5, 2]))
    torch.testing.assert_close(
        output(open_pipeline(tmp_path / "baked").transformer), expected, atol=1e-5, rtol=0
    )


def test_a_rounded_base_is_refused(model, tmp_path):
    tensors = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in load_file(model / DATA).items()}
    save_file(tensors, tmp_path / "fp8.safetensors")
    adapter = trained_adapter(Lora(rank=2))
    with pytest.raises(ValueError, match="are rounded, as .* of type F8_E4M3 shows"):
        bake(adapter, tmp_path / "fp8.safetensors", tmp_path / "out.safetensors", base=model)
    quantised = tmp_path / "nf4" / "transformer"
    quantised.mkdir(parents=True)
    for file in ("model_index.json", "transformer/config.json"):
        (tmp_path / "nf4" / file).write_text((model / file).read_text())
    config = json.loads((quantised / "config.json").read_text())
    (quantised / "config.json").write_text(
        json.dumps({**config, "quantization_config": {"load_in_4bit": True}})
    )
    with pytest.raises(ValueError, match="are rounded, as its configuration shows"):
        bake(adapter, tmp_path / "nf4", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_base_is_refused_before_anything_is_written(model, tmp_path):
    other = tmp_path / "other"
    tensors = {name: tensor * 1.5 for name, tensor in load_file(model / DATA).items()}
    save_file(tensors, tmp_path / "other.safetensors")
    adapter = trained_adapter(Lora(rank=2))
    with pytest.raises(WrongBase, match="the weights of this model are"):
        bake(adapter, tmp_path / "other.safetensors", other, base=model)
    assert not other.exists()
    bake(adapter, tmp_path / "other.safetensors", other, base=model, allow_other_base=True)
    assert (other / "model_index.json").is_file()


@pytest.mark.parametrize(
    ("model", "base", "said"),
    [
        ("x.safetensors", "", "name the model that it was made from"),
        ("mini", "mini", "has no effect on 'mini'"),
    ],
)
def test_a_base_belongs_to_a_single_file(model, base, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        bake(trained_adapter(Lora(rank=2)), model, tmp_path / "out", base=base)


@pytest.mark.slow
def test_diffusers_reads_the_single_file(untrained, tmp_path):
    """It takes the width of FLUX.1's single blocks for granted, so the blocks are as wide here."""
    config = {**fresh_transformer().config, "attention_head_dim": 128, "num_attention_heads": 24}
    config |= {"num_layers": 1, "num_single_layers": 1, "axes_dims_rope": (16, 56, 56)}
    torch.manual_seed(0)
    wide = FluxTransformer2DModel.from_config(config).to(torch.bfloat16)
    with_transformer(untrained, wide).save_pretrained(tmp_path / "wide")
    attached = attach(wide, Lora(rank=2))
    for parameter in attached.parameters():
        parameter.data += 0.01
    bake(attached.export(), tmp_path / "wide", tmp_path / "baked.safetensors")
    bake(attached.export(), tmp_path / "wide", tmp_path / "baked")
    stock = FluxTransformer2DModel.from_single_file(
        tmp_path / "baked.safetensors",
        config=str(tmp_path / "wide"),
        subfolder="transformer",
        torch_dtype=torch.bfloat16,
    )
    expected = load_file(tmp_path / "baked" / DATA)
    assert stock.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in stock.state_dict().items())


def test_the_miniature_is_a_model_too(tmp_path):
    made = bake(Adapter(factors={}), "mini", tmp_path / "mini.safetensors")
    assert (made.num_changed, made.error) == (0, 0)
    assert (mini.WEIGHTS / DATA).is_file()
