"""Records what ComfyUI's own classes give, for tests that run without it.

    export PYTHONPATH=tests/comfyui/absent  # where there is no torchvision
    COMFYUI_PYTHON tests/comfyui/real/record.py COMFYUI flux tests/golden/comfyui.safetensors
    COMFYUI_PYTHON tests/comfyui/real/record.py COMFYUI others tests/golden/comfyui_others.safetensors

`flux` was recorded from ComfyUI 0.3.64, which makes FLUX.1's positions in the type of the latents, and `others` from
0.29.0.
"""

import math
import sys
from pathlib import Path

folder, which, out = sys.argv[1:]
sys.path[:0] = [folder, str(Path(__file__).parent)]
sys.argv = [sys.argv[0], "--cpu"]

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.ldm.flux.model  # noqa: E402
import comfy.model_sampling  # noqa: E402
import torch  # noqa: E402
from comfy.ldm.flux.layers import EmbedND  # noqa: E402
from probe import MODELS, TEXT, empty  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

LAST = 40


def flux():
    """ids_<type> (1, tokens, 3) of a grid of 3 x 300 with 5 text tokens; tables_<type>, and with other theta or ids, of
    the last 40 tokens; sigmas_<mu>, every 500th."""
    kept = {}
    for dtype in (torch.float32, torch.bfloat16):
        latents = torch.zeros(1, 16, 6, 600, dtype=dtype)
        maker = type("Maker", (), {"patch_size": 2})
        _, image = comfy.ldm.flux.model.Flux.process_img(maker, latents)
        ids = torch.cat([torch.zeros(1, 5, 3, dtype=dtype), image], dim=1)
        name = str(dtype).removeprefix("torch.")
        kept[f"ids_{name}"] = ids
        kept[f"tables_{name}"] = EmbedND(128, 10000, [16, 56, 56])(ids)[:, :, -LAST:]
    ids = kept["ids_float32"]
    kept["tables_theta_100000"] = EmbedND(128, 100000, [16, 56, 56])(ids)[:, :, -LAST:]
    kept["tables_half_ids"] = EmbedND(128, 10000, [16, 56, 56])(ids / 2)[:, :, -LAST:]
    for shift in (1.0, 3.0, 6.0):
        sampling = comfy.model_sampling.ModelSamplingFlux()
        sampling.set_parameters(shift=math.log(shift))
        kept[f"sigmas_{math.log(shift):.4f}"] = sampling.sigmas[499::500]
    return kept


def others():
    """<model>_<type>_<call>_ids (1, tokens, axes) of the model's calls of its embedder, on the same grid, and
    <model>_<type>_<call>_tables of the last 40 tokens; <model>_shift, the timestep shift that it comes with."""
    kept = {}
    for name in MODELS.keys() - {"flux"}:
        kept |= calls(name, torch.float32)
        sampling = empty(name).model_sampling
        is_mu = isinstance(sampling, comfy.model_sampling.ModelSamplingFlux)
        kept[f"{name}_shift"] = torch.tensor(math.exp(sampling.shift) if is_mu else sampling.shift)
    return kept | calls("qwen_image", torch.bfloat16)  # the only one whose positions are rounded


def calls(name, dtype):
    model, kept = empty(name, dtype).diffusion_model.to(dtype), {}
    shape = {"flux2": (1, 128, 3, 300), "qwen_image": (1, 16, 1, 6, 600)}.get(name, (1, 16, 6, 600))
    embedder = getattr(model, "rope_embedder" if name == "z_image" else "pe_embedder")

    def keep(module, inputs, table):
        place = f"{name}_{str(dtype).removeprefix('torch.')}_{len(kept) // 2}"
        kept[f"{place}_ids"], kept[f"{place}_tables"] = inputs[0].clone(), table[:, :, -LAST:].clone()

    embedder.register_forward_hook(keep)
    told = {"num_tokens": 5} if name == "z_image" else {}
    text = torch.zeros(1, 5, TEXT, dtype=dtype)
    with torch.no_grad():
        model(
            torch.zeros(shape, dtype=dtype),
            torch.ones(1, dtype=dtype),
            context=text,
            transformer_options={},
            **told,
        )
    return kept


recorded = {"flux": flux, "others": others}[which]()
save_file({name: tensor.contiguous() for name, tensor in recorded.items()}, out)
