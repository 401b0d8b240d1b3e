"""Measuring pictures: each metric and what it can see at 2K and 4K, kept features, prompts and pictures matched.

    table = evaluate({"ours": "out/ours", "base": "out/base"}, metrics=("repetition", "patch_fid"), against="real")

`METRICS` declares the metrics, `metrics_table` prints the declarations. None needs torchvision, and each takes its
weights from a local path. Numbers of networks that were never trained are not printed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.metrics.declarations import DEFAULT_METRICS, METRICS, metric_named, metrics_table
    from urae.metrics.detail import relative_detail
    from urae.metrics.fidelity import consistency, psnr
    from urae.metrics.measure import EvaluationPlan, EvaluationRequest, evaluate, plan_evaluation
    from urae.metrics.metric import Distance, Metric, Needs, Options, Reader
    from urae.metrics.seams import grid, stripes
    from urae.metrics.texture import compression_ratio, flatness, glcm_entropy, glcm_score, spectrum_slope
    from urae.metrics.weights import LocalWeights

__getattr__, __dir__, __all__ = lazily(__name__)
