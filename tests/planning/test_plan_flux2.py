"""What FLUX.2 is said to have, keep and need, as counted on meta and fake tensors of the real widths."""

import pytest
import torch
from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
from rehearsal import Live, Saved, compute_norms_like_cuda
from torch._subclasses import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from urae import plan, recipes
from urae.adapters import Lora, attach
from urae.adapters.injection import inject
from urae.adapters.targets import linear_layers, select
from urae.execution.budget import WIDTHS_PER_TOKEN
from urae.families import open_architecture
from urae.families.flux2 import Flux2
from urae.families.vaes import vae_maps
from urae.planning.compute import trained_by
from urae.planning.memory import _inputs

pytestmark = pytest.mark.thorough

LAYERS = Flux2().layers
WIDE = {"num_attention_heads": 24, "joint_attention_dim": 64, "guidance_embeds": False}
"""Klein 4B's width; what embeds the text lies outside of the blocks: small here, to be counted quickly."""
SMALL = {
    "num_attention_heads": 6,
    "attention_head_dim": 64,
    "axes_dims_rope": (16, 16, 16, 16),
    "joint_attention_dim": 32,
    "guidance_embeds": False,
}


@pytest.fixture
def bf16():
    torch.set_default_dtype(torch.bfloat16)
    yield
    torch.set_default_dtype(torch.float32)


def inputs_of(transformer, image_tokens: int, text_tokens: int) -> dict[str, torch.Tensor]:
    return {
        "hidden_states": torch.zeros(1, image_tokens, 128, dtype=torch.bfloat16),
        "encoder_hidden_states": torch.zeros(
            1, text_tokens, transformer.config.joint_attention_dim, dtype=torch.bfloat16
        ),
        "timestep": torch.ones(1),
        "img_ids": torch.zeros(1, image_tokens, 4, dtype=torch.int64),
        "txt_ids": torch.zeros(1, text_tokens, 4, dtype=torch.int64),
    }


def weightless(blocks: tuple[int, int], fake: FakeTensorMode) -> Flux2Transformer2DModel:
    with fake:
        num, num_single = blocks
        transformer = Flux2Transformer2DModel(num_layers=num, num_single_layers=num_single, **WIDE)
    return transformer.requires_grad_(False)


def kept(*blocks: int) -> int:
    """Bytes alive after the forward pass of a step under autocast."""
    fake = FakeTensorMode()
    transformer = weightless(blocks, fake)
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
        inputs = inputs_of(transformer, 4096, 512)
    for tensor in (*transformer.parameters(), *inputs.values()):
        live.track(tensor)
    before = live.bytes
    with fake, live, torch.autocast("cpu", dtype=torch.bfloat16):
        velocity = transformer(**inputs, return_dict=False)
        return live.bytes - before - velocity[0].nbytes


MORE = {"transformer_blocks": (2, 1), "single_transformer_blocks": (1, 2)}
"""Blocks of each kind, where there is one more of one."""


def said(config: dict, targets: tuple[str, ...], kind: str, *, copies: bool) -> float:
    """Widths per token that a block keeps by the plan."""
    with torch.device("meta"):
        transformer = Flux2Transformer2DModel(num_layers=1, num_single_layers=1, **config)
        trained = trained_by(transformer, Lora(rank=4, targets=targets))
    adapted = [name for name in sorted(trained.adapted) if name.startswith(f"{kind}.")]
    shared = () if copies else LAYERS.shared_inputs
    return LAYERS.kept(f"{kind}.0", copies=copies) + _inputs(trained, adapted, shared)


@pytest.mark.parametrize("kind", MORE)
def test_another_block_keeps_as_much_as_said(bf16, kind):
    """Within 3%, inputs of the adapted layers included."""
    counted = (kept(*MORE[kind]) - kept(1, 1)) / (3072 * 4608 * 2)
    assert said(WIDE, LAYERS.attention, kind, copies=True) == pytest.approx(counted, rel=0.03)


def saved_by_compiled_blocks(blocks: tuple[int, int], targets: tuple[str, ...]) -> int:
    """Bytes that autograd saves in a forward pass; on real tensors, since torch's compiler takes no fake ones."""
    with torch.random.fork_rng():
        num, num_single = blocks
        transformer = Flux2Transformer2DModel(num_layers=num, num_single_layers=num_single, **SMALL)
        attach(transformer.requires_grad_(False), Lora(rank=4, targets=targets))
    inputs = inputs_of(transformer, 1024, 32)
    for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
        block.compile(backend="aot_eager_decomp_partition")  # all but the code of the kernels
    before = {tensor.untyped_storage()._cdata: 0 for tensor in (*transformer.parameters(), *inputs.values())}
    saved = Saved(before)
    try:
        with saved_tensors_hooks(saved.pack, lambda packed: packed), torch.autocast("cpu", torch.bfloat16):
            transformer(**inputs, return_dict=False)
    finally:
        torch.compiler.reset()
    return saved.bytes


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's compiler looks at it
@pytest.mark.parametrize("kind", MORE)
def test_another_compiled_block_keeps_as_much_as_said(bf16, kind):
    """Within 3%."""
    more, one = (saved_by_compiled_blocks(blocks, LAYERS.attention) for blocks in (MORE[kind], (1, 1)))
    counted = (more - one) / (384 * 1056 * 2)
    assert said(SMALL, LAYERS.attention, kind, copies=False) == pytest.approx(counted, rel=0.03)


def test_a_call_needs_no_more_than_is_said(bf16):
    fake, live = FakeTensorMode(), Live()
    transformer = weightless((1, 1), fake)
    compute_norms_like_cuda(transformer, fp32=False)
    with fake, torch.no_grad():
        inputs = inputs_of(transformer, 4096, 512)
        for tensor in (*transformer.parameters(), *inputs.values()):
            live.track(tensor)
        before = live.bytes
        with live:
            transformer(**inputs, return_dict=False)
    counted = (live.peak - before) / (3072 * 4608 * 2)
    assert 0.6 * WIDTHS_PER_TOKEN < counted < WIDTHS_PER_TOKEN


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_the_maps_of_the_vae(bf16, part):
    """At the published widths, within a tenth."""
    with FakeTensorMode(), torch.no_grad():
        vae, live = AutoencoderKLFlux2(), Live()
        for weight in (*vae.parameters(), *vae.buffers()):
            live.track(weight)
        given = torch.empty(1, 3, 512, 512) if part == "encoder" else torch.empty(1, 32, 64, 64)
        live.track(given)
        before = live.bytes
        with live:
            vae.encode(given) if part == "encoder" else vae.decode(given)
    counted = (live.peak - before) / (512 * 512 * 2)
    assert 0.99 * counted <= getattr(vae_maps(vae), part) <= 1.1 * counted


@pytest.mark.parametrize(
    ("model", "billions"),
    [("dev", 32.2), ("klein-base-4B", 3.88), ("klein-4B", 3.88), ("klein-base-9B", 9.08)],
)
def test_published_models_have_as_many_parameters_as_their_names_say(model, billions):
    architecture = open_architecture(f"black-forest-labs/FLUX.2-{model}", dtype=torch.bfloat16)
    num = sum(parameter.numel() for parameter in architecture.transformer.parameters())
    assert num / 1e9 == pytest.approx(billions, rel=0.005)


@pytest.mark.parametrize(
    "recipe", [recipes.flux2_klein_2k(), recipes.flux2_klein_4k()], ids=lambda one: one.out
)
@pytest.mark.parametrize("gpu", ["RTX 4090", "A100 80GB"])
def test_recipes_fit_gpus_of_24_and_of_80_gb(recipe, gpu):
    found = plan(recipe, gpu)
    assert found.best is not None
