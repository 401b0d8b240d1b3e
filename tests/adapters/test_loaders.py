"""What `urae.adapters.loaders` says of other tools, held to what their loaders did.

`tests/golden/loaders.json` holds names alone, of FLUX.1 with one double and two single blocks. `accepts` are the names
that ComfyUI's `model_lora_keys_unet` gave, and those that the sources of sd-scripts' `LoRANetwork` and ai-toolkit's
`LoRASpecialNetwork` make, which were read and not run. `read` are the layers that InvokeAI's and OneTrainer's
conversions took of each of the files of `files_of`; null where the file was not recognised, or its conversion failed.
`targets` are the two widest lists of SimpleTuner's `flux_lora_target`, by the ends of names.
"""

import json
import math
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from safetensors.torch import save_file

from tiny_pipelines import GOLDEN
from urae import ResolutionPolicy
from urae.adapters.convert import LAYOUTS, parse, to_layout
from urae.adapters.loaders import LOADERS, nearest_nodes, unread
from urae.adapters.targets import select
from urae.errors import BadFile
from urae.families import family_named
from urae.families.flux.names import NAMES
from urae.families.naming import original_of

RECORDED = json.loads((GOLDEN / "loaders.json").read_text())
WIDTH = 3072
LAYERS = family_named("FluxTransformer2DModel").layers


def all_layers():
    """Every linear layer of FLUX.1 with one double and two single blocks -> its rows; diffusers counts on 3072."""
    blocks = {"transformer_blocks": 1, "single_transformer_blocks": 2}
    found = {name: (2 if name == "norm_out.linear" else 1) * WIDTH for name in NAMES.top.values()}
    for block, modules in NAMES.blocks.values():
        parts = [part for parts in modules.values() for part in parts if not part.endswith(".weight")]
        for index in range(blocks[block]):
            found |= {f"{block}.{index}.{part}": (4 if part == "proj_mlp" else 1) * WIDTH for part in parts}
    return found


ALL = all_layers()
SETS = {"attention": LAYERS.attention, "image_stream": LAYERS.wide, "every layer": ("*",)}
"""What an adapter trains, as a recipe names it."""
CASES = [pytest.param(targets, layout, id=f"{targets}-{layout}") for targets in SETS for layout in LAYOUTS]


def names_of(targets):
    return select(ALL, SETS[targets])


def files_of(targets, layout):
    factors = {name: (torch.ones(1, WIDTH), torch.ones(ALL[name], 1)) for name in names_of(targets)}
    return to_layout(factors, layout)


def modules_of(targets, layout):
    """The names of modules in a file of ours."""
    return {key.rpartition(".lora_")[0] or key.removesuffix(".alpha") for key in files_of(targets, layout)}


@pytest.mark.parametrize(("targets", "layout"), CASES)
def test_diffusers(targets, layout, tmp_path):
    save_file(files_of(targets, layout), tmp_path / "a.safetensors")
    read = FluxPipeline.lora_state_dict(tmp_path / "a.safetensors")
    lost = [name for name in names_of(targets) if f"transformer.{name}.lora_A.weight" not in read]
    assert unread("diffusers", names_of(targets), layout) == lost


@pytest.mark.parametrize(("targets", "layout"), CASES)
@pytest.mark.parametrize("recorded", ["ComfyUI", "ComfyUI 0.29", "kohya's sd-scripts", "ai-toolkit"])
def test_tools_with_a_list_of_names(recorded, targets, layout):
    tool, accepted = recorded.removesuffix(" 0.29"), set(RECORDED[recorded]["accepts"])
    strange = modules_of(targets, layout) - accepted
    expected = {name for name in names_of(targets) if written(name, layout) in strange}
    assert set(unread(tool, names_of(targets), layout)) == expected


def written(name, layout):
    """The module that holds a layer in a file of ours."""
    original = original_of(name, NAMES)[0]
    return {
        "diffusers": f"transformer.{name}",
        "comfy": f"diffusion_model.{original}",
        "kohya": f"lora_unet_{original.replace('.', '_')}",
    }[layout]


@pytest.mark.parametrize(("targets", "layout"), CASES)
@pytest.mark.parametrize("tool", ["InvokeAI", "OneTrainer"])
def test_tools_whose_conversions_were_run(tool, targets, layout):
    read = set(RECORDED[tool]["read"][f"{targets}-{layout}"] or [])
    expected = [name for name in names_of(targets) if original_of(name, NAMES)[0] not in read]
    assert unread(tool, names_of(targets), layout) == expected


@pytest.mark.parametrize(("targets", "layout"), CASES)
def test_simpletuner_reads_the_layers_that_it_is_told_to_train(targets, layout):
    names = names_of(targets)
    lost = [
        [name for name in names if not any(f".{name}".endswith(f".{end}") for end in ends)]
        for ends in RECORDED["SimpleTuner"]["targets"].values()
    ]
    expected = min(lost, key=len) if layout == "diffusers" else names
    assert unread("SimpleTuner", names, layout) == expected


@pytest.mark.parametrize("recorded", ["ComfyUI", "ComfyUI 0.29"])
def test_every_parameter_of_a_full_adapter_is_read_by_old_and_new_comfyui(recorded):
    """Its norms have had a `scale`, and have a `weight` now."""
    blocks = {"transformer_blocks.0": "double_blocks", "single_transformer_blocks.1": "single_blocks"}
    norms = [
        f"{block}.{part}"
        for block, kind in blocks.items()
        for parts in NAMES.blocks[kind][1].values()
        for part in parts
        if part.endswith(".weight")
    ]
    changes = {name: torch.ones(4) for name in norms} | {"proj_out.weight": torch.ones(4, 4)}
    read = {}
    for name, change in changes.items():
        keys = to_layout({}, "comfy", differences={name: change}, model="FluxTransformer2DModel")
        read[name] = [key for key in keys if key.removesuffix(".diff") in RECORDED[recorded]["accepts"]]
    assert {name: len(keys) for name, keys in read.items()} == dict.fromkeys(changes, 1)
    parsed = parse(to_layout({}, "comfy", differences=changes, model="FluxTransformer2DModel"))
    assert parsed.differences.keys() == changes.keys()


def test_a_norm_of_two_spellings_that_differ_is_refused():
    changes = {"transformer_blocks.0.attn.norm_q.weight": torch.ones(4)}
    tensors = to_layout({}, "comfy", differences=changes, model="FluxTransformer2DModel")
    (new,) = (key for key in tensors if not key.endswith(".scale.diff"))
    with pytest.raises(BadFile, match="in two spellings"):
        parse(tensors | {new: torch.zeros(4)})


def test_invokeai_knows_diffusers_names_by_two_layers_that_the_default_leaves_alone():
    text = [f"transformer_blocks.0.attn.add_{part}_proj" for part in "qkv"]
    attention = names_of("attention")
    assert unread("InvokeAI", attention, "diffusers") == attention
    assert unread("InvokeAI", [*attention, *text], "diffusers") == []
    assert unread("InvokeAI", attention, "comfy") == []


def test_a_full_adapter_is_read_by_comfyui_alone():
    names = [f"{name}.{kind}" for name in names_of("attention") for kind in ("weight", "bias")]
    for tool in LOADERS:
        for layout in LAYOUTS:
            read = tool == "ComfyUI" and layout == "comfy"
            assert unread(tool, names, layout) == ([] if read else names)


def test_the_table_in_the_guide_is_this_one():
    """Which layouts a tool reads whole, by what the adapter trains."""
    page = (Path(__file__).parents[2] / "docs/guides/adapter-files.md").read_text()
    for tool in LOADERS:
        cells = [", ".join(whole(tool, names_of(targets))) or "none" for targets in SETS]
        full = ", ".join(whole(tool, ["proj_out.weight", "proj_out.bias"])) or "none"
        assert f"| {tool} | {' | '.join(cells)} | {full} |" in page


def whole(tool, names):
    return [layout for layout in LAYOUTS if not unread(tool, names, layout)]


def test_the_nearest_nodes_have_the_shift_as_its_logarithm():
    policy = ResolutionPolicy(shift=3.0, rope_scale=10.0, rope_clip=True, scale=2.0)
    words = nearest_nodes(policy)
    assert f"max_shift and base_shift {math.log(3):.4g}" in words
    assert "scale_x and scale_y 0.5" in words
    assert "ScaleROPE" not in nearest_nodes(ResolutionPolicy(rope_scale=10.0))
