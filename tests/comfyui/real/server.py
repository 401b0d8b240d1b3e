"""A real ComfyUI on loopback, on the CPU, with a folder of its own for models, nodes and results.

COMFYUI is its folder and COMFYUI_PYTHON a Python with its requirements. Where that lacks torchvision or torchaudio, the
empty modules of `tests/comfyui/absent` stand for them: ComfyUI imports them for models that these tests do not run.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
COMFYUI = Path(os.environ["COMFYUI"])
PYTHON = os.environ["COMFYUI_PYTHON"]
PATIENCE = 900
"""Seconds that ComfyUI may take to start, or to run a workflow."""


def environment() -> dict[str, str]:
    """Of ComfyUI's process."""
    asked = "import torchvision, torchaudio"
    found = subprocess.run([PYTHON, "-c", asked], capture_output=True, env={**os.environ, "PYTHONPATH": ""})
    absent = "" if found.returncode == 0 else str(HERE.parent / "absent")
    return {**os.environ, "PYTHONPATH": absent, "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Server:
    address: str
    folder: Path

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def run(self, workflow: dict[str, Any]) -> dict[str, Any]:
        """Run a workflow in the API's form to its end; what ComfyUI says of it."""
        key = self.ask("/prompt", {"prompt": workflow})["prompt_id"]
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if found := self.ask(f"/history/{key}").get(key):
                return found
            time.sleep(0.1)
        raise TimeoutError(f"the workflow ran for more than {PATIENCE} s")

    def latents(self, workflow: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The latents that the workflow's SaveLatent nodes save, by node."""
        said = self.run(workflow)
        assert said["status"]["status_str"] == "success", said["status"]["messages"]
        return {node: load_file(self.folder / "output" / one["subfolder"] / one["filename"])["latent_tensor"]
                for node, shown in said["outputs"].items() for one in shown.get("latents", [])}  # fmt: skip

    def error(self, workflow: dict[str, Any]) -> str:
        """The sentence with which a workflow ends that fails."""
        said = self.run(workflow)["status"]
        (failed,) = [what for kind, what in said["messages"] if kind == "execution_error"]
        return failed["exception_message"]


@contextmanager
def comfyui(folder: Path) -> Iterator[Server]:
    """The nodes are installed as users do it: their folder is copied."""
    shutil.copytree(ROOT / "comfyui", folder / "custom_nodes" / "urae")
    shutil.copytree(HERE / "probe", folder / "custom_nodes" / "probe")
    for name in ("models/loras", "models/vae", "input", "output", "user", "web"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "web" / "index.html").write_text("")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        PYTHON,
        "main.py",
        "--cpu",
        "--listen",
        "127.0.0.1",
        "--port",
        str(port),
        "--disable-api-nodes",
    ]
    folders = ["--base-directory", folder, "--front-end-root", folder / "web"]
    database = ["--database-url", f"sqlite:///{folder / 'user' / 'comfyui.db'}"]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [*command, *folders, *database],
            cwd=COMFYUI,
            env=environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield _awaited(Server(f"http://127.0.0.1:{port}", folder), process)
        finally:
            process.terminate()
            process.wait(30)


def _awaited(server: Server, process: subprocess.Popen) -> Server:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            server.ask("/object_info/UraeAdapter")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
        else:
            return server
    raise RuntimeError(f"ComfyUI did not start:\n{(server.folder / 'log.txt').read_text()}")
