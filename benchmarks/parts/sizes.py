"""Above the native size: direct, under the default policy and adapted; and one change of that policy at a time.

The default policy is linear interpolation, proportional attention and a static shift of 3 for this model. Native
pictures of the same prompts and the truth stand beside the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from aims import Aim, less, more, nearer
from pictures import (
    DISTANCE,
    FIRST_PROMPT,
    MEASURES,
    SHARES,
    Key,
    Row,
    Rows,
    by_way,
    differences,
    drawings,
    estimate,
    patch_distances,
    picture_of,
    recorded,
    save_sheet,
    share,
    sheet,
    verdict,
)
from PIL import Image

from parts.bench import Bench, Part
from parts.samples import GUIDED, native
from urae.generation import Direct, Way, save_png
from urae.mini import familiar_scene, render
from urae.mini.model import NATIVE_SIZE
from urae.mini.recogniser import Recogniser
from urae.resolution import ResolutionPolicy

CLAIMED, VARIED = 500, 50
"""Prompts at each size for the claims and for one change of the policy at a time."""
COLUMNS = (*SHARES, *MEASURES, "cpu_seconds")
DIRECT, POLICY, ADAPTED, TRUTH = "direct", "policy", "policy and adapter", "truth"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is known of one size."""

    rows: Rows
    """The truth among them."""
    native_rows: Rows
    """Of the same prompts at the native size."""
    distances: dict[str, dict[str, float]]
    """Way -> patch FID; {} for too few prompts."""
    table: dict[str, list[Row]]
    """By its title."""


def sizes(bench: Bench) -> Part:
    """Direct, the default policy, and the adapter, on as many prompts as the claims about them need."""
    aims: list[Aim] = []
    tables: dict[str, list[Row]] = {}
    for side in bench.sizes:
        ways = [way for way in ways_at(bench, side) if way.label in (DIRECT, POLICY, ADAPTED)]
        found = _measured(bench, side, ways, bench.prompts or CLAIMED)
        tables |= found.table
        if found.distances:
            aims += _claims(side, found)
        _pictures(bench, found.rows, 6, f"miniature-sizes-{side}.png")
    return Part(aims=aims, tables=tables, differences={})


def policies(bench: Bench) -> Part:
    """Every way at every size of the bench; the pictures of `sizes` are among them."""
    tables: dict[str, list[Row]] = {}
    effects: dict[str, dict[str, Row]] = {}
    for side in bench.sizes:
        found = _measured(bench, side, ways_at(bench, side), bench.prompts or VARIED)
        tables |= found.table
        rows = found.rows
        others = {way: (way, POLICY) for way in by_way(rows, "object") if way not in (POLICY, TRUTH)}
        for column in ("object", "repetition"):
            if effect := differences(rows, column, others):
                effects[f"{side} px, {column}, less that of the default policy:"] = effect
        _pictures(bench, rows, 4, f"miniature-policies-{side}.png")
    return Part(aims=[], tables=tables, differences=effects)


def ways_at(bench: Bench, side: int) -> Iterator[Way]:
    """Direct first, then one change of the default policy at a time, the adapter last."""
    settings: Any = {"method": Direct(), "steps": bench.steps, "compile": bench.compile}
    for label, policy in policies_at(bench.pipe, side).items():
        yield Way(label=label, policy=policy, **settings)
    if side in bench.adapters:
        yield Way(label=ADAPTED, adapter=bench.adapters[side], **settings)


def policies_at(pipe: Any, side: int) -> dict[str, Any]:
    """Label -> policy. A rule for positions takes the place of linear interpolation, the rest of the policy stays; YaRN
    and DyPE scale attention in their own way."""
    default = ResolutionPolicy.for_size(pipe, side)
    scale, plain = default.scale, replace(default, linear=False, scale=1.0)
    rule = replace(plain, scale=scale, rope="ntk")
    own = {"proportional": False, "native_grid": NATIVE_SIZE // 16}
    return {
        DIRECT: "none",
        "shift 3 alone": replace(plain, proportional=False),
        POLICY: default,
        "policy, no proportional attention": replace(default, proportional=False),
        "policy, shift 1": replace(default, shift=1.0),
        "policy, shift 6": replace(default, shift=6.0),
        "theta x 10": replace(plain, rope_scale=10.0),
        "theta x 10, clipped": replace(plain, rope_scale=10.0, rope_clip=True, scale=scale),
        "ntk": rule,
        "yarn": replace(rule, rope="yarn", **own),
        "dype": replace(rule, rope="dype", **own),
        "dype_ntk": replace(rule, rope="dype_ntk"),
    }


def _measured(bench: Bench, side: int, ways: Iterable[Way], num: int) -> Measured:
    folder, samples = bench.folder("sizes"), bench.folder("samples")
    wanted = drawings(
        bench.pipe,
        ways,
        prompts=num,
        side=side,
        judge=bench.judge,
        folder=folder,
        more=lambda way: [_policy(way), *bench.drawn_by],
    )
    wanted |= _truths(bench.judge, bench.identity("truth", side), side, num, folder)
    small = drawings(
        bench.pipe,
        [native(bench)],
        prompts=num,
        side=NATIVE_SIZE,
        judge=bench.judge,
        folder=samples,
        more=lambda way: bench.drawn_by,
    )
    rows, native_rows = recorded(wanted, folder), recorded(small, samples)
    distances = patch_distances(rows, side, folder)
    lines = [
        *_summary(native_rows, patch_distances(native_rows, NATIVE_SIZE, samples)),
        *_summary(rows, distances),
    ]
    title = f"{side} px, {num} prompts; the first row is of the same prompts at 128 px"
    return Measured(rows=rows, native_rows=native_rows, distances=distances, table={title: lines})


def _policy(way: Way) -> Any:
    return asdict(way.policy) if isinstance(way.policy, ResolutionPolicy) else way.policy


def _truths(judge: Recogniser, name: str, side: int, num: int, folder: Path) -> dict[Key, Any]:
    return {(name, i): partial(_truth, judge, side, i, folder / name) for i in range(num)}


def _truth(judge: Recogniser, side: int, number: int, folder: Path) -> Row:
    shown = familiar_scene(FIRST_PROMPT + number)
    image = render(shown, side)
    save_png(image, folder / f"{number:04d}.png")
    measured = {name: measure(image) for name, measure in MEASURES.items()}
    return {"way": TRUTH, "prompt": number, **verdict(judge, image, shown), **measured}


def _summary(rows: Rows, distances: dict[str, dict[str, float]]) -> list[Row]:
    lines: dict[str, Row] = {}
    for column in COLUMNS:
        for way, values in by_way(rows, column).items():
            found = share(values) if column in SHARES else estimate(values)
            lines.setdefault(way, {"way": way})[column] = found
    for way, distance in distances.items():
        lines[way][DISTANCE] = distance
    return list(lines.values())


def _claims(side: int, found: Measured) -> list[Aim]:
    """That it fails as FLUX fails, that the policy helps, and that the adapter helps further."""
    rows, native_rows, distances = found.rows, found.native_rows, found.distances
    pairs = {
        "direct less native": (DIRECT, GUIDED),
        "policy less direct": (POLICY, DIRECT),
        "adapter less policy": (ADAPTED, POLICY),
    }
    drawn = {row["way"] for row in rows} | {GUIDED}
    pairs = {name: pair for name, pair in pairs.items() if set(pair) <= drawn}
    some = [
        row for row in [*rows, *native_rows] if row["way"] in {way for pair in pairs.values() for way in pair}
    ]
    copies, objects = (differences(some, column, pairs) for column in ("repetition", "object"))
    claims = [
        more(f"{side} px, direct: repetition, less that at 128 px", copies["direct less native"]),
        less(f"{side} px, direct: objects recognised, less those at 128 px", objects["direct less native"]),
        less(f"{side} px, policy: repetition, less that of direct", copies["policy less direct"]),
        nearer(f"{side} px, policy: patch FID to truth, below direct", distances[POLICY], distances[DIRECT]),
    ]
    if ADAPTED in drawn:
        claims += [
            more(
                f"{side} px, adapter: objects recognised, less those of the policy",
                objects["adapter less policy"],
            ),
            nearer(f"{side} px, adapter: patch FID, below the policy", distances[ADAPTED], distances[POLICY]),
        ]
    return claims


def _pictures(bench: Bench, rows: Rows, num: int, name: str) -> None:
    """The first prompts, every way."""
    columns = range(min(num, len({row["prompt"] for row in rows})))
    lines: dict[str, list[Image.Image]] = {}
    for row in sorted(rows, key=lambda row: row["prompt"]):
        if row["prompt"] in columns:
            lines.setdefault(row["way"], []).append(Image.open(picture_of(row, bench.folder("sizes"))))
    captions = [familiar_scene(FIRST_PROMPT + i).caption() for i in columns]
    save_sheet(sheet(lines, captions, cell=NATIVE_SIZE), bench.images / name)
