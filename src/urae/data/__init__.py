"""Data: records and manifests; collecting, captioning and caching of images; the order of training."""

from urae.data.cache import Cache, Entry, Sample, open_cache
from urae.data.caching import CacheReport, cache, make_cache
from urae.data.caption import Captioned, CaptionPlan, caption, plan_captions
from urae.data.captioner import Captioner
from urae.data.collect import Collection, CollectionPlan, collect, plan_collection
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
