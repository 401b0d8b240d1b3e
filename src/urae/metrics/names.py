"""The names of the metrics, for whoever only lists or checks them: the metrics themselves need torch."""

from __future__ import annotations

__all__ = ["DEFAULT_METRICS", "METRIC_NAMES"]

DEFAULT_METRICS = ("repetition", "grid", "stripes", "detail", "glcm_score", "compression", "spectrum_slope")
"""What needs nothing but the pictures."""

METRIC_NAMES = (
    "fid",
    "kid",
    "patch_fid",
    "patch_kid",
    "cmmd",
    "lpips",
    "psnr",
    "consistency",
    "clip",
    "pickscore",
    "hps",
    "maniqa",
    "qualiclip",
    "detail",
    "glcm_score",
    "glcm_entropy",
    "compression",
    "flatness",
    "spectrum_slope",
    "repetition",
    "grid",
    "stripes",
    "mini_recognition",
    "mini_alignment",
    "mini_patch_fid",
    "mini_patch_kid",
)
"""The keys of `urae.metrics.METRICS`, in its order."""
