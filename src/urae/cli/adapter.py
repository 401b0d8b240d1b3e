"""`urae adapter`: look into adapter files, convert them between layouts, merge them, bake them into a model."""

from __future__ import annotations

import json
import math
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import filesize
from rich.table import Table

from urae import adapters, baking, families, mini, resolution
from urae.cli.printed import Verbose, console, say
from urae.cli.verbs import Commands
from urae.io import check_can_write, plain

if TYPE_CHECKING:
    from torch import nn

    from urae.adapters import Adapter

__all__ = ["app"]

app = Commands(no_args_is_help=True, help="Show, convert, merge and bake adapter files.")

Input = Annotated[
    Path, typer.Argument(help="A .safetensors file of any LoRA layout, or a published URAE adapter.")
]
BaseModel = Annotated[
    str,
    typer.Option(
        "--base",
        help="Base model: mini, a hub id or a diffusers folder. Only the published 4K file needs it.",
    ),
]
Start = Annotated[
    str, typer.Option(help="Adapter that was fused into the base first (for the published 4K file).")
]
Rank = Annotated[int, typer.Option(min=1, help="Truncate to this rank by SVD, and print the error.")]


@app.command(epilog="Example: urae adapter show adapter.safetensors")
def show(path: Input, base: BaseModel = "", start: Start = "", verbose: Verbose = False) -> dict[str, Any]:
    """Print what a file is: layout, kind, rank, targets, policy, recipe, base, size, norms."""
    adapter = _load(path, base, start)
    table = Table(title=plain(path.name), show_header=False, title_justify="left")
    for name, value in _facts(adapter, path):
        table.add_row(name, plain(value))
    if verbose and adapter.policy:
        table.add_row("policy as JSON", adapter.policy.to_json())
    console.print(table)
    return {
        "file": str(path),
        "layout": adapter.layout,
        "kind": _kind(adapter),
        "ranks": {name: A.shape[0] for name, (A, _) in adapter.factors.items()},
        "full": list(adapter.differences),
        "bytes": adapters.file_named(path).stat().st_size,
        "hash": adapter.hash,
        "norms": _norms(adapter),
        **adapter.metadata(),
    }


@app.command(epilog="Example: urae adapter convert adapter.safetensors comfyui.safetensors --to comfy")
def convert(
    path: Input,
    out: Annotated[Path, typer.Argument(help="File to write.")],
    to: Annotated[str, typer.Option(help="diffusers, kohya or comfy (ComfyUI and InvokeAI).")] = "diffusers",
    rank: Rank | None = None,
    base: BaseModel = "",
    start: Start = "",
) -> None:
    """Rewrite a file in another key layout, exactly; with --rank, as the best approximation of that rank."""
    check_can_write(out)
    adapter = _truncated(_load(path, base, start), rank)
    adapter.save(out, layout=to)
    say(f"{to} layout: {out}")
    for note in _unseen(adapter, to):
        say(f"note: {note}")


@app.command(
    epilog="Example: urae adapter merge 2k.safetensors style.safetensors -w 1 -w 0.6 --out both.safetensors"
)
def merge(
    paths: Annotated[list[Path], typer.Argument(help="Two or more adapter files.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    weight: Annotated[
        list[float] | None, typer.Option("--weight", "-w", help="One per file; 1 by default.")
    ] = None,
    policy: Annotated[
        str,
        typer.Option(
            help="Where policies differ: a file whose policy to keep (adapter or JSON), 'none', or JSON."
        ),
    ] = "own",
    rank: Rank | None = None,
    allow_other_base: Annotated[bool, typer.Option(help="Merge adapters of different bases.")] = False,
) -> None:
    """Write the weighted sum of several adapters as one."""
    check_can_write(out)
    parts = [adapters.Adapter.load(path) for path in paths]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        merged = adapters.merge(
            parts, weights=weight or (), policy=_policy(policy), allow_other_base=allow_other_base
        )
    for warning in caught if rank is None else ():
        say(f"note: {warning.message}")
    _truncated(merged, rank).save(out)
    say(f"merged {len(parts)} adapters: {out}")


@app.command(epilog="Example: urae adapter bake 2k.safetensors --model mini --out models/mini-2k")
def bake(
    paths: Annotated[list[Path], typer.Argument(help="Adapter files, one or several.")],
    model: Annotated[
        str,
        typer.Option(help="Model: mini, a diffusers folder, a hub id, or a .safetensors file with --base."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="New folder in the diffusers layout, or .safetensors file under the original names."
        ),
    ],
    base: Annotated[
        str, typer.Option(help="Folder or hub id with the other parts of a model in one file.")
    ] = "",
    weight: Annotated[
        list[float] | None, typer.Option("--weight", "-w", help="One per adapter; 1 by default.")
    ] = None,
    policy: Annotated[
        str, typer.Option(help="Where policies differ: a file whose policy to keep, 'none', or JSON.")
    ] = "own",
    start: Start = "",
    allow_other_base: Annotated[
        bool, typer.Option(help="Bake into another model than the adapter's own.")
    ] = False,
) -> None:
    """Merge adapters permanently into a model's weights, for tools that cannot load one: W' = W + B A.

    The model is read and written one tensor at a time, in its own types. What rounding to them costs is printed.
    """
    check_can_write(out, folder=out.suffix != ".safetensors")
    parts = [_load(path, (base or model) if start else "", start) for path in paths]
    if len(parts) > 1 or weight:
        parts = [_weighted(parts, weight or [], policy, allow_other_base)]
    made = baking.bake(parts[0], model, out, base=base, allow_other_base=allow_other_base)
    say(f"wrote {made.path}")
    say(made)


def _weighted(parts: list[Adapter], weights: list[float], policy: str, allow_other_base: bool) -> Adapter:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the rank, which a baked adapter does not have
        if len(parts) == 1:
            parts, weights = [*parts, parts[0]], [*weights, 0.0]
        return adapters.merge(
            parts, weights=weights, policy=_policy(policy), allow_other_base=allow_other_base
        )


def _load(path: Path, base: str, start: str) -> Adapter:
    return adapters.Adapter.load(path, base=_transformer(base) if base else None, start=start or None)


def _transformer(name: str) -> nn.Module:
    if name == "mini":
        return mini.pipeline().transformer
    import diffusers  # here, since the list of options needs nothing of it

    folder = families.downloaded(name, ["transformer"])
    return diffusers.AutoModel.from_pretrained(str(folder), subfolder="transformer", use_safetensors=True)


def _truncated(adapter: Adapter, rank: int | None) -> Adapter:
    if rank is None:
        return adapter
    result = adapters.truncate(adapter, rank=rank)
    worst, error = result.worst
    say(f"truncated to rank {rank}: relative error {result.error:.3g} (worst {error:.3g} in {worst})")
    return result.adapter


def _unseen(adapter: Adapter, layout: str) -> list[str]:
    """What other tools will not take from the file."""
    notes = [*_unread(adapter, layout)]
    if adapter.policy is not None:
        from urae.adapters.loaders import nearest_nodes

        notes.append(
            "the resolution policy stays behind: other tools take the weights alone. In ComfyUI the node URAE adapter "
            f"(folder comfyui of this repository) reads it from this file; nearest by its own nodes: "
            f"{nearest_nodes(adapter.policy)}"
        )
    return notes


def _unread(adapter: Adapter, layout: Any) -> Iterator[str]:
    from urae.adapters.convert import lost_by_stock
    from urae.adapters.loaders import LOADERS, unread

    model = adapter.base.model if adapter.base else ""
    names = [*adapter.factors, *adapter.differences]
    of_flux = model == "FluxTransformer2DModel"
    for tool in LOADERS if of_flux else ("diffusers",):
        lost = unread(tool, names, layout) if of_flux else lost_by_stock(adapter.factors, layout, model=model)
        meant = tool != "kohya's sd-scripts" or layout == "kohya"
        if lost and meant:
            yield f"{tool} leaves out {len(lost)} of {len(names)} layers of this layout, such as {lost[0]}"


def _policy(named: str) -> Any:
    if named == "own":
        return "own"
    if named == "none":
        return None
    if named.startswith("{"):
        return resolution.ResolutionPolicy.from_json(named)
    if named.endswith(".json"):
        return resolution.ResolutionPolicy.read(named)
    return adapters.Adapter.load(named).policy


def _facts(adapter: Adapter, path: Path) -> list[tuple[str, str]]:
    described = adapter.metadata()
    return [
        ("layout", adapter.layout),
        ("kind", _kind(adapter)),
        ("rank", _ranks(adapter)),
        ("targets", _targets(adapter)),
        ("policy", str(adapter.policy or "not recorded")),
        ("recipe", _settings(described["recipe"])),
        ("data", _settings(described["data"])),
        ("base", str(adapter.base) if adapter.base else "not recorded"),
        ("start", adapter.start[:12] or "none"),
        ("size on disk", filesize.decimal(adapters.file_named(path).stat().st_size)),
        ("created", adapter.created or "not recorded"),
        ("hash", adapter.hash[:12]),
        *[(f"norm of {group}", f"{norm:.4g}") for group, norm in _norms(adapter).items()],
    ]


def _kind(adapter: Adapter) -> str:
    return adapter.spec.kind if adapter.spec else "full" if adapter.is_full else "LoRA of unknown origin"


def _ranks(adapter: Adapter) -> str:
    ranks = sorted({A.shape[0] for A, _ in adapter.factors.values()})
    trained = f" (trained: {adapter.spec.to_dict()['rank']})" if ranks and adapter.spec else ""
    return f"{', '.join(map(str, ranks))}{trained}" if ranks else "full"


def _targets(adapter: Adapter) -> str:
    names = [*adapter.factors, *adapter.differences]
    tails: dict[str, int] = defaultdict(int)
    for name in names:
        tails[".".join(part for part in name.split(".")[2:]) or name] += 1
    return ", ".join(f"{tail} x{count}" for tail, count in tails.items())


def _settings(values: Any) -> str:
    if not values:
        return "not recorded"
    return ", ".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()
    )


def _norms(adapter: Adapter) -> dict[str, float]:
    """Frobenius norm of the whole update per kind of block."""
    from urae.adapters.factors import product_norm

    groups: dict[str, float] = defaultdict(float)
    for name, pair in adapter.factors.items():
        groups[name.split(".")[0]] = math.hypot(groups[name.split(".")[0]], product_norm(pair))
    for name, difference in adapter.differences.items():
        groups[name.split(".")[0]] = math.hypot(groups[name.split(".")[0]], float(difference.norm()))
    return dict(groups)
