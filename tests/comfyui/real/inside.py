"""`traps.py` in the Python of ComfyUI, which has neither diffusers nor the other tests' parts."""

from __future__ import annotations

import subprocess

from server import COMFYUI, HERE, PYTHON, ROOT, environment


def test_traps():
    settings = environment()
    parts = [settings["PYTHONPATH"], COMFYUI, ROOT, HERE, HERE.parent]
    settings["PYTHONPATH"] = ":".join(map(str, filter(None, parts)))
    alone = ["--noconftest", "-c", "/dev/null", "-p", "no:cacheprovider"]
    command = [PYTHON, "-m", "pytest", "-q", *alone, HERE / "traps.py"]
    result = subprocess.run(command, cwd=HERE, env=settings, capture_output=True, text=True)
    print(result.stdout[-20000:], result.stderr[-3000:])
    assert result.returncode == 0
