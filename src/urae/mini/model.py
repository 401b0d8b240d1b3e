"""The miniature FLUX before training: every part in its stock class, small enough to ship.

`FluxTransformer2DModel` with guidance embedding, `AutoencoderKL` (8x down, 16 channels), CLIP and T5 of toy
width with their real tokenizer classes, the flow-matching scheduler of FLUX.1-dev. One token is 16 x 16 px,
so the native 128 px are a grid of 8 x 8 tokens. The text encoders are trained with the transformer and then
frozen.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from urae.mini.world import BACKGROUNDS, OBJECTS, RELATIONS, STYLES

__all__ = ["build_pipeline", "build_vae", "vocabulary"]

NATIVE_SIZE = 128
TEXT_TOKENS = 32
"""`model_max_length` of the T5 tokenizer: long enough for every detailed caption."""
TEXT_WIDTH = 128
POOLED_WIDTH = 64


def build_pipeline(vae: AutoencoderKL, seed: int = 0) -> FluxPipeline:
    """A FluxPipeline around `vae`, its transformer and text encoders freshly initialised from `seed`."""
    torch.manual_seed(seed)
    tokenizer, tokenizer_2 = _clip_tokenizer(), _t5_tokenizer()
    return FluxPipeline(
        scheduler=_scheduler(),
        vae=vae,
        text_encoder=_clip(len(tokenizer), tokenizer.eos_token_id),
        tokenizer=tokenizer,
        text_encoder_2=_t5(len(tokenizer_2)),
        tokenizer_2=tokenizer_2,
        transformer=_transformer(),
    )


def build_vae(seed: int = 0) -> AutoencoderKL:
    """The untrained VAE. `shift_factor` and `scaling_factor` are set from data after training.

    Two norm groups, since normalising few channels each on their own erases flat colour; no attention in the
    middle, so that any size costs the same per pixel and tiles agree with the whole."""
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[16, 32, 64, 128],
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=2,
        sample_size=NATIVE_SIZE,
        shift_factor=0.0,
        scaling_factor=1.0,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    # A posterior that starts narrow lets the decoder learn detail from the first step on.
    torch.nn.init.constant_(vae.encoder.conv_out.bias[16:], -5.0)
    return vae


def vocabulary() -> list[str]:
    """Every word that a caption can contain, sorted."""
    words = {"a", "on", "background", "with", "and", "the", "word", "at", "in", "middle", "upper", "lower"}
    words |= {"left", "right", "top", "bottom", "small", "medium", "large"} | set(OBJECTS) | set(STYLES)
    for phrase in (*RELATIONS, *BACKGROUNDS, *(ground.texture for ground in BACKGROUNDS.values())):
        words |= set(phrase.split())
    return sorted(words)


def _scheduler() -> FlowMatchEulerDiscreteScheduler:
    """FLUX.1-dev's settings, so that its behaviour at large sizes is the miniature's too."""
    return FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )


def _transformer() -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        in_channels=64,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=64,
        num_attention_heads=3,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=POOLED_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(8, 28, 28),
    )


def _t5(vocabulary_size: int) -> T5EncoderModel:
    """Two layers: FLUX gives text tokens no positions, so word order must come from T5's own."""
    config = T5Config(
        vocab_size=vocabulary_size,
        d_model=TEXT_WIDTH,
        d_kv=32,
        d_ff=256,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        is_gated_act=True,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    return T5EncoderModel(config)


def _clip(vocabulary_size: int, eos: int) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=vocabulary_size,
        hidden_size=POOLED_WIDTH,
        intermediate_size=128,
        projection_dim=POOLED_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
        eos_token_id=eos,
        bos_token_id=eos - 1,
        pad_token_id=eos,
    )
    return CLIPTextModel(config)


def _t5_tokenizer() -> T5Tokenizer:
    """Whole words as pieces; an unknown word falls back to letters."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    words = [(f"▁{word}", -1.0) for word in vocabulary()]
    letters = [(letter, -9.0) for letter in _LETTERS]
    return T5Tokenizer(vocab=special + words + letters, extra_ids=0, model_max_length=TEXT_TOKENS)


def _clip_tokenizer() -> CLIPTokenizer:
    """Byte-pair merges that spell out the vocabulary's words."""
    merges: list[tuple[str, str]] = []
    for word in vocabulary():
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            merge = (pieces[0], pieces[1])
            if merge not in merges:
                merges.append(merge)
            pieces[:2] = ["".join(merge)]
    tokens = [*_LETTERS, *(letter + "</w>" for letter in _LETTERS), *("".join(merge) for merge in merges)]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    vocab |= {"<|startoftext|>": len(vocab), "<|endoftext|>": len(vocab) + 1}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)


_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789,.!?'-"
