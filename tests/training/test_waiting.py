"""How often a step waits for the device: on a CPU nothing waits, but the calls that would are the same."""

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from cases import thorough
from urae.adapters import Lora, Minor
from urae.families.flux.calls import image_ids
from urae.training import train


class Numbers(TorchDispatchMode):
    """Counts `item`, and every bool, float or int that is made of a tensor, inside torch as well."""

    num = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.num += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


class Copies(TorchFunctionMode):
    """Counts reads of whole tensors. `numpy` is for the CPU's only, as where the cache's files are checked."""

    num = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.num += function in (torch.Tensor.tolist, torch.Tensor.cpu)
        return function(*args, **(kwargs or {}))


def reads(pipe, recipe, out, **changes) -> int:
    with Numbers() as numbers, Copies() as copies:
        train(pipe, recipe(out=str(out), **changes))
    return numbers.num + copies.num


@pytest.mark.parametrize(
    "changes",
    [
        {"adapter": Lora(rank=2, targets=("transformer_blocks.1.attn.to_q",)), "batch_size": 1},
        thorough({"adapter": Minor(rank=4), "batch_size": 4, "gradient_accumulation": 2, "ema": 0.9}),
    ],
)
def test_a_step_waits_for_its_losses_and_for_prodigys_step_size(pipe, recipe, tmp_path, changes):
    changes |= {"optimizer": "prodigy", "lr": 1.0}
    train(pipe, recipe(out=str(tmp_path / "cached"), **changes))
    short, long = (reads(pipe, recipe, tmp_path / str(num), steps=num, **changes) for num in (2, 5))
    assert (long - short) / 3 == 2


def test_position_ids_are_made_where_they_are_needed():
    class Outputs(TorchDispatchMode):
        devices: set[str] = set()

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            output = function(*args, **(kwargs or {}))
            self.devices.add(output.device.type)
            return output

    with Outputs() as outputs:
        image_ids(8, 6, device="meta")
    assert outputs.devices == {"meta"}
