"""The words in which a run says how a model is to run: what a recipe or a command line may choose from.

Nothing is imported here, so that whoever only checks or lists them need not wait for torch.
"""

from __future__ import annotations

from typing import Literal

__all__ = [
    "BY_ERROR",
    "CHECKPOINTING",
    "ENCODINGS",
    "BaseWeights",
    "Checkpointing",
    "Compile",
    "Encoding",
    "Format",
    "Offload",
    "VaeWay",
]

Format = Literal["fp8", "fp8_dynamic", "int8", "nf4"]
"""How a frozen matrix may be rounded (`urae.execution.rounding`)."""

BY_ERROR: tuple[Format, ...] = ("int8", "fp8", "fp8_dynamic", "nf4")
"""From the nearest to the weights as they were loaded to the farthest."""

BaseWeights = Literal["as_loaded", Format]
"""How the matrices of a transformer's blocks are stored."""

Offload = Literal["unchanged", "none", "model", "sequential"]
"""Leave a pipeline's parts where their owner put them; all on the device; one part at a time; one layer at a time."""

VaeWay = Literal["whole", "strips", "tiles"]
"""How a VAE encodes or decodes; the first two differ in rounding alone."""

Encoding = Literal["exact", "tiled"]
"""Which function of the image its latents are."""

ENCODINGS = ("auto", "exact", "tiled")
"""What a user may ask for; "auto" is exact where it fits."""

Checkpointing = bool | Literal["full", "attention"]
"""What a backward pass computes again; True is "full"."""

CHECKPOINTING: tuple[Checkpointing, ...] = (False, True, "full", "attention")
"""The values that it may have."""

Compile = bool | Literal["auto"]
"""Whether a transformer's blocks are compiled; "auto" where that pays."""
