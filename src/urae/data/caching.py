"""Making a cache: captions first, then images, each process its share.

Every file is complete or absent, so a run that was stopped goes on where it was. Under `torchrun` or `accelerate
launch` each process takes its share. Of the text encoders and the VAE only those at work are on the device.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from urae.data.cache_files import Folder, part_name
from urae.data.cache_format import (
    FORMAT,
    Cache,
    Entry,
    Form,
    cache_of,
    header_of,
    identity_of,
    text_digest,
)
from urae.data.checking import check_source
from urae.data.manifest import read_records
from urae.data.pixels import assign_buckets, cropped, named_with_sizes, split_by_size
from urae.data.record import Record
from urae.data.small_form import small
from urae.errors import BadFile, StaleCache, UraeError
from urae.execution import (
    choose_encoding,
    free_bytes,
    gathered,
    in_all,
    on_main,
    placed,
    share,
    text_encoders_placed,
    this_process,
    vae_run,
)
from urae.execution.encoding import FasterWay, encoding_ways
from urae.families import family_of
from urae.io import Progress, check_can_write, decode, locked, read_bytes
from urae.resolution import Size, check_size

__all__ = ["CacheReport", "cache", "make_cache"]

AHEAD = 2
"""Images that are read while one is encoded."""

SEEN_WITHIN = 60.0
"""Seconds until a file that one machine has written is seen by others, as NFS has it."""


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
    trigger: str = "",
) -> CacheReport:
    """Encode the images and captions of a folder or manifest into the folder `out`, and report on it.

    size: side in px of the square whose area the buckets have. encoding: "exact", "tiled", or "auto", which is
    what `out` holds already, or else exact where the memory allows it. form: "full", or "small" for an 8-bit std
    and 8-bit embeddings. memory: bytes for the encoder's activations, at most what is free. device: where to
    encode; "" is where the pipeline's encoders are. verify: read everything that is there and make anew what is
    damaged, or only look at its keys. trigger: put before captions that lack it, and the caption of images without.

    Entries that are there already and belong to this data and pipeline are kept. Images that cannot be read are
    named at the end, in a `BadFile`, when all others are done; the cache is unfinished then. Raises `StaleCache`
    if `out` was made at another size, by other weights or in another form, `ValueError` if all images are too small
    for `size`; a few are left out, and a sentence counts and names them. Waits while another run makes the same cache.
    """
    device = torch.device(device) if device else pipe.vae.device
    # One process looks at data and weights: reading terabytes once is enough.
    records, root, header = on_main(
        lambda: _asked(
            pipe,
            source,
            Path(out),
            size=size,
            encoding=encoding,
            form=form,
            free=min(memory, free_bytes(device)),
            trigger=trigger,
        )
    )
    with _alone(Path(out)):
        started = time.perf_counter()
        plan = on_main(lambda: _planned(records, header, Path(out), free_to_choose=encoding == "auto"))
        in_all(lambda: _check_seen(Path(out)))
        work = _Work(pipe=pipe, plan=plan, root=root, device=device, memory=memory, verify=verify)
        num_embedded = work.embed()
        encoding_started = time.perf_counter()
        num_encoded = work.encode()
        work.finish()
        ended = time.perf_counter()
        on_main(lambda: _folder(plan).write_text("records.jsonl", _lines(plan)))
        return CacheReport(
            cache=plan,
            num_encoded=sum(gathered([num_encoded])),
            num_embedded=sum(gathered([num_embedded])),
            num_bytes=on_main(lambda: _num_bytes(plan)),
            seconds=ended - started,
            encoding_seconds=ended - encoding_started,
        )


def _asked(
    pipe: Any,
    source: str | Path,
    out: Path,
    *,
    size: int,
    encoding: str,
    form: str,
    free: float,
    trigger: str,
) -> tuple[list[Record], Path, dict[str, Any]]:
    """What is to be cached, the folder that its images are relative to, and the cache's header."""
    if form not in get_args(Form):
        raise ValueError(f"form is {form!r}: expected one of {', '.join(get_args(Form))}")
    check_size(size)
    check_source(source, size=size, captioned=not trigger)  # before every image is read
    records, root = read_records(source, captioned=not trigger)
    records = [_triggered(record, trigger) for record in records] if trigger else records
    fitting, too_small = split_by_size(records, size)
    # One small image is no reason to stop before the others, which may be paid for; if none fits, that is an error.
    if fitting and too_small:
        left_out = f"{len(too_small)} of {len(records)} images are left out, being too small for {size} px"
        Progress("", total=0).say(f"{left_out}: {named_with_sizes(too_small)}")
        records = fitting
    buckets = [bucket for _, bucket in assign_buckets(records, size)]
    check_can_write(out, folder=True)
    chosen = choose_encoding(pipe.vae, buckets, asked=encoding, free=free)
    header = {"size": size, "identity": identity_of(pipe), "encoding": chosen}
    return records, root, {**header, "form": form, "source": str(source)}


def _triggered(record: Record, trigger: str) -> Record:
    captions = {
        kind: text if trigger in text.split() else f"{trigger}, {text}"
        for kind, text in record.captions.items()
    }
    return replace(record, captions=captions or {"original": trigger})


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Wait until no other run makes the cache in this folder, and keep others waiting: two trainings that start
    together on new data would encode all of it twice, into each other's files."""
    if not this_process().is_main_process:
        yield  # and waits for the main process at the next step that they do together
        return
    said = f"another run is making {out}: waiting for it"
    with locked(out / "lock", waiting=lambda: Progress("", total=0).say(said)):
        yield


def _planned(records: list[Record], header: dict[str, Any], out: Path, *, free_to_choose: bool) -> Cache:
    """The cache as it will be, its folder claimed for it."""
    there = header_of(Folder(out)) if (out / "cache.json").is_file() else {}
    if free_to_choose:
        header = header | {"encoding": there.get("encoding", header["encoding"])}
    _check_same(out, header, there)
    plan = cache_of(records, Folder(out), header)
    (out / "entries").mkdir(exist_ok=True)
    listed, lines = Folder(out).text("records.jsonl"), _lines(plan)
    # While the list stays as it is, so does the cache for those who read it: damaged entries alone are made anew.
    if listed is not None and listed != lines:
        (out / "records.jsonl").unlink()
    values = {"format": FORMAT, **header, "records": text_digest(lines)}
    Folder(out).write_text("cache.json", json.dumps(values, indent=2))
    return plan


def _check_seen(out: Path) -> None:
    """Raise unless the folder that the main process has claimed is this process's too."""
    until = time.monotonic() + SEEN_WITHIN
    while not (out / "cache.json").is_file():
        if time.monotonic() > until:
            raise UraeError(
                f"{out}, where the first process caches, is not visible here: give data that all machines share"
            )
        time.sleep(1)


def _check_same(out: Path, header: dict[str, Any], there: dict[str, Any]) -> None:
    differing = [
        name for name in ("size", "identity", "encoding", "form") if there and there[name] != header[name]
    ]
    if differing:
        raise StaleCache(
            f"{out} holds a cache with another {' and '.join(differing)} "
            f"({there['size']} px, {there['encoding']}, {there['form']}; asked for {header['size']} px, "
            f"{header['encoding']}, {header['form']}): choose another folder or delete it"
        )


def _lines(made: Cache) -> str:
    return "".join(f"{json.dumps(asdict(entry.record))}\n" for entry in made.entries)


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

    @property
    def name(self) -> str:
        return part_name(self.entry.record.id, self.part)


class _Work:
    """This process's share of a cache, and what could not be done of it."""

    def __init__(
        self, *, pipe: Any, plan: Cache, root: Path, device: torch.device, memory: float, verify: bool
    ) -> None:
        self.pipe, self.plan, self.root, self.device = pipe, plan, root, device
        self.memory, self.verify = memory, verify
        self.family, self.folder = family_of(pipe), _folder(plan)
        self.entries = share(plan.entries)
        self.failures: list[UraeError] = []

    def embed(self) -> int:
        """Embed the captions that are missing; returns their number."""
        missing = self._missing(lambda entry: entry.record.captions)
        with ExitStack() as stack, self._progress("embedding captions", missing) as progress:
            if missing:
                stack.enter_context(text_encoders_placed(self.pipe, self.device))
            for item in missing:
                caption = item.entry.record.captions[item.part]
                embeddings = self.family.text.encode(self.pipe, [caption])
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
            ways = self._ways(missing)
            if self.plan.encoding == "tiled":
                progress.say("encoding in tiles: latents differ a little from those of the whole image")
            for item, pixels in _ahead(self._pixels, missing):
                try:
                    self._write(item, self._posterior(pixels.result(), ways[item.entry.bucket]))
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
        items, there = self._parts(parts), self._there(parts)
        kept = set()
        with self._progress("reading what is there", there if self.verify else []) as progress:
            for item in there:
                if self.folder.holds(item.name, item.entry.keys[item.part], verify=self.verify):
                    kept.add(item.name)
                progress.advance()
        return [item for item in items if item.name not in kept]

    def _parts(self, parts: Callable[[Entry], Any]) -> list[_Part]:
        return [_Part(entry=entry, part=part) for entry in self.entries for part in parts(entry)]

    def _there(self, parts: Callable[[Entry], Any]) -> list[_Part]:
        return [item for item in self._parts(parts) if self.folder.file(item.name).exists()]

    def _pixels(self, item: _Part) -> Tensor:
        record, file = item.entry.record, self.root / item.entry.record.file
        content = read_bytes(file)
        if hashlib.sha256(content).hexdigest() != record.id:
            raise StaleCache(f"{file} is not the image that the manifest names: make the manifest again")
        image = decode(content, name=file)
        if image.size != record.size:
            raise StaleCache(
                f"{file} has {image.width}x{image.height} px, not the {record.size[0]}x{record.size[1]} that the "
                "manifest names: make the manifest again"
            )
        return cropped(image, item.entry.bucket, name=file)

    def _ways(self, missing: list[_Part]) -> dict[Size, FasterWay]:
        free = min(self.memory, free_bytes(self.device))
        # A CPU has no kernels to choose wrongly from, and what it caches is the same to the bit each time.
        num = 1 if self.device.type == "cpu" else None
        return {
            bucket: FasterWay(encoding_ways(self.pipe.vae, bucket, self.plan.encoding, free=free)[:num])
            for bucket in {item.entry.bucket for item in missing}
        }

    def _posterior(self, pixels: Tensor, ways: FasterWay) -> dict[str, Tensor]:
        started = time.perf_counter()
        with vae_run(self.pipe.vae, ways.way):
            posterior = self.family.latents.encode(self.pipe, pixels[None])
        # Stored in the VAE's own type: more bits would hold nothing. Moving them waits for the device.
        found = {name: getattr(posterior, name)[0].to("cpu", self.pipe.vae.dtype) for name in ("mean", "std")}
        ways.took(time.perf_counter() - started)
        return found

    def _write(self, item: _Part, tensors: dict[str, Tensor]) -> None:
        stored = small(tensors) if self.plan.form == "small" else tensors
        self.folder.write_entry(item.name, stored, key=item.entry.keys[item.part])

    def _progress(self, doing: str, items: list[_Part]) -> Progress:
        show = bool(items) and this_process().is_main_process
        return Progress(f"{doing} at {self.plan.size} px", total=len(items), show=show)


def _ahead(load: Callable[[_Part], Tensor], items: Sequence[_Part]) -> Iterator[tuple[_Part, Future[Tensor]]]:
    """The items in their order, each with what `load` makes of it while others are worked on."""
    waiting: deque[tuple[_Part, Future[Tensor]]] = deque()
    with ThreadPoolExecutor(AHEAD) as pool:
        for item in items:
            waiting.append((item, pool.submit(load, item)))
            if len(waiting) > AHEAD:
                yield waiting.popleft()
        yield from waiting
