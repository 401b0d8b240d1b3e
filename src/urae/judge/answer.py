"""Reading an answer, strictly: what is not in the agreed form is no answer, and is never guessed at."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from urae.errors import BadFile
from urae.io import parse_json_object
from urae.judge.instructions import AnswerForm, Kind

__all__ = ["SCHEMAS", "read_answer"]

CREDIT = {"first": 1.0, "second": 0.0, "tie": 0.5}


def _schema(name: str, field: dict[str, Any]) -> dict[str, Any]:
    properties = {"reason": {"type": "string"}, name: field}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


SCHEMAS: Mapping[Kind, dict[str, Any]] = {
    "pair": _schema("winner", {"type": "string", "enum": list(CREDIT)}),
    "score": _schema("score", {"type": "number"}),
}
"""JSON schemas of the answers; the range of a score is checked here, as not every server knows `maximum`."""


def read_answer(text: str, kind: Kind, answers: AnswerForm) -> float | None:
    """Credit of the picture shown first (1, 0.5 or 0) or a score in [0, 100]; None where the form is not kept."""
    if answers == "json":
        return _from_json(text, kind)
    return _from_brackets(text) if kind == "pair" else _from_number(text)


def _from_json(text: str, kind: Kind) -> float | None:
    # Servers without schemas tend to fence JSON; a fence around the whole answer is harmless.
    fenced = re.fullmatch(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", text, re.DOTALL)
    try:
        value = parse_json_object(fenced[1] if fenced else text, name="an answer")
    except BadFile:
        return None
    if value.keys() != set(SCHEMAS[kind]["required"]):
        return None
    if not isinstance(value["reason"], str):
        return None
    if kind == "pair":
        return CREDIT.get(value["winner"]) if isinstance(value["winner"], str) else None
    score = value["score"]
    return _in_range(score) if isinstance(score, int | float) and not isinstance(score, bool) else None


def _from_brackets(text: str) -> float | None:
    """A leading [Image k] decides; else the only one that is named."""
    found = re.findall(r"\[Image ([12])\]", text)
    leading = re.match(r"\s*\[Image ([12])\]", text)
    if leading:
        return CREDIT["first" if leading[1] == "1" else "second"]
    return CREDIT["first" if found[0] == "1" else "second"] if len(set(found)) == 1 else None


def _from_number(text: str) -> float | None:
    match = re.fullmatch(r"\s*(\d{1,3}(?:\.\d+)?)\s*\.?\s*", text)
    return _in_range(float(match[1])) if match else None


def _in_range(score: float) -> float | None:
    return float(score) if math.isfinite(score) and 0 <= score <= 100 else None
