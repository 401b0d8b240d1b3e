"""Real images: examined, and those that are good enough taken into a data set of their own.

An import is a folder: `images/` and `manifest.jsonl` are the data set; `import/` holds the journal of what was
measured, the rejects with their reasons, contact sheets and a summary. Images are taken as they are, byte for byte,
under their hash; what a reader must do to show them right, `urae.io` does for every reader alike.

Three steps, each of which goes on where it was stopped: measure every image (in worker processes, each measure
in the journal before the next is asked for), decide by the thresholds, take. Only the first reads pictures; with
other thresholds it has nothing to do.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

from urae.data import Record, list_images, read_manifest, write_manifest
from urae.data.formats import ListedImage, passed_over
from urae.data.manifest import MANIFEST
from urae.errors import StaleCache
from urae.intake.duplicates import Hashes
from urae.intake.examining import Detector, Examiner, check_line, measures_of
from urae.intake.filters import Filters, Reject
from urae.intake.rows import Rows
from urae.intake.sheets import write_sheets
from urae.intake.urls import URL_SUFFIXES, download, not_downloaded
from urae.io import (
    UNREADABLE_REASONS,
    Journal,
    Progress,
    check_can_write,
    json_line,
    plain,
    remove_leftovers,
    write_bytes,
    write_text,
)

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
    passed_over: dict[str, int]
    """Files in the sources that are no images and belong to none: what they are -> how many."""
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
class _Examined:
    """An image with its line of the journal, which is empty where it has a problem."""

    image: ListedImage
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
    similarity: float = 0.0,
) -> Import:
    """Take the images of `sources` that pass `filters` into the folder `out`.

    sources: whatever `list_images` reads, and tables of URLs (.parquet, .csv), which img2dataset downloads first;
    `urls` are further options of img2dataset, and `similarity` is the least that a table must say of a row. workers:
    processes that read and measure. licence: of images whose own is not known. detectors: models whose score
    `filters.detectors` limits, under the same names.

    Stopped at any moment, the same call goes on where it was. With other filters, images that were taken and no
    longer pass are removed from `out`. Raises `ValueError` for sources that are none, `MissingExtra` for a table
    without img2dataset, `StaleCache` for an image that changes meanwhile.
    """
    out, detectors = Path(out), detectors or {}
    _check(filters, detectors, workers)
    _check_own(out)
    check_can_write(out, folder=True)
    rows = Rows(
        size=filters.size, max_ratio=filters.max_ratio, similarity=similarity, licences=filters.licences
    )
    paths = _sources(sources, out, rows, urls or {})
    images = [image for path in paths for image in _named(path, licence)]
    examiner = Examiner(size=filters.size, detectors=detectors, cells=out / WORK / "cells")
    with Journal(out / WORK / "journal.jsonl") as journal:
        _clear_up(out)
        started = time.monotonic()
        examined, num_measured = _measured(images, examiner, journal, workers)
        seconds = time.monotonic() - started
        taken, rejects = _decided(examined, filters)
        records = _take(taken, out)
    downloads = [path for path in paths if out / WORK in path.parents]
    done = Import(
        manifest=out / MANIFEST,
        records=tuple(records),
        rejects=tuple(rejects),
        passed_over=dict(sum((passed_over(path) for path in paths if path not in downloads), Counter())),
        not_downloaded=dict(sum((not_downloaded(path) for path in downloads), Counter())),
        num_measured=num_measured,
        seconds=seconds,
    )
    _report(done, examined, filters, out)
    return done


# --- what is to be examined ----------------------------------------------------------------------------------


def _check(filters: Filters, detectors: Mapping[str, Detector], workers: int) -> None:
    if set(filters.detectors) != set(detectors):
        raise ValueError(
            f"filters name the detectors {sorted(filters.detectors)}, given are {sorted(detectors)}: expected the same"
        )
    most = 8 * (os.cpu_count() or 1)
    if not 1 <= workers <= most:
        raise ValueError(f"workers is {workers}: expected 1 (this process) to {most}, eight for each core")


def _clear_up(out: Path) -> None:
    """Remove what a killed run left half written."""
    for folder in (out, out / WORK, *(out / IMAGES).glob("*"), *(out / WORK / "cells").glob("*")):
        remove_leftovers(folder)


def _check_own(out: Path) -> None:
    if (out / MANIFEST).exists() and not (out / WORK).is_dir():
        raise ValueError(
            f"{out} holds a data set that no import made, whose manifest would be lost: choose another folder"
        )


def _sources(sources: Iterable[str | Path], out: Path, rows: Rows, urls: Mapping[str, str]) -> list[Path]:
    given = [Path(source) for source in sources]
    for path in given:
        inside = out.resolve().is_relative_to(path.resolve()) or path.resolve().is_relative_to(out.resolve())
        if path.is_dir() and inside:
            raise ValueError(f"{out} and {path} contain one another: choose a folder elsewhere")
    if urls and not any(path.suffix in URL_SUFFIXES for path in given):
        raise ValueError(
            f"options of img2dataset ({', '.join(urls)}) have no effect: no source is a table of URLs"
        )
    if rows.similarity and not any(path.suffix in URL_SUFFIXES for path in given):
        raise ValueError(f"similarity {rows.similarity:g} has no effect: no source is a table of URLs")
    return [
        download(path, out / WORK / "downloads", rows=rows, options=urls)
        if path.suffix in URL_SUFFIXES
        else path
        for path in given
    ]


def _named(path: Path, licence: str) -> Iterator[ListedImage]:
    """The images of a source, with names that tell sources apart."""
    for image in list_images(path):
        facts = ({"licence": licence} if licence else {}) | image.sidecar.facts
        sidecar = replace(image.sidecar, facts=facts)
        yield replace(image, name=f"{plain(path.as_posix())}/{image.name}", sidecar=sidecar)


# --- measuring ---------------------------------------------------------------------------------------------


def _measured(
    images: Sequence[ListedImage], examiner: Examiner, journal: Journal, workers: int
) -> tuple[list[_Examined], int]:
    for number, line in enumerate(journal.lines, start=1):
        check_line(line, name=f"{journal.path}, line {number}")
    known = {_key(line): line for line in journal.lines}
    waiting = [image for image in images if not image.problem and _image_key(image, examiner) not in known]
    done = len(images) - len(waiting)
    with Progress(f"measuring {len(images)} images", total=len(images), done=done) as progress:
        for line in _lines(waiting, examiner, workers):
            line |= {"time": datetime.now(UTC).isoformat(timespec="seconds")}
            journal.append(line)
            known[_key(line)] = line
            progress.advance(progress.rate("images"))
    examined = [_Examined(image=image, line=known.get(_image_key(image, examiner), {})) for image in images]
    return examined, len(waiting)


def _lines(images: Sequence[ListedImage], examiner: Examiner, workers: int) -> Iterator[dict[str, Any]]:
    if workers == 1:
        yield from map(examiner, images)
        return
    with (
        ProcessPoolExecutor(workers, initializer=_obeying_the_main_process) as pool,
        closing(pool.map(examiner, images, chunksize=2)) as lines,  # type: ignore[type-var]
    ):
        yield from lines


def _obeying_the_main_process() -> None:
    """A signal to the whole group is for the main process, which waits for ever where a worker ends by itself; and a
    worker would wait for ever for a main process that was killed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_main_process, daemon=True).start()


def _end_with_the_main_process() -> None:
    main = parent_process()
    assert main is not None, "called in a worker"
    main.join()
    os._exit(1)


def _key(line: Mapping[str, Any]) -> tuple[str, str, str]:
    return line["item"], line["stamp"], line["settings"]


def _image_key(image: ListedImage, examiner: Examiner) -> tuple[str, str, str]:
    return image.name, image.stamp, examiner.settings


# --- deciding ----------------------------------------------------------------------------------------------


def _decided(examined: Sequence[_Examined], filters: Filters) -> tuple[list[_Examined], list[Reject]]:
    rejects = {index: reject for index, one in enumerate(examined) if (reject := _rejected(one, filters))}
    passed = [index for index in range(len(examined)) if index not in rejects]
    rejects |= _duplicates(examined, passed, filters.duplicates)
    taken = [one for index, one in enumerate(examined) if index not in rejects]
    return taken, [rejects[index] for index in sorted(rejects)]


def _rejected(one: _Examined, filters: Filters) -> Reject | None:
    image, line = one.image, one.line
    if image.problem:
        return Reject(name=image.name, reason="sidecar", detail=image.problem)
    if "unreadable" in line:
        said = UNREADABLE_REASONS[line["unreadable"]] + (f" ({line['detail']})" if line["detail"] else "")
        return Reject(name=image.name, reason=line["unreadable"], detail=said)
    return filters.reject(image.name, image.sidecar, measures_of(line), line["scores"])


def _duplicates(examined: Sequence[_Examined], passed: Sequence[int], distance: int) -> dict[int, Reject]:
    """Of pictures that look alike the largest stays, and of those the first."""
    hashes = Hashes(max(distance, 0))
    files: dict[str, str] = {}
    rejects: dict[int, Reject] = {}
    measures = {index: measures_of(examined[index].line) for index in passed}
    for index in sorted(passed, key=lambda index: -measures[index].size[0] * measures[index].size[1]):
        name, digest = examined[index].image.name, examined[index].line["id"]
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


def _take(taken: Sequence[_Examined], out: Path) -> list[Record]:
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


def _file(one: _Examined) -> str:
    digest = one.line["id"]
    return f"{IMAGES}/{digest[:2]}/{digest}{one.line['suffix']}"


def _copy(one: _Examined, path: Path) -> None:
    content = one.image.place.read()
    if hashlib.sha256(content).hexdigest() != one.line["id"]:
        raise StaleCache(f"{one.image.name} changed while it was imported: run the import again")
    write_bytes(path, content, sync=True)


def _records(wanted: Mapping[str, _Examined], manifest: Path) -> list[Record]:
    """Captions that were added to the manifest stay."""
    before = {record.id: record for record in read_manifest(manifest)} if _has_records(manifest) else {}
    return [
        Record(
            id=one.line["id"],
            file=file,
            size=measures_of(one.line).size,
            captions=(before[one.line["id"]].captions if one.line["id"] in before else {})
            | one.image.sidecar.captions,
            **{"source": one.image.name, "time": one.line["time"]} | one.image.sidecar.facts,
        )
        for file, one in wanted.items()
    ]


def _has_records(manifest: Path) -> bool:
    return manifest.is_file() and manifest.stat().st_size > 0


# --- telling -----------------------------------------------------------------------------------------------


def _report(done: Import, examined: Sequence[_Examined], filters: Filters, out: Path) -> None:
    work = out / WORK
    write_text(work / "rejects.jsonl", "".join(json_line(asdict(reject)) for reject in done.rejects))
    ids = {one.image.name: one.line.get("id", "") for one in examined}
    write_sheets(done.rejects, ids, cells=work / "cells", sheets=work / "sheets")
    summary = {
        # JSON has no infinity: a threshold that rejects nothing is left out.
        "filters": {name: value for name, value in asdict(filters).items() if value != math.inf},
        "num_images": len(examined),
        "num_taken": len(done.records),
        "rejects": done.counts,
        "passed_over": done.passed_over,
        "not_downloaded": done.not_downloaded,
    }
    write_text(work / "summary.json", json.dumps(summary, indent=2))
