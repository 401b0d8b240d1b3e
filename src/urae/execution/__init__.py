"""Where and how a model runs: rounded weights, offloading, kernels, caches, strips of the VAE, several processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.execution.activations import HostCheckpointing
    from urae.execution.attention import attention_for_training
    from urae.execution.budget import free_bytes
    from urae.execution.caches import FirstBlock, Speed, StepCache, TaylorSeer, cache_of, speed_text
    from urae.execution.carrier import Carrier
    from urae.execution.checkpointing import gradient_checkpointing
    from urae.execution.compiling import compiled_blocks, decide_to_compile
    from urae.execution.encoding import choose_encoding, encoding_way
    from urae.execution.memory import MemoryPlan, plan_memory
    from urae.execution.modules import forward_replaced, inputs_changed
    from urae.execution.placement import frozen_base_placed, placed, text_encoders_placed
    from urae.execution.processes import (
        agree,
        first_here,
        from_main_,
        gathered,
        group_of,
        in_all,
        num_groups,
        num_machines,
        on_main,
        share,
        this_process,
    )
    from urae.execution.rounding import check_can_multiply, quantised, stored_as
    from urae.execution.speed import SpeedPlan, plan_speed
    from urae.execution.strips import vae_run
    from urae.execution.token_sharing import TokenSharing, context_group, context_parallel

__getattr__, __dir__, __all__ = lazily(__name__)
