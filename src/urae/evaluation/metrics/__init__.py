"""Every metric, behind one signature, with what it sees of a 2K or 4K picture said beside it.

`METRICS` declares them, `metrics_table` prints the declarations. None needs torchvision, and each takes its weights
from a local path. Numbers of networks that were never trained are not printed.
"""

from urae.evaluation.metrics.declarations import METRICS, metric_named, metrics_table
from urae.evaluation.metrics.detail import detail, relative_detail
from urae.evaluation.metrics.distances import cmmd, frechet, kid
from urae.evaluation.metrics.fidelity import consistency, psnr
from urae.evaluation.metrics.metric import Distance, Metric, Needs, Options, Reader
from urae.evaluation.metrics.repetition import repetition
from urae.evaluation.metrics.seams import grid, stripes
from urae.evaluation.metrics.texture import (
    compression_ratio,
    flatness,
    glcm_entropy,
    glcm_score,
    spectrum_slope,
)
from urae.evaluation.metrics.weights import Weights

__all__ = [
    "METRICS",
    "Distance",
    "Metric",
    "Needs",
    "Options",
    "Reader",
    "Weights",
    "cmmd",
    "compression_ratio",
    "consistency",
    "detail",
    "flatness",
    "frechet",
    "glcm_entropy",
    "glcm_score",
    "grid",
    "kid",
    "metric_named",
    "metrics_table",
    "psnr",
    "relative_detail",
    "repetition",
    "spectrum_slope",
    "stripes",
]
