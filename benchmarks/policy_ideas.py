"""Rules for positions that are not part of the package, measured as `urae policy fit` measures those that are.

`python benchmarks/policy_ideas.py`, on the miniature. Three kinds of idea: a policy that changes with the noise level;
linear interpolation that is let go as the noise goes, as DyPE does with YaRN; and attention scaled for each rotary
frequency by the energy that the latent has there, in the manner of SEGA (arXiv 2605.22668, from its description: bands
of little energy get more, and the entropy of the spectrum says how much of it all). Those that `--draw` names are drawn
too. Errors and pictures are kept in .cache/benchmarks/policy_ideas; writes benchmarks/results/policy_ideas.json and
policy_ideas.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pictures import (
    CACHE,
    FIRST_PROMPT,
    MEASURES,
    SHARES,
    estimate,
    fingerprint,
    patch_distances,
    recorded,
    share,
    shown,
    verdict,
)
from report import RESULTS, conditions, write
from torch import Tensor, nn

from urae import mini
from urae.families import family_of
from urae.fitting import FittingRequest, plan_fitting, run_fitting
from urae.generation import save_png
from urae.io import Markdown, markdown_table
from urae.mini.recogniser import Recogniser, recogniser
from urae.resolution import ResolutionPolicy, native_size
from urae.resolution.embedding import PolicyEmbedding, forward_replaced

SIGMAS = (0.2, 0.5, 0.65, 0.8, 0.9, 0.97)
RULES = ("linear", "yarn")
"""Measured beside the ideas, as are stock positions."""

At = Callable[[float, Tensor, tuple[int, int]], tuple[ResolutionPolicy, Tensor | None]]
"""Noise level, image tokens (tokens, channels) and grid -> the policy of the call, and factors on rotary channels."""


@dataclass(frozen=True, kw_only=True)
class Idea:
    """Takes a policy's place in the instrument and around a pipeline."""

    name: str
    at: At
    shift: float

    def to_dict(self) -> dict[str, Any]:
        return {"idea": self.name}

    @contextmanager
    def on(self, target: Any) -> Iterator[None]:
        """Around a transformer, or a pipeline, which then has the checkpoint's own shift."""
        if target is not (transformer := getattr(target, "transformer", target)):
            with replace(ResolutionPolicy(), shift=self.shift).on(target), self.on(transformer):
                yield
            return
        attribute = family_of(transformer).rotary.attribute
        before = getattr(transformer, attribute)
        chosen = _Chosen(transformer, self.at)
        setattr(transformer, attribute, chosen)
        try:
            with forward_replaced(transformer, chosen.telling, what="an idea"):
                yield
        finally:
            setattr(transformer, attribute, before)


class _Chosen(nn.Module):
    """Makes the tables of the policy that the noise level chooses."""

    def __init__(self, transformer: Any, at: At) -> None:
        super().__init__()
        self.at, self.family, self.made = at, family_of(transformer), {}
        self.embedding = lambda policy: PolicyEmbedding(self.family, transformer, policy)

    def telling(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(**inputs: Any) -> Any:
            ids = inputs["img_ids"]
            grid = (int(ids[:, 1].max()) + 1, int(ids[:, 2].max()) + 1)
            sigma = float(self.family.calls.sigma(inputs)[0])
            self.policy, self.factors = self.at(sigma, inputs["hidden_states"][0].float(), grid)
            return forward(**inputs)

        return call

    def forward(self, ids: Tensor) -> tuple[Tensor, ...]:
        if self.policy not in self.made:
            self.made[self.policy] = self.embedding(self.policy)
        tables = self.made[self.policy].forward(ids)
        if self.factors is None:
            return tables
        return tuple(table * self.factors.repeat_interleave(2) for table in tables)


def ideas(pipe: Any, side: int) -> dict[str, Idea]:
    native = ResolutionPolicy.for_size(pipe, native_size(pipe))
    scale = side / native_size(pipe)
    linear = replace(native, linear=True, scale=scale)
    proportional = replace(linear, proportional=True)
    theta = replace(native, rope_scale=max(10.0, 2 * scale))
    yarn = replace(native, rope="yarn", scale=scale, native_grid=native_size(pipe) // 16)

    def weaker(power: Callable[[float], float]) -> At:
        def at(sigma: float, *_: Any) -> tuple[ResolutionPolicy, None]:
            lowered = scale ** power(sigma)
            return (replace(linear, scale=lowered) if lowered > 1 else native), None

        return at

    def switched(high: ResolutionPolicy, low: ResolutionPolicy, level: float) -> At:
        return lambda sigma, *_: (high if sigma >= level else low, None)

    def spectral(policy: ResolutionPolicy, *, sign: int = 1) -> At:
        axes = family_of(pipe).rotary.axes(pipe.transformer)
        # YaRN's own factor, the same on all frequencies, is taken out: this one stands in its place.
        uniform = 0.1 * math.log(scale) + 1 if policy.rope == "yarn" else 1.0
        return lambda sigma, tokens, grid: (policy, by_energy(tokens, grid, axes, scale, sign=sign) / uniform)

    found: dict[str, At] = {
        "linear, stock below 0.6": switched(linear, native, 0.6),
        "linear, theta below 0.6": switched(linear, theta, 0.6),
        "linear, stock below 0.4": switched(linear, native, 0.4),
        "linear, proportional from 0.95": switched(proportional, linear, 0.95),
        "linear, let go by 2 sigma^2": weaker(lambda sigma: min(1.0, 2 * sigma**2)),
        "linear, let go below 0.8": weaker(lambda sigma: min(1.0, sigma / 0.8)),
        "SEGA-like on linear": spectral(linear),
        "SEGA-like on linear, reversed": spectral(linear, sign=-1),
        "SEGA-like on yarn": spectral(yarn),
        "SEGA-like on stock": spectral(native),
    }
    return {name: Idea(name=name, at=at, shift=native.shift) for name, at in found.items()}


def by_energy(tokens: Tensor, grid: tuple[int, int], axes: Any, scale: float, *, sign: int) -> Tensor:
    """Factors on all pairs of rotary channels, (channels / 2,): 1 + 0.1 ln(scale) x entropy x 2 (1 - energy), where
    energy is the log power of the latent at the pair's wavelength, from 0, the least of the axis, to 1, the most.

    sign: -1 gives more to bands of much energy.
    """
    image = tokens.reshape(*grid, -1) - tokens.mean(dim=0)
    parts = []
    for axis in axes:
        if axis.role == "other":
            parts.append(torch.ones(axis.channels // 2))
            continue
        along = 0 if axis.role == "row" else 1
        power = torch.fft.rfft(image, dim=along).abs().square().mean(dim=(1 - along, 2))[1:]
        shares = power / power.sum()
        entropy = float(-(shares * shares.log()).sum() / math.log(len(shares)))
        omega = axis.theta ** -(torch.arange(0, axis.channels, 2) / axis.channels)
        # Waves a token, to bands of the transform; what is slower than the picture belongs to the slowest band.
        bands = (omega / (2 * math.pi) * grid[along]).clamp(1, len(power)).round().long() - 1
        energy = power.log()
        energy = ((energy - energy.min()) / (energy.max() - energy.min()).clamp(min=1e-6))[bands]
        weight = 2 * (1 - energy) if sign > 0 else 2 * energy
        parts.append(1 + 0.1 * math.log(scale) * entropy * weight)
    return torch.cat(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=16, help="clean scenes")
    parser.add_argument("--sizes", type=int, nargs="*", default=[256, 512], help="px")
    parser.add_argument("--draw", nargs="*", default=[], help="ideas to draw at 256 px")
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS / "policy_ideas.json")
    options = parser.parse_args()
    found: dict[str, Any] = {str(side): measured(side, options.pictures) for side in options.sizes}
    drawn = drawings(options.draw, options.prompts, options.steps) if options.draw else []
    command = f"python benchmarks/policy_ideas.py --pictures {options.pictures}"
    if drawn:
        names = " ".join(f'"{name}"' for name in options.draw)
        command += f" --prompts {options.prompts} --steps {options.steps} --draw {names}"
    result = {**conditions("policy_ideas", command=command), "errors": found, "drawn": drawn}
    write(options.out, result)
    write(options.out.with_suffix(".md"), markdown(result))


def measured(side: int, num: int) -> dict[str, Any]:
    """The instrument's table, with every policy measured to the end."""
    pipe, out = mini.pipeline(), CACHE / "policy_ideas" / str(side)
    request = FittingRequest(
        images=f"mini:clean:{num}", size=side, pictures=num, rules=RULES, sigmas=SIGMAS, stop_early=False
    )
    more: Any = ideas(pipe, side)
    fit = run_fitting(plan_fitting(pipe, request, more=more, out=out), out / "errors.jsonl")
    return {"chosen": fit.chosen, "best": fit.best, "table": fit.to_markdown()}


def drawings(names: list[str], num: int, steps: int) -> list[dict[str, Any]]:
    """These ideas beside the default policy and linear interpolation alone, at 256 px: a row each."""
    side, folder = 256, CACHE / "policy_ideas" / "drawn"
    pipe, judge = mini.pipeline(), recogniser()
    default = ResolutionPolicy.for_size(pipe, side)
    # All at one shift, which is the default's.
    ways: dict[str, Any] = {
        "linear, proportional (default)": default,
        "linear": replace(default, proportional=False),
    }
    ways |= {name: replace(ideas(pipe, side)[name], shift=default.shift) for name in names}
    wanted = {}
    for number in range(num):
        for name, way in ways.items():
            known = fingerprint(name, side, steps, str(way.to_dict()))
            wanted[known, number] = partial(row, pipe, name, way, number, side, steps, judge, folder / known)
    rows = recorded(wanted, folder)
    distances = patch_distances(rows, side, folder)
    return [
        {
            "way": name,
            **{column: share(_column(rows, name, column)) for column in SHARES},
            **{column: estimate(_column(rows, name, column)) for column in MEASURES},
            "patch FID": distances[name],
        }
        for name in ways
    ]


@torch.no_grad()
def row(
    pipe: Any, name: str, way: Any, number: int, side: int, steps: int, judge: Recogniser, folder: Path
) -> dict[str, Any]:
    scene = mini.familiar_scene(FIRST_PROMPT + number)
    pipe.set_progress_bar_config(disable=True)
    with way.on(pipe):
        image = pipe(
            scene.caption(),
            height=side,
            width=side,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(number),
        ).images[0]
    made = {"way": name, "prompt": number}
    save_png(image, folder / f"{number:04d}.png")
    return {
        **made,
        **verdict(judge, image, scene),
        **{column: measure(image) for column, measure in MEASURES.items()},
    }


def _column(rows: Any, name: str, column: str) -> dict[str, float]:
    return {str(row["prompt"]): row[column] for row in rows if row["way"] == name}


def markdown(result: Mapping[str, Any]) -> str:
    parts = [f"# Ideas for policies\n\n`{result['command']}`, {result['date']}"]
    for side, found in result["errors"].items():
        parts += [f"## Errors at {side} px", found["table"]]
    if result["drawn"]:
        head = list(result["drawn"][0])
        rows = [
            [line["way"], *(Markdown(shown(line[name])) for name in head[1:])] for line in result["drawn"]
        ]
        parts += ["## Drawn at 256 px", markdown_table(head, rows)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
