"""A data set on one page: sizes, shapes, captions, licences, what was rejected and why, what it cost, and pictures.

The page is one file without links to others, so it can be sent and kept.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from urae.collecting.orders import accounts_of, read_orders
from urae.data import CAPTION_KINDS, Record, read_records
from urae.intake.filters import REASONS
from urae.intake.importing import WORK
from urae.intake.sheets import sheet_file
from urae.io import check_can_write, field_of, read_json_object, read_picture, tracked, write_text
from urae.pages import data_uri, html_page

__all__ = ["data_summary", "inspect_data"]

BINS = 24
THUMBNAIL = (480, 240)
"""Widest and highest, px: twice what is shown."""


def inspect_data(source: str | Path, out: str | Path, *, num_pictures: int = 24, seed: int = 0) -> Path:
    """Write an HTML page about a folder or manifest to the file `out`, and return its path.

    num_pictures: how many are shown, drawn by `seed`. What an import or a collection left in the same folder, its
    rejects and its cost, is shown too. Raises what `read_records` raises, and `Unreadable` for a picture.
    """
    path = Path(out)
    check_can_write(path)
    records, root = read_records(source, captioned=False)
    page = html_page(
        "urae.intake",
        "inspect.html.j2",
        source=str(source),
        facts=_facts(records, root),
        charts=_charts(records),
        captions=_captions(records),
        tables=_tables(records),
        rejects=_rejects(root / WORK),
        cost=_cost(root),
        pictures=_pictures(records, root, num_pictures, seed),
        num_records=len(records),
    )
    write_text(path, page)
    return path


def data_summary(source: str | Path) -> dict[str, Any]:
    """What the page tells, in JSON types: how many images of which sizes, captions, licences and teachers, what was
    rejected and what a collection spent."""
    records, root = read_records(source, captioned=False)
    rejects = _rejects(root / WORK)
    accounts = accounts_of(read_orders(root / "orders.jsonl")).values()
    return {
        "images": len(records),
        "bytes": sum((root / record.file).stat().st_size for record in records),
        "sizes": {
            f"{w}x{h}": num for (w, h), num in Counter(record.size for record in records).most_common()
        },
        "captions": dict(_captions(records)),
        "licences": dict(Counter(record.licence or "not known" for record in records).most_common()),
        "teachers": dict(Counter(map(_teacher, records)).most_common()),
        "rejects": {row["reason"]: row["count"] for row in rejects.get("rows", [])},
        "spent": sum(account.spent for account in accounts),
    }


def _facts(records: Sequence[Record], root: Path) -> list[tuple[str, str]]:
    megapixels = np.array([width * height for width, height in (r.size for r in records)]) / 1e6
    num_bytes = sum((root / record.file).stat().st_size for record in records)
    return [
        (f"{len(records):,}", "images"),
        (f"{megapixels.sum():,.0f}", "megapixels in all"),
        (f"{np.median(megapixels):.1f}", "megapixels, median"),
        (_bytes(num_bytes), "on disk"),
    ]


def _bytes(num: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num < 1000:
            return f"{num:.3g} {unit}"
        num /= 1000
    return f"{num:,.3g} TB"


def _charts(records: Sequence[Record]) -> list[dict[str, Any]]:
    sizes = np.array([record.size for record in records], dtype=float)
    charts = [
        histogram("Size", np.sqrt(sizes.prod(1)), label="side of a square of the same area, px"),
        histogram("Long side", sizes.max(1), label="px"),
        histogram("Shape", sizes[:, 0] / sizes[:, 1], label="width over height", logarithmic=True),
    ]
    for kind in CAPTION_KINDS:
        lengths = [len(record.captions[kind]) for record in records if kind in record.captions]
        if lengths:
            charts.append(histogram(f"{kind.capitalize()} captions", lengths, label="characters"))
    return charts


def histogram(
    title: str, values: Sequence[float] | np.ndarray, *, label: str, logarithmic: bool = False
) -> dict[str, Any]:
    """How often values fall into 24 bins of equal width, or of equal ratio if `logarithmic`: heights of bars in percent
    of the highest, and the count that this one has; least, median and most."""
    numbers = np.asarray(values, dtype=float)
    counts, _ = np.histogram(np.log(numbers) if logarithmic else numbers, bins=BINS)
    marks = [f"{v:,.0f}" if v >= 100 else f"{v:.3g}" for v in np.quantile(numbers, (0, 0.5, 1))]
    heights = [round(100 * int(count) / int(counts.max()), 1) for count in counts]
    return {"title": title, "label": label, "heights": heights, "most": int(counts.max()), "marks": marks}


def _captions(records: Sequence[Record]) -> list[tuple[str, int]]:
    kinds = Counter(
        " and ".join(kind for kind in CAPTION_KINDS if kind in r.captions) or "none" for r in records
    )
    return kinds.most_common()


def _tables(records: Sequence[Record]) -> list[dict[str, Any]]:
    def table(title: str, values: list[str]) -> dict[str, Any]:
        rows = [
            (name, count, f"{count / len(records):.1%}") for name, count in Counter(values).most_common(20)
        ]
        return {"title": title, "rows": rows}

    return [
        table("Licences", [record.licence or "not known" for record in records]),
        table("Teachers", [_teacher(record) for record in records]),
    ]


def _teacher(record: Record) -> str:
    return (
        str(record.teacher.get("name", "a teacher without a name")) if record.teacher else "none: real images"
    )


def _rejects(work: Path) -> dict[str, Any]:
    """What an import rejected; without one, nothing."""
    name = work / "summary.json"
    if not name.is_file():
        return {}
    summary = read_json_object(name)
    for key in ("passed_over", "not_downloaded"):
        summary.setdefault(key, {})  # which earlier versions lack
    kinds = ("rejects", "filters", "passed_over", "not_downloaded")
    rejects, filters, passed_over, not_downloaded = (field_of(summary, k, dict, name=name) for k in kinds)
    rows = []
    for reason, count in rejects.items():
        shown = base64.b64encode(sheet_file(work / "sheets", reason).read_bytes()).decode()
        said = REASONS[reason.partition(" ")[0]]
        rows.append({"reason": reason, "count": count, "said": said, "sheet": shown})
    return {
        "rows": rows,
        "num_images": summary.get("num_images"),
        "num_taken": summary.get("num_taken"),
        "filters": {name: value for name, value in filters.items() if value not in ([], {})},
        "passed_over": passed_over,
        "not_downloaded": not_downloaded,
    }


def _cost(root: Path) -> dict[str, Any]:
    """What a collection cost; without one, nothing."""
    accounts = accounts_of(read_orders(root / "orders.jsonl")).values()
    if not accounts:
        return {}
    states = Counter(account.state for account in accounts)
    spent = sum(account.spent for account in accounts)
    return {
        "spent": f"{spent:,.2f}",
        "states": states.most_common(),
        "each": f"{spent / max(states['arrived'], 1):.3f}",
    }


def _pictures(records: Sequence[Record], root: Path, num: int, seed: int) -> list[dict[str, Any]]:
    drawn = np.random.default_rng(seed).permutation(len(records))[:num]
    return [_picture(records[index], root) for index in tracked(drawn.tolist(), "reading pictures")]


def _picture(record: Record, root: Path) -> dict[str, Any]:
    image = read_picture(root / record.file)
    image.thumbnail(THUMBNAIL, Image.Resampling.LANCZOS)
    return {
        "shown": data_uri(image, quality=82),
        "size": f"{record.size[0]} x {record.size[1]}",
        "width": image.width // 2,
        "captions": [(kind, record.captions[kind]) for kind in CAPTION_KINDS if kind in record.captions],
        "source": record.source,
    }
