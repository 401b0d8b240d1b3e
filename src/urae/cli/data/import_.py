"""`urae data import`: real images, judged and taken."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from urae.cli.named import named
from urae.cli.options import Fields
from urae.cli.printed import console, say
from urae.intake import REASONS, Filters, Import, import_images
from urae.io import check_can_write

__all__ = ["import_"]


def import_(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Folders, shards (.tar), manifests (.jsonl), `datasets` folders, tables of URLs (.parquet, .csv)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the data set.")],
    thresholds: Annotated[dict[str, Any], Fields(Filters, without=("captions", "licences"), size=4096)],
    min_caption: Annotated[int, typer.Option(help="Characters; 1 to ask for a caption.")] = 0,
    max_caption: Annotated[int, typer.Option(help="Characters.")] = 10_000,
    allow: Annotated[
        list[str] | None, typer.Option(help="A licence to take; again for more. All by default.")
    ] = None,
    licence: Annotated[str, typer.Option(help="Of images that do not name theirs.")] = "",
    workers: Annotated[int, typer.Option(help="Processes that read and measure.")] = 1,
    similarity: Annotated[
        float, typer.Option(help="Least of picture and caption, by a table of URLs that tells it.")
    ] = 0.0,
    url: Annotated[
        list[str] | None, typer.Option(help="An option of img2dataset as name=value, for tables of URLs.")
    ] = None,
) -> None:
    """Take the images that are good enough into a data set, and show what was rejected and why.

    Stopped at any moment, the same command continues where it was. Other thresholds read no image again.

    Example: urae data import photos --out data/real-4k --size 4096 --workers 8 --licence CC0-1.0
    """
    check_can_write(out, folder=True)
    filters = Filters(captions=(min_caption, max_caption), licences=tuple(allow or ()), **thresholds)
    urls = named(url or [], "option of img2dataset", value="value, such as thread_count=64", read=str)
    done = import_images(
        sources, out, filters, workers=workers, licence=licence, urls=urls, similarity=similarity
    )
    _tell(done, out)


def _tell(done: Import, out: Path) -> None:
    if done.rejects:
        table = Table("rejected", "images", "which", box=None, pad_edge=False)
        for reason, count in done.counts.items():
            table.add_row(reason, str(count), REASONS[reason.partition(" ")[0]])
        console.print(table)
    for what, count in sorted(done.passed_over.items()):
        say(f"passed over: {count} {what}")
    for reason, count in sorted(done.not_downloaded.items()):
        say(f"not downloaded: {count}, {reason}")
    say(f"took {len(done.records)} of {len(done.records) + len(done.rejects)} images into {done.manifest}")
    if done.num_measured:
        rate = done.num_measured / max(done.seconds, 1e-3)
        say(f"measured {done.num_measured} in {done.seconds:.1f} s, {rate:.3g} images/s")
    if done.rejects:
        say(f"rejects: {out / 'import' / 'rejects.jsonl'}, examples: {out / 'import' / 'sheets'}")
    uncaptioned = sum(not record.captions for record in done.records)
    if uncaptioned:
        say(f"next: {uncaptioned} images have no caption: urae data caption {done.manifest} --help")
