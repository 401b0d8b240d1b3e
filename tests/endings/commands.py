"""The long commands, each once: how it is typed, what it works on, and what of its result differs from run to run."""

from __future__ import annotations

import fnmatch
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from started import digest_of, files_of

from tiny import write_images
from urae.adapters import Lora, Minor
from urae.dpg.questions import write_questions

# The servers of other rooms' tests, and what those work on.
sys.path.extend(str(Path(__file__).parents[1] / room) for room in ("adapters", "collecting", "dpg", "judge"))
import collect_server
import judge_server
from dpg_material import draw as draw_scenes
from dpg_material import scene_items, scenes
from judge_material import PROMPTS
from judge_material import draw as draw_grey
from tiny_flux import trained_adapter

DESCRIPTION = "A grey wall of small stones, evenly lit from the left, fills the picture from edge to edge."


@dataclass(frozen=True, kw_only=True)
class Command:
    """A row of the table."""

    name: str
    options: str
    """As typed behind the name, in a folder with the material; {url} is the server's."""
    out: str = "out"
    """What it makes, or changes."""
    server: Callable[[], AbstractContextManager[str]] = field(default=lambda: nullcontext(""))
    varies: Mapping[str, Callable[[bytes], bytes]] = field(default_factory=dict)
    """Files in which two undisturbed runs differ, as patterns of names -> what of their bytes must be equal."""
    begins_anew: bool = False
    """Where that is a matter of seconds, or costs are measured; else finished pictures and weights stay as they are."""
    names_are_drawn: bool = False
    """Whether files get names that nobody can foresee."""

    def words(self, url: str) -> list[str]:
        return f"{self.name} {self.options}".format(url=url).split()

    def digests(self, folder: Path) -> list[tuple[str, str]]:
        """The name of every file, and what must be equal of it."""
        files = files_of(folder / self.out)
        return sorted((self._name_of(path, folder), digest_of(self.equal_part(path))) for path in files)

    def _name_of(self, path: Path, folder: Path) -> str:
        place = path.relative_to(folder)
        return str(place.parent if self.names_are_drawn and len(place.parts) > 2 else place)

    def equal_part(self, path: Path) -> bytes:
        for pattern, part in self.varies.items():
            if fnmatch.fnmatch(path.name, pattern):
                return part(path.read_bytes())
        return path.read_bytes()


def nothing(content: bytes) -> bytes:
    return b""


def without(*keys: str) -> Callable[[bytes], bytes]:
    """JSON or JSON lines less these keys, at any depth; lines in any order."""

    def less(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: less(inner) for key, inner in value.items() if key not in keys}
        return [less(inner) for inner in value] if isinstance(value, list) else value

    def part(content: bytes) -> bytes:
        lines = content.splitlines() if content.lstrip().startswith(b'{"') else [content]
        return "\n".join(sorted(json.dumps(less(json.loads(line))) for line in lines)).encode()

    return part


@contextmanager
def images_ordered() -> Iterator[str]:
    with collect_server.running() as state:
        state.paint = lambda body: collect_server.picture(body["prompt"])
        yield state.url


@contextmanager
def chat() -> Iterator[str]:
    with judge_server.running(reaction) as state:
        yield state.url


def reaction(asked: judge_server.Asked) -> judge_server.Reaction:
    """What a judge, an answerer of questions and a captioner say."""
    if asked.labels:
        said = judge_server.oracle(asked)
    else:
        said = judge_server.completion("yes" if "yes" in asked.text else DESCRIPTION)
    return judge_server.Reaction(said.body, seconds=0.01)


def write_material(folder: Path, model: Path) -> None:
    """Everything that the commands work on."""
    folder.mkdir()
    (folder / "model").symlink_to(model)
    write_images(folder / "images", [(96, 96)] * 4 + [(128, 96)] * 3)
    draw_grey(folder / "dark", 60)
    draw_grey(folder / "bright", 180)
    draw_scenes(folder / "scenes", scenes(6))
    write_questions(scene_items(6), folder / "scenes.csv")
    (folder / "prompts.txt").write_text("".join(f"a {letter}\n" for letter in "bcdefg"))
    for name, spec in (("minor", Minor(rank=2)), ("lora", Lora(rank=3))):
        trained_adapter(spec).save(folder / f"{name}.safetensors")
    (folder / "prompts.jsonl").write_text(
        "".join(json.dumps({"id": key, "prompt": text}) + "\n" for key, text in PROMPTS.items())
    )


COMMANDS = [
    Command(
        name="train",
        options="mini_2x --model model model=model out=out data=images size=96 steps=12 batch_size=1 adapter.rank=2 "
        "checkpoint_every=4 sample_every=0 num_validation=0 validate_every=0 loggers=[]",
        varies={
            "metrics.jsonl": without("seconds"),
            "state.json": without("metrics"),
            "digests.json": nothing,
            "report.html": nothing,
        },
    ),
    Command(name="generate", options="--prompts prompts.txt --model model --size 96x80 --steps 2 --out out"),
    Command(name="enlarge", options="dark/p0.png --scale 2 --model model --steps 2 --seed 0-3 --out out"),
    Command(
        name="compare",
        options="tiger --model model --size 96x80 --steps 2 --native-steps 1 --method stock --method sdedit --out out",
        varies={
            "compare.json": without("date", "seconds", "native_seconds", "peak_bytes"),
            "compare.html": nothing,
            "grid.png": nothing,
        },
        begins_anew=True,
    ),
    Command(
        name="data collect",
        options="out --prompts prompts.txt --set base_url={url} --set poll_every=0.01 --yes",
        server=images_ordered,
        varies={"orders.jsonl": nothing, "manifest.jsonl": without("time")},
    ),
    Command(
        name="data import",
        options="images --out out --size 64 --entropy 0 --flatness 1 --sharpness 0 --workers 2",
        varies={"journal.jsonl": without("time"), "manifest.jsonl": without("time")},
    ),
    Command(
        name="data caption",
        options="dark --model toy --base-url {url} --concurrency 2 --yes",
        server=chat,
        out="dark",
        varies={"*.jsonl": without("time")},
    ),
    Command(name="data convert", options="images --out out --to manifest", begins_anew=True),
    Command(name="data cache", options="images --size 96 --model model --out out"),
    Command(
        name="adapter convert", options="minor.safetensors out/kohya.safetensors --to kohya", begins_anew=True
    ),
    Command(
        name="adapter merge",
        options="minor.safetensors lora.safetensors --out out/merged.safetensors",
        begins_anew=True,
    ),
    Command(name="adapter bake", options="lora.safetensors --model model --out out", begins_anew=True),
    Command(
        name="evaluate",
        options="--candidate dark=dark --candidate bright=bright --prompts prompts.jsonl --cache out/features "
        "--metrics detail,compression,repetition --out out/table.md --out out/table.json",
    ),
    Command(
        name="judge",
        options="--candidate dark=dark --candidate bright=bright --prompts prompts.jsonl --model toy --base-url {url} "
        "--crop 32 --out out --yes",
        server=chat,
        varies={"answers.jsonl": without("time")},
    ),
    Command(
        name="dpg",
        options="--candidate scenes=scenes --questions scenes.csv --model toy --server {url} --out out",
        server=chat,
        varies={"answers.jsonl": without("time")},
    ),
    Command(
        name="study build",
        options="--candidate dark=dark --candidate bright=bright --prompts prompts.jsonl --out out",
        varies={"study.json": nothing, "votes.sqlite": nothing, "invitations.csv": nothing},
        begins_anew=True,
        names_are_drawn=True,
    ),
    Command(
        name="policy fit",
        options="--model model --size 96 --images images --pictures 7 --rule linear --sigma 0.5 --sigma 0.8 "
        "--sigma 0.9 --out out --cache cache",
    ),
    Command(
        name="reproduce",
        options="table1 --miniature --quick --row SDEdit --column alignment --column DPG --out out",
        varies={"answers.jsonl": without("time")},
    ),
]
