"""Latents and text embeddings of a data set, computed once.

A cache is a folder: `cache.json` says what it was made with; `entries/` holds of each record its posterior
(mean and std of the normalised latents, so that training can sample afresh at each step) and the embeddings of
each of its captions, a file each; and `records.jsonl`, written last, lists the records: a folder without it is
unfinished.

Each file carries a key, the hash of all it depends on: for latents the image's bytes, the crop, the bucket, the
VAE's weights and type, and how it encoded; for a caption its words and the text encoders' weights and type. A
file with another key is never used: where the same command would make it anew it is made anew, elsewhere it is
a `StaleCache`. It also carries a checksum, so that a damaged file is found and made anew.

Every file is complete or absent, so a caching run that was stopped goes on where it was. Under `torchrun` or
`accelerate launch` each process takes its share. Captions come first, then images, and of the text encoders and
the VAE only those at work are on the device.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from accelerate import PartialState
from torch import Tensor

from urae.backbones import Posterior, backbone_of
from urae.data.compact import restored, small
from urae.data.encode import Encoding, choose_encoding, free_memory, plan_encoding
from urae.data.image import assign_buckets, load_pixels
from urae.data.manifest import read_records
from urae.data.placement import placed
from urae.data.processes import gathered, on_main, share
from urae.data.progress import Progress
from urae.data.record import Record, content_hash
from urae.data.shards import open_store
from urae.data.store import Folder, Store, parsed, part_name, serialized
from urae.errors import BadFile, StaleCache, UraeError
from urae.resolution import Size, check_size

__all__ = ["Cache", "CacheReport", "Entry", "Form", "Sample", "cache", "make_cache", "open_cache"]

FORMAT = 2
"""Of the folder; raised when older caches cannot be read."""

CROP = "upright, RGB, resized by Lanczos to cover, cropped to the middle"
"""What `load_pixels` does: part of the key of latents."""

AHEAD = 2
"""Images that are read while one is encoded."""

Form = Literal["full", "small"]
"""How tensors are stored: in the types of the VAE and the text encoders, or see `urae.data.compact`."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What training needs of one record."""

    id: str
    """The record's id."""
    posterior: Posterior
    """Of the normalised latents, (C, H, W), fp32."""
    text: dict[str, Tensor]
    """Embeddings of one of its captions, without a batch dimension."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One record of a cache."""

    record: Record
    bucket: Size
    """Width and height at which it is cached, px."""
    keys: dict[str, str]
    """By part, which is "latents" or a kind of caption: hash of all that the part's contents depend on."""


@dataclass(frozen=True, kw_only=True)
class Cache:
    """A complete cache, in a folder or in shards."""

    store: Store
    size: int
    """Side of the square of the buckets' area, px."""
    identity: dict[str, str]
    """Hashes of the weights that made it: "latents" and "text"."""
    encoding: Encoding
    """"exact", or "tiled" where the VAE encoded in tiles."""
    form: Form
    """"full", or "small" for 8-bit std and embeddings."""
    entries: tuple[Entry, ...]
    source: str
    """The folder or manifest it was made from."""

    @property
    def path(self) -> str | Path:
        """The folder, or the URL of the shards."""
        return self.store.path

    @property
    def digest(self) -> str:
        """Hash of everything in the cache: two caches with the same digest train alike."""
        return _hash([entry.keys for entry in self.entries])

    def load(self, entry: Entry, caption: str = "detailed") -> Sample:
        """One entry with its caption of this kind, or with the other where the record has only one.

        Raises `BadFile` for a missing or damaged file, `StaleCache` for one that was made from something else.
        """
        kind = caption if caption in entry.keys else next(iter(entry.record.captions))
        latents = restored(self._part(entry, "latents"))
        posterior = Posterior(mean=latents["mean"].to(torch.float32), std=latents["std"].to(torch.float32))
        return Sample(id=entry.record.id, posterior=posterior, text=restored(self._part(entry, kind)))

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

    def _part(self, entry: Entry, part: str) -> dict[str, Tensor]:
        name = part_name(entry.record.id, part)
        tensors, key = parsed(self.store.entry(name), f"{name} in {self.path}")
        if key != entry.keys[part]:
            raise StaleCache(
                f"{name} was not made from {entry.record.file} as {self.path} lists it: "
                "delete the cache and make it again"
            )
        return tensors


@dataclass(frozen=True, kw_only=True)
class CacheReport:
    """A cache, and what making it took."""

    cache: Cache
    num_encoded: int
    """Images that were encoded; the others were there."""
    num_embedded: int
    """Captions that were embedded; the others were there."""
    num_bytes: int
    """On disk, the whole cache."""
    seconds: float
    """In all, with the check of what was there."""
    encoding_seconds: float
    """Of the images alone."""

    @property
    def images_per_second(self) -> float:
        """Of all processes together, while images were encoded."""
        return self.num_encoded / self.encoding_seconds

    def __str__(self) -> str:
        num = len(self.cache.entries)
        lines = [
            f"{num} images at {self.cache.size} px, {self.num_bytes / 1e6:,.1f} MB in all, "
            f"{self.num_bytes / num / 1e6:.3f} MB an image",
            f"encoded {self.num_encoded} images ({self.cache.encoding}) and embedded {self.num_embedded} captions "
            f"in {self.seconds:.1f} s; the rest was there",
        ]
        if self.num_encoded:
            lines.append(f"{self.images_per_second:.2f} images/s while encoding")
        return "\n".join(lines)


def cache(pipe: Any, source: str | Path, out: str | Path, **options: Any) -> Cache:
    """Encode the images and captions of a folder or manifest into the folder `out`, and return the cache;
    options and errors as of `make_cache`."""
    return make_cache(pipe, source, out, **options).cache


def make_cache(
    pipe: Any,
    source: str | Path,
    out: str | Path,
    *,
    size: int,
    encoding: str = "auto",
    form: str = "full",
    memory: float = math.inf,
    device: torch.device | str = "",
    verify: bool = True,
) -> CacheReport:
    """Encode the images and captions of a folder or manifest into the folder `out`, and report on it.

    size: side in px of the square whose area the buckets have. encoding: "exact", "tiled", or "auto", which is
    what `out` holds already, or else exact where the memory allows it. form: "full", or "small" for an 8-bit std
    and 8-bit embeddings. memory: bytes for the encoder's activations, at most what is free. device: where to
    encode; "" is where the pipeline's encoders are. verify: read everything that is there and make anew what is
    damaged, or only look at its keys.

    Entries that are there already and belong to this data and pipeline are kept. Images that cannot be read are
    named at the end, in a `BadFile`, when all others are done; the cache is unfinished then. Raises `StaleCache`
    if `out` was made at another size, by other weights or in another form, `ValueError` for images too small.
    """
    started = time.perf_counter()
    device = torch.device(device) if device else pipe.vae.device
    # One process looks at data and weights: reading terabytes once is enough.
    plan, root = on_main(
        lambda: _planned(
            pipe,
            source,
            Path(out),
            size=size,
            asked=encoding,
            form=form,
            free=min(memory, free_memory(device)),
        )
    )
    work = _Work(pipe=pipe, plan=plan, root=root, device=device, memory=memory, verify=verify)
    num_embedded = work.embed()
    encoding_started = time.perf_counter()
    num_encoded = work.encode()
    work.finish()
    ended = time.perf_counter()
    on_main(lambda: _write_records(plan))
    return CacheReport(
        cache=plan,
        num_encoded=sum(gathered([num_encoded])),
        num_embedded=sum(gathered([num_embedded])),
        num_bytes=on_main(lambda: _num_bytes(plan)),
        seconds=ended - started,
        encoding_seconds=ended - encoding_started,
    )


def open_cache(path: str | Path) -> Cache:
    """The cache in this folder, or in the shards at this URL. Raises `StaleCache` if it is unfinished, `BadFile`
    if it is none."""
    store = open_store(path)
    header = _header(store)
    try:
        lines = store.text("records.jsonl").splitlines()
    except FileNotFoundError as error:
        raise StaleCache(f"{path} is unfinished: cache the data again, what is done is kept") from error
    records = [Record.from_dict(json.loads(line)) for line in lines]
    return _cache_of(records, store, header)


# --- what a cache is made of -------------------------------------------------------------------------------


def _planned(
    pipe: Any, source: str | Path, out: Path, *, size: int, asked: str, form: str, free: float
) -> tuple[Cache, Path]:
    """The cache as it will be, its folder claimed for it, and the folder that its images are relative to."""
    if form not in get_args(Form):
        raise ValueError(f"form is {form!r}: expected one of {', '.join(get_args(Form))}")
    check_size(size)
    records, root = read_records(source)
    buckets = [bucket for _, bucket in assign_buckets(records, size)]
    there = _header(Folder(out)) if (out / "cache.json").is_file() else {}
    encoding = choose_encoding(pipe.vae, buckets, asked=asked, free=free)
    if asked == "auto":
        encoding = there.get("encoding", encoding)
    header = {
        "size": size,
        "identity": _identity(pipe),
        "encoding": encoding,
        "form": form,
        "source": str(source),
    }
    _claim(out, header, there)
    return _cache_of(records, Folder(out), header), root


def _cache_of(records: Sequence[Record], store: Store, header: dict[str, Any]) -> Cache:
    entries = (
        Entry(record=record, bucket=bucket, keys=_keys(record, bucket, header))
        for record, bucket in assign_buckets(records, header["size"])
    )
    return Cache(store=store, entries=tuple(entries), **header)


def _identity(pipe: Any) -> dict[str, str]:
    backbone = backbone_of(pipe)
    return {"latents": backbone.latent_identity(pipe), "text": backbone.text_identity(pipe)}


def _keys(record: Record, bucket: Size, header: dict[str, Any]) -> dict[str, str]:
    identity, form = header["identity"], header["form"]
    latents = [record.id, CROP, bucket, identity["latents"], header["encoding"]]
    texts = {
        kind: _hash([FORMAT, caption, identity["text"], form]) for kind, caption in record.captions.items()
    }
    return {"latents": _hash([FORMAT, *latents, form]), **texts}


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _claim(out: Path, header: dict[str, Any], there: dict[str, Any]) -> None:
    differing = [
        name for name in ("size", "identity", "encoding", "form") if there and there[name] != header[name]
    ]
    if differing:
        raise StaleCache(
            f"{out} holds a cache with another {' and '.join(differing)} "
            f"({there['size']} px, {there['encoding']}, {there['form']}; asked for {header['size']} px, "
            f"{header['encoding']}, {header['form']}): choose another folder or delete it"
        )
    (out / "entries").mkdir(parents=True, exist_ok=True)
    (out / "records.jsonl").unlink(missing_ok=True)
    Folder(out).write_text("cache.json", json.dumps({"format": FORMAT, **header}, indent=2))


def _header(store: Store) -> dict[str, Any]:
    try:
        header = json.loads(store.text("cache.json"))
    except (OSError, ValueError) as error:
        raise BadFile(f"{store.path} is not a cache ({error})") from error
    if header.pop("format", None) != FORMAT:
        raise StaleCache(f"{store.path} was written by another version of urae: cache the data again")
    return header


def _write_records(made: Cache) -> None:
    lines = (json.dumps(asdict(entry.record), ensure_ascii=False) for entry in made.entries)
    _folder(made).write_text("records.jsonl", "".join(f"{line}\n" for line in lines))


def _num_bytes(made: Cache) -> int:
    names = (part_name(entry.record.id, part) for entry in made.entries for part in entry.keys)
    return sum(_folder(made).file(name).stat().st_size for name in names)


def _folder(made: Cache) -> Folder:
    assert isinstance(made.store, Folder)
    return made.store


# --- making it ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A file to be made."""

    entry: Entry
    part: str


class _Work:
    """This process's share of a cache, and what could not be done of it."""

    def __init__(
        self, *, pipe: Any, plan: Cache, root: Path, device: torch.device, memory: float, verify: bool
    ) -> None:
        self.pipe, self.plan, self.root, self.device = pipe, plan, root, device
        self.memory, self.verify = memory, verify
        self.backbone, self.folder = backbone_of(pipe), _folder(plan)
        self.entries = share(plan.entries)
        self.failures: list[UraeError] = []

    def embed(self) -> int:
        """Embed the captions that are missing; returns their number."""
        missing = self._missing(lambda entry: entry.record.captions)
        with ExitStack() as stack, self._progress("embedding captions", missing) as progress:
            for name, part in self.pipe.components.items():
                if missing and name.startswith("text_encoder"):
                    stack.enter_context(placed(part, self.device))
            for item in missing:
                caption = item.entry.record.captions[item.part]
                embeddings = self.backbone.encode_prompts(self.pipe, [caption])
                self._write(item, {name: tensor[0] for name, tensor in embeddings.items()})
                progress.advance(progress.rate("captions"))
        return len(missing)

    def encode(self) -> int:
        """Encode the images that are missing; returns the number of those that could be."""
        missing = self._missing(lambda entry: ["latents"])
        num_failed = len(self.failures)
        with ExitStack() as stack, self._progress("encoding images", missing) as progress:
            if missing:
                stack.enter_context(placed(self.pipe.vae, self.device))
            free = min(self.memory, free_memory(self.device))
            if self.plan.encoding == "tiled":
                progress.say("encoding in tiles: latents differ a little from those of the whole image")
            for item, pixels in _ahead(self._pixels, missing):
                try:
                    self._write(item, self._posterior(pixels.result(), item.entry.bucket, free))
                except (BadFile, StaleCache) as error:
                    self.failures.append(error)
                progress.advance(progress.rate("images"))
        return len(missing) - (len(self.failures) - num_failed)

    def finish(self) -> None:
        """Wait for the other processes, and raise what went wrong in any."""
        failures = gathered(self.failures)
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise BadFile(
                f"{len(failures)} of {len(self.plan.entries)} images could not be cached; the others are done and "
                "kept: " + "; ".join(str(failure) for failure in failures)
            )

    def _missing(self, parts: Callable[[Entry], Any]) -> list[_Part]:
        candidates = [_Part(entry=entry, part=part) for entry in self.entries for part in parts(entry)]
        return [item for item in candidates if not self._holds(item)]

    def _holds(self, item: _Part) -> bool:
        name = part_name(item.entry.record.id, item.part)
        return self.folder.holds(name, item.entry.keys[item.part], verify=self.verify)

    def _pixels(self, item: _Part) -> Tensor:
        file = self.root / item.entry.record.file
        if content_hash(file) != item.entry.record.id:
            raise StaleCache(f"{file} is not the image that the manifest names: make the manifest again")
        return load_pixels(file, item.entry.bucket)

    def _posterior(self, pixels: Tensor, bucket: Size, free: float) -> dict[str, Tensor]:
        vae = self.pipe.vae
        with plan_encoding(vae, bucket, self.plan.encoding, free=free).on(vae):
            posterior = self.backbone.encode_images(self.pipe, pixels[None])
        # Stored in the VAE's own type: more bits would hold nothing.
        return {"mean": posterior.mean[0].to(vae.dtype), "std": posterior.std[0].to(vae.dtype)}

    def _write(self, item: _Part, tensors: dict[str, Tensor]) -> None:
        stored = small(tensors) if self.plan.form == "small" else tensors
        data = serialized(stored, key=item.entry.keys[item.part])
        self.folder.write_entry(part_name(item.entry.record.id, item.part), data)

    def _progress(self, doing: str, missing: list[_Part]) -> Progress:
        show = bool(missing) and PartialState().is_main_process
        return Progress(f"{doing} at {self.plan.size} px", total=len(missing), show=show)


def _ahead(load: Callable[[_Part], Tensor], items: Sequence[_Part]) -> Iterator[tuple[_Part, Future[Tensor]]]:
    """The items in their order, each with what `load` makes of it while others are worked on."""
    waiting: deque[tuple[_Part, Future[Tensor]]] = deque()
    with ThreadPoolExecutor(AHEAD) as pool:
        for item in items:
            waiting.append((item, pool.submit(load, item)))
            if len(waiting) > AHEAD:
                yield waiting.popleft()
        yield from waiting
