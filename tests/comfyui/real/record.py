"""Records what ComfyUI's own classes give, for tests that run without it.

    PYTHONPATH=tests/comfyui/absent COMFYUI_PYTHON tests/comfyui/real/record.py COMFYUI tests/golden/comfyui.safetensors

The first folder of the path is for a ComfyUI without torchvision.
"""

import math
import sys

folder, out = sys.argv[1:]
sys.path.insert(0, folder)
sys.argv = [sys.argv[0], "--cpu"]

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.ldm.flux.model  # noqa: E402
import comfy.model_sampling  # noqa: E402
import torch  # noqa: E402
from comfy.ldm.flux.layers import EmbedND  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

LAST = 40
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
save_file({name: tensor.contiguous() for name, tensor in kept.items()}, out)
