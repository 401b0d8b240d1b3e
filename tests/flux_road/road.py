"""The road of a FLUX user: an empty folder, commands as they are typed, and what they print."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "collecting"))  # where the servers are
from collect_server import KEY, Server, running
from post_server import serving

__all__ = ["ROOT", "ULTRA", "Road", "Ultra", "described", "picture", "running", "serving", "size_of"]

ROOT = Path(__file__).parents[2]

ULTRA = {
    "1:1": (2048, 2048),
    "4:3": (2368, 1792),
    "3:4": (1792, 2368),
    "3:2": (2496, 1664),
    "2:3": (1664, 2496),
    "16:9": (2752, 1536),
    "9:16": (1536, 2752),
}
"""Pixels that FLUX1.1 [pro] Ultra answers with, by aspect ratio."""


class Ultra(Server):
    """Answers with pictures of the real service's sizes."""

    def draw(self, name: str, body: dict[str, Any]) -> bytes:
        stream = io.BytesIO()
        picture(ULTRA[body["aspect_ratio"]], seed=body["seed"]).save(stream, "PNG", compress_level=1)
        return stream.getvalue()


def picture(size: tuple[int, int], *, seed: int) -> Image.Image:
    """A sharp picture, unlike others: a gradient of its own under a grain that repeats, so that files are small."""
    rng = np.random.default_rng(seed % 2**32)
    coarse = Image.fromarray(rng.integers(40, 216, (5, 5, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
    grain = rng.integers(-40, 40, (256, 256, 1), dtype=np.int16)
    repeats = (-(-size[1] // 256), -(-size[0] // 256), 1)
    whole = np.tile(grain, repeats)[: size[1], : size[0]]
    return Image.fromarray((smooth // 8 * 8 + whole).clip(0, 255).astype(np.uint8))


def described(body: dict[str, Any], number: int) -> tuple[int, dict[str, Any]]:
    """A captioner's answer in the form of OpenAI's chat completions."""
    text = (
        f"Picture {number} of soft colours under a fine grain, lit from one side, with nothing written on it"
    )
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    usage = {"prompt_tokens": 100, "completion_tokens": 20}
    return 200, {"id": "x", "model": body["model"], "choices": choices, "usage": usage}


@dataclass
class Road:
    """Commands in one working folder, one after the other."""

    folder: Path
    hub: Path
    environment: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    """Commands and what they printed, as `transcript.txt` has it too."""

    def go(self, *words: object) -> str:
        """Run a command as a user does; returns what it printed. It must succeed."""
        ended = self.tried(*words)
        assert ended.returncode == 0, "\n".join(self.said[-2:])
        return ended.stdout

    def tried(self, *words: object) -> subprocess.CompletedProcess[str]:
        command = [str(word) for word in words]
        log = self.folder / "log.txt"
        with log.open("w") as errors:
            ended = subprocess.run(
                command,
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=self._environment(),
            )
        self.said += ["$ " + shlex.join(command).replace(f"{ROOT}/", ""), ended.stdout + log.read_text()]
        (self.folder / "transcript.txt").write_text("\n".join(self.said))
        return ended

    def _environment(self) -> dict[str, str]:
        own = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "src"),
            "HF_HUB_CACHE": str(self.hub),
            "HF_HUB_OFFLINE": "1",
            "BFL_API_KEY": KEY,
            "OPENAI_API_KEY": "sk-secret",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "100",
        }
        return {**os.environ, **own, **self.environment}


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as opened:
        return opened.size
