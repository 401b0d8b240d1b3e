"""What every benchmark's result says beside its numbers, and how it is written."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def conditions(benchmark: str, **settings: Any) -> dict[str, Any]:
    """Where, when and from which commit a benchmark ran, and its `settings`."""
    return {
        "benchmark": benchmark,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{machine()}, {os.cpu_count()} cores, {platform.system()}",
        "commit": commit(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
        **settings,
    }


def commit() -> str:
    """Short name of the commit that is checked out; "unknown" in a copy of the files without git."""
    command = ["git", "-C", str(RESULTS.parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> str:
    """The GPU's name, or the processor's kind where there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()


def write(path: Path, result: dict[str, Any] | str) -> None:
    """Write `result` whole or not at all: a text as it is, anything else as JSON; and say where it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(result if isinstance(result, str) else json.dumps(result, indent=1) + "\n")
    os.replace(temporary, path)
    print(path)
