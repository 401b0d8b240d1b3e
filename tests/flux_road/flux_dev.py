"""FLUX.1-dev as its repository lies in the hub's cache, of a width that a CPU can train.

The real name and classes, 19 + 38 blocks with guidance embedding, 16 latent channels, 77 and 512 text tokens, its
scheduler, and weights in shards with an index. One head of 16 channels stands for 24 of 128, and weights are random.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

from autoencoders import vae_of
from tiny import with_text_encoders

NAME = "black-forest-labs/FLUX.1-dev"
COMMIT = "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21"


def save_flux_dev(hub: Path, *, blocks: tuple[int, int] = (19, 38)) -> Path:
    """Put the model into a folder that `HF_HUB_CACHE` may name, where its name finds it without a network."""
    repository = hub / f"models--{NAME.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    _pipeline(blocks).to(torch.bfloat16).save_pretrained(snapshot, max_shard_size="200KB")
    return snapshot


def _pipeline(blocks: tuple[int, int]) -> FluxPipeline:
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        num_layers=blocks[0],
        num_single_layers=blocks[1],
        num_attention_heads=1,
        attention_head_dim=16,
        axes_dims_rope=(4, 6, 6),
        joint_attention_dim=32,
        pooled_projection_dim=24,
        guidance_embeds=True,
    )
    nothing = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    vae = vae_of((4, 4, 8, 16), sample_size=1024, layers=1, groups=2)
    vae.register_to_config(shift_factor=0.1159, scaling_factor=0.3611)
    pipe = FluxPipeline(scheduler=_scheduler(), vae=vae, transformer=transformer.eval(), **nothing)
    return with_text_encoders(pipe, text_tokens=512)


def _scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
