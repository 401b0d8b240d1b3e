"""peft's alpha: counted once, found where peft keeps it, and never by an expression that hangs."""

import json
import math

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from tiny_flux import GOLDEN, fresh_transformer

from urae.adapters import Adapter
from urae.adapters.scaling import Scaling
from urae.errors import BadFile

TENSORS = load_file(GOLDEN / "urae_2k_adapter.safetensors")
MODULE = "transformer_blocks.0.attn.to_q"
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 12}


def saved(folder, config, *, name="adapter_model.safetensors", metadata=None):
    """A file of `TENSORS` as peft writes it, with its configuration beside it."""
    tensors = {f"base_model.model.{key.removeprefix('transformer.')}": one for key, one in TENSORS.items()}
    save_file(tensors, folder / name, metadata=metadata)
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder / name


def scales(path):
    """Of every module, how many times B is what the file holds."""
    return {
        name: float((B / TENSORS[f"transformer.{name}.lora_B.weight"]).nanmedian())
        for name, (_, B) in Adapter.load(path).factors.items()
    }


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        {**CONFIG, "use_rslora": True},
        {**CONFIG, "alpha_pattern": {"attn.to_k": 2, r"transformer_blocks\.0\..*": 4, "to_k": 400}},
        {**CONFIG, "r": 8, "rank_pattern": {".*attn.*": 4}, "alpha_pattern": {f"^{MODULE}": 40}},
    ],
)
def test_the_scale_is_the_one_that_peft_applies(config, tmp_path):
    modules = sorted({key.removeprefix("transformer.").rpartition(".lora_")[0] for key in TENSORS})
    transformer = fresh_transformer()
    inject_adapter_in_model(LoraConfig(**{**config, "target_modules": modules}), transformer)
    expected = {
        name: layer.scaling["default"]
        for name, layer in transformer.named_modules()
        if isinstance(layer, LoraLayer)
    }
    found = scales(saved(tmp_path, config))
    assert found == pytest.approx(expected, rel=1e-5)
    assert len(set(expected.values())) == (
        2 if "rank_pattern" in config else 1 + 2 * ("alpha_pattern" in config)
    )


def test_the_configuration_belongs_to_pefts_own_name(tmp_path):
    assert set(scales(saved(tmp_path, CONFIG, name="other.safetensors")).values()) == {1.0}


def test_an_alpha_beside_the_factors_wins(tmp_path):
    tensors = {**TENSORS, f"transformer.{MODULE}.alpha": torch.tensor(8.0)}
    described = {"lora_adapter_metadata": json.dumps({f"transformer.{key}": CONFIG[key] for key in CONFIG})}
    save_file(tensors, tmp_path / "both.safetensors", metadata=described)
    found = scales(tmp_path / "both.safetensors")
    assert found.pop(MODULE) == pytest.approx(2)
    assert list(found.values()) == pytest.approx([3] * len(found))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "describes a DoRA"),
        ({"peft_type": "LOHA"}, "describes an adapter of the type LOHA"),
        ({"use_rslora": "false"}, "use_rslora in adapter_config.json is 'false': expected true or false"),
        ({"r": 16}, r"says that '.*' has rank 16, but its factors have 4"),
        ({"r": "four"}, "r in adapter_config.json is 'four': expected a finite number"),
        ({"lora_alpha": [8]}, r"alpha in adapter_config.json is \[8\]: expected a finite number"),
        ({"lora_alpha": math.nan}, "adapter_config.json is not JSON"),
        ({"lora_alpha": math.inf}, "adapter_config.json is not JSON"),
        ({"alpha_pattern": ["to_k"]}, "alpha_pattern in adapter_config.json"),
        ({"alpha_pattern": {"to_(k": 1}}, "no regular expression"),
    ],
)
def test_configurations_that_are_refused(change, message, tmp_path):
    with pytest.raises(BadFile, match=message):
        Adapter.load(saved(tmp_path, {**CONFIG, **change}))


@pytest.mark.parametrize(
    "pattern", ["(a+)+", "(a|aa)+x", "(.*)*x", "((a*)b?)*", ".*.*.*x", "(?:a{1,9}){1,9}", r"(a+)\1+(b)+"]
)
def test_patterns_that_may_hang_are_refused(pattern):
    with pytest.raises(BadFile, match="may take for ever to match"):
        Scaling({"alpha_pattern": {pattern: 1}}, "config")


def test_patterns_that_are_taken_come_to_an_end():
    worst = Scaling({"alpha_pattern": {rf".*{letter}.*{letter}z": 1 for letter in "abcdefgh"}}, "config")
    for number in range(100):
        assert worst(f"{'abcdefgh' * 12}.{number}", 4) == 1
    usual = Scaling({"alpha_pattern": {r".*\.(?:to_q|to_k)": 2, r"[*+]{1}.*": 3}}, "config")
    assert (usual(MODULE, 4), usual("+x", 4), usual("proj_out", 4)) == (0.5, 0.75, 1)
