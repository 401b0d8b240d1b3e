"""A plan: every cell of one of the paper's tables by name, and where its inputs are.

Plans are YAML files that ship with the package, one a table. What a user has is filled in by dotted keys, such as
`models.flux=/models/FLUX.1-dev` or `prompts.hpd=hpd.jsonl`. The section `miniature` of a plan turns it into the same
experiment on the miniature, which needs nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from urae.errors import BadFile
from urae.io import parse_yaml, read_yaml, typed
from urae.metrics.declarations import METRICS
from urae.recipes import RECIPES
from urae.statistics.table import Direction

__all__ = ["PLANS", "Made", "TableColumn", "TablePlan", "TableRow", "read_plan"]

FOLDER = Path(__file__).parent / "plans"
PLANS = tuple(sorted(file.stem for file in FOLDER.glob("*.yaml")))
"""Tables and figures by name."""

Kind = Literal["metric", "dpg", "score", "pair", "study"]


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A candidate: pictures that `urae generate` makes, or that lie in a folder."""

    name: str
    folder: str = ""
    """Name of a folder, for pictures that are made elsewhere."""
    model: str = "flux"
    method: str = "direct"
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the method; "files.NAME" stands for that file."""
    adapter: str = ""
    policy: Literal["auto", "none", "reference"] = "auto"
    group: str = ""
    """Rows of one group are ranked among themselves."""
    paper: Mapping[str, float] = field(default_factory=dict)
    """Column of the paper -> its number."""
    paper_ranks: Mapping[str, int] = field(default_factory=dict)
    """Column of the paper -> the rank that it gives to that number."""


@dataclass(frozen=True, kw_only=True)
class TableColumn:
    """Something measured on all rows."""

    name: str
    kind: Kind
    of: str = ""
    """The metric, or the aspect that a judge or a rater is asked about."""
    prompts: str = ""
    """The prompt set; people vote on pictures of their own study."""
    against: str = ""
    """Row that holds the reference pictures, or that the judge compares with."""
    paper: str = ""
    """Column of the paper that it stands for; empty for none."""

    @property
    def direction(self) -> Direction:
        """Which numbers are better. A pair's is the share of those who prefer the other."""
        if self.kind == "metric":
            return METRICS[self.of].direction
        return "lower" if self.kind == "pair" else "higher"


@dataclass(frozen=True, kw_only=True)
class Made:
    """An adapter: trained by a recipe."""

    recipe: str
    """Key of the plan's recipes."""
    model: str = "flux"
    changes: Mapping[str, Any] = field(default_factory=dict)
    """To the recipe; "data.NAME" and "adapters.NAME" stand for that data set and adapter."""


@dataclass(frozen=True, kw_only=True)
class TablePlan:
    """A table of the paper as an experiment."""

    name: str
    title: str
    miniature: bool
    size: int
    """Side of the pictures, px."""
    rows: tuple[TableRow, ...]
    columns: tuple[TableColumn, ...]
    differs: tuple[str, ...]
    """What is known to differ from the paper, or is not known at all."""
    ranked: bool = False
    """A rank beside each number, as in the paper's Tables 3 and 4."""
    seed: int = 0
    steps: int = 0
    """Denoising steps of every picture; 0 leaves them to the method or model."""
    num_prompts: int = 0
    """Drawn from each prompt set; 0 for all."""
    prompts: Mapping[str, str]
    """Prompt set -> .jsonl of ids and prompts, HPDv2's or COCO's own files, .csv of DPG-Bench, mini:N for N scenes."""
    models: Mapping[str, str]
    """Name -> folder, hub id or mini."""
    folders: Mapping[str, str] = field(default_factory=dict)
    """Name -> folder of pictures, or with a folder of them for each prompt set; mini:truth for true renderings."""
    files: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    """Name -> training data, as recipes take it."""
    recipes: Mapping[str, str] = field(default_factory=dict)
    """Key -> name of a recipe."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """To every recipe."""
    adapters: Mapping[str, Made | str] = field(default_factory=dict)
    """Name -> how it is trained, or the file that holds it."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Metric -> file or folder."""
    dpg: Mapping[str, str] = field(default_factory=dict)
    """`model`, and `server` where it is behind one; mini for the miniature's recogniser."""
    judge: Mapping[str, Any] = field(default_factory=dict)
    """Who is asked and how: the keys of `JUDGE`, and `option.NAME` for what is sent with each request."""
    study: Mapping[str, str] = field(default_factory=dict)
    """`folder` of a study whose candidates are named as the rows."""

    def only(self, rows: Sequence[str], columns: Sequence[str]) -> TablePlan:
        """Some rows and columns by name; empty for all. A row that a column compares with stays."""
        kept = tuple(column for column in self.columns if not columns or column.name in columns)
        wanted = {*rows, *(column.against for column in kept)}
        for what, given, known in (("row", rows, self.rows), ("column", columns, self.columns)):
            for name in given:
                _check_known(f"{what} of {self.name}", name, [part.name for part in known])
        return replace(
            self, columns=kept, rows=tuple(row for row in self.rows if not rows or row.name in wanted)
        )

    @property
    def heading(self) -> str:
        """The title, with the size at which it is made here."""
        return f"{self.title}, {self.size} px{', on the miniature' if self.miniature else ''}"

    @property
    def sets(self) -> list[str]:
        """Prompt sets that the columns are measured on."""
        return list(dict.fromkeys(column.prompts for column in self.columns if column.prompts))


def read_plan(
    name: str, changes: Mapping[str, str] | None = None, *, miniature: bool = False, quick: bool = False
) -> TablePlan:
    """A plan by its name or YAML file, with changes by dotted key. `ValueError` for a key that it does not have.

    `quick` takes as little of the miniature as shows that all parts work together: its numbers say nothing.
    """
    if quick and not miniature:
        raise ValueError("quick is for the miniature alone: give miniature too")
    file = FOLDER / f"{name}.yaml" if name in PLANS else Path(name)
    if file.suffix not in (".yaml", ".yml") or not file.is_file():
        raise ValueError(f"there is no plan {name!r}: expected a YAML file or one of {', '.join(PLANS)}")
    values = read_yaml(file)
    try:
        small = values.pop("miniature")
        least = small.pop("quick", {})
        rows = _with_paper(values["rows"], values.pop("paper_columns"), ranked=values.get("ranked", False))
        values = {**values, "name": file.stem, "miniature": miniature, "rows": rows}
        for change in (small,) * miniature + (least,) * quick:
            values = _merged(values, change)
        changed = _changed(values, changes or {})
        return _plan(changed)
    except (TypeError, KeyError, AttributeError) as error:
        raise BadFile(f"{file} is not a plan of a table: {error!r}") from error


OPTION = "option."
JUDGE: dict[str, type] = {
    **dict.fromkeys(("model", "base_url", "key_variable", "instructions"), str),
    **dict.fromkeys(("retries", "max_side", "crop", "num_crops"), int),
    "schema": bool,
    "timeout": float,
}
"""What may be said of a judge, as `urae judge` has it; `option.NAME` besides."""
SECTIONS = ("prompts", "models", "folders", "files", "data", "recipes", "adapters")
"""What a plan names, and a user fills in."""
OPEN_SECTIONS: dict[str, tuple[str, ...]] = {
    "weights": tuple(METRICS),
    "changes": (),
    "dpg": ("model", "server"),
    "study": ("folder",),
    "judge": tuple(JUDGE),
}
NUMBERS = ("size", "seed", "steps", "num_prompts")


def _plan(values: dict[str, Any]) -> TablePlan:
    rows = tuple(TableRow(**row) for row in values.pop("rows"))
    columns = tuple(TableColumn(**column) for column in values.pop("columns"))
    adapters = {
        name: one if isinstance(one, str) else Made(**one) for name, one in values.pop("adapters", {}).items()
    }
    plan = TablePlan(
        **{**values, "differs": tuple(values["differs"])}, rows=rows, columns=columns, adapters=adapters
    )
    _check_names(plan)
    return plan


def _with_paper(
    rows: Sequence[dict[str, Any]], paper: Sequence[str], *, ranked: bool
) -> list[dict[str, Any]]:
    """Rows with the paper's numbers by column and, in tables that have them, its ranks. Found before rows are left out,
    for ranks are among all; of these tables the higher number is the better everywhere."""
    named = [{**row, "paper": _numbers(row, paper)} for row in rows]
    for row in named if ranked else ():
        others = [other["paper"] for other in named if other.get("group") == row.get("group")]
        row["paper_ranks"] = {
            name: 1 + sum(other.get(name, number) > number for other in others)
            for name, number in row["paper"].items()
        }
    return named


def _numbers(values: Mapping[str, Any], paper: Sequence[str]) -> dict[str, float]:
    numbers = values.get("paper", [None] * len(paper))
    if len(numbers) != len(paper):
        raise BadFile(
            f"a row has {len(numbers)} numbers of the paper: expected one for each of {', '.join(paper)}"
        )
    return {name: number for name, number in zip(paper, numbers, strict=True) if number is not None}


def _merged(values: Mapping[str, Any], small: Mapping[str, Any]) -> dict[str, Any]:
    """The plan with the settings of its miniature; of `rows` null leaves one out."""
    changed = dict(values)
    for key, value in small.items():
        if key == "rows":
            changed["rows"] = [
                {**row, **value.get(row["name"], {})}
                for row in values["rows"]
                if value.get(row["name"], {}) is not None
            ]
        else:
            changed[key] = {**values.get(key, {}), **value} if key in (*SECTIONS, "changes") else value
    return changed


def _changed(values: dict[str, Any], changes: Mapping[str, str]) -> dict[str, Any]:
    """With changes by dotted key, whose values are text as a command line has it."""
    for key, text in changes.items():
        section, dot, name = key.partition(".")
        if not dot:
            _check_known("key", key, (*NUMBERS, *(f"{s}.NAME" for s in (*SECTIONS, *OPEN_SECTIONS))))
            number = parse_yaml(text, name=key)
            if not isinstance(number, int) or isinstance(number, bool) or number < 0:
                raise ValueError(f"{key} is {text!r}: expected a whole number")
            values[key] = number
            continue
        _check_known("section", section, (*SECTIONS, *OPEN_SECTIONS))
        known = values.get(section, {}) if section in SECTIONS else OPEN_SECTIONS[section]
        is_option = section == "judge" and name.startswith(OPTION)
        if (known or section in SECTIONS) and not is_option:
            _check_known(f"name in {section}", name, tuple(known))
        said = parse_yaml(text, name=key) if is_option or _is_typed(section, name) else text
        values[section] = {**values.get(section, {}), name: said}
    return values


def _is_typed(section: str, name: str) -> bool:
    return section == "judge" and JUDGE[name] is not str


def _check_judge(plan: TablePlan) -> None:
    for name, value in plan.judge.items():
        if name.startswith(OPTION):
            continue
        _check_known("name in judge", name, JUDGE)
        typed(value, JUDGE[name], name=f"judge.{name}")
        least = 0 if name == "retries" else 1
        if JUDGE[name] in (int, float) and value < least:
            raise ValueError(f"judge.{name} is {value}: expected {least} or more")


def _check_names(plan: TablePlan) -> None:
    """Whatever a plan refers to must be in it."""
    _check_judge(plan)
    for row in plan.rows:
        if row.folder:
            _check_known("folder", row.folder, plan.folders)
        else:
            _check_known("model", row.model, plan.models)
        if row.adapter:
            _check_known("adapter", row.adapter, plan.adapters)
    for column in plan.columns:
        _check_known("kind of column", column.kind, get_args(Kind))
        if column.kind == "metric":
            _check_known("metric", column.of, METRICS)
        if column.kind != "study":
            _check_known("prompt set", column.prompts, plan.prompts)
        if column.against:
            _check_known("row", column.against, [row.name for row in plan.rows])
    for made in plan.adapters.values():
        if isinstance(made, Made):
            _check_known("recipe", plan.recipes.get(made.recipe, made.recipe), RECIPES)


def _check_known(what: str, name: str, known: Any) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, list(known), n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(f"there is no {what} {name!r}{hint}: expected {', '.join(known)}")
