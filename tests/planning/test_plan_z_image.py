"""What Z-Image is said to have, keep and need, as counted on meta and fake tensors of the real widths."""

import pytest
import torch
from diffusers import ZImageTransformer2DModel
from rehearsal import Live, Saved, compute_norms_like_cuda
from torch._subclasses import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from cases import thorough
from urae import plan, recipes
from urae.adapters import Lora, attach
from urae.adapters.injection import inject
from urae.adapters.targets import linear_layers, select
from urae.execution.budget import WIDTHS_PER_TOKEN
from urae.families import open_architecture
from urae.families.z_image import ZImage
from urae.planning.compute import trained_by
from urae.planning.memory import _inputs

LAYERS = ZImage().layers
WIDE = {"n_refiner_layers": 1, "cap_feat_dim": 64}
"""The real width; what refines text and image is kept small."""
SMALL = {"dim": 384, "n_heads": 6, "n_kv_heads": 6, "axes_dims": [16, 24, 24], **WIDE}


@pytest.fixture
def bf16():
    torch.set_default_dtype(torch.bfloat16)
    yield
    torch.set_default_dtype(torch.float32)


def inputs_of(image_side: int, text_tokens: int) -> dict:
    return {
        "x": [torch.zeros(16, 1, 2 * image_side, 2 * image_side, dtype=torch.bfloat16)],
        "t": torch.ones(1),
        "cap_feats": [torch.zeros(text_tokens, 64, dtype=torch.bfloat16)],
    }


def weightless(num_layers: int, fake: FakeTensorMode) -> ZImageTransformer2DModel:
    with fake:
        transformer = ZImageTransformer2DModel(n_layers=num_layers, **WIDE)
    return transformer.requires_grad_(False)


def tracked(live: Live, transformer, inputs: dict) -> int:
    for tensor in (*transformer.parameters(), *inputs["x"], inputs["t"], *inputs["cap_feats"]):
        live.track(tensor)
    return live.bytes


def kept(num_layers: int) -> int:
    """Bytes alive after the forward pass of a step under autocast."""
    fake = FakeTensorMode()
    transformer = weightless(num_layers, fake)
    with fake:
        layers = linear_layers(transformer)
        factors = {
            name: (torch.empty(16, layers[name].in_features), torch.empty(layers[name].out_features, 16))
            for name in select(layers, LAYERS.attention)
        }
    injection = inject(transformer, factors)
    compute_norms_like_cuda(transformer, fp32=True)
    for layer in injection.layers.values():
        for factor in (layer.lora_A, layer.lora_B):
            factor[injection.name].weight.requires_grad_(True)
    live = Live()
    with fake:
        inputs = inputs_of(64, 512)
    before = tracked(live, transformer, inputs)
    with fake, live, torch.autocast("cpu", dtype=torch.bfloat16):
        velocity = transformer(**inputs, return_dict=False)[0]
        return live.bytes - before - velocity[0].nbytes


def said(config: dict, *, copies: bool) -> float:
    """Widths per token that a block keeps by the plan."""
    with torch.device("meta"):
        transformer = ZImageTransformer2DModel(n_layers=1, **config)
        trained = trained_by(transformer, Lora(rank=4, targets=LAYERS.attention))
    shared = () if copies else LAYERS.shared_inputs
    adapted = sorted(name for name in trained.adapted if name.startswith("layers."))
    return LAYERS.kept("layers.0", copies=copies) + _inputs(trained, adapted, shared)


def test_another_block_keeps_as_much_as_said(bf16):
    """Within 3%, inputs of the adapted layers included."""
    counted = (kept(2) - kept(1)) / (3840 * 4608 * 2)
    assert said(WIDE, copies=True) == pytest.approx(counted, rel=0.03)


def saved_by_compiled_blocks(num_layers: int) -> int:
    """Bytes that autograd saves in a forward pass; on real tensors, since torch's compiler takes no fake ones."""
    with torch.random.fork_rng():
        transformer = ZImageTransformer2DModel(n_layers=num_layers, **SMALL)
        attach(transformer.requires_grad_(False), Lora(rank=4, targets=LAYERS.attention))
    inputs = inputs_of(32, 32)
    for block in transformer.layers:
        block.compile(backend="aot_eager_decomp_partition")  # all but the code of the kernels
    given = (*transformer.parameters(), *inputs["x"], inputs["t"], *inputs["cap_feats"])
    saved = Saved({tensor.untyped_storage()._cdata: 0 for tensor in given})
    try:
        with saved_tensors_hooks(saved.pack, lambda packed: packed), torch.autocast("cpu", torch.bfloat16):
            transformer(**inputs, return_dict=False)
    finally:
        torch.compiler.reset()
    return saved.bytes


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's compiler looks at it
def test_another_compiled_block_keeps_as_much_as_said(bf16):
    """Within 3%."""
    counted = (saved_by_compiled_blocks(2) - saved_by_compiled_blocks(1)) / (384 * 1056 * 2)
    assert said(SMALL, copies=False) == pytest.approx(counted, rel=0.03)


def test_a_call_needs_no_more_than_is_said(bf16):
    fake, live = FakeTensorMode(), Live()
    transformer = weightless(1, fake)
    compute_norms_like_cuda(transformer, fp32=False)
    with fake, torch.no_grad():
        inputs = inputs_of(64, 512)
        before = tracked(live, transformer, inputs)
        with live:
            transformer(**inputs, return_dict=False)
    counted = (live.peak - before) / (3840 * 4608 * 2)
    assert 0.4 * WIDTHS_PER_TOKEN < counted < WIDTHS_PER_TOKEN


@pytest.mark.parametrize("name", ["Z-Image", thorough("Z-Image-Turbo")])
def test_published_models_have_as_many_parameters_as_they_say(name):
    architecture = open_architecture(f"Tongyi-MAI/{name}", dtype=torch.bfloat16)
    num = sum(parameter.numel() for parameter in architecture.transformer.parameters())
    assert num / 1e9 == pytest.approx(6.15, rel=0.005)


@pytest.mark.parametrize(
    ("recipe", "gpu", "fits"),
    [
        (recipes.z_image_2k(), "RTX 4090", True),
        thorough(recipes.z_image_2k(), "A100 80GB", True),
        (recipes.z_image_4k(), "RTX 4090", False),
        thorough(recipes.z_image_4k(), "A100 80GB", True),
    ],
)
def test_recipes_on_gpus_of_24_and_of_80_gb(recipe, gpu, fits):
    """A block keeps 17 GB of an image of 4096 px while it is computed again."""
    assert (plan(recipe, gpu).best is not None) == fits
