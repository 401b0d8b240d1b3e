"""Adapter files: what is written comes back, and what is wrong is one sentence before anything is touched."""

import json
import os
import stat
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_flux import GOLDEN, SPECS, fresh_transformer, name_of, trained_adapter

from urae.adapters import Adapter, Lora, Minor, attach
from urae.adapters.targets import resolved
from urae.errors import BadFile
from urae.resolution import ResolutionPolicy

POLICY = ResolutionPolicy(rope_scale=10, proportional=True, native_tokens=71, shift=4.0)
DESCRIBED = {"policy": POLICY, "recipe": {"steps": 2, "lr": 1.0}, "data": {"name": "scenes", "images": 3}}


@pytest.fixture(scope="module")
def adapter():
    return trained_adapter(Minor(rank=4), **DESCRIBED)


@pytest.fixture
def file(adapter, tmp_path):
    return adapter.save(tmp_path / "adapter.safetensors")


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_everything_comes_back(spec, tmp_path):
    adapter = trained_adapter(spec, **DESCRIBED)
    loaded = Adapter.load(adapter.save(tmp_path / "new" / "adapter.safetensors"))
    assert loaded.metadata() == adapter.metadata()
    assert loaded.hash == adapter.hash
    assert (loaded.spec, loaded.policy) == (resolved(spec, fresh_transformer()), POLICY)
    assert loaded.versions.keys() == {"urae", "torch", "diffusers", "peft", "transformers"}
    found, expected = loaded.state_dict(), adapter.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)


def test_the_file_is_a_plain_lora_with_one_metadata_key(file):
    with safe_open(file, framework="pt") as opened:
        keys, metadata = set(opened.keys()), opened.metadata()
        shape = opened.get_slice("transformer.transformer_blocks.0.attn.to_out.0.lora_A.weight").get_shape()
    assert list(metadata) == ["urae"]
    assert shape == [8, 32]  # rank 2r
    assert all(key.endswith((".lora_A.weight", ".lora_B.weight")) for key in keys)
    described = json.loads(metadata["urae"])
    assert described["policy"]["rope_scale"] == 10
    assert described["recipe"] == DESCRIBED["recipe"]
    assert described["base"]["model"] == "FluxTransformer2DModel"


def test_the_same_adapter_gives_the_same_bytes(adapter, tmp_path):
    first, second = (adapter.save(tmp_path / f"{index}.safetensors").read_bytes() for index in range(2))
    assert first == second


def test_the_hash_sees_weights_and_conditions_but_not_the_clock(adapter):
    assert replace(adapter, created="yesterday").hash == adapter.hash
    assert replace(adapter, policy=replace(POLICY, shift=5.0)).hash != adapter.hash
    assert replace(adapter, recipe={}).hash != adapter.hash
    name, (A, B) = next(iter(adapter.factors.items()))
    assert replace(adapter, factors={**adapter.factors, name: (A + 1e-6, B)}).hash != adapter.hash


def test_dtype_of_the_file(adapter, tmp_path):
    path = adapter.save(tmp_path / "half.safetensors", dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.bfloat16}
    assert Adapter.load(path).factors.keys() == adapter.factors.keys()


def test_the_mode_is_the_umasks(adapter, tmp_path):
    before = os.umask(0o027)
    try:
        path = adapter.save(tmp_path / "adapter.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_what_is_not_finite_is_not_written(adapter, tmp_path):
    name, (A, B) = next(iter(adapter.factors.items()))
    large = replace(adapter, factors={name: (A * 0 + 1e6, B)})
    with pytest.raises(ValueError, match=r"lora_A.weight' holds NaN or infinite values as torch.float16"):
        large.save(tmp_path / "half.safetensors", dtype=torch.float16)
    assert not list(tmp_path.iterdir())
    assert large.save(tmp_path / "float.safetensors").is_file()


def test_a_failed_write_leaves_the_old_file(adapter, file, monkeypatch):
    before = file.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        adapter.save(file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("name", ["urae_2k_adapter", "urae_4k_adapter_lora_conversion"])
def test_files_that_say_nothing_about_themselves(name):
    adapter = Adapter.load(GOLDEN / f"{name}.safetensors")
    assert (adapter.spec, adapter.policy, adapter.base, adapter.recipe) == (None, None, None, {})


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def cut_header(path):
    path.write_bytes(path.read_bytes()[:20])


def same_name_twice(path):
    """The library takes the last of two in silence."""
    name = b"transformer.transformer_blocks.0.attn.to_"
    content = path.read_bytes()
    assert content.count(name + b"q.lora_A.weight") == 1
    path.write_bytes(content.replace(name + b"q.lora_A", name + b"k.lora_A"))


def change_a_weight(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def rewrite(change):
    def damage(path):
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata()
        tensors = load_file(path)
        metadata = change(tensors, metadata) or metadata
        save_file(tensors, path, metadata=metadata)

    return damage


def poison(tensors, metadata):
    next(iter(tensors.values()))[0, 0] = float("nan")


def overflow(tensors, metadata):
    next(iter(tensors.values()))[0, 0] = float("inf")


def add_stranger(tensors, metadata):
    tensors["transformer.transformer_blocks.0.attn.to_q.dora_scale"] = torch.ones(32)


def add_text_encoder(tensors, metadata):
    tensors["lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"] = torch.ones(4, 8)


def drop_half(tensors, metadata):
    del tensors["transformer.transformer_blocks.0.attn.to_q.lora_B.weight"]


def disagree(tensors, metadata):
    key = "transformer.transformer_blocks.0.attn.to_q.lora_B.weight"
    tensors[key] = tensors[key][:, :3].clone()


def empty(tensors, metadata):
    tensors.clear()


def from_the_future(tensors, metadata):
    return {"urae": json.dumps({**json.loads(metadata["urae"]), "format": 99})}


def garbled(tensors, metadata):
    return {"urae": metadata["urae"][:-5]}


def unknown_policy(tensors, metadata):
    described = json.loads(metadata["urae"])
    return {"urae": json.dumps({**described, "policy": {**described["policy"], "magic": 1}})}


DAMAGES = [
    (truncate, "is not a complete safetensors file"),
    (cut_header, "is not a complete safetensors file"),
    (same_name_twice, "twice"),
    (change_a_weight, "has other tensors than it was saved with"),
    (rewrite(poison), "holds NaN or infinite values in 'transformer.single_transformer_blocks.0"),
    (rewrite(overflow), "holds NaN or infinite values"),
    (rewrite(empty), "holds no tensors"),
    (rewrite(from_the_future), "has format 99, this urae reads up to 1: upgrade urae"),
    (rewrite(garbled), "the urae metadata of adapter.safetensors is not JSON"),
    (rewrite(unknown_policy), "has metadata that urae does not understand .*magic"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=lambda value: getattr(value, "__name__", ""))
def test_damaged_files(file, damage, message):
    damage(file)
    with pytest.raises(BadFile, match=message) as caught:
        Adapter.load(file)
    assert "\n" not in str(caught.value)


FOREIGN = [
    (add_stranger, r"foreign.safetensors: the file is a DoRA \('transformer.*dora_scale'\)"),
    (add_text_encoder, "also adapts a text encoder"),
    (drop_half, r"'transformer.transformer_blocks.0.attn.to_q' has a factor A but no B"),
    (disagree, r"factors A \(4, 32\) and B \(32, 3\), which do not form a product"),
]


@pytest.mark.parametrize(("damage", "message"), FOREIGN, ids=lambda value: getattr(value, "__name__", ""))
def test_foreign_files_with_wrong_keys(tmp_path, damage, message):
    tensors = load_file(GOLDEN / "urae_2k_adapter.safetensors")
    damage(tensors, {})
    path = tmp_path / "foreign.safetensors"
    save_file(tensors, path)
    with pytest.raises(BadFile, match=message):
        Adapter.load(path)


def test_paths_that_are_no_adapter(tmp_path):
    with pytest.raises(ValueError, match=r"absent.safetensors does not exist"):
        Adapter.load(tmp_path / "absent.safetensors")
    (tmp_path / "weights.pt").write_bytes(b"pickle")
    with pytest.raises(ValueError, match=r"weights.pt is not a .safetensors file"):
        Adapter.load(tmp_path / "weights.pt")


def test_the_published_4k_layout_needs_its_base():
    with pytest.raises(ValueError, match=r"only makes sense on its base: pass base=pipe, and start="):
        Adapter.load(GOLDEN / "urae_4k_adapter.safetensors")


def test_the_published_4k_layout_has_one_rank(tmp_path):
    tensors = load_file(GOLDEN / "urae_4k_adapter.safetensors")
    module = "transformer_blocks.0.attn.processor.to_q"
    tensors[f"{module}_a.weight"] = tensors[f"{module}_a.weight"][:3].clone()
    tensors[f"{module}_b.weight"] = tensors[f"{module}_b.weight"][:, :3].clone()
    save_file(tensors, tmp_path / "mixed.safetensors")
    with pytest.raises(BadFile, match=r"mixes minor components of ranks \[3, 4\]"):
        Adapter.load(tmp_path / "mixed.safetensors", base=fresh_transformer())


def test_a_start_without_effect_is_refused(file):
    with pytest.raises(ValueError, match="is complete, so that start has no effect"):
        Adapter.load(file, start=GOLDEN / "urae_2k_adapter.safetensors")


def test_an_export_is_a_copy():
    attached = attach(fresh_transformer(), Lora(rank=2))
    adapter = attached.export()
    for parameter in attached.parameters():
        parameter.data.add_(1)
    assert not any(B.any() for _, B in adapter.factors.values())


def test_what_a_file_cannot_hold_is_refused_at_export():
    attached = attach(fresh_transformer(), Lora(rank=2))
    with pytest.raises(ValueError, match="recipe cannot be stored in a file .*give it in JSON types"):
        attached.export(recipe={"policy": POLICY})
    assert attached.export(recipe={"size": (256, 128)}).recipe == {"size": [256, 128]}
