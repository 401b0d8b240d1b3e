"""Drawing a picture at the recipe's size on the same GPU: where the model lies, and how long it takes.

The choice is that of `urae generate` on an empty GPU (`urae.execution.memory`), with the first format of the base in
which the weights need not come layer by layer, if there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from urae.execution.choices import BY_ERROR, BaseWeights
from urae.execution.memory import MemoryNeed, MemoryPlan, choose_plan, memory_need
from urae.execution.modules import weight_bytes
from urae.execution.rounding import quantised_bytes
from urae.families import Architecture
from urae.planning.compute import Tokens, Trained, step_work
from urae.planning.gpus import Gpu
from urae.planning.host import SHARE
from urae.planning.memory import empty
from urae.resolution import num_image_tokens, text_tokens
from urae.training import Recipe
from urae.training.samples import has_negative

__all__ = ["DrawingNeeds", "drawing"]


@dataclass(frozen=True, kw_only=True)
class DrawingNeeds:
    """One picture of the recipe's size, in its `sample_steps`."""

    memory: MemoryPlan
    base_weights: BaseWeights
    """Fewer bits only where the weights would else come one layer at a time."""
    fits: bool
    seconds: float

    @property
    def options(self) -> str:
        """Of `urae generate`; empty where it chooses the same by itself."""
        return "" if self.base_weights == "as_loaded" else f"--base-weights {self.base_weights}"


def drawing(
    architecture: Architecture, trained: Trained, recipe: Recipe, gpu: Gpu, rate: float
) -> DrawingNeeds:
    """How this GPU, with nothing else on it, draws with the recipe's model; `rate` in operations a second."""
    free = int(empty(gpu))
    ways = [(kind, need, choose_plan(need, free=free)) for kind, need in _needs(architecture, recipe)]
    kind, need, memory = next((way for way in ways if way[2].offload != "sequential"), ways[0])
    calls = recipe.sample_steps * (2 if has_negative(architecture, recipe) else 1)
    tokens = Tokens(image=num_image_tokens(architecture, recipe.size), text=text_tokens(architecture))
    moved = {"none": 0, "model": 1, "sequential": calls}[memory.offload] * need.weights
    return DrawingNeeds(
        memory=memory,
        base_weights=kind,
        fits=need.of(memory.offload, memory.decode) <= free,
        seconds=calls * step_work(trained, tokens, False).forward / rate + moved / (SHARE * gpu.link * 1e9),
    )


def _needs(architecture: Architecture, recipe: Recipe) -> Iterator[tuple[BaseWeights, MemoryNeed]]:
    """By how the transformer's matrices are stored, the most exact way first."""
    parts, whole = memory_need(architecture, (recipe.size, recipe.size)), architecture.transformer
    stored: dict[BaseWeights, int] = {"as_loaded": weight_bytes(whole)}
    stored |= {kind: quantised_bytes(whole, kind) for kind in BY_ERROR}
    encoders = architecture.encoder_bytes
    for kind, num in stored.items():
        yield kind, replace(parts, weights=parts.vae + encoders + num, largest_part=max(num, encoders))
