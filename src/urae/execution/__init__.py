"""Where and how a model runs: rounded weights, offloading, kernels, caches, strips of the VAE, several processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.execution.caches import FirstBlock, TaylorSeer
    from urae.execution.context import Context, context_group, context_parallel, num_groups
    from urae.execution.memory import MemoryPlan, plan_memory
    from urae.execution.processes import this_process
    from urae.execution.rounding import quantised
    from urae.execution.sharing import gathered, on_main, share
    from urae.execution.speed import SpeedPlan, plan_speed

__all__ = [
    "Context",
    "FirstBlock",
    "MemoryPlan",
    "SpeedPlan",
    "TaylorSeer",
    "context_group",
    "context_parallel",
    "gathered",
    "num_groups",
    "on_main",
    "plan_memory",
    "plan_speed",
    "quantised",
    "share",
    "this_process",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "caches": ["FirstBlock", "TaylorSeer"],
        "context": ["Context", "context_group", "context_parallel", "num_groups"],
        "memory": ["MemoryPlan", "plan_memory"],
        "processes": ["this_process"],
        "rounding": ["quantised"],
        "sharing": ["gathered", "on_main", "share"],
        "speed": ["SpeedPlan", "plan_speed"],
    },
)
