"""Data: records and manifests; collecting, captioning and caching of images; the order of training.

What is exported is imported when it is first used: caching needs torch and a model, and importing images neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.data.cache_format import Cache, Entry, Sample, open_cache
    from urae.data.caching import CacheReport, cache, make_cache
    from urae.data.captioner import Captioner
    from urae.data.captioning import Captioned, CaptionPlan, caption, plan_captions
    from urae.data.collecting import Collection, CollectionPlan, collect, plan_collection
    from urae.data.dataset import CachedDataset, Source, hold_out
    from urae.data.formats import convert, list_items
    from urae.data.imports import Filters, Import, import_images
    from urae.data.inspect import inspect_data
    from urae.data.manifest import read_manifest, read_records, scan_folder, write_manifest
    from urae.data.progress import Progress, tracked
    from urae.data.prompt_files import read_prompts, shipped_prompts
    from urae.data.record import CAPTION_KINDS, Record
    from urae.data.shards import write_shards
    from urae.data.sources import cached, cached_dataset
    from urae.data.teachers import FluxProUltra, LocalPipeline, OpenAIImages, Teacher

__all__ = [
    "CAPTION_KINDS",
    "Cache",
    "CacheReport",
    "CachedDataset",
    "CaptionPlan",
    "Captioned",
    "Captioner",
    "Collection",
    "CollectionPlan",
    "Entry",
    "Filters",
    "FluxProUltra",
    "Import",
    "LocalPipeline",
    "OpenAIImages",
    "Progress",
    "Record",
    "Sample",
    "Source",
    "Teacher",
    "cache",
    "cached",
    "cached_dataset",
    "caption",
    "collect",
    "convert",
    "hold_out",
    "import_images",
    "inspect_data",
    "list_items",
    "make_cache",
    "open_cache",
    "plan_captions",
    "plan_collection",
    "read_manifest",
    "read_prompts",
    "read_records",
    "scan_folder",
    "shipped_prompts",
    "tracked",
    "write_manifest",
    "write_shards",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "cache_format": ["Cache", "Entry", "Sample", "open_cache"],
        "caching": ["CacheReport", "cache", "make_cache"],
        "captioner": ["Captioner"],
        "captioning": ["Captioned", "CaptionPlan", "caption", "plan_captions"],
        "collecting": ["Collection", "CollectionPlan", "collect", "plan_collection"],
        "dataset": ["CachedDataset", "Source", "hold_out"],
        "formats": ["convert", "list_items"],
        "imports": ["Filters", "Import", "import_images"],
        "inspect": ["inspect_data"],
        "manifest": ["read_manifest", "read_records", "scan_folder", "write_manifest"],
        "progress": ["Progress", "tracked"],
        "prompt_files": ["read_prompts", "shipped_prompts"],
        "record": ["CAPTION_KINDS", "Record"],
        "shards": ["write_shards"],
        "sources": ["cached", "cached_dataset"],
        "teachers": ["FluxProUltra", "LocalPipeline", "OpenAIImages", "Teacher"],
    },
)
