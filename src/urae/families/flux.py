"""FLUX.1: the only file that knows this family.

Everything goes through the stock pipeline's own parts: its `encode_prompt`, its static helpers that pack 2x2
latents into a token and number the tokens, its VAE and its transformer's `forward`. Position ids are always
made in fp32, because bf16 cannot tell positions above 256 (4096 px) apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FluxPipeline
from torch import Tensor

from urae.families.family import Embeddings, Exchange, Posterior
from urae.families.identity import fingerprint
from urae.resolution import text_tokens

__all__ = ["Flux"]


@dataclass(frozen=True)
class Flux:
    """FLUX.1-dev, FLUX.1-schnell and checkpoints of their architecture."""

    name: str = "FLUX.1"

    @torch.no_grad()
    def encode_prompts(self, pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        """`prompt_embeds` (B, T, C) of T5 and `pooled_prompt_embeds` (B, D) of CLIP, on the CPU, in the
        encoders' types. T is the tokenizer's length (512 for FLUX.1-dev); longer prompts are cut there, as in
        the pipeline.
        """
        if pipe.text_encoder is None:
            raise ValueError(
                f"this {type(pipe).__name__} has no text encoders to encode {len(prompts)} prompts with: "
                "load it with its text encoders, or use data whose embeddings are cached"
            )
        tokens, pooled, _ = pipe.encode_prompt(
            list(prompts), None, device=pipe.text_encoder.device, max_sequence_length=text_tokens(pipe)
        )
        return {"prompt_embeds": tokens.cpu(), "pooled_prompt_embeds": pooled.cpu()}

    @torch.no_grad()
    def encode_images(self, pipe: Any, pixels: Tensor) -> Posterior:
        """Normalised posterior of images (B, 3, H, W) in [-1, 1]: mean (mu - shift) x scale and std x scale,
        with the VAE's `shift_factor` and `scaling_factor`; (B, 16, H / 8, W / 8), fp32, on the CPU."""
        vae = pipe.vae
        distribution = vae.encode(pixels.to(_vae_device(pipe), vae.dtype)).latent_dist
        mean, std = distribution.mean.float().cpu(), distribution.std.float().cpu()
        shift, scale = vae.config.shift_factor, vae.config.scaling_factor
        return Posterior(mean=(mean - shift) * scale, std=std * scale)

    @torch.no_grad()
    def decode(self, pipe: Any, clean: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1], fp32, from normalised clean latents."""
        vae = pipe.vae
        latents = clean / vae.config.scaling_factor + vae.config.shift_factor
        pixels = vae.decode(latents.to(_vae_device(pipe), vae.dtype), return_dict=False)[0]
        return pixels.float().clamp(-1, 1)

    def takes_guidance(self, transformer: Any) -> bool:
        """True for FLUX.1-dev, False for schnell."""
        return bool(transformer.config.guidance_embeds)

    def velocity(
        self,
        transformer: Any,
        noisy: Tensor,
        *,
        sigma: Tensor,
        embeddings: Embeddings,
        guidance: float | None = None,
    ) -> Tensor:
        """Predicted velocity (noise - clean), (B, 16, H, W), fp32.

        noisy: latents (B, 16, H, W), even H and W. sigma: (B,) in [0, 1], which the transformer takes as its
        timestep. guidance: the scale that a guidance-distilled transformer needs as an input and no other
        takes.
        """
        height, width = noisy.shape[-2:]
        dtype = transformer.dtype  # looked up once: it walks through all modules
        text = embeddings["prompt_embeds"].to(noisy.device, dtype)
        tokens = transformer(
            hidden_states=self.pack(noisy).to(dtype),
            timestep=sigma.to(noisy.device),
            guidance=self._guidance(transformer, guidance, noisy),
            pooled_projections=embeddings["pooled_prompt_embeds"].to(noisy.device, dtype),
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, device=noisy.device),
            img_ids=self.image_ids(height, width, device=noisy.device),
            return_dict=False,
        )[0]
        return self.unpack(tokens.float(), height, width)

    def _guidance(self, transformer: Any, guidance: float | None, like: Tensor) -> Tensor | None:
        if self.takes_guidance(transformer) == (guidance is not None):
            return (
                None if guidance is None else like.new_full((like.shape[0],), guidance, dtype=torch.float32)
            )
        if guidance is None:
            raise ValueError("this transformer is guidance-distilled: give guidance, 1.0 for none")
        raise ValueError(
            f"guidance={guidance} has no effect: this transformer takes no guidance; leave it out"
        )

    def exchanges(self, transformer: Any) -> Iterator[Exchange]:
        """Single blocks join text and image, double blocks keep them apart; what attention gives back to a double
        block is cut by the text that went in, so there all of the text goes in."""
        yield Exchange(module=transformer.x_embedder, before="share", streams=("image",))
        yield Exchange(module=transformer.context_embedder, before="share", streams=("text",))
        for attention in (block.attn for block in transformer.transformer_blocks):
            yield Exchange(
                module=attention, before="gather", streams=("text",), argument="encoder_hidden_states"
            )
            for layer in (attention.to_q, attention.to_k, attention.to_v):
                yield Exchange(module=layer, after="to_heads", streams=("image",))
            for layer in (attention.add_q_proj, attention.add_k_proj, attention.add_v_proj):
                yield Exchange(module=layer, after="own_heads", streams=("text",))
            yield Exchange(module=attention.to_out[0], before="to_tokens", streams=("image",))
            yield Exchange(module=attention.to_add_out, before="to_tokens", streams=("text",))
        for attention in (block.attn for block in transformer.single_transformer_blocks):
            for layer in (attention.to_q, attention.to_k, attention.to_v):
                yield Exchange(module=layer, after="to_heads", streams=("text", "image"))
            yield Exchange(module=attention, after="to_tokens", streams=("text", "image"))
        yield Exchange(module=transformer.proj_out, after="gather", streams=("image",))

    def pack(self, latents: Tensor) -> Tensor:
        """Latents (B, C, H, W) as tokens (B, H W / 4, 4 C): one token is a 2 x 2 patch."""
        return FluxPipeline._pack_latents(latents, *latents.shape)

    def unpack(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """The inverse of `pack`; height and width are those of the latents."""
        return FluxPipeline._unpack_latents(tokens, height, width, vae_scale_factor=1)

    def image_ids(self, height: int, width: int, *, device: torch.device | str = "cpu") -> Tensor:
        """Position ids (H W / 4, 3) of the tokens of latents of this height and width, fp32."""
        with torch.device(device):  # else they are made on the CPU, and the GPU waits for their copy
            return FluxPipeline._prepare_latent_image_ids(1, height // 2, width // 2, device, torch.float32)

    def latent_identity(self, pipe: Any) -> str:
        config = pipe.vae.config
        return fingerprint([pipe.vae], also=f"{config.shift_factor} {config.scaling_factor}")

    def text_identity(self, pipe: Any) -> str:
        if pipe.text_encoder is None:
            return ""
        vocabularies = [
            sorted(tokenizer.get_vocab().items()) for tokenizer in (pipe.tokenizer, pipe.tokenizer_2)
        ]
        return fingerprint(
            [pipe.text_encoder, pipe.text_encoder_2], also=f"{text_tokens(pipe)} {vocabularies}"
        )


def _vae_device(pipe: Any) -> torch.device:
    """Where the VAE computes: where it lies, unless it is offloaded until then. The pipeline's own answer is about
    the first of its parts, and while data are cached the others lie elsewhere."""
    hooks = ("_hf_hook", "_diffusers_hook")
    is_offloaded = any(hasattr(module, hook) for module in pipe.vae.modules() for hook in hooks)
    return pipe._execution_device if is_offloaded else pipe.vae.device
