"""What a step is said to keep is what autograd keeps, on fake tensors of the real architecture."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rehearsal import Architecture, Live, count_bytes, saved_by_compiled_blocks
from test_compute import SMALL, on_meta

from cases import thorough
from urae import mini, recipes
from urae.adapters import PAPER_TARGETS, Lora, Minor, decompose
from urae.execution import quantised
from urae.families import Architecture as Parts
from urae.families import open_architecture
from urae.planning import memory
from urae.planning.adapter import adapter_size
from urae.planning.compute import trained_by
from urae.planning.host import block_bytes, stored_bytes
from urae.training import Recipe

FLUX = {"num_attention_heads": 24, "attention_head_dim": 128, "guidance_embeds": True}
COMPILED = {"attention_head_dim": 64, "axes_dims_rope": (16, 24, 24)}
"""Wide enough beside the adapter's rank."""


def said(config: dict, what: Architecture, mode, *, offload: bool = False, compile: bool = False) -> int:
    """Bytes of activations by the plan."""
    architecture = Parts(
        transformer=on_meta(**config),
        vae=SimpleNamespace(config=SimpleNamespace(block_out_channels=[1] * 4)),
        text_tokens=what.text_tokens,
        num_encoder_values=0,
        config={},
    )
    recipe = recipes.flux_2k(
        size=what.size,
        gradient_checkpointing=mode,
        offload_activations=offload,
        compile=compile,
        base_dtype="bf16" if what.bf16 else "fp32",
        adapter=Lora(rank=what.rank, targets=what.targets),
    )
    trained = trained_by(architecture.transformer, recipe.adapter)
    return memory.activation_bytes(architecture, trained, recipe, num_images=what.batch)


MEASURED = [
    (1024, "urae", {"gradient_checkpointing": False, "compile": True}),
    (2048, "urae", {"gradient_checkpointing": False, "compile": True}),
    (4096, "urae", {"gradient_checkpointing": "attention", "compile": True}),
    (1024, "plain", {"gradient_checkpointing": "full"}),
    (2048, "plain", {"gradient_checkpointing": "full"}),
    (4096, "plain", {"gradient_checkpointing": "full"}),
    (
        2048,
        "in 16 GiB",
        {"gradient_checkpointing": "attention", "offload_activations": True, "swap_blocks": 37},
    ),
]
"""Training steps of `benchmarks/gpu.py`, with their settings."""


@pytest.mark.parametrize(("size", "way", "settings"), MEASURED)
def test_memory_is_what_an_h200_measured(size, way, settings):
    """Within 3%. The plain way is peft's LoRA of the same rank, so the plan knows it too."""
    rows = json.loads((Path(__file__).parents[2] / "benchmarks" / "results" / "gpu.json").read_text())["rows"]
    (row,) = (r for r in rows if (r["what"], r["size"], r["way"]) == ("train step", size, way))
    one = {"size": size, "batch_size": 1, "sample_every": 0, "optimizer": "adamw", "lr": 1e-4}
    recipe = recipes.flux_2k(**one, **settings)
    architecture = open_architecture(recipe.model, dtype=torch.bfloat16)
    trained = trained_by(architecture.transformer, recipe.adapter)
    planned = memory.phases(architecture, trained, recipe)["training"]
    assert planned / 1e9 == pytest.approx(row["peak_gb"], rel=0.03)


@pytest.mark.parametrize(
    ("mode", "offload"),
    [
        ("full", False),
        thorough("attention", True),
        thorough("full", True),
        thorough("attention", False),
    ],
)
def test_a_block_more_takes_what_is_said(mode, offload):
    """Blocks of full width, 1024 px: the peak of the step grows by as much as counted, within a tenth of a width a
    block, since the gradients of the adapter are counted too."""
    counted, planned = [], []
    for num in (4, 8):
        config = {"num_layers": 2, "num_single_layers": num, **FLUX}
        what = Architecture(config=config, targets=PAPER_TARGETS, rank=16, size=1024, text_tokens=512)
        counted.append(count_bytes(what, mode, offload=offload).peak)
        planned.append(said(config, what, mode, offload=offload))
    width = 4608 * 3072 * 2  # bytes
    assert planned[1] - planned[0] == pytest.approx(counted[1] - counted[0], abs=0.1 * 4 * width)


def test_another_block_keeps_as_much_as_said():
    """What one block more of each kind keeps, within 3%: FLUX.1 has 57 of them."""
    counted, planned = [], []
    for num in (1, 2):
        config = {"num_layers": num, "num_single_layers": num, **FLUX}
        what = Architecture(config=config, targets=PAPER_TARGETS, rank=16, size=1024, text_tokens=512)
        counted.append(count_bytes(what, False).kept)
        planned.append(said(config, what, False))
    assert planned[1] - planned[0] == pytest.approx(counted[1] - counted[0], rel=0.03)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's compiler looks at it
@pytest.mark.parametrize("targets", [PAPER_TARGETS, thorough(("ff.net.2", "proj_out"))])
def test_another_compiled_block_keeps_as_much_as_said(targets, compiler):
    """The same, for what torch's compiler lets a block keep, within 3%."""
    counted, planned = [], []
    for num in (1, 2):
        config = {**SMALL, "num_layers": num, "num_single_layers": num, **COMPILED}
        what = Architecture(config=config, targets=targets, rank=4, size=512, text_tokens=32)
        counted.append(saved_by_compiled_blocks(what))
        planned.append(said(config, what, False, compile=True))
    assert planned[1] - planned[0] == pytest.approx(counted[1] - counted[0], rel=0.03)


def test_activations_in_fp32():
    what = Architecture(
        config=SMALL, targets=PAPER_TARGETS, rank=4, size=512, text_tokens=32, bf16=False, batch=2
    )
    assert said(SMALL, what, False) == pytest.approx(count_bytes(what, False).peak, rel=0.1)


def test_the_decomposition_fits_its_workspace():
    weight = torch.randn(768, 768)
    live = Live()
    live.track(weight)
    with live:
        decompose(weight, rank=4, kind="smallest")
    trained = trained_by(on_meta(**{**SMALL, "num_attention_heads": 24}), Minor(rank=4))
    assert live.peak - weight.nbytes < memory._workspace_bytes(trained)


def test_phases_follow_the_recipe(recipe):
    with_samples = phases(recipe(sample_every=2, sample_prompts=("a",)))
    without = phases(recipe())
    assert with_samples.keys() - without.keys() == {"samples"}
    assert with_samples["training"] > without["training"]  # the VAE stays
    assert "decomposing" in phases(recipe(adapter=Minor(rank=4)))
    assert phases(recipe(batch_size=4))["training"] > without["training"]
    assert phases(recipe(batch_size=4, gradient_accumulation=2)) == without


def test_state_counts_every_copy(recipe):
    architecture = open_architecture("mini", dtype=torch.float32)
    size = adapter_size(architecture.transformer, Lora(rank=4))
    plain = memory._state_bytes(size, recipe(ema=0.0))
    assert plain == 4 * 4 * size.trained  # parameters, gradients, two moments
    assert memory._state_bytes(size, recipe(ema=0.9)) == plain + 4 * size.trained


def test_swapped_weights_are_on_the_gpu_two_blocks_at_a_time():
    architecture = open_architecture("black-forest-labs/FLUX.1-dev", dtype=torch.bfloat16)
    transformer, recipe = architecture.transformer, recipes.flux_2k()
    sizes, whole = block_bytes(transformer, recipe), stored_bytes(transformer, recipe)
    large = [w.nbytes for w in transformer.transformer_blocks[0].parameters() if w.dim() == 2]
    assert len(sizes) == 57
    assert sizes[0] == sum(large)
    assert sum(sizes) / whole > 0.97
    resident = [memory._resident_bytes(transformer, replace(recipe, swap_blocks=num)) for num in range(58)]
    assert resident[0] == resident[1] == resident[2] == whole
    assert resident[57] == whole - sum(sizes) + 2 * sizes[0]
    nf4 = block_bytes(transformer, replace(recipe, base_weights="nf4"))
    assert sum(nf4) / sum(sizes) == pytest.approx(4.25 / 16, rel=1e-3)
    assert [a / b for a, b in zip(nf4, sizes, strict=True)] == pytest.approx([nf4[0] / sizes[0]] * 57)


@pytest.mark.parametrize("kind", ["fp8", thorough("fp8_dynamic"), thorough("int8"), "nf4"])
def test_a_base_in_fewer_bits_takes_what_is_said(recipe, kind):
    transformer, planned = mini.pipeline().transformer, open_architecture("mini", dtype=torch.float32)
    before, said = (
        num_bytes(transformer),
        memory._resident_bytes(planned.transformer, recipe(base_weights=kind)),
    )
    with quantised(transformer, kind):
        there = num_bytes(transformer)
    assert said == pytest.approx(there, rel=0.01)
    saved = phases(recipe())["training"] - phases(recipe(base_weights=kind))["training"]
    assert saved == before - there - 2 * 192 * 6 * 192 * 4  # a modulation layer's matrix, restored


def num_bytes(module: torch.nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def phases(recipe: Recipe) -> dict[str, int]:
    architecture = open_architecture("mini", dtype=torch.float32)
    return memory.phases(architecture, trained_by(architecture.transformer, recipe.adapter), recipe)


@pytest.fixture
def compiler():
    """Blocks of a kind are compiled once in a test, and forgotten after it."""
    yield
    torch.compiler.reset()


@pytest.fixture
def recipe():
    return lambda **changes: recipes.mini_2x(
        **{"sample_every": 0, "batch_size": 2, "optimizer": "adamw", **changes}
    )
