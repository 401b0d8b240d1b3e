"""`urae data import`: real images, judged and taken."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from urae.intake import REASONS, Filters, Import, import_images

__all__ = ["import_"]

console = Console(highlight=False, soft_wrap=True)


def import_(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Folders, shards (.tar), manifests (.jsonl), `datasets` folders, tables of URLs (.parquet, .csv)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the data set.")],
    size: Annotated[
        int, typer.Option(help="To train at, px: an image must cover its bucket unenlarged.")
    ] = 4096,
    max_ratio: Annotated[float, typer.Option(help="Most of the long side over the short one.")] = 2.5,
    sharpness: Annotated[float, typer.Option(help="Least; 0 to keep blurred and enlarged images.")] = 0.125,
    flatness: Annotated[float, typer.Option(help="Most of the picture with nothing to see, 0 to 1.")] = 0.9,
    entropy: Annotated[float, typer.Option(help="Least of the grey levels, bits, 0 to 8.")] = 3.0,
    blockiness: Annotated[float, typer.Option(help="Most of JPEG's blocks; 1 is none.")] = 3.5,
    duplicates: Annotated[
        int, typer.Option(help="Bits of 64 in which hashes of the same picture may differ; -1 keeps all.")
    ] = 6,
    min_caption: Annotated[int, typer.Option(help="Characters; 1 to ask for a caption.")] = 0,
    max_caption: Annotated[int, typer.Option(help="Characters.")] = 10_000,
    allow: Annotated[
        list[str] | None, typer.Option(help="A licence to take; again for more. All by default.")
    ] = None,
    licence: Annotated[str, typer.Option(help="Of images that do not name theirs.")] = "",
    workers: Annotated[int, typer.Option(help="Processes that read and measure.")] = 1,
    url: Annotated[
        list[str] | None, typer.Option(help="An option of img2dataset as name=value, for tables of URLs.")
    ] = None,
) -> None:
    """Take the images that are good enough into a data set, and show what was rejected and why.

    Stopped at any moment, the same command goes on where it was. Other thresholds read no image again.

    Example: urae data import photos --out data/real-4k --size 4096 --workers 8 --licence CC0-1.0
    """
    filters = Filters(
        size=size,
        max_ratio=max_ratio,
        captions=(min_caption, max_caption),
        licences=tuple(allow or ()),
        entropy=entropy,
        flatness=flatness,
        sharpness=sharpness,
        blockiness=blockiness,
        duplicates=duplicates,
    )
    done = import_images(sources, out, filters, workers=workers, licence=licence, urls=_options(url or []))
    _tell(done, out)


def _options(changes: list[str]) -> dict[str, str]:
    pairs = [change.partition("=") for change in changes]
    for change, (name, equals, _) in zip(changes, pairs, strict=True):
        if not (name and equals):
            raise ValueError(
                f"{change!r} is no option of img2dataset: expected name=value, such as thread_count=64"
            )
    return {name: value for name, _, value in pairs}


def _tell(done: Import, out: Path) -> None:
    if done.rejects:
        table = Table("rejected", "images", "which", box=None, pad_edge=False)
        for reason, count in done.counts.items():
            table.add_row(reason, str(count), REASONS[reason.partition(" ")[0]])
        console.print(table)
    for what, count in sorted(done.passed_over.items()):
        console.print(f"passed over: {count} {what}", markup=False)
    for reason, count in sorted(done.not_downloaded.items()):
        console.print(f"not downloaded: {count}, {reason}", markup=False)
    console.print(
        f"took {len(done.records)} of {len(done.records) + len(done.rejects)} images into {done.manifest}"
    )
    if done.num_measured:
        rate = done.num_measured / max(done.seconds, 1e-3)
        console.print(f"measured {done.num_measured} in {done.seconds:.1f} s, {rate:.3g} images/s")
    if done.rejects:
        console.print(f"rejects: {out / 'import' / 'rejects.jsonl'}, examples: {out / 'import' / 'sheets'}")
    uncaptioned = sum(not record.captions for record in done.records)
    if uncaptioned:
        console.print(f"next: {uncaptioned} images have no caption: urae data caption {done.manifest} --help")
