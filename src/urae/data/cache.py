"""Latents and text embeddings of a data set, computed once.

A cache is a folder: `cache.json` says what it was made with, `entries/<record id>.safetensors` hold each
record's posterior (mean and std of the normalised latents, so that training can sample afresh at each step)
and the text embeddings of its captions, and `records.jsonl`, written last, lists the records: a folder
without it is unfinished.

Each entry carries a key, the hash of all it depends on: the image's bytes, the bucket, the captions, and the
weights of the VAE and the text encoders. An entry with another key is never used: where the same command
would make it anew it is made anew, elsewhere it is a `StaleCache`. Every file is complete or absent, so a
caching run that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from urae.backbones import Backbone, Posterior, backbone_of
from urae.data.image import assign_buckets, load_pixels
from urae.data.manifest import read_manifest, read_records, write_manifest
from urae.data.progress import tracked
from urae.data.record import CAPTION_KINDS, Record, content_hash
from urae.errors import BadFile, StaleCache
from urae.resolution import Size

__all__ = ["Cache", "Entry", "Sample", "cache", "open_cache"]

FORMAT = 1
"""Of the folder; raised when older caches cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What training needs of one record."""

    id: str
    """The record's id."""
    posterior: Posterior
    """Of the normalised latents, (C, H, W), fp32."""
    texts: dict[str, dict[str, Tensor]]
    """Text embeddings without a batch dimension, by kind of caption."""

    def text(self, kind: str) -> dict[str, Tensor]:
        """The embeddings of this kind of caption, or of the other where the record has only one."""
        return self.texts[kind] if kind in self.texts else next(iter(self.texts.values()))


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One record of a cache."""

    record: Record
    bucket: Size
    """Width and height at which it is cached, px."""
    key: str
    """Hash of all that the entry's contents depend on."""


@dataclass(frozen=True, kw_only=True)
class Cache:
    """A complete cache on disk."""

    path: Path
    size: int
    """Side of the square of the buckets' area, px."""
    identity: dict[str, str]
    """Hashes of the weights that made it: "latents" and "text"."""
    entries: tuple[Entry, ...]
    source: str
    """The folder or manifest it was made from."""

    @property
    def digest(self) -> str:
        """Hash of everything in the cache: two caches with the same digest train alike."""
        return _hash([entry.key for entry in self.entries])

    def load(self, entry: Entry) -> Sample:
        """The contents of one entry; a `StaleCache` if the file on disk was made from something else."""
        tensors, key = _read_entry(self._file(entry.record))
        if key != entry.key:
            raise StaleCache(
                f"{self._file(entry.record)} was not made from {entry.record.file} as {self.path} lists it: "
                "delete the cache and make it again"
            )
        return _sample(entry.record.id, tensors)

    def check(self, pipe: Any) -> None:
        """Raise `StaleCache` unless this pipeline's VAE and text encoders made the cache. A pipeline that was
        loaded without text encoders has nothing to compare, and may train on what is cached."""
        for name, identity in _identity(pipe).items():
            if identity and self.identity[name] != identity:
                module = {"latents": "VAE", "text": "text encoders"}[name]
                raise StaleCache(
                    f"{self.path} was cached with another {module} ({self.identity[name][:12]}, not "
                    f"{identity[:12]}): cache the data again with this pipeline"
                )

    def _file(self, record: Record) -> Path:
        return self.path / "entries" / f"{record.id}.safetensors"


def cache(pipe: Any, source: str | Path, out: str | Path, *, size: int) -> Cache:
    """Encode the images and captions of a folder or manifest into the folder `out`, and return the cache.

    size: side in px of the square whose area the buckets have. Entries that are there already and belong to
    this data and pipeline are kept. Raises `StaleCache` if `out` was made at another size or by other
    weights, `ValueError` for images too small, `BadFile` for unreadable ones.
    """
    records, root = read_records(source)
    assigned = assign_buckets(records, size)
    identity = _identity(pipe)
    _claim(Path(out), size=size, identity=identity, source=str(source))
    entries = [
        Entry(record=record, bucket=bucket, key=_key(record, bucket, identity)) for record, bucket in assigned
    ]
    made = Cache(path=Path(out), size=size, identity=identity, entries=tuple(entries), source=str(source))
    for entry in tracked(_missing(made), f"caching {len(entries)} images at {size} px"):
        _make(pipe, backbone_of(pipe), entry, root=root, file=made._file(entry.record))
    write_manifest(records, made.path / "records.jsonl")
    return made


def open_cache(path: str | Path) -> Cache:
    """The cache in this folder. Raises `StaleCache` if it is unfinished, `BadFile` if it is none."""
    path = Path(path)
    header = _header(path)
    if not (path / "records.jsonl").is_file():
        raise StaleCache(f"{path} is unfinished: cache the data again, what is done is kept")
    assigned = assign_buckets(read_manifest(path / "records.jsonl"), header["size"])
    entries = (Entry(record=r, bucket=b, key=_key(r, b, header["identity"])) for r, b in assigned)
    return Cache(path=path, entries=tuple(entries), **header)


# --- what a cache was made with ----------------------------------------------------------------------------


def _identity(pipe: Any) -> dict[str, str]:
    backbone = backbone_of(pipe)
    return {"latents": backbone.latent_identity(pipe), "text": backbone.text_identity(pipe)}


def _key(record: Record, bucket: Size, identity: dict[str, str]) -> str:
    captions = [record.captions.get(kind) for kind in CAPTION_KINDS]
    return _hash([FORMAT, record.id, bucket, captions, identity["latents"], identity["text"]])


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _claim(path: Path, *, size: int, identity: dict[str, str], source: str) -> None:
    header = {"size": size, "identity": identity, "source": source}
    if (path / "cache.json").is_file():
        before = _header(path)
        differing = [name for name in ("size", "identity") if before[name] != header[name]]
        if differing:
            raise StaleCache(
                f"{path} holds a cache with another {' and '.join(differing)} "
                f"({before['size']} px, asked for {size} px): choose another folder or delete it"
            )
    (path / "entries").mkdir(parents=True, exist_ok=True)
    (path / "records.jsonl").unlink(missing_ok=True)
    _write(path / "cache.json", json.dumps({"format": FORMAT, **header}, indent=2))


def _header(path: Path) -> dict[str, Any]:
    try:
        header = json.loads((path / "cache.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadFile(f"{path} is not a cache ({error})") from error
    if header.pop("format", None) != FORMAT:
        raise StaleCache(f"{path} was written by another version of urae: cache the data again")
    return header


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


# --- entries -----------------------------------------------------------------------------------------------


def _missing(made: Cache) -> list[Entry]:
    return [entry for entry in made.entries if _key_on_disk(made._file(entry.record)) != entry.key]


def _key_on_disk(file: Path) -> str | None:
    try:
        with safe_open(file, framework="pt") as opened:
            return (opened.metadata() or {}).get("key")
    except (SafetensorError, FileNotFoundError):
        return None  # made anew, as an entry that is not there


def _make(pipe: Any, backbone: Backbone, entry: Entry, *, root: Path, file: Path) -> None:
    record = entry.record
    if content_hash(root / record.file) != record.id:
        raise StaleCache(
            f"{root / record.file} is not the image that the manifest names: make the manifest again"
        )
    posterior = backbone.encode_images(pipe, load_pixels(root / record.file, entry.bucket)[None])
    # Stored in the VAE's own type: more bits would hold nothing.
    tensors = {"mean": posterior.mean[0].to(pipe.vae.dtype), "std": posterior.std[0].to(pipe.vae.dtype)}
    embeddings = backbone.encode_prompts(pipe, list(record.captions.values()))
    for index, kind in enumerate(record.captions):
        tensors |= {f"{kind}.{name}": tensor[index].clone() for name, tensor in embeddings.items()}
    temporary = file.with_suffix(".tmp")
    save_file(tensors, temporary, metadata={"key": entry.key})
    os.replace(temporary, file)


def _read_entry(file: Path) -> tuple[dict[str, Tensor], str | None]:
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            return {name: opened.get_tensor(name) for name in opened.keys()}, metadata.get("key")  # noqa: SIM118
    except (SafetensorError, FileNotFoundError) as error:
        raise BadFile(f"{file} is missing or damaged ({error}): cache the data again") from error


def _sample(record_id: str, tensors: dict[str, Tensor]) -> Sample:
    texts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, embedding = name.partition(".")
        if embedding:
            texts.setdefault(kind, {})[embedding] = tensor
    posterior = Posterior(mean=tensors["mean"].to(torch.float32), std=tensors["std"].to(torch.float32))
    return Sample(id=record_id, posterior=posterior, texts=texts)
