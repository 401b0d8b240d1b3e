"""`urae theory`: plot the theorem, simulate it, and ask it what share of synthetic data to train on."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
import typer
from rich.table import Table

from urae import data, families
from urae import theory as theorem
from urae.cli.options import Fields
from urae.cli.printed import console, say
from urae.cli.verbs import Commands
from urae.errors import BadFile
from urae.io import Progress, check_can_write, read_json_object, tracked, write_text
from urae.recipes import training_at_4k
from urae.resolution import check_size, native_size
from urae.theory import Advice, Case, Estimate, Estimates, Section, WidthCase

if TYPE_CHECKING:
    from urae.data import Record

__all__ = ["app"]

app = Commands(no_args_is_help=True, help="Theorem 2.4: plot it, simulate it, ask it for a share.")
T = TypeVar("T")

NOISES = [0.1, 0.2, 0.3, 0.4, 0.6]
STEPS = np.array([0, 1, 2, 3, 5, 8, 12, 20, 35, 60, 100, 200])
WIDTHS = [16, 64, 256, 1024]
BOUND_NOISE, BOUND_SHARE = 0.3, 0.5
NUM_CAPTIONS = 100
"""Captions of each kind of image that `advise` looks at: their latents are held in memory."""

Out = Annotated[Path, typer.Option(help="Folder for the pictures and the page.")]
Seed = Annotated[int, typer.Option(help="Seed of the random problems and draws.")]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What advice may rest on: numbers, a file of them, or images. ValueError for a mixture, and for half of one."""

    noise: float | None = None
    """Variance of real labels beyond the teacher's."""
    gap: float | None = None
    """Mean square of the teacher's error."""
    bias: float | None = None
    """The teacher's squared bias; left out, the gap."""
    estimates: Path | None = None
    """A JSON file that this command wrote."""
    manifest: Path | None = None
    """Training images: a manifest or a folder."""
    truth: Path | None = None
    """Held-out true images: a manifest or a folder."""
    teacher: str | None = None
    """Source of the manifest's synthetic records; left out, synthetic."""
    model: str | None = None
    """A folder or hub id of a pipeline; left out, mini."""
    size: int | None = None
    """Side to look at, pixels; left out, the model's native one."""

    def __post_init__(self) -> None:
        ways = ({"noise", "gap", "bias"}, {"estimates"}, {"manifest", "truth", "teacher", "model", "size"})
        given = {field.name for field in fields(self) if getattr(self, field.name) is not None}
        chosen = [way for way in ways if way & given]
        if len(chosen) != 1:
            named = ", ".join(f"--{name}" for name in sorted(given)) or "none of them"
            raise ValueError(
                "expected either --noise and --gap, or --estimates, or --manifest and --truth, "
                f"and no option of another of these: got {named}"
            )
        needed = chosen[0] & {"noise", "gap", "estimates", "manifest", "truth"}
        if missing := sorted(needed - given):
            raise ValueError(f"--{missing[0]} is missing: give it together with --{sorted(given)[0]}")

    def read(self, seed: int) -> Estimates:
        """The numbers; `seed` draws which images are looked at."""
        if self.estimates is not None:
            return _read_estimates(self.estimates)
        if self.manifest is not None and self.truth is not None:
            return _from_images(
                self.manifest,
                self.truth,
                teacher=self.teacher or "synthetic",
                model=self.model or "mini",
                size=self.size,
                seed=seed,
            )
        assert self.noise is not None
        assert self.gap is not None
        return _stated(self.noise, self.gap, self.gap if self.bias is None else self.bias)


@app.command()
def plot(
    noise: Annotated[list[float], typer.Option(help="Variance of label noise; repeat for several.")] = NOISES,
    out: Out = Path("theory"),
    repeats: Annotated[int, typer.Option(help="Training runs behind each simulated point.")] = 1000,
    seed: Seed = 0,
) -> None:
    """Draw the paper's Figure 2, and the bounds against simulation.

    Example: urae theory plot --noise 0.1 --noise 0.4 --out theory
    """
    check_can_write(out, folder=True)
    sections = [_share_section(seed, noise), _bound_section(seed, repeats)]
    for name, section in zip(("theory-share.png", "theory-bound.png"), sections, strict=True):
        say(theorem.save_figure(section.figure, out / name))
    say(theorem.write_page(out / "theory.html", title="Theorem 2.4, drawn", sections=sections))


@app.command("simulate")
def simulate_command(
    problems: Annotated[int, typer.Option(help="Random problems to simulate.", min=1)] = 100,
    repeats: Annotated[int, typer.Option(help="Training runs for each problem and share.", min=2)] = 1000,
    seed: Seed = 0,
) -> None:
    """Compare the exact error and both bounds with simulation, in random linear problems.

    Example: urae theory simulate --problems 20
    """
    with Progress("problems", total=problems) as progress:
        cases = list(_counted(theorem.survey(num_problems=problems, repeats=repeats, seed=seed), progress))
    console.print(_survey_table(cases))


@app.command("widths")
def widths_command(
    width: Annotated[list[int], typer.Option(help="Hidden units; repeat for several.", min=1)] = WIDTHS,
    networks: Annotated[int, typer.Option(help="Random networks of each width.", min=1)] = 8,
) -> None:
    """Train networks with one hidden layer beside their linearisations, at several widths.

    Example: urae theory widths --width 16 --width 256
    """
    with Progress("widths", total=len(width)) as progress:
        cases = list(_counted(theorem.survey_widths(width, num_networks=networks), progress))
    console.print(_width_table(cases))


@app.command("advise")
def advise_command(
    evidence: Annotated[dict[str, Any], Fields(Evidence)],
    gain: Annotated[
        float, typer.Option(help="Label noise that the model takes over; 1 if it fits every label.")
    ] = 1.0,
    out: Out = Path("advice"),
    seed: Seed = 0,
) -> dict[str, Any]:
    """Say what share of synthetic images to train on, and why.

    Example: urae theory advise --noise 0.3 --gap 0.1

    From images: urae theory advise --manifest data.jsonl --truth truth/ --model mini
    """
    check_can_write(out, folder=True)
    values = Evidence(**evidence).read(seed)
    advice = theorem.advise(values, gain=gain, seed=seed)
    _report(advice, values, out)
    return {**asdict(advice), "estimates": asdict(values)}


def _share_section(seed: int, noises: Sequence[float]) -> Section:
    problem = _toy(seed)
    best = [theorem.error_curve(replace(problem, noise=noise)).best() for noise in noises]
    rows = [(f"{n:g}", f"{b.share:.2f}", f"{b.error:.4g}") for n, b in zip(noises, best, strict=True)]
    return Section(
        heading="Error against the share of synthetic data",
        text="A linear model of 8 parameters, trained to convergence on 24 samples. The noisier real labels are, "
        "the larger the best share of labels from a teacher that is itself off by ||W_ref - W*|| = 2.",
        figure=theorem.share_figure(problem, noises=noises),
        alt="Expected squared error over the synthetic share, one curve for each noise level, minima marked.",
        table=[("label noise", "best share", "least error"), *rows],
    )


def _bound_section(seed: int, repeats: int) -> Section:
    problem = replace(_toy(seed), noise=BOUND_NOISE)
    shares = np.linspace(0, 1, 11)
    by_steps = theorem.simulate(problem, shares=BOUND_SHARE, steps=STEPS, repeats=repeats, seed=seed)
    by_share = theorem.simulate(problem, shares=shares, steps=STEPS[-1], repeats=repeats, seed=seed)
    return Section(
        heading="The bounds against simulation",
        text=f"The same model with label noise {BOUND_NOISE}; {repeats} training runs behind each point. "
        "Simulation lies on the exact error and below the valid bound. It lies above the bound as printed as soon "
        "as label noise has come in.",
        figure=theorem.bound_figure(
            problem, share=BOUND_SHARE, steps=STEPS, by_steps=by_steps, by_share=by_share
        ),
        alt="Exact error, valid bound, printed bound and simulated points over steps and over the share.",
    )


def _toy(seed: int) -> theorem.Problem:
    return theorem.random_problem(
        seed, num_samples=24, num_parameters=8, teacher_gap=2.0, initial=3.0, rate=0.5
    )


def _counted(cases: Iterable[T], progress: Progress) -> Iterator[T]:
    for case in cases:
        yield case
        progress.advance()


def _survey_table(cases: Sequence[Case]) -> Table:
    deviations = np.concatenate([case.deviations for case in cases])
    table = Table("quantity", "value", title=f"{len(cases)} random problems, shares 0 to 1, 0 to 60 steps")
    table.add_row("simulated means compared", str(deviations.size))
    table.add_row("largest |simulated - exact|, standard errors", f"{np.abs(deviations).max():.2f}")
    table.add_row("spread of these (1 expected)", f"{deviations.std():.2f}")
    for name, key in (
        ("bound as printed", "printed_ratio"),
        ("bound as printed, in units of eta = 1", "unit_rate_ratio"),
        ("valid bound", "valid_ratio"),
    ):
        ratios = [getattr(case, key) for case in cases]
        failed = sum(Case.fails(ratio) for ratio in ratios)
        table.add_row(f"{name}: exceeded in", f"{failed} of {len(cases)} problems")
        table.add_row(f"{name}: largest exact error / bound", f"{max(ratios):.4g}")
    return table


def _width_table(cases: Sequence[WidthCase]) -> Table:
    table = Table(
        "hidden units", "network against linear model", "largest |network - exact|, standard errors"
    )
    for case in cases:
        largest = np.abs(case.deviations).max()
        table.add_row(str(case.width), f"{case.difference:.2%}", f"{largest:.2f}")
    return table


def _stated(noise: float, gap: float, bias: float) -> Estimates:
    for name, value in {"noise": noise, "gap": gap, "bias": bias}.items():
        if value < 0:
            raise ValueError(f"--{name} is {value}: expected a mean square, 0 or more")
    values = [
        Estimate(value=value, standard_error=0.0, basis="the command line") for value in (noise, gap, bias)
    ]
    return Estimates(noise=values[0], teacher_gap=values[1], teacher_bias=values[2])


def _read_estimates(path: Path) -> Estimates:
    try:
        values = read_json_object(path)
        return Estimates(**{name: Estimate(**value) for name, value in values.items()})
    except TypeError as error:
        raise BadFile(f"{path} holds no estimates ({error}): expected a file that advise wrote") from error


def _from_images(
    manifest: Path, truth: Path, *, teacher: str, model: str, size: int | None, seed: int
) -> Estimates:
    """Estimates from latents, which differ between images just as velocity targets do at equal noise."""
    pipe = families.open_pipeline(model)
    size = size or native_size(pipe)
    files = _by_kind(manifest, truth, teacher, size)
    captions = _sample(files, seed)
    for kind, groups in files.items():
        left_out = len(groups.keys() - captions)
        if left_out:
            reason = f"without a truth, or more than the {NUM_CAPTIONS} that are looked at"
            say(f"{left_out} of {len(groups)} {kind} captions left out: {reason}")
    used = {
        kind: {caption: groups[caption] for caption in groups if caption in captions}
        for kind, groups in files.items()
    }
    latents = {kind: _latents(pipe, groups, size, kind) for kind, groups in used.items()}
    return theorem.estimate(latents["real"], synthetic=latents["synthetic"], truth=latents["truth"])


Groups = dict[str, list[Path]]
"""Image files by caption."""


def _by_kind(manifest: Path, truth: Path, teacher: str, size: int) -> dict[str, Groups]:
    kinds: dict[str, Groups] = {kind: defaultdict(list) for kind in ("real", "synthetic", "truth")}
    records = _large_enough(manifest, size)
    for record, file in records:
        kind = "synthetic" if record.source == teacher else "real"
        kinds[kind][_said(record)].append(file)
    for record, file in _large_enough(truth, size):
        kinds["truth"][_said(record)].append(file)
    for kind in ("real", "synthetic"):
        if not kinds[kind]:
            sources = ", ".join(sorted({record.source for record, _ in records}))
            raise ValueError(
                f"{manifest} has no {kind} images: its sources are {sources}, and those of source {teacher!r} are "
                "synthetic; name the teacher's source with --teacher"
            )
    return kinds


def _large_enough(source: Path, size: int) -> list[tuple[Record, Path]]:
    """Records and their files; an image that would have to be enlarged is a `ValueError`."""
    records, root = data.read_records(source)
    small = [
        f"{record.file} ({record.size[0]}x{record.size[1]})" for record in records if min(record.size) < size
    ]
    if small:
        raise ValueError(
            f"{len(small)} images in {source} are smaller than {size} px, such as {small[0]}: "
            "remove them or give a smaller --size"
        )
    return [(record, root / record.file) for record in records]


def _said(record: Record) -> str:
    return " | ".join(record.captions[kind] for kind in sorted(record.captions))


def _sample(kinds: dict[str, Groups], seed: int) -> set[str]:
    """Captions to look at, of each kind of training image: with a truth, or if none has one, with repeats."""
    chosen: set[str] = set()
    for kind in ("real", "synthetic"):
        with_truth = kinds[kind].keys() & kinds["truth"].keys()
        repeated = {caption for caption, files in kinds[kind].items() if len(files) > 1}
        candidates = sorted(with_truth or repeated)
        chosen |= set(random.Random(seed).sample(candidates, min(len(candidates), NUM_CAPTIONS)))
    return chosen


def _latents(pipe: Any, groups: Groups, size: int, kind: str) -> dict[str, np.ndarray]:
    """The means of the VAE's posteriors, (k, C, H, W) by caption, of the images' middle squares."""
    from urae.data.pixels import load_pixels

    latents = families.family_of(pipe).latents

    def encode(file: Path) -> np.ndarray:
        pixels = load_pixels(file, check_size(size))
        return latents.encode(pipe, pixels[None]).mean[0].numpy()

    return {
        caption: np.stack([encode(file) for file in files])
        for caption, files in tracked(list(groups.items()), f"encoding {kind} images")
    }


def _report(advice: Advice, estimates: Estimates, out: Path) -> None:
    for reason in advice.reasons:
        say(reason)
    say(f"at 4K: {training_at_4k(advice.best.share)}")
    figure = theorem.advice_figure(advice)
    section = Section(
        heading="Expected error against the share",
        text=" ".join(advice.reasons),
        figure=figure,
        alt=f"Expected squared error over the synthetic share, least at {advice.best.share:.0%}.",
    )
    say(theorem.save_figure(figure, out / "advice.png"))
    say(theorem.write_page(out / "advice.html", title="What share of synthetic images?", sections=[section]))
    write_text(out / "estimates.json", json.dumps(asdict(estimates), indent=2) + "\n")
    say(out / "estimates.json")
