"""Running a model at a size it was not trained for: the policy, frequencies and tables, the shift, sizes and buckets.

What is exported is imported when it is first used: tables need torch, and sizes and the policy itself need nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.resolution.bucketing import buckets, nearest_bucket
    from urae.resolution.embedding import active_policy
    from urae.resolution.policy import ResolutionPolicy
    from urae.resolution.schedule import (
        dynamic_shift,
        near_noise_share,
        own_shift,
        policy_on,
        scheduler_replaced,
        shifted_sigmas,
        warn_dynamic_shift,
        without_policy,
    )
    from urae.resolution.sizes import (
        SIDE,
        Size,
        Snapped,
        check_size,
        native_size,
        num_image_tokens,
        num_tokens,
        pixels_per_token,
        size_named,
        size_scale,
        snap,
        text_tokens,
    )

__getattr__, __dir__, __all__ = lazily(__name__)
