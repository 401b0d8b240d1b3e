"""VAEs of FLUX's shape without its weights, and what is alive while they compute."""

import torch
from diffusers import AutoencoderKL
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def vae_of(channels=(8, 8, 16, 16), *, sample_size=64, layers=1, groups=2) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=channels,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=layers,
        latent_channels=16,
        norm_num_groups=groups,
        sample_size=sample_size,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def flux_vae(dtype: torch.dtype) -> AutoencoderKL:
    with torch.device("meta"):
        vae = vae_of((128, 256, 512, 512), sample_size=1024, layers=2, groups=32)
    for parameter in vae.parameters():
        parameter.data = parameter.data.to(dtype)
    return vae


class LiveBytes(TorchDispatchMode):
    """The most bytes that were alive at a time of what was computed under it."""

    def __init__(self) -> None:
        super().__init__()
        self.alive, self.peak = {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.alive = {key: found for key, found in self.alive.items() if not found[0].expired()}
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.alive.setdefault(storage._cdata, (StorageWeakRef(storage), storage.nbytes()))
        self.peak = max(self.peak, sum(num for _, num in self.alive.values()))
        return result
