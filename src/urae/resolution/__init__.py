"""Running a model at a size it was not trained for: the policy, token counts, sizes and buckets.

What is exported is imported when it is first used: the policy needs diffusers, and sizes need nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.resolution.bucketing import buckets, nearest_bucket
    from urae.resolution.policy import ResolutionPolicy, active_policy, without_policy
    from urae.resolution.schedule import (
        dynamic_shift,
        near_noise_share,
        scheduler_replaced,
        shifted_sigmas,
        warn_dynamic_shift,
    )
    from urae.resolution.sizes import (
        PIXELS_PER_TOKEN,
        Pipeline,
        Size,
        Snapped,
        check_size,
        native_size,
        num_image_tokens,
        size_scale,
        snap,
        text_tokens,
    )

__all__ = [
    "PIXELS_PER_TOKEN",
    "Pipeline",
    "ResolutionPolicy",
    "Size",
    "Snapped",
    "active_policy",
    "buckets",
    "check_size",
    "dynamic_shift",
    "native_size",
    "near_noise_share",
    "nearest_bucket",
    "num_image_tokens",
    "scheduler_replaced",
    "shifted_sigmas",
    "size_scale",
    "snap",
    "text_tokens",
    "warn_dynamic_shift",
    "without_policy",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "bucketing": ["buckets", "nearest_bucket"],
        "policy": ["ResolutionPolicy", "active_policy", "without_policy"],
        "schedule": [
            "dynamic_shift",
            "near_noise_share",
            "scheduler_replaced",
            "shifted_sigmas",
            "warn_dynamic_shift",
        ],
        "sizes": [
            "PIXELS_PER_TOKEN",
            "Pipeline",
            "Size",
            "Snapped",
            "check_size",
            "native_size",
            "num_image_tokens",
            "size_scale",
            "snap",
            "text_tokens",
        ],
    },
)
