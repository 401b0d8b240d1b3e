"""The counts are those of torch's own counter, on fake tensors of the real architecture."""

import pytest
import torch
from diffusers import FluxTransformer2DModel
from rehearsal import Architecture, count_flops

from cases import thorough
from urae import recipes
from urae.adapters import PAPER_TARGETS, Full, Lora, Mica, Minor
from urae.families import open_architecture
from urae.planning.compute import Tokens, step_work, trained_by

SMALL = {
    "num_layers": 2,
    "num_single_layers": 2,
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "axes_dims_rope": (8, 12, 12),
    "joint_attention_dim": 48,
    "pooled_projection_dim": 24,
    "in_channels": 64,
    "guidance_embeds": True,
}


def on_meta(**config):
    with torch.device("meta"):
        return FluxTransformer2DModel(**config)


def ours(config, spec, size, text_tokens, mode):
    tokens = Tokens(image=(size // 16) ** 2, text=text_tokens)
    return step_work(trained_by(on_meta(**config), spec), tokens, mode)


@pytest.mark.parametrize(
    ("targets", "mode"),
    [
        thorough(PAPER_TARGETS, False),
        (PAPER_TARGETS, "full"),
        thorough(PAPER_TARGETS, "attention"),
        thorough(("single_transformer_blocks.*.proj_out",), "full"),
        (("single_transformer_blocks.1.attn.to_q",), False),
        (("attn.add_q_proj", "re:transformer_blocks\\.1\\.ff\\.net\\.2"), "attention"),
    ],
)
def test_operations_are_those_that_torch_counts(targets, mode):
    what = Architecture(config=SMALL, targets=targets, rank=4, size=256, text_tokens=20)
    work = ours(SMALL, Lora(rank=4, targets=targets), 256, 20, mode)
    assert (work.forward, work.total) == count_flops(what, mode)


def test_the_full_architecture_counts_alike():
    """One block of each kind at FLUX.1's width, at 2048 px."""
    config = {"num_layers": 1, "num_single_layers": 1, "guidance_embeds": True}
    what = Architecture(config=config, targets=PAPER_TARGETS, rank=16, size=2048, text_tokens=512)
    work = ours(config, Lora(), 2048, 512, "attention")
    assert (work.forward, work.total) == count_flops(what, "attention")


@pytest.mark.slow
@pytest.mark.parametrize("size", [1024, 2048, 4096])
def test_all_of_flux_counts_alike(size):
    config = {"guidance_embeds": True}
    what = Architecture(config=config, targets=PAPER_TARGETS, rank=16, size=size, text_tokens=512)
    work = ours(config, Lora(), size, 512, "full")
    assert (work.forward, work.total) == count_flops(what, "full")


def test_flux_at_4k_is_what_is_known_of_it():
    """6.45e9 weights a token in the linear layers, and 57 attentions of width 3072."""
    architecture = open_architecture(recipes.flux_4k().model, dtype=torch.bfloat16)
    trained = trained_by(architecture.transformer, Lora(rank=1))
    tokens = Tokens(image=65536, text=512)
    linear = 2 * 6.45e9 * tokens.joint
    attention = 57 * 4 * 3072 * tokens.joint**2
    assert step_work(trained, tokens, False).forward == pytest.approx(linear + attention, rel=0.01)
    recomputed = {mode: step_work(trained, tokens, mode).again for mode in ("full", "attention")}
    assert recomputed["full"] - recomputed["attention"] == attention


def test_nothing_below_the_first_adapter_has_gradients():
    late = Lora(rank=4, targets=("single_transformer_blocks.1.attn.to_q",))
    early = Lora(rank=4, targets=("transformer_blocks.0.attn.to_q",))
    last, first = (ours(SMALL, spec, 256, 20, False) for spec in (late, early))
    assert last.backward < first.backward / 3
    assert list(trained_by(on_meta(**SMALL), late).blocks()) == ["single_transformer_blocks.1"]


def test_torch_counts_no_backward_work_in_blocks_below_the_first_adapter():
    """A second block of each kind below adds to the forward pass alone."""
    backward = []
    for num in (1, 2):
        config = {**SMALL, "num_layers": num, "num_single_layers": num}
        last = (f"single_transformer_blocks.{num - 1}.attn.to_q",)
        what = Architecture(config=config, targets=last, rank=4, size=256, text_tokens=20)
        forward, total = count_flops(what, False)
        backward.append(total - forward)
    assert backward[0] == backward[1] < forward / 2


def test_kinds_of_adapters_differ_by_their_ranks():
    lora, minor, mica, full = (
        ours(SMALL, spec, 256, 20, False)
        for spec in (Lora(rank=4), Minor(rank=2), Mica(rank=4), Full(targets=PAPER_TARGETS))
    )
    assert lora == minor  # which runs at twice its rank
    assert mica.forward == lora.forward
    assert mica.backward < lora.backward < full.backward
