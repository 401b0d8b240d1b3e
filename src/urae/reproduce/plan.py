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
from urae.io import parse_yaml, read_yaml
from urae.metrics.declarations import METRICS
from urae.recipes import RECIPES

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
    paper: Mapping[str, float] = field(default_factory=dict)
    """Column of the paper -> its number."""


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
    seed: int = 0
    steps: int = 0
    """Denoising steps of every picture; 0 leaves them to the method or model."""
    num_prompts: int = 0
    """Drawn from each prompt set; 0 for all."""
    prompts: Mapping[str, str]
    """Prompt set -> .jsonl of ids and prompts, .csv of DPG-Bench, or mini:N for N scenes."""
    models: Mapping[str, str]
    """Name -> folder, hub id or mini."""
    folders: Mapping[str, str] = field(default_factory=dict)
    """Name -> folder with a folder of pictures for each prompt set; mini:truth for true renderings."""
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
    judge: Mapping[str, str] = field(default_factory=dict)
    """`model` and `base_url`."""
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
    def sets(self) -> list[str]:
        """Prompt sets that the columns are measured on."""
        return list(dict.fromkeys(column.prompts for column in self.columns if column.prompts))


def read_plan(name: str, changes: Mapping[str, str] | None = None, *, miniature: bool = False) -> TablePlan:
    """A plan by its name or YAML file, with changes by dotted key. `ValueError` for a key that it does not have."""
    file = FOLDER / f"{name}.yaml" if name in PLANS else Path(name)
    if file.suffix not in (".yaml", ".yml") or not file.is_file():
        raise ValueError(f"there is no plan {name!r}: expected a YAML file or one of {', '.join(PLANS)}")
    values = read_yaml(file)
    try:
        small = values.pop("miniature")
        values = {**values, "name": file.stem, "miniature": miniature}
        values = _merged(values, small) if miniature else values
        changed = _changed(values, changes or {})
        return _plan(changed)
    except (TypeError, KeyError, AttributeError) as error:
        raise BadFile(f"{file} is no plan of a table: {error!r}") from error


SECTIONS = ("prompts", "models", "folders", "files", "data", "recipes", "adapters")
"""What a plan names, and a user fills in."""
OPEN_SECTIONS: dict[str, tuple[str, ...]] = {
    "weights": tuple(METRICS),
    "changes": (),
    "dpg": ("model", "server"),
    "study": ("folder",),
    "judge": ("model", "base_url", "key_variable"),
}
NUMBERS = ("size", "seed", "steps", "num_prompts")


def _plan(values: dict[str, Any]) -> TablePlan:
    paper = values.pop("paper_columns")
    rows = tuple(_row(row, paper) for row in values.pop("rows"))
    columns = tuple(TableColumn(**column) for column in values.pop("columns"))
    adapters = {
        name: one if isinstance(one, str) else Made(**one) for name, one in values.pop("adapters", {}).items()
    }
    plan = TablePlan(
        **{**values, "differs": tuple(values["differs"])}, rows=rows, columns=columns, adapters=adapters
    )
    _check_names(plan)
    return plan


def _row(values: Mapping[str, Any], paper: Sequence[str]) -> TableRow:
    numbers = values.get("paper", [None] * len(paper))
    if len(numbers) != len(paper):
        raise BadFile(
            f"a row has {len(numbers)} numbers of the paper: expected one for each of {', '.join(paper)}"
        )
    given = {name: number for name, number in zip(paper, numbers, strict=True) if number is not None}
    return TableRow(**{**values, "paper": given})


def _merged(values: Mapping[str, Any], small: Mapping[str, Any]) -> dict[str, Any]:
    """The plan with its miniature's settings; of `rows` null leaves one out."""
    changed = dict(values)
    for key, value in small.items():
        if key == "rows":
            changed["rows"] = [
                {**row, **value.get(row["name"], {})}
                for row in values["rows"]
                if value.get(row["name"], {}) is not None
            ]
        else:
            changed[key] = {**values.get(key, {}), **value} if key in SECTIONS else value
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
        if known or section in SECTIONS:
            _check_known(f"name in {section}", name, tuple(known))
        values[section] = {**values.get(section, {}), name: text}
    return values


def _check_names(plan: TablePlan) -> None:
    """Whatever a plan refers to must be in it."""
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
