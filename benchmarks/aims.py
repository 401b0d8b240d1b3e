"""Aims beside measurements: what was asked for, what came out, and whether it is met. An unmet aim is shown as such.

A number meets its aim by its value, the interval being printed beside it; a difference only if test and interval agree
that it is real.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pictures import shown

Aim = dict[str, Any]


def at_least(what: str, bound: float, measured: Mapping[str, float], unit: str = "") -> Aim:
    """`measured` is an estimate: a value, as a rule with `low` and `high`."""
    met = measured["value"] >= bound
    return {"what": what, "asked": f"{bound:g}{unit} or more", "measured": measured, "met": met}


def at_most(what: str, bound: float, measured: Mapping[str, float], unit: str = "") -> Aim:
    met = measured["value"] <= bound
    return {"what": what, "asked": f"{bound:g}{unit} or less", "measured": measured, "met": met}


def more(what: str, effect: Mapping[str, Any]) -> Aim:
    """`effect` is a row of `pictures.differences`."""
    met = bool(effect["real"] and effect["difference"]["value"] > 0)
    return {"what": what, "asked": "more, surely", "measured": effect["difference"], "met": met}


def less(what: str, effect: Mapping[str, Any]) -> Aim:
    """`effect` is a row of `pictures.differences`."""
    met = bool(effect["real"] and effect["difference"]["value"] < 0)
    return {"what": what, "asked": "less, surely", "measured": effect["difference"], "met": met}


def nearer(what: str, candidate: Mapping[str, float], other: Mapping[str, float]) -> Aim:
    """Two distances of different sets of pictures: met where the intervals do not touch."""
    met = candidate["high"] < other["low"]
    return {"what": what, "asked": f"below {shown(other)}", "measured": candidate, "met": met}


def aims_table(aims: Sequence[Aim]) -> list[str]:
    """Lines of Markdown."""
    lines = ["| aim | asked | measured | met |", "|---|---|---:|---|"]
    lines += [
        f"| {aim['what']} | {aim['asked']} | {shown(aim['measured'])} | {'yes' if aim['met'] else '**no**'} |"
        for aim in aims
    ]
    return lines
