"""Settings as the command line has them: `--set name=value`."""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["parse_settings"]


def parse_settings(given: list[str], *, texts: list[str]) -> dict[str, Any]:
    """Settings "name=value" by name; the values of `texts` as they are, others as YAML: true, 0.5, {a: 1}, a word."""
    settings = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not (name and separator):
            raise ValueError(f"the setting {text!r} has no value: expected name=value")
        settings[name] = value if name in texts else yaml.safe_load(value)
    return settings
