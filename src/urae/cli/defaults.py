"""What a user always says, in a file: `urae.toml` in the working folder.

    model = "black-forest-labs/FLUX.1-dev"    # for every command that has the option

    [generate]                                # for one command
    size = "2048x2048"

What the command line says comes first. Environment variables stand between: URAE_GENERATE_SIZE=2048x2048.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from urae.io import read_toml

__all__ = ["FILE", "check_tables", "defaults_for", "read_defaults"]

FILE = "urae.toml"


def read_defaults() -> dict[str, Any]:
    """What the file says; nothing where there is none. Raises `BadFile`."""
    return read_toml(FILE) if Path(FILE).is_file() else {}


def defaults_for(command: Sequence[str], options: Sequence[str], told: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of a command, such as ("data", "collect"), by the names of its `options`. ValueError for a key of
    its table that is not an option of it."""
    shared = {name: value for name, value in told.items() if not isinstance(value, dict) and name in options}
    table: Any = told
    for word in command:
        table = table.get(word, {}) if isinstance(table, dict) else {}
    own = {name.replace("-", "_"): value for name, value in table.items()} if isinstance(table, dict) else {}
    own = {name: value for name, value in own.items() if not isinstance(value, dict)}
    if unknown := [name for name in own if name not in options]:
        raise ValueError(
            f"{FILE} sets {unknown[0]!r} for urae {' '.join(command)}: expected one of {', '.join(sorted(options))}"
        )
    return {**shared, **own}


def check_tables(told: Mapping[str, Any], verbs: Sequence[str]) -> None:
    """ValueError for a table that is named after no command."""
    if unknown := [name for name, value in told.items() if isinstance(value, dict) and name not in verbs]:
        raise ValueError(f"{FILE} has a table [{unknown[0]}]: expected a command, {', '.join(verbs)}")
