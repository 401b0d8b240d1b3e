"""DPG-Bench from candidates to a table: match pictures, ask, score by both rules, and say what the number rests on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from urae.dpg.answerer import Answerer
from urae.dpg.ask import Records, Tile, ask, pending, said
from urae.dpg.questions import DpgItem
from urae.dpg.scoring import Compat, Scores, read_answer, score
from urae.exports import takes
from urae.io import escape_markdown as escape
from urae.io import file_hash, markdown_table, write_text
from urae.metrics.matching import match_pictures, pictures_by_id
from urae.statistics import Column, Table, by_prompt, tabulate
from urae.statistics.intervals import check_prompts

__all__ = ["Dpg", "DpgPlan", "DpgRequest", "dpg_bench", "plan_dpg"]

MPLUG = (
    "The benchmark's published numbers come from mPLUG-large; those of another answering model cannot be compared with "
    "them, only with each other."
)


@dataclass(frozen=True, kw_only=True)
class DpgRequest:
    """How files of pictures are read, and their answers scored."""

    grid: int = field(default=1, metadata={"min": 1})
    """Pictures in a row of each file; the benchmark itself has 2."""
    compat: Compat = "fixed"
    """The table's rule: as the benchmark means it, or as its script computes it."""
    allow_missing: bool = False
    """Leave prompts out that a candidate has no picture of."""

    def __post_init__(self) -> None:
        if self.grid < 1:
            raise ValueError(
                f"grid is {self.grid}: expected 1, or 2 for the benchmark's own four pictures a file"
            )


@dataclass(frozen=True, kw_only=True)
class DpgPlan:
    """What will be asked. Made by `plan_dpg`."""

    answerer: Answerer
    compat: Compat
    """The rule of the table; no answer depends on it."""
    items: tuple[DpgItem, ...]
    """All of the file, in its order."""
    tiles: Mapping[str, Sequence[Tile]]
    """Candidate -> every picture that is there, item by item."""
    missing: Mapping[str, Sequence[str]]
    """Candidate -> items without a picture, which are counted for no candidate."""
    unused: Mapping[str, Sequence[str]]
    """Candidate -> pictures that belong to no item."""

    @property
    def every(self) -> list[Tile]:
        return [tile for tiles in self.tiles.values() for tile in tiles]

    def num_open(self, records: Records) -> int:
        """Questions still to be asked. Candidates share what they have in common."""
        waiting = {
            tile.key(text, self.answerer)
            for tile in self.every
            for text in pending(tile, self.answerer, records)
        }
        return len(waiting)


@dataclass(frozen=True, kw_only=True)
class Dpg:
    """A result; percentages, the prompt being the unit."""

    model: str
    """Who answered."""
    table: Table
    """`dpg[model]` with its interval, and the share of each broad category over all its questions."""
    scores: Mapping[str, Mapping[Compat, Scores]]
    """Candidate -> rule -> everything."""
    compat: Compat
    """The rule of the table."""
    unread: Mapping[str, int]
    """Candidate -> answers that are neither yes nor no; counted as no."""
    missing: Mapping[str, Sequence[str]]
    untrained: bool

    def to_markdown(self) -> str:
        """The table, the other rule's number, detailed categories, and what is missing."""
        parts = [f"# DPG-Bench, answered by {escape(self.model)}", self.table.to_markdown().rstrip()]
        if not self.untrained:
            parts += [_rules(self.scores), _categories(self.scores, self.compat)]
        return "\n\n".join([*parts, *self._remarks()]) + "\n"

    def to_json(self) -> str:
        """All of it, with the score of every prompt by both rules."""
        described = {
            "model": self.model,
            "compat": self.compat,
            "untrained": self.untrained,
            "unread": dict(self.unread),
            "missing": {name: list(items) for name, items in self.missing.items()},
            "scores": {
                name: {rule: asdict(scores) | {"mean": scores.mean} for rule, scores in rules.items()}
                for name, rules in self.scores.items()
            },
            "table": json.loads(self.table.to_json()),
        }
        return json.dumps(described, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def save(self, folder: Path, plan: DpgPlan) -> list[Path]:
        """Write dpg.md, dpg.json and dpg.html, the page with the pictures behind each number."""
        texts = {"dpg.md": self.to_markdown(), "dpg.json": self.to_json()}
        for name, text in texts.items():
            write_text(folder / name, text)
        # Of several items with one prompt the page shows the first.
        pictures: dict[str, dict[str, Path]] = {name: {} for name in plan.tiles}
        for name, tiles in plan.tiles.items():
            for tile in reversed(tiles):
                pictures[name][tile.item.prompt] = tile.file
        return [*(folder / name for name in texts), self.table.save(folder / "dpg.html", pictures=pictures)]

    def _remarks(self) -> list[str]:
        unread = [
            f"{escape(name)}: {count} answers are neither yes nor no and count as no."
            for name, count in self.unread.items()
            if count
        ]
        missing = [
            f"{escape(name)} lacks {len(items)} pictures, such as {escape(items[0])}: counted for no candidate."
            for name, items in self.missing.items()
            if items
        ]
        return [MPLUG, *unread, *missing]


@takes(DpgRequest)
def plan_dpg(
    candidates: Mapping[str, Path | str],
    items: Sequence[DpgItem],
    answerer: Answerer,
    **asked: Any,
) -> DpgPlan:
    """Match `candidates` (name -> folder of `<item id>.png`) with `items`; other arguments are the fields of
    `DpgRequest`. `ValueError` where a picture is missing; with `allow_missing` its item is left out for all candidates.
    """
    request = DpgRequest(**asked)
    if not candidates:
        raise ValueError("there are no candidates: expected at least one folder of pictures")
    missing = (
        {name: _missing(name, folder, items) for name, folder in candidates.items()}
        if request.allow_missing
        else {}
    )
    without = {item for names in missing.values() for item in names}
    shown = {item.id: item for item in items if item.id not in without}
    _enough(items, shown, request.compat)
    matched, unused = match_pictures(
        {name: Path(folder) for name, folder in candidates.items()},
        {name: item.prompt for name, item in shown.items()},
    )
    tiles = {
        name: [
            tile for match in matched for tile in _tiles(shown[match.id], match.pictures[name], request.grid)
        ]
        for name in candidates
    }
    return DpgPlan(
        answerer=answerer,
        compat=request.compat,
        items=tuple(items),
        tiles=tiles,
        missing=missing,
        unused=unused,
    )


def dpg_bench(
    plan: DpgPlan,
    *,
    journal: Path | str,
    seed: int = 0,
    on_answer: Callable[[], object] = lambda: None,
) -> Dpg:
    """Ask what `journal` has no answer to, and score. Stopped at any moment, the same call goes on where it was."""
    records = ask(plan.every, plan.answerer, journal=Path(journal), on_answer=on_answer)
    answers = {name: _by_item(tiles, plan.answerer, records) for name, tiles in plan.tiles.items()}
    scores: dict[str, dict[Compat, Scores]] = {
        name: {
            "fixed": score(plan.items, given),
            "official": score(plan.items, given, compat="official"),
        }
        for name, given in answers.items()
    }
    return Dpg(
        model=plan.answerer.name,
        table=_tabulated(plan, {name: rules[plan.compat] for name, rules in scores.items()}, seed),
        scores=scores,
        compat=plan.compat,
        unread={name: _unread(given) for name, given in answers.items()},
        missing=plan.missing,
        untrained=plan.answerer.untrained,
    )


def _missing(name: str, folder: Path | str, items: Sequence[DpgItem]) -> list[str]:
    there = pictures_by_id(name, folder)
    return [item.id for item in items if item.id not in there]


def _enough(items: Sequence[DpgItem], shown: Mapping[str, DpgItem], compat: Compat) -> None:
    forgotten = {items[0].id} if items and compat == "official" else set()
    check_prompts(len({item.prompt for name, item in shown.items() if name not in forgotten}))


def _tiles(item: DpgItem, file: Path, grid: int) -> list[Tile]:
    digest = file_hash(file)
    return [Tile(item=item, file=file, digest=digest, place=place, grid=grid) for place in range(grid**2)]


def _by_item(
    tiles: Sequence[Tile], answerer: Answerer, records: Records
) -> dict[str, list[Mapping[int, str]]]:
    answers: dict[str, list[Mapping[int, str]]] = {tile.item.id: [] for tile in tiles}
    for tile in tiles:
        answers[tile.item.id].append(said(tile, answerer, records))
    return answers


def _unread(answers: Mapping[str, Sequence[Mapping[int, str]]]) -> int:
    texts = (text for tiles in answers.values() for tile in tiles for text in tile.values())
    return sum(read_answer(text) is None for text in texts)


def _tabulated(plan: DpgPlan, scores: Mapping[str, Scores], seed: int) -> Table:
    model, untrained = plan.answerer.name, plan.answerer.untrained
    texts = {item.id: item.prompt for item in plan.items}
    broad = next(iter(scores.values())).broad
    rule = "the rule as meant" if plan.compat == "fixed" else "the published script's rule"
    main = Column(
        name=f"dpg[{model}]",
        direction="higher",
        digits=2,
        bounds=(0.0, 100.0),
        untrained=untrained,
        note=f"percent, by {rule}",
    )
    shares = [Column(name=name, direction="neither", digits=1, untrained=untrained) for name in broad]
    rows: dict[str, dict[str, Any]] = {
        name: {
            main.name: by_prompt(
                (texts[item] for item in one.prompts), (100 * v for v in one.prompts.values())
            ),
            **{category: 100 * share.value for category, share in one.broad.items()},
        }
        for name, one in scores.items()
    }
    return tabulate(rows, columns=[main, *shares], title=f"DPG-Bench, answered by {model}", seed=seed)


def _rules(scores: Mapping[str, Mapping[Compat, Scores]]) -> str:
    rows = [
        (name, *(f"{100 * rules[rule].mean:.2f}" for rule in ("fixed", "official")))
        for name, rules in scores.items()
    ]
    table = markdown_table(("", "fixed rule", "published script"), rows, right=(1, 2))
    left_out = sorted({item for rules in scores.values() for item in rules["official"].left_out})
    said = (
        f"The published script fails on {escape(', '.join(left_out))} and leaves it out." if left_out else ""
    )
    return "\n\n".join(filter(None, [table, said]))


def _categories(scores: Mapping[str, Mapping[Compat, Scores]], compat: Compat) -> str:
    first = next(iter(scores.values()))[compat].categories
    rows = [
        (category, share.questions)
        + tuple(f"{100 * rules[compat].categories[category].value:.1f}" for rules in scores.values())
        for category, share in first.items()
    ]
    head = ("category", "questions", *scores)
    return markdown_table(head, rows, right=range(1, len(head)))
