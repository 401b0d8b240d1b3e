"""Models from a hub: what is gated, missing, slow or forbidden, with the real client and a real server."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hub_server import Repository, hub

from urae import mini

OPEN = "someone/open"
INDEX = b'{"_class_name": "FluxPipeline"}'
LIST = b'{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
REPOSITORIES = {
    OPEN: Repository(
        files={"model_index.json": INDEX, "transformer/config.json": b"{}", "big.safetensors": b"x" * 99}
    ),
    "someone/gated": Repository(files={"model_index.json": INDEX}, gated=True),
    "someone/slow": Repository(
        files={"a/one.safetensors": b"1" * 9, "a/two.safetensors": b"2" * 9}, seconds=0.5
    ),
    "someone/holes": Repository(files={"model_index.json": INDEX}, lost=["a/gone.safetensors"]),
}
ASK = """
import sys
from urae.errors import UraeError
from urae.io import hub_file, hub_snapshot
for line in sys.argv[1:]:
    name, _, what = line.partition(" ")
    try:
        print(hub_snapshot(name, what.split(",")) if "*" in what else hub_file(name, what))
    except (ValueError, UraeError) as error:
        print(f"{type(error).__name__}: {error}")
assert "torch" not in sys.modules
"""


@pytest.fixture(scope="module")
def here():
    with hub(REPOSITORIES) as made:
        yield made


@pytest.fixture
def process(here, tmp_path):
    """Start a process that asks for files, with a cache of its own."""

    def start(*asked: str, code: str = ASK, **settings: str) -> subprocess.Popen[str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        own |= {
            "HF_ENDPOINT": here.address,
            "HF_HOME": str(tmp_path),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            **settings,
        }
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([sys.executable, "-c", code, *asked], env=own, **pipes)

    return start


def lines_of(process: subprocess.Popen[str]) -> list[str]:
    out, told = process.communicate(timeout=600)
    assert process.returncode == 0, told
    return out.splitlines()


def test_a_mirror_is_asked_and_what_is_missing_is_said(here, process, tmp_path):
    found, gated, missing, holes, nowhere, snapshot = lines_of(
        process(
            f"{OPEN} model_index.json",
            "someone/gated model_index.json",
            f"{OPEN} vae/config.json",
            "someone/holes a/*",
            "someone/else model_index.json",
            f"{OPEN} transformer/*",
        )
    )
    assert found.startswith(str(tmp_path))
    assert "UraeError: someone/gated cannot be downloaded: it is gated: accept its licence at" in gated
    assert f"{here.address}/someone/gated, then make a token at {here.address}/settings/tokens" in gated
    assert "`hf auth login`, or HF_TOKEN" in gated
    assert f"UraeError: {OPEN} cannot be downloaded: it has no vae/config.json" in missing
    assert "it has no a/gone.safetensors" in holes
    assert (
        f"ValueError: there is no model 'someone/else', neither a folder here nor at {here.address}"
        in nowhere
    )
    assert (tmp_path / snapshot / "transformer" / "config.json").is_file()
    assert here.fetched("big.safetensors") == 0  # only what fits the patterns


def test_who_is_logged_in_is_told_what_else_is_needed(process):
    (gated,) = lines_of(process("someone/gated model_index.json", HF_TOKEN="hf_x"))
    assert "with the account that this machine's token is of" in gated
    assert "hf auth login" not in gated


def test_offline_the_cache_serves_and_nobody_is_asked(here, process):
    lines_of(process(f"{OPEN} model_index.json"))
    before = len(here.requests)
    there, lacking = lines_of(process(f"{OPEN} model_index.json", f"{OPEN} other.json", HF_HUB_OFFLINE="1"))
    assert there.endswith("model_index.json")
    assert "other.json is not in" in lacking
    assert f"HF_HUB_OFFLINE forbids to ask for it: run `hf download {OPEN}`" in lacking
    assert len(here.requests) == before


@pytest.mark.thorough
def test_a_server_that_is_not_there_is_named(process):
    (said,) = lines_of(process(f"{OPEN} model_index.json", HF_ENDPOINT="http://127.0.0.1:9"))
    assert "http://127.0.0.1:9 cannot be reached" in said
    assert "HF_ENDPOINT" in said


def test_processes_do_not_download_at_once(here, process):
    started = [process("someone/slow a/*") for _ in range(3)]
    folders = {lines_of(one)[0] for one in started}
    assert len(folders) == 1
    assert [here.fetched(file) for file in ("one.safetensors", "two.safetensors")] == [1, 1]


OPEN_MODEL = """
import sys
from urae.errors import UraeError
from urae.families import model_name, open_pipeline, open_transformer
from urae.adapters import base_of
pipe = open_pipeline("someone/mini")
print(model_name(pipe), base_of(pipe.transformer).name, pipe.transformer.dtype)
print(type(open_transformer(pipe, "someone/mini")).__name__)
for name in ("someone/short", "someone/gated"):
    try:
        open_pipeline(name)
    except UraeError as error:
        print(error)
"""


def test_a_pipeline_is_opened_from_a_hub(process, here, monkeypatch):
    files = {
        str(path.relative_to(mini.WEIGHTS)): path.read_bytes()
        for path in mini.WEIGHTS.rglob("*")
        if path.is_file()
    }
    short = files | {"vae/diffusion_pytorch_model.safetensors.index.json": LIST}
    monkeypatch.setitem(REPOSITORIES, "someone/mini", Repository(files=files | {"whole.safetensors": b"x"}))
    monkeypatch.setitem(REPOSITORIES, "someone/short", Repository(files=short))
    opened, teacher, lacking, gated = lines_of(process(code=OPEN_MODEL))
    assert opened == "someone/mini someone/mini torch.float32"
    assert teacher == "FluxTransformer2DModel"
    lost = "vae/model-00001-of-00002.safetensors, vae/model-00002-of-00002.safetensors"
    assert (
        f"someone/short lacks {lost}, which diffusion_pytorch_model.safetensors.index.json names" in lacking
    )
    assert "someone/gated cannot be downloaded: it is gated" in gated
    # The transformer in one file, which diffusers does not read.
    assert here.fetched("whole.safetensors") == 0
