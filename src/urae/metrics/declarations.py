"""What each metric says of itself: the source of the docs table, and all that a caller needs to know to use one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from typing import Any

from urae.io import Markdown, markdown_table
from urae.metrics.crops import INCEPTION_SIDE, MINI_SIDE
from urae.metrics.detail import detail
from urae.metrics.fidelity import consistency, psnr
from urae.metrics.metric import Metric, Options, Reader, plain
from urae.metrics.repetition import autocorrelation, repetition
from urae.metrics.seams import grid, stripes
from urae.metrics.texture import compression_ratio, flatness, glcm_entropy, glcm_score, spectrum_slope
from urae.metrics.weights import LocalWeights
from urae.statistics.distances import cmmd, frechet, kid
from urae.statistics.table import ARROWS

__all__ = ["DEFAULT_METRICS", "METRICS", "metric_named", "metrics_table"]

DEFAULT_METRICS = ("repetition", "grid", "stripes", "detail", "glcm_score", "compression", "spectrum_slope")
"""What needs nothing but the pictures."""

ENOUGH_PICTURES, ENOUGH_CROPS = 2048, 10_000
"""With fewer rows than its 2,048 dims, the Frechet distance of Inception features is mostly bias."""
INCEPTION = "safetensors file of the FID Inception (inception-2015-12-05)"
CLIP_LARGE = "folder of openai/clip-vit-large-patch14"
CLIP_LARGE_336 = "folder of openai/clip-vit-large-patch14-336"
CLIP_LICENCE = "MIT (the repository; the model's page states none)"
NON_COMMERCIAL = "pyiqa PolyForm Noncommercial; its weights CC BY-NC-SA 4.0"
MINIATURE = "that of urae, which ships them"


@cache
def _network(module: str, opener: str, **settings: Any) -> Callable[[LocalWeights | None, Options], Reader]:
    """How a metric with a network is opened, `settings` telling its kin apart. Its module is imported then: torch takes
    seconds, and `--help` needs none of it."""

    def open_reader(weights: LocalWeights | None, options: Options) -> Reader:
        return getattr(import_module(f"urae.metrics.{module}"), opener)(weights, options, **settings)

    return open_reader


_of_inception = partial(Metric, direction="lower", needs="set", weights=INCEPTION, licence="Apache-2.0")
_of_cmmd = partial(
    Metric,
    direction="lower",
    range="from 0",
    needs="set",
    paper="Jayasumana et al. 2024",
    weights=CLIP_LARGE_336,
    licence=CLIP_LICENCE,
    distance=cmmd,
)
_of_prompt = partial(Metric, direction="higher", needs="prompt", digits=2)
_of_hps = partial(
    _of_prompt,
    range="about 20 to 35",
    sees="the whole picture within 224 px; 77 tokens of the prompt",
    paper="Wu et al. 2023",
    weights="open_clip folder with HPS_v2.1",
    licence="Apache-2.0",
)
_of_pyiqa = partial(
    Metric,
    says="quality without a reference",
    direction="higher",
    range="0 to 1",
    needs="picture",
    weights="torch hub folder with pyiqa's files",
    digits=4,
)
_of_picture = partial(Metric, direction="neither", needs="picture", sees="every pixel")
_of_miniature = partial(Metric, direction="higher", range="0 to 1", licence=MINIATURE)

_ALL = [
    _of_inception(
        name="fid",
        says="distance of two sets of pictures; below 2,048 pictures it is biased and kid stands beside it",
        range="from 0",
        sees="the whole picture at 299 px",
        paper="Heusel et al. 2017; resize of Parmar et al. 2022",
        digits=2,
        open=_network("inception", "open_inception", crops=False),
        distance=frechet,
        enough=ENOUGH_PICTURES,
        beside="kid",
    ),
    _of_inception(
        name="kid",
        says="the same distance without bias",
        range="about 0 and up",
        sees="the whole picture at 299 px",
        paper="Binkowski et al. 2018",
        digits=5,
        open=_network("inception", "open_inception", crops=False),
        distance=kid,
    ),
    _of_inception(
        name="patch_fid",
        says="distance of the native detail of two sets; below 10,000 crops patch_kid stands beside it",
        range="from 0",
        sees="native crops of 299 px, no resize; 8 of them are 17% of 2K and 4% of 4K",
        paper="Heusel et al. 2017 on native crops",
        digits=2,
        open=_network("inception", "open_inception", crops=True),
        distance=frechet,
        crop=INCEPTION_SIDE,
        enough=ENOUGH_CROPS,
        beside="patch_kid",
    ),
    _of_inception(
        name="patch_kid",
        says="the same distance without bias",
        range="about 0 and up",
        sees="native crops of 299 px, no resize",
        paper="Binkowski et al. 2018 on native crops",
        digits=5,
        open=_network("inception", "open_inception", crops=True),
        distance=kid,
        crop=INCEPTION_SIDE,
    ),
    _of_cmmd(
        name="cmmd",
        says="distance of two sets in CLIP's eyes, usable from some hundred pictures",
        sees="the whole picture at 336 px",
        open=_network("clip", "open_cmmd", published=False),
    ),
    _of_cmmd(
        name="cmmd_published",
        says="cmmd as its authors' code has it, which differs for pictures that are not square",
        sees="the middle square at 336 px",
        open=_network("clip", "open_cmmd", published=True),
    ),
    Metric(
        name="lpips",
        says="how unlike its reference each picture looks; between other compositions it is about 0.6 or 0.7",
        direction="lower",
        range="from 0",
        needs="pair",
        sees="the whole picture at full size",
        paper="Zhang et al. 2018",
        weights="safetensors file of trunk and heads",
        licence="heads BSD-2-Clause, trunk torchvision's BSD-3-Clause",
        open=_network("lpips", "open_lpips"),
    ),
    Metric(
        name="psnr",
        says="pixels against those of the reference, dB",
        direction="higher",
        range="up to 58.9",
        needs="pair",
        sees="every pixel",
        digits=2,
        open=plain("psnr", lambda sample: psnr(sample.image, sample.reference)),
    ),
    Metric(
        name="consistency",
        says="whether the picture, reduced, is still its native picture, dB",
        direction="higher",
        range="up to 58.9",
        needs="pair",
        sees="the picture reduced to the native size",
        digits=2,
        open=plain("consistency", lambda sample: consistency(sample.image, sample.reference)),
    ),
    _of_prompt(
        name="clip",
        says="agreement with the prompt: CLIPScore, 100 times the cosine where its paper has 2.5 times",
        range="0 to 100",
        sees="the middle square at 224 px; 77 tokens of the prompt",
        paper="Hessel et al. 2021",
        weights=CLIP_LARGE,
        licence=CLIP_LICENCE,
        open=_network("clip", "open_clip_score"),
    ),
    _of_prompt(
        name="pickscore",
        says="what people would pick for the prompt",
        range="about 18 to 24",
        sees="the middle square at 224 px; 77 tokens of the prompt",
        paper="Kirstain et al. 2023",
        weights="folder of yuvalkirstain/PickScore_v1 with its tokenizer",
        licence="none stated; the CLIP-H that it began from is MIT",
        open=_network("clip", "open_pickscore"),
    ),
    _of_hps(
        name="hps",
        says="what people would prefer for the prompt (HPSv2.1)",
        open=_network("hps", "open_hps", published=False),
    ),
    _of_hps(
        name="hps_published",
        says="hps as its authors' code has it, which cleans prompts first: quotes, ligatures, entities",
        open=_network("hps", "open_hps", published=True),
    ),
    _of_pyiqa(
        name="maniqa",
        sees="20 native crops of 224 px: 24% of 2K, 6% of 4K, never the lowest row",
        paper="Yang et al. 2022",
        licence=NON_COMMERCIAL,
        open=_network("iqa", "open_iqa", name="maniqa"),
    ),
    _of_pyiqa(
        name="qualiclip",
        sees="the whole picture at full size",
        paper="Agnolucci et al. 2024",
        licence=f"{NON_COMMERCIAL}; QualiCLIP CC BY-NC 4.0",
        open=_network("iqa", "open_iqa", name="qualiclip"),
    ),
    _of_picture(
        name="detail",
        says="the finest structure that the size can hold, relative to white",
        range="0 to 1",
        digits=4,
        open=plain("detail", lambda sample: detail(sample.image)),
    ),
    _of_picture(
        name="glcm_score",
        says="busyness of gray levels, bits; noise raises it",
        range="from 0",
        sees="every 64 px tile at full size",
        paper="Zhang et al. 2025 (Diffusion-4K), as its code",
        open=plain("glcm_score", lambda sample: glcm_score(sample.image)),
    ),
    _of_picture(
        name="glcm_entropy",
        says="the same as Haralick's entropy, nats; noise raises it",
        range="0 to 8.3",
        sees="every 64 px tile at full size",
        paper="Haralick et al. 1973",
        open=plain("glcm_entropy", lambda sample: glcm_entropy(sample.image)),
    ),
    _of_picture(
        name="compression",
        says="size over its size as JPEG of quality 95; noise lowers it",
        range="from about 1",
        paper="Zhang et al. 2025 (Diffusion-4K)",
        digits=2,
        open=plain("compression", lambda sample: compression_ratio(sample.image)),
    ),
    _of_picture(
        name="flatness",
        says="share of flat 240 px tiles",
        bounds=(0.0, 1.0),
        range="0 to 1",
        sees="every 240 px tile at full size",
        paper="UltraFlux 2025",
        open=plain("flatness", lambda sample: flatness(sample.image)),
    ),
    _of_picture(
        name="spectrum_slope",
        says="fall of the power spectrum: about -2 for photographs, less where blurred, 0 for noise",
        range="below 0",
        sees="the middle square at full size",
        paper="Field 1987",
        digits=2,
        open=plain("spectrum_slope", lambda sample: spectrum_slope(sample.image)),
    ),
    _of_picture(
        name="repetition",
        says="copies of the picture's parts",
        direction="lower",
        range="0 to 1",
        sees="the whole picture at 64 px",
        open=plain("repetition", lambda sample: repetition(sample.image)),
    ),
    _of_picture(
        name="autocorrelation",
        says="repetition as it was until November 2026: what is alike along a line counts as copies too",
        direction="lower",
        range="0 to 1",
        sees="the whole picture at 64 px",
        open=plain("autocorrelation", lambda sample: autocorrelation(sample.image)),
    ),
    _of_picture(
        name="grid",
        says="a grid of 16 px or a part of it, as tokens leave it; more than the truth has is an artefact",
        range="from 0",
        open=plain("grid", lambda sample: grid(sample.image)),
    ),
    _of_picture(
        name="stripes",
        says="the strongest straight line across the whole picture, gray levels; more than the truth has is a seam",
        range="0 to 510",
        digits=2,
        open=plain("stripes", lambda sample: stripes(sample.image)),
    ),
    _of_miniature(
        name="mini_recognition",
        says="miniature only: certainty that some object is there",
        needs="picture",
        sees="the whole picture at 64 px",
        open=_network("mini", "open_recognition"),
    ),
    _of_miniature(
        name="mini_alignment",
        says="miniature only: share of what the prompt says that is there",
        bounds=(0.0, 1.0),
        needs="prompt",
        sees="the whole picture at 64 px",
        open=_network("mini", "open_alignment"),
    ),
    _of_miniature(
        name="mini_patch_fid",
        says="miniature only: distance of native detail; below 10,000 crops mini_patch_kid stands beside it",
        direction="lower",
        range="from 0",
        needs="set",
        sees="native crops of 64 px",
        paper="as patch_fid",
        digits=4,
        open=_network("mini", "open_patches"),
        distance=frechet,
        crop=MINI_SIDE,
        enough=ENOUGH_CROPS,
        beside="mini_patch_kid",
    ),
    _of_miniature(
        name="mini_patch_kid",
        says="miniature only: the same without bias",
        direction="lower",
        range="about 0 and up",
        needs="set",
        sees="native crops of 64 px",
        paper="as patch_kid",
        digits=5,
        open=_network("mini", "open_patches"),
        distance=kid,
        crop=MINI_SIDE,
    ),
]
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
"""By name, in the order of the docs."""


def metric_named(name: str) -> Metric:
    """One of `METRICS`; `ValueError` for an unknown name."""
    if name not in METRICS:
        raise ValueError(f"there is no metric {name!r}: expected {', '.join(METRICS)}")
    return METRICS[name]


def metrics_table() -> str:
    """The declarations of all metrics as a Markdown table; the page docs/guides/evaluate.md holds it."""
    needs = {"picture": "", "prompt": "prompt", "pair": "its reference", "set": "reference set"}
    rows = [
        [
            Markdown(f"`{metric.name}`"),
            ARROWS[metric.direction],
            metric.says,
            metric.range,
            metric.sees,
            "; ".join(filter(None, [needs[metric.needs], metric.weights])),
            metric.licence,
            metric.paper,
        ]
        for metric in METRICS.values()
    ]
    head = ("metric", "", "says", "range", "sees of a 2K or 4K picture", "needs", "licence", "paper")
    return markdown_table(head, rows) + "\n"
