"""What a block of Krea 2 keeps and needs, and the maps of its VAE, as counted on fake tensors of the real widths."""

from functools import partial

import pytest
import torch
from diffusers import AutoencoderKLQwenImage, Krea2Transformer2DModel
from diffusers.models.transformers.transformer_krea2 import Krea2RMSNorm
from rehearsal import FusedRms, Live, Saved
from torch._subclasses import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from urae.adapters import Lora, attach
from urae.adapters.injection import inject
from urae.adapters.targets import linear_layers, select
from urae.execution.budget import WIDTHS_PER_TOKEN
from urae.families.krea2 import Krea2
from urae.families.vaes import vae_maps
from urae.planning.compute import trained_by
from urae.planning.memory import _inputs

pytestmark = pytest.mark.thorough

LAYERS = Krea2().layers
NO_TEXT = {"text_hidden_dim": 40, "text_intermediate_size": 40}
"""What fuses the text's layers lies outside of the blocks: small here, to be counted quickly."""
SMALL = {
    "num_attention_heads": 12,
    "num_key_value_heads": 3,
    "attention_head_dim": 32,
    "axes_dims_rope": (8, 12, 12),
    "intermediate_size": 1024,
    **NO_TEXT,
}
"""The ratios of the real widths."""


@pytest.fixture
def bf16():
    torch.set_default_dtype(torch.bfloat16)
    yield
    torch.set_default_dtype(torch.float32)


def inputs_of(transformer, image_tokens: int, text_tokens: int) -> dict[str, torch.Tensor]:
    layers, width = transformer.config.num_text_layers, transformer.config.text_hidden_dim
    return {
        "hidden_states": torch.zeros(1, image_tokens, 64, dtype=torch.bfloat16),
        "encoder_hidden_states": torch.zeros(1, text_tokens, layers, width, dtype=torch.bfloat16),
        "encoder_attention_mask": torch.ones(1, text_tokens, dtype=torch.bool),
        "timestep": torch.ones(1),
        "position_ids": torch.zeros(text_tokens + image_tokens, 3),
    }


def fused(x: torch.Tensor, *, weight: torch.Tensor) -> torch.Tensor:
    """The norm as on CUDA, in one kernel."""
    return FusedRms.apply(x.float(), weight).to(x.dtype)


def weightless(num_layers: int, fake: FakeTensorMode) -> Krea2Transformer2DModel:
    with fake:
        transformer = Krea2Transformer2DModel(num_layers=num_layers, **NO_TEXT).requires_grad_(False)
    for module in transformer.modules():
        if isinstance(module, Krea2RMSNorm):
            module.forward = partial(fused, weight=module.weight)
    return transformer


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


def test_another_block_keeps_as_much_as_said(bf16):
    """Within 3%, inputs of the adapted layers included."""
    counted = (kept(2) - kept(1)) / (6144 * 4608 * 2)
    with torch.device("meta"):
        trained = trained_by(Krea2Transformer2DModel(num_layers=1), Lora(rank=16, targets=LAYERS.attention))
    said = LAYERS.kept("transformer_blocks.0", copies=True) + _inputs(trained, sorted(trained.adapted), ())
    assert said == pytest.approx(counted, rel=0.03)


def saved_by_compiled_blocks(num_layers: int, targets: tuple[str, ...]) -> int:
    """Bytes that autograd saves in a forward pass; on real tensors, since torch's compiler takes no fake ones."""
    with torch.random.fork_rng():
        transformer = Krea2Transformer2DModel(num_layers=num_layers, **SMALL).requires_grad_(False)
        for module in transformer.modules():
            if isinstance(module, Krea2RMSNorm):
                module.float()  # as diffusers opens it
        attach(transformer, Lora(rank=4, targets=targets))
    inputs = inputs_of(transformer, 1024, 32)
    for block in transformer.transformer_blocks:
        block.compile(backend="aot_eager_decomp_partition")  # all but the code of the kernels
    before = {tensor.untyped_storage()._cdata: 0 for tensor in (*transformer.parameters(), *inputs.values())}
    saved = Saved(before)
    try:
        with saved_tensors_hooks(saved.pack, lambda packed: packed), torch.autocast("cpu", torch.bfloat16):
            transformer(**inputs, return_dict=False)
    finally:
        torch.compiler.reset()
    return saved.bytes


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's compiler looks at it
@pytest.mark.parametrize("targets", [LAYERS.attention, ("transformer_blocks.*.ff.down",)])
def test_another_compiled_block_keeps_as_much_as_said(bf16, targets):
    """Within 3%."""
    counted = saved_by_compiled_blocks(2, targets) - saved_by_compiled_blocks(1, targets)
    with torch.device("meta"):
        trained = trained_by(Krea2Transformer2DModel(num_layers=1, **SMALL), Lora(rank=4, targets=targets))
    inputs = _inputs(trained, sorted(trained.adapted), LAYERS.shared_inputs)
    said = LAYERS.kept("transformer_blocks.0", copies=False) + inputs
    assert said == pytest.approx(counted / (384 * 1056 * 2), rel=0.03)


def test_a_call_needs_no_more_than_is_said(bf16):
    fake, live = FakeTensorMode(), Live()
    transformer = weightless(2, fake)
    with fake, torch.no_grad():
        inputs = inputs_of(transformer, 4096, 512)
        for tensor in (*transformer.parameters(), *inputs.values()):
            live.track(tensor)
        before = live.bytes
        with live:
            transformer(**inputs, return_dict=False)
    counted = (live.peak - before) / (6144 * 4608 * 2)
    assert 0.5 * WIDTHS_PER_TOKEN < counted < WIDTHS_PER_TOKEN


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_the_maps_of_the_vae(bf16, part):
    """At the published widths, within a tenth."""
    with FakeTensorMode(), torch.no_grad():
        vae, live = AutoencoderKLQwenImage(), Live()
        for weight in vae.parameters():
            live.track(weight)
        given = torch.empty(1, 3, 1, 512, 512) if part == "encoder" else torch.empty(1, 16, 1, 64, 64)
        live.track(given)
        before = live.bytes
        with live:
            vae.encode(given) if part == "encoder" else vae.decode(given)
    counted = (live.peak - before) / (512 * 512 * 2)
    assert counted <= getattr(vae_maps(vae), part) <= 1.1 * counted
