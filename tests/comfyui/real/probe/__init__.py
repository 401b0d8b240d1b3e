"""Nodes for the tests alone: tiny models, a conditioning and a VAE, all of ComfyUI's own classes.

ComfyUI takes the widths of the published models where it cannot read them from the weights, so tiny ones need a loader
of their own.
"""

from __future__ import annotations

import comfy.ldm.flux.model
import comfy.ldm.wan.vae
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.taesd.taesd
import folder_paths
import torch
from comfy_api.latest import ComfyExtension, io

HIDDEN, TEXT, POOLED = 256, 64, 32
FLUX = {
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
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
    "txt_ids_dims": [],
}
FLUX_2 = {
    "patch_size": 1,
    "in_channels": 128,
    "out_channels": 128,
    "vec_in_dim": None,
    "mlp_ratio": 3.0,
    "axes_dim": [32, 32, 32, 32],
    "theta": 2000,
    "qkv_bias": False,
    "ops_bias": False,
    "global_modulation": True,
    "mlp_silu_act": True,
    "default_ref_method": "index",
    "ref_index_scale": 10.0,
    "txt_ids_dims": [3],
}
Z_IMAGE = {
    "patch_size": 2,
    "in_channels": 16,
    "dim": 1152,
    "cap_feat_dim": TEXT,
    "n_layers": 1,
    "n_refiner_layers": 1,
    "n_heads": 9,
    "n_kv_heads": 9,
    "qk_norm": True,
    "axes_dims": [32, 48, 48],
    "axes_lens": [1536, 512, 512],
    "rope_theta": 256.0,
    "ffn_dim_multiplier": 8.0 / 3.0,
    "z_image_modulation": True,
    "time_scale": 1000.0,
    "pad_tokens_multiple": 32,
}
QWEN_IMAGE = {"in_channels": 64, "num_layers": 2, "num_attention_heads": 2, "joint_attention_dim": TEXT}
MODELS = {
    "flux": ("Flux", FLUX),
    "flux2": ("Flux2", FLUX | FLUX_2),
    "z_image": ("ZImage", Z_IMAGE | {"image_model": "lumina2"}),
    "qwen_image": ("QwenImage", QWEN_IMAGE),
}
"""By name: ComfyUI's class of the model, and its configuration."""


def empty(name: str, dtype: torch.dtype = torch.float32):
    """A model of ComfyUI's own classes, with whatever stands in its memory for weights."""
    kind, config = MODELS[name]
    known = getattr(comfy.ldm.flux.model.FluxParams, "__dataclass_fields__", {})
    if kind.startswith("Flux"):  # of which older versions have fewer settings
        config = {key: value for key, value in config.items() if key in known}
    settings = getattr(comfy.supported_models, kind)({"image_model": name, **config})
    settings.set_inference_dtype(dtype, None)
    return settings.get_model({}, "").eval()


def tiny(name: str, weights: dict[str, torch.Tensor], dtype: torch.dtype = torch.float32):
    """A MODEL of random weights in the names of the original repository."""
    model = empty(name, dtype)
    weights = model.model_config.process_unet_state_dict(dict(weights))
    missing, strange = model.diffusion_model.load_state_dict(weights, strict=False)
    assert not missing, missing
    assert not strange, strange
    model.diffusion_model.to(dtype)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)


def random_weights(name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    norms = ("scale", "norm.weight", "norm1.weight", "norm2.weight")
    return {
        key: torch.ones_like(tensor) if key.endswith(norms) else 0.05 * torch.randn(tensor.shape)
        for key, tensor in empty(name).diffusion_model.state_dict().items()
    }


class ProbeModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ProbeModel",
            category="test",
            inputs=[io.String.Input("name")],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, name):
        return io.NodeOutput(tiny(name, comfy.utils.load_torch_file(_input(f"{name}.safetensors"))))


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
        pooled = {"pooled_output": kept["pooled"]} if "pooled" in kept else {}
        return io.NodeOutput([[kept["prompt_embeds"], {**pooled, "guidance": guidance}]])


class ProbeVae(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        inputs = [io.String.Input("model", default="flux")]
        return io.Schema(node_id="ProbeVae", category="test", inputs=inputs, outputs=[io.Vae.Output()])

    @classmethod
    def execute(cls, model):
        torch.manual_seed(0)
        if model == "qwen_image":
            parts = {"dim_mult": [1, 2, 4, 4], "temperal_downsample": [False, True, True]}
            weights = comfy.ldm.wan.vae.WanVAE(dim=96, z_dim=16, **parts).state_dict()
            return io.NodeOutput(comfy.sd.VAE(sd=_random(weights)))
        weights = comfy.taesd.taesd.TAESD(latent_channels=128 if model == "flux2" else 16).state_dict()
        scale = {"vae_scale": torch.ones(()), "vae_shift": torch.zeros(())}
        told = {"metadata": {"tae_latent_channels": 128}} if model == "flux2" else {}
        return io.NodeOutput(comfy.sd.VAE(sd=_random(weights) | scale, **told))


def _random(weights):
    """ComfyUI's layers come unset."""
    return {name: 0.04 * torch.randn(tensor.shape) for name, tensor in weights.items() if tensor.ndim}


class Probes(ComfyExtension):
    async def get_node_list(self):
        return [ProbeModel, ProbeConditioning, ProbeVae]


async def comfy_entrypoint():
    return Probes()


def _input(file):
    return f"{folder_paths.get_input_directory()}/{file}"
