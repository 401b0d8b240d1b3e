"""Tables of URLs, downloaded by img2dataset into shards.

It is run as a program rather than imported: it pins old packages (pandas below 3, a version of albumentations that
is no longer kept up), so it is best installed in an environment of its own, and its distributors for many machines
(pyspark, ray) are chosen by its own options. What it has downloaded it does not download again.

It follows redirections and resolves names by itself; what can be checked here is that a stranger's table does not name
addresses in the local network.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from urae.errors import MissingExtra, UraeError
from urae.intake.rows import Rows, choose_rows, known_columns, parquet_of
from urae.io import BadAddress, check_public, field_of, file_hash, plain, read_json_object, write_text

__all__ = ["URL_SUFFIXES", "download", "not_downloaded"]

URL_SUFFIXES = (".csv", ".parquet")

COUNTS = "rows.json"
"""What of the table was not worth a download, beside the shards."""
LOCAL = (".local", ".localhost", ".internal", ".lan", ".home.arpa")
"""Ends of names that no public network has."""


def download(table: Path, downloads: Path, *, rows: Rows, options: Mapping[str, str]) -> Path:
    """Download the images of a table, as the servers sent them, into shards in a folder of its own below
    `downloads`, and return that folder.

    The table has a column "url", and may have others that `rows.NAMES` lists, in any case; where it tells sizes,
    similarity or licences, only `rows` that promise enough are downloaded.
    options: of img2dataset, such as {"distributor": "pyspark", "thread_count": "256"}; and "private", which with "yes"
    allows addresses in private networks, else a `ValueError`. Images that cannot be downloaded are not in the shards;
    `not_downloaded` counts them.
    """
    if not table.is_file():
        raise ValueError(f"there is no table {table}")
    program = _program()
    given = dict(options)
    if given.pop("private", "no") != "yes":
        _check_public(table)
    # img2dataset goes by the names of shards: those of another table, or of other rows, it would keep.
    asked = hashlib.sha256(repr(rows).encode()).hexdigest()[:6]
    folder = downloads / f"{table.stem}-{file_hash(table)[:12]}-{asked}"
    chosen = folder / f"rows{table.suffix}"
    if not (folder / COUNTS).is_file():
        write_text(folder / COUNTS, json.dumps(choose_rows(table, chosen, rows)) + "\n")
    arguments = [f"--{name}={value}" for name, value in (_settings(chosen, folder) | given).items()]
    # One of its packages asks the network for a newer version of itself whenever it is imported.
    environment = os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1"}
    finished = subprocess.run([program, *arguments], stdout=sys.stderr, env=environment)
    if finished.returncode:
        raise UraeError(
            f"img2dataset ended with {finished.returncode}: see its messages above, then run again"
        )
    return folder


def not_downloaded(folder: Path) -> Counter[str]:
    """How many images of a table did not come into `folder`, by what the table or img2dataset says of them."""
    left_out = read_json_object(folder / COUNTS) if (folder / COUNTS).is_file() else {}
    found = Counter({reason: field_of(left_out, reason, int, name=folder / COUNTS) for reason in left_out})
    for path in sorted(folder.glob("*_stats.json")):
        counts = field_of(read_json_object(path), "status_dict", dict, name=path)
        found.update({status: field_of(counts, status, int, name=path) for status in counts})
    del found["success"]
    return found


def _settings(table: Path, folder: Path) -> dict[str, Any]:
    columns = known_columns(table)
    kept = [name for name in ("licence", "generated_prompt") if name in columns]
    return {
        "url_list": table,
        "input_format": table.suffix[1:],
        "output_folder": folder,
        "output_format": "webdataset",
        "url_col": "url",
        **({"caption_col": "caption"} if "caption" in columns else {}),
        **({"save_additional_columns": json.dumps(kept)} if kept else {}),
        # Images as they are: another JPEG would be added to each, and what is large is what we want.
        "resize_mode": "no",
        "skip_reencode": True,
        "disable_all_reencoding": True,
        "incremental_mode": "incremental",
        "number_sample_per_shard": 1000,
        "processes_count": os.cpu_count() or 1,
        "enable_wandb": False,
    }


def _check_public(table: Path) -> None:
    private = [url for url in _urls(table) if _is_private(url)]
    if private:
        raise ValueError(
            f"{len(private)} addresses in {table} lead into a private network, such as {plain(private[0][:200])}: "
            "remove them, or allow them with private=yes"
        )


def _urls(table: Path) -> Iterator[str]:
    column = known_columns(table)["url"]
    if table.suffix == ".csv":
        with table.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            yield from (row[column] or "" for row in csv.DictReader(file))
        return
    for batch in parquet_of().ParquetFile(table).iter_batches(columns=[column]):
        yield from (str(value or "") for value in batch.column(0).to_pylist())


def _is_private(url: str) -> bool:
    """By the address as it is written: to resolve the names of millions would take days."""
    host = re.match(r"\s*https?://(?:[^/?#@]*@)?(\[[^\]]*\]|[^/?#:]*)", url, re.IGNORECASE)
    if host is None:
        return False
    name = host[1].rstrip(".").lower()
    if "." in name and not (name.endswith(LOCAL) or re.fullmatch(r"[\dxa-f.:\[\]]+", name)):
        return False
    try:
        check_public(f"http://{name}/")
    except BadAddress:
        return True
    return False


def _program() -> str:
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = shutil.which("img2dataset", path=beside)
    if program is None:
        raise MissingExtra(
            "tables of URLs need img2dataset on the PATH: install it in an environment of its own, "
            "with `pipx install img2dataset` or `uv tool install img2dataset`"
        )
    return program
