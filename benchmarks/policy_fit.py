"""Does `urae policy fit` rank policies as drawing does? `python benchmarks/policy_fit.py`, on the miniature.

Measures every policy on every picture at 256 and 512 px (the errors are kept in .cache/benchmarks/policy_fit, and the
same command goes on where it was), and sets them beside what `benchmarks/miniature.py policies` has drawn: Spearman's
rank correlation of the error at each noise level with objects, repetition and patch FID, over the policies that
both have. Policies that differ in the timestep shift alone have one error and count once. Intervals resample policies.
Writes benchmarks/results/policy_fit.json and policy_fit.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from report import RESULTS, conditions, write
from scipy.stats import rankdata

from urae import mini
from urae.fitting import STOCK, FittingPlan, FittingRequest, FittingResult, plan_fitting, run_fitting
from urae.io import Markdown, markdown_table

CACHE = Path(__file__).parents[1] / ".cache" / "benchmarks" / "policy_fit"
DRAWN = {
    "direct": STOCK,
    "policy": "linear, proportional",
    "policy, no proportional attention": "linear",
    "theta x 10": "theta, proportional",
    "theta x 10, clipped": "clipped, proportional",
    "ntk": "ntk, proportional",
    "yarn": "yarn",
    "dype": "dype",
    "dype_ntk": "dype_ntk, proportional",
}
"""What was drawn -> the candidate with the same positions and attention."""
MEASURES = {
    "objects": ("object", -1),
    "repetition": ("repetition", 1),
    "patch FID": ("mini_patch_fid", 1),
}
"""Name -> column, and whether more is worse (1) or better (-1): a good error correlates with what is worse."""
RESAMPLES = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=32, help="clean scenes of the whole world")
    parser.add_argument("--sizes", type=int, nargs="*", default=[256, 512], help="px")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for the errors")
    parser.add_argument("--out", type=Path, default=RESULTS / "policy_fit.json")
    options = parser.parse_args()
    drawn = json.loads((RESULTS / "miniature.json").read_text())["parts"]["policies"]
    found = {side: at_size(side, options.pictures, options.cache, drawn) for side in options.sizes}
    command = f"python benchmarks/policy_fit.py --pictures {options.pictures}"
    result = {**conditions("policy_fit", command=command), "sizes": found}
    write(options.out, result)
    write(options.out.with_suffix(".md"), markdown(result))


def at_size(side: int, num: int, cache: Path, drawn: Mapping[str, Any]) -> dict[str, Any]:
    """The errors, what they choose, and how they rank."""
    out = cache / str(side)
    request = FittingRequest(images=f"mini:clean:{num}", size=side, pictures=num, stop_early=False)
    plan = plan_fitting(mini.pipeline(), request, out=out)
    fit = run_fitting(plan, out / "errors.jsonl")
    errors = {name: np.mean(list(rows.values()), axis=0) for name, rows in fit.errors.items()}
    rows = {
        row["way"]: row for title, some in drawn["tables"].items() if f"{side} px" in title for row in some
    }
    return {
        "chosen": fit.chosen,
        "table": fit.to_markdown(),
        "early": early(plan, fit, out),
        "correlations": [
            {"error": level, **{name: spearman(values, rows, *MEASURES[name]) for name in MEASURES}}
            for level, values in by_level(errors, fit).items()
        ],
    }


def by_level(errors: Mapping[str, np.ndarray], fit: FittingResult) -> dict[str, dict[str, float]]:
    """Candidate -> error at each noise level, over those that decide, and over all."""
    levels: dict[str, Sequence[int]] = {f"sigma {sigma:g}": [i] for i, sigma in enumerate(fit.sigmas)}
    levels |= {fit.deciding_text.removeprefix("error "): fit.deciding, "all levels": range(len(fit.sigmas))}
    return {
        level: {name: float(values[list(places)].mean()) for name, values in errors.items()}
        for level, places in levels.items()
    }


def early(plan: FittingPlan, whole: FittingResult, out: Path) -> dict[str, Any]:
    """The same with early stopping, from the errors that are known."""
    stopping = replace(plan, request=replace(plan.request, stop_early=True))
    fit = run_fitting(stopping, out / "errors.jsonl")
    calls, all_calls = (sum(map(len, one.errors.values())) * len(one.sigmas) for one in (fit, whole))
    return {"chosen": fit.chosen, "calls": calls, "all_calls": all_calls, "stopped": dict(fit.worse)}


def spearman(
    errors: Mapping[str, float], rows: Mapping[str, Any], column: str, sign: int
) -> dict[str, float]:
    """Over the policies that were drawn, with the percentile interval of a bootstrap over policies."""
    pairs = np.array([(errors[name], sign * _value(rows[way][column])) for way, name in DRAWN.items()])
    rng = np.random.default_rng(0)
    again = pairs[rng.integers(len(pairs), size=(RESAMPLES, len(pairs)))]
    many = correlation(again)
    low, high = np.nanquantile(many, [0.025, 0.975])
    return {"value": float(correlation(pairs[None])[0]), "low": float(low), "high": float(high)}


def correlation(pairs: np.ndarray) -> np.ndarray:
    """Spearman's, (n,), of pairs (n, policies, 2); equal values share their mean rank."""
    ranks = rankdata(pairs, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):  # a resample of one policy alone has none
        return (ranks[..., 0] * ranks[..., 1]).sum(axis=1) / np.sqrt(np.prod((ranks**2).sum(axis=1), axis=1))


def _value(found: Any) -> float:
    return found["value"] if isinstance(found, dict) else found


def markdown(result: Mapping[str, Any]) -> str:
    parts = [
        f"# Does the velocity error rank policies as drawing does?\n\n`{result['command']}`, {result['date']}"
    ]
    for side, found in result["sizes"].items():
        rows = [[row["error"], *(_shown(row[name]) for name in MEASURES)] for row in found["correlations"]]
        head = ["error", *(f"rank correlation with {name}" for name in MEASURES)]
        early = found["early"]
        parts += [
            f"## {side} px",
            markdown_table(head, rows),
            f"With early stopping {early['calls']:,} of {early['all_calls']:,} calls; chosen: {early['chosen']}.",
            found["table"],
        ]
    return "\n\n".join(parts) + "\n"


def _shown(found: Mapping[str, float]) -> str:
    return Markdown(f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]")


if __name__ == "__main__":
    main()
