"""Real images: judged, and those that are good enough taken into a data set of their own.

An import is a folder: `images/` and `manifest.jsonl` are the data set; `import/` holds the journal of what was
measured, the rejects with their reasons, contact sheets and a summary. Images are taken as they are, byte for byte,
under their hash; what a reader must do to show them right, `urae.data.image` does for every reader alike.

Three steps, each of which goes on where it was stopped: measure every image (in worker processes, each measure
in the journal before the next is asked for), decide by the thresholds, take. Only the first reads pictures; with
other thresholds it has nothing to do.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from urae.data import Record, list_items, read_manifest, write_manifest
from urae.data.formats.items import Item, other_files
from urae.data.image import UNREADABLE_REASONS
from urae.data.journal import Journal
from urae.data.manifest import MANIFEST
from urae.errors import StaleCache
from urae.intake.duplicates import Hashes
from urae.intake.filters import Filters, Reject
from urae.intake.judging import Detector, Judge, measures_of
from urae.intake.sheets import write_sheets
from urae.intake.urls import URL_SUFFIXES, download, not_downloaded
from urae.io import Progress

__all__ = ["Import", "import_images"]

IMAGES, WORK = "images", "import"
OWN = re.compile(rf"{IMAGES}/[0-9a-f]{{2}}/[0-9a-f]{{64}}\.\w+")
"""What an import writes there, and may remove."""


@dataclass(frozen=True, kw_only=True)
class Import:
    """What came of an import."""

    manifest: Path
    records: tuple[Record, ...]
    rejects: tuple[Reject, ...]
    other_files: dict[str, int]
    """Files in the sources that are neither images nor captions: ending -> how many."""
    not_downloaded: dict[str, int]
    """Images of tables of URLs that could not be had: what the server or the network said -> how many."""
    num_measured: int
    """In this run; the others were measured by earlier ones."""
    seconds: float
    """That measuring took, in this run."""

    @property
    def counts(self) -> dict[str, int]:
        """Rejects by reason, most first."""
        return dict(Counter(reject.reason for reject in self.rejects).most_common())


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """An item with its line of the journal, which is empty where it has a problem."""

    item: Item
    line: Mapping[str, Any]


def import_images(
    sources: Iterable[str | Path],
    out: str | Path,
    filters: Filters,
    *,
    workers: int = 1,
    licence: str = "",
    detectors: Mapping[str, Detector] | None = None,
    urls: Mapping[str, str] | None = None,
) -> Import:
    """Take the images of `sources` that pass `filters` into the folder `out`.

    sources: whatever `list_items` reads, and tables of URLs (.parquet, .csv), which img2dataset downloads first;
    `urls` are further options of img2dataset. workers: processes that read and measure. licence: of images whose
    own is not known. detectors: models whose score `filters.detectors` limits, under the same names.

    Stopped at any moment, the same call goes on where it was. With other filters, images that were taken and no
    longer pass are removed from `out`. Raises `ValueError` for sources that are none, `MissingExtra` for a table
    without img2dataset, `StaleCache` for an image that changes meanwhile.
    """
    out, detectors = Path(out), detectors or {}
    _check(filters, detectors, workers)
    _check_own(out)
    paths = _sources(sources, out, urls or {})
    items = [item for path in paths for item in _named(path, licence)]
    judge = Judge(size=filters.size, detectors=detectors, cells=out / WORK / "cells")
    with Journal(out / WORK / "journal.jsonl") as journal:
        started = time.monotonic()
        judged, num_measured = _measured(items, judge, journal, workers)
        seconds = time.monotonic() - started
        taken, rejects = _decided(judged, filters)
        records = _take(taken, out)
    downloads = [path for path in paths if out / WORK in path.parents]
    done = Import(
        manifest=out / MANIFEST,
        records=tuple(records),
        rejects=tuple(rejects),
        other_files=dict(sum((other_files(path) for path in paths if path not in downloads), Counter())),
        not_downloaded=dict(sum((not_downloaded(path) for path in downloads), Counter())),
        num_measured=num_measured,
        seconds=seconds,
    )
    _report(done, judged, filters, out)
    return done


# --- what is to be judged ----------------------------------------------------------------------------------


def _check(filters: Filters, detectors: Mapping[str, Detector], workers: int) -> None:
    if set(filters.detectors) != set(detectors):
        raise ValueError(
            f"filters name the detectors {sorted(filters.detectors)}, given are {sorted(detectors)}: expected the same"
        )
    if workers < 1:
        raise ValueError(f"workers is {workers}: expected 1 (this process) or more")


def _check_own(out: Path) -> None:
    if (out / MANIFEST).exists() and not (out / WORK).is_dir():
        raise ValueError(
            f"{out} holds a data set that no import made, whose manifest would be lost: choose another folder"
        )


def _sources(sources: Iterable[str | Path], out: Path, urls: Mapping[str, str]) -> list[Path]:
    given = [Path(source) for source in sources]
    for path in given:
        inside = out.resolve().is_relative_to(path.resolve()) or path.resolve().is_relative_to(out.resolve())
        if path.is_dir() and inside:
            raise ValueError(f"{out} and {path} lie in each other: choose a folder elsewhere")
    if urls and not any(path.suffix in URL_SUFFIXES for path in given):
        raise ValueError(
            f"options of img2dataset ({', '.join(urls)}) have no effect: no source is a table of URLs"
        )
    return [
        download(path, out / WORK / "downloads", options=urls) if path.suffix in URL_SUFFIXES else path
        for path in given
    ]


def _named(path: Path, licence: str) -> Iterator[Item]:
    """The items of a source, with names that tell sources apart."""
    for item in list_items(path):
        facts = ({"licence": licence} if licence else {}) | item.sidecar.facts
        sidecar = replace(item.sidecar, facts=facts)
        yield replace(item, name=f"{path.as_posix()}/{item.name}", sidecar=sidecar)


# --- measuring ---------------------------------------------------------------------------------------------


def _measured(
    items: Sequence[Item], judge: Judge, journal: Journal, workers: int
) -> tuple[list[_Judged], int]:
    known = {_key(line): line for line in journal.lines}
    waiting = [item for item in items if not item.problem and _item_key(item, judge) not in known]
    done = len(items) - len(waiting)
    with Progress(f"judging {len(items)} images", total=len(items), done=done) as progress:
        for line in _lines(waiting, judge, workers):
            line |= {"time": datetime.now(UTC).isoformat(timespec="seconds")}
            journal.append(line)
            known[_key(line)] = line
            progress.advance(progress.rate("images"))
    return [_Judged(item=item, line=known.get(_item_key(item, judge), {})) for item in items], len(waiting)


def _lines(items: Sequence[Item], judge: Judge, workers: int) -> Iterator[dict[str, Any]]:
    if workers == 1:
        yield from map(judge, items)
        return
    with ProcessPoolExecutor(workers) as pool, closing(pool.map(judge, items, chunksize=2)) as lines:  # type: ignore[type-var]
        yield from lines


def _key(line: Mapping[str, Any]) -> tuple[str, str, str]:
    return line["item"], line["stamp"], line["settings"]


def _item_key(item: Item, judge: Judge) -> tuple[str, str, str]:
    return item.name, item.stamp, judge.settings


# --- deciding ----------------------------------------------------------------------------------------------


def _decided(judged: Sequence[_Judged], filters: Filters) -> tuple[list[_Judged], list[Reject]]:
    rejects = {index: reject for index, one in enumerate(judged) if (reject := _rejected(one, filters))}
    passed = [index for index in range(len(judged)) if index not in rejects]
    rejects |= _duplicates(judged, passed, filters.duplicates)
    taken = [one for index, one in enumerate(judged) if index not in rejects]
    return taken, [rejects[index] for index in sorted(rejects)]


def _rejected(one: _Judged, filters: Filters) -> Reject | None:
    item, line = one.item, one.line
    if item.problem:
        return Reject(name=item.name, reason="sidecar", detail=item.problem)
    if "unreadable" in line:
        said = UNREADABLE_REASONS[line["unreadable"]] + (f" ({line['detail']})" if line["detail"] else "")
        return Reject(name=item.name, reason=line["unreadable"], detail=said)
    return filters.reject(item.name, item.sidecar, measures_of(line), line["scores"])


def _duplicates(judged: Sequence[_Judged], passed: Sequence[int], distance: int) -> dict[int, Reject]:
    """Of pictures that look alike the largest stays, and of those the first."""
    hashes = Hashes(max(distance, 0))
    files: dict[str, str] = {}
    rejects: dict[int, Reject] = {}
    measures = {index: measures_of(judged[index].line) for index in passed}
    for index in sorted(passed, key=lambda index: -measures[index].size[0] * measures[index].size[1]):
        name, digest = judged[index].item.name, judged[index].line["id"]
        near = hashes.nearest(measures[index].hash) if distance >= 0 else None
        if digest in files:
            rejects[index] = Reject(name=name, reason="duplicate", detail=f"the same file as {files[digest]}")
        elif near:
            detail = f"{near[0]} of 64 bits, at most {distance}, from {near[1]}"
            rejects[index] = Reject(name=name, reason="duplicate", detail=detail, value=near[0])
        else:
            files[digest] = name
            hashes.add(measures[index].hash, name)
    return rejects


# --- taking ------------------------------------------------------------------------------------------------


def _take(taken: Sequence[_Judged], out: Path) -> list[Record]:
    wanted = {_file(one): one for one in taken}
    found = (path.relative_to(out).as_posix() for path in (out / IMAGES).rglob("*") if path.is_file())
    here = {file for file in found if OWN.fullmatch(file)}
    for file in here - wanted.keys():
        (out / file).unlink()
    missing = [file for file in wanted if file not in here]
    with Progress(
        f"taking {len(wanted)} images", total=len(wanted), done=len(wanted) - len(missing)
    ) as progress:
        for file in missing:
            _copy(wanted[file], out / file)
            progress.advance()
    records = _records(wanted, out / MANIFEST)
    write_manifest(records, out / MANIFEST)
    return records


def _file(one: _Judged) -> str:
    digest = one.line["id"]
    return f"{IMAGES}/{digest[:2]}/{digest}{one.line['suffix']}"


def _copy(one: _Judged, path: Path) -> None:
    content = one.item.place.read()
    if hashlib.sha256(content).hexdigest() != one.line["id"]:
        raise StaleCache(f"{one.item.name} changed while it was imported: run the import again")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _records(wanted: Mapping[str, _Judged], manifest: Path) -> list[Record]:
    """Captions that were added to the manifest stay."""
    before = {record.id: record for record in read_manifest(manifest)} if _has_records(manifest) else {}
    return [
        Record(
            id=one.line["id"],
            file=file,
            size=measures_of(one.line).size,
            captions=(before[one.line["id"]].captions if one.line["id"] in before else {})
            | one.item.sidecar.captions,
            **{"source": one.item.name, "time": one.line["time"]} | one.item.sidecar.facts,
        )
        for file, one in wanted.items()
    ]


def _has_records(manifest: Path) -> bool:
    return manifest.is_file() and manifest.stat().st_size > 0


# --- telling -----------------------------------------------------------------------------------------------


def _report(done: Import, judged: Sequence[_Judged], filters: Filters, out: Path) -> None:
    work = out / WORK
    _write(
        work / "rejects.jsonl",
        "".join(f"{json.dumps(asdict(r), ensure_ascii=False)}\n" for r in done.rejects),
    )
    ids = {one.item.name: one.line.get("id", "") for one in judged}
    write_sheets(done.rejects, ids, cells=work / "cells", sheets=work / "sheets")
    summary = {
        "filters": asdict(filters),
        "num_images": len(judged),
        "num_taken": len(done.records),
        "rejects": done.counts,
        "other_files": done.other_files,
        "not_downloaded": done.not_downloaded,
    }
    _write(work / "summary.json", json.dumps(summary, indent=2))


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
