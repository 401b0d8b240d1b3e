"""What the shipped miniature can do, beside what was asked of it: `python benchmarks/miniature.py [PART ...]`.

    vae         PSNR of held-out scenes at 128 and 512 px; tiles against the whole
    recogniser  shares of held-out truth that it tells rightly, at three sizes
    samples     what it finds at 128 px in 500 familiar scenes and 500 of the whole world, guidance 3.5 and 1
    guidance    the distilled velocity against explicit guidance of its teacher (needs the checkpoints of the training)
    sizes       256 and 512 px: direct, the default policy, adapters
    policies    the same beside each rule for positions and each part of the policy, on fewer prompts

Without a part, all. The numbers of each picture are in .cache/benchmarks/miniature-PART as soon as they are there,
those of policies with those of sizes; the same command goes on where it was. Each part that is done replaces its own
section of benchmarks/results/miniature.json and miniature.md, and its sheet of pictures in docs/images.
An aim that is not met is shown as such.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aims import aims_table
from parts.bench import Bench, Part
from parts.guidance import check_checkpoints, guidance
from parts.recogniser import recogniser
from parts.samples import samples
from parts.sizes import policies, sizes
from parts.vae import vae
from pictures import CACHE, DTYPES, difference_table, table
from report import RESULTS, conditions, write

from urae import mini
from urae.adapters import Adapter
from urae.mini.recogniser import recogniser as shipped_recogniser

ROOT = Path(__file__).parents[1]
ABOVE = {"sizes", "policies"}
"""Parts that draw pictures above the native size."""
DRAWING = {"samples", *ABOVE}
"""Parts that draw pictures."""
SERVED = {
    "scenes": {"vae", "recogniser", "guidance"},
    "prompts": DRAWING,
    "steps": DRAWING,
    "sizes": ABOVE,
    "checkpoints": {"guidance"},
}
"""Option -> the parts on which it has an effect."""
PARTS: dict[str, Callable[[Bench], Part]] = {
    "vae": vae,
    "recogniser": recogniser,
    "samples": samples,
    "guidance": guidance,
    "sizes": sizes,
    "policies": policies,
}


def main() -> None:
    parser = _parser()
    options = parser.parse_args()
    names = [name for name in PARTS if name in (options.parts or PARTS)]
    if (options.compile or options.dtype != "fp32") and not set(names) <= DRAWING:
        parser.error(f"--dtype and --compile are for the parts {' and '.join(sorted(DRAWING))}: name those")
    for name, parts in SERVED.items():
        if getattr(options, name) != parser.get_default(name) and not parts & set(names):
            parser.error(
                f"--{name} has no effect on {', '.join(names)}: it is for {', '.join(sorted(parts))}"
            )
    if options.start and not options.adapter_4x:
        parser.error("--start has no effect without --adapter-4x: leave it out")
    above = set(options.sizes) if ABOVE & set(names) else set()
    for side, name in ((256, "adapter_2x"), (512, "adapter_4x")):
        if getattr(options, name) and side not in above:
            parser.error(
                f"--{name.replace('_', '-')} has no effect where nothing is drawn at {side} px: leave it out"
            )
    if "guidance" in names:
        check_checkpoints(options.checkpoints)
    bench = _bench(options)
    result = json.loads(options.out.read_text()) if options.out.exists() else {"parts": {}}
    for name in names:
        part = PARTS[name](bench)
        said = conditions(f"miniature {name}", command=command(name, options, parser), weights=bench.weights)
        result["parts"][name] = {**said, **asdict(part)}
        write(options.out, result)
        write(options.out.with_suffix(".md"), markdown(result["parts"]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--scenes", type=int, default=0, help="in place of each part's own number")
    parser.add_argument("--prompts", type=int, default=0, help="in place of each part's own number")
    parser.add_argument("--steps", type=int, default=28, help="denoising steps")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="of what draws pictures")
    parser.add_argument("--compile", action="store_true", help="compile what draws pictures")
    parser.add_argument("--sizes", type=int, nargs="*", default=[256, 512], help="of the last two parts, px")
    parser.add_argument("--adapter-2x", type=Path, help="for 256 px; without it that row is left out")
    parser.add_argument("--adapter-4x", type=Path, help="the same for 512 px")
    parser.add_argument("--start", type=Path, help="what was fused before the 4x adapter's training")
    parser.add_argument("--checkpoints", type=Path, default=Path(".cache/mini"), help="of the training")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--images", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--out", type=Path, default=RESULTS / "miniature.json")
    return parser


def _bench(options: argparse.Namespace) -> Bench:
    pipe = mini.pipeline(DTYPES[options.dtype])
    pipe.set_progress_bar_config(disable=True)
    files = {256: (options.adapter_2x, None), 512: (options.adapter_4x, options.start)}
    adapters = {
        side: Adapter.load(file, base=pipe, start=start) for side, (file, start) in files.items() if file
    }
    return Bench(
        pipe=pipe,
        judge=shipped_recogniser(),
        scenes=options.scenes,
        prompts=options.prompts,
        steps=options.steps,
        compile=options.compile or "auto",
        sizes=options.sizes,
        adapters=adapters,
        checkpoints=options.checkpoints,
        cache=options.cache,
        images=options.images,
    )


def command(name: str, options: argparse.Namespace, parser: argparse.ArgumentParser) -> str:
    """What repeats a part: its name and every option that is not as by default."""
    words = ["python benchmarks/miniature.py", name]
    for option, value in vars(options).items():
        if option not in ("parts", "cache", "images", "out") and value != parser.get_default(option):
            several = value if isinstance(value, list) else [value]
            named = [one.name if isinstance(one, Path) else str(one) for one in several]
            words += [f"--{option.replace('_', '-')}", *(named if value is not True else [])]
    return " ".join(words)


def markdown(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """The aims of all parts together, then each part's tables."""
    done = {name: parts[name] for name in PARTS if name in parts}
    lines = [
        "# The miniature, measured",
        "",
        "[95% interval] over scenes or prompts; shares with Wilson's. Familiar scenes are those of "
        "`urae.mini.familiar_scene`; the whole world has 60 objects, and two of them in a third of its scenes. "
        "An aim is met by the value, a difference only where test and interval agree.",
        "",
        *aims_table([aim for part in done.values() for aim in part["aims"]]),
    ]
    if left_out := [name for name in PARTS if name not in done]:
        lines += ["", f"Not measured: {', '.join(left_out)}."]
    for name, part in done.items():
        lines += ["", f"## {name}", "", _said(part)]
        for title, rows in part["tables"].items():
            columns = list(dict.fromkeys(key for row in rows for key in row if isinstance(row[key], dict)))
            lines += ["", f"{title}:", "", *table(rows, columns)]
        for title, found in part["differences"].items():
            lines += difference_table(title, found)
    return "\n".join(lines) + "\n"


def _said(part: Mapping[str, Any]) -> str:
    return (
        f"`{part['command']}`, {part['date'][:10]}, {part['machine']}, {part['threads']} thread(s), "
        f"commit {part['commit']}, weights {part['weights']}."
    )


if __name__ == "__main__":
    main()
