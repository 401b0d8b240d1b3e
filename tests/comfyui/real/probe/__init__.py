"""Nodes for the tests alone: a tiny FLUX.1, a conditioning and a VAE, all of ComfyUI's own classes.

ComfyUI reads the width of a FLUX checkpoint from nowhere and takes 3072, so a tiny one needs a loader of its own.
"""

from __future__ import annotations

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.taesd.taesd
import folder_paths
import torch
from comfy_api.latest import ComfyExtension, io

HIDDEN, TEXT, POOLED = 256, 64, 32
CONFIG = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "vec_in_dim": POOLED,
    "context_in_dim": TEXT,
    "hidden_size": HIDDEN,
    "mlp_ratio": 4.0,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 2,
    "axes_dim": [16, 56, 56],
    "theta": 10000,
    "qkv_bias": True,
    "guidance_embed": True,
}


def tiny_flux(weights: dict[str, torch.Tensor], dtype: torch.dtype = torch.float32):
    """A MODEL of random weights in the names of the original repository."""
    config = comfy.supported_models.Flux(dict(CONFIG))
    config.set_inference_dtype(dtype, None)
    model = config.get_model({}, "").eval()
    missing, strange = model.diffusion_model.load_state_dict(weights, strict=False)
    assert not missing, missing
    assert not strange, strange
    model.diffusion_model.to(dtype)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)


class ProbeModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ProbeModel",
            category="test",
            inputs=[io.String.Input("file")],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, file):
        return io.NodeOutput(tiny_flux(comfy.utils.load_torch_file(_input(file))))


class ProbeConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ProbeConditioning",
            category="test",
            inputs=[io.String.Input("file"), io.Float.Input("guidance")],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, file, guidance):
        kept = comfy.utils.load_torch_file(_input(file))
        return io.NodeOutput(
            [[kept["prompt_embeds"], {"pooled_output": kept["pooled"], "guidance": guidance}]]
        )


class ProbeVae(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="ProbeVae", category="test", inputs=[], outputs=[io.Vae.Output()])

    @classmethod
    def execute(cls):
        torch.manual_seed(0)
        weights = comfy.taesd.taesd.TAESD(latent_channels=16).state_dict()
        # ComfyUI's layers come unset.
        random = {name: 0.04 * torch.randn(tensor.shape) for name, tensor in weights.items() if tensor.ndim}
        return io.NodeOutput(
            comfy.sd.VAE(sd={**random, "vae_scale": torch.ones(()), "vae_shift": torch.zeros(())})
        )


class Probes(ComfyExtension):
    async def get_node_list(self):
        return [ProbeModel, ProbeConditioning, ProbeVae]


async def comfy_entrypoint():
    return Probes()


def _input(file):
    return f"{folder_paths.get_input_directory()}/{file}"
