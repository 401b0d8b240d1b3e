"""The launch files are whole, and set nothing that a recipe does not have."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cases import thorough
from urae.recipes import RECIPES
from urae.training import valid_keys

RUNS = Path(__file__).parents[2] / "runs"
SCRIPTS = sorted([*RUNS.glob("*.sh"), *RUNS.glob("*.sbatch")])


def checked_by_bash(script: str) -> None:
    result = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash_and_set_real_keys(path):
    checked_by_bash(path.read_text())
    keys = set(re.findall(r"\b([a-z_]+(?:\.[a-z_]+)*)=(?=[\"$/a-z])", without_assignments(path.read_text())))
    variables = {"host", "status"}  # of the scripts
    assert keys - variables <= set(valid_keys(RECIPES["flux_4k"]()))


def without_assignments(script: str) -> str:
    """The script without comments, options and its own variables."""
    lines = (re.sub(r"#.*|--[a-z-]+=\S+", "", line) for line in script.splitlines())
    return "\n".join(line for line in lines if not re.match(r"\s*[a-z]+=", line))


def test_the_rented_machine_trains_a_recipe_that_exists():
    task = yaml.safe_load((RUNS / "skypilot.yaml").read_text())
    assert task["envs"]["RECIPE"] in RECIPES
    assert "runs/torchrun.sh" in task["run"]
    checked_by_bash(task["run"])


def test_the_pods_run_the_launcher_on_as_many_machines_as_there_are():
    service, job = yaml.safe_load_all((RUNS / "kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    *_, command = container["command"]
    checked_by_bash(command)
    words = command.split()
    assert words[:2] == ["exec", "runs/torchrun.sh"]  # which is then the process that is asked to end
    assert RECIPES[words[2]](batch_size=16).images_at_a_time(16) == 1
    assert int(words[3]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert words[5] == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert pod["terminationGracePeriodSeconds"] > 600  # the launcher's own patience


def launched(tmp_path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`runs/torchrun.sh` with a launcher that only says what it was given."""
    (tmp_path / "torchrun").write_text('#!/bin/sh\necho "$PET_SIGNALS_TO_HANDLE" "$@"\n')
    (tmp_path / "torchrun").chmod(0o755)
    paths = [str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]]
    return subprocess.run(
        ["bash", RUNS / "torchrun.sh", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": os.pathsep.join(paths), **environment},
    )


def test_a_launch_has_a_rendezvous_of_its_own(tmp_path):
    alone = launched(tmp_path, "flux_4k", "1", "0", "here", PROCESSES="2").stdout
    assert "--nproc-per-node 2 " in alone
    assert "--rdzv-endpoint localhost:0 " in alone  # any free port
    assert alone.endswith("urae train flux_4k gradient_accumulation=4\n")
    assert "SIGUSR1" in alone.split()[0]
    several = launched(
        tmp_path,
        *["flux_4k", "2", "1", "node-a:1234", "steps=3", "gradient_accumulation=2"],
        PROCESSES="2",
        RUN_ID="7",
    ).stdout
    assert "--rdzv-endpoint node-a:1234 --rdzv-id 7 " in several
    assert several.endswith("urae train flux_4k steps=3 gradient_accumulation=2\n")


def test_gpus_are_those_that_torch_may_use(tmp_path):
    ended = launched(tmp_path, "flux_4k", "1", "0", "here", CUDA_VISIBLE_DEVICES="", PROCESSES="")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("there is no GPU here that torch can use")


@pytest.mark.parametrize("script", ["flux_2k.sh", "flux_4k.sh"])
@pytest.mark.parametrize("gpus", ["0", "3", "16", "many"])
def test_gpus_that_cannot_share_the_batch_are_one_sentence(script, gpus, tmp_path):
    ended = subprocess.run(
        ["bash", RUNS / script, "data", gpus], cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert ended.stderr == f"GPUs is {gpus}: expected 1, 2, 4 or 8, which share a batch of 8 evenly\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", ["flux_2k.sh", "flux_4k.sh"])
def test_a_larger_batch_allows_other_numbers_of_gpus_and_no_other_words(script, tmp_path):
    """A setting where the number belongs, or none at all, would divide the batch by it."""
    (tmp_path / "torchrun").write_text('#!/bin/sh\necho "$@"\nexit 3\n')
    (tmp_path / "torchrun").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}

    def started(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", RUNS / script, "data", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)

    for gpus in ("0", "batch_size=16"):
        refused = started(gpus, "batch_size=16")
        assert refused.returncode == 2
        assert refused.stderr == f"GPUs is {gpus}: expected 1, 2, 4 or 8, which share a batch of 8 evenly\n"
    sixteen = started("16", "batch_size=32")
    assert sixteen.stdout.startswith("--nproc-per-node 16 ")
    assert "gradient_accumulation=2" in sixteen.stdout.split()


@pytest.mark.parametrize("script", ["flux_2k.sh", thorough("flux_4k.sh")])
def test_hidden_gpus_are_not_counted(script, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nprintf 'GPU 0\\nGPU 1\\n'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    paths = [str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {**os.environ, "PATH": os.pathsep.join(paths), "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(
        ["bash", RUNS / script], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert ended.stderr.startswith("GPUs is 0: ")


@pytest.mark.parametrize(("script", "gpus"), [("flux_2k.sh", "1"), thorough("flux_4k.sh", "2")])
@pytest.mark.parametrize(
    "settings",
    [
        thorough([]),
        thorough(["steps=3"]),
        ["steps=3", "gradient_accumulation=4"],
    ],
)
def test_settings_after_the_gpus_reach_the_training(script, gpus, settings, tmp_path):
    """Through the real launcher and command: the last setting is one that the command refuses by name. So what a plan
    suggests, with its parts of the batch, can be added as it stands."""
    ended = subprocess.run(
        ["bash", RUNS / script, "no such data", gpus, *settings, "no_such_key=1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )
    assert ended.returncode == 1  # the launcher's
    assert "no_such_key" in ended.stderr
    assert "given twice" not in ended.stderr


@pytest.mark.parametrize(("script", "name"), [("flux_2k.sh", "flux_2k"), ("flux_4k.sh", "flux_4k")])
def test_the_drawing_follows_the_settings_and_takes_options_of_its_own(script, name, tmp_path):
    """With the commands' names standing for a list of their words: what is drawn is what was trained."""
    for command in ("torchrun", "urae"):
        (tmp_path / command).write_text('#!/bin/sh\nprintf "%s\\n" "${0##*/}" "$@"\n')
        (tmp_path / command).chmod(0o755)
    settings = [
        "batch_size=4",
        "size=1536",
        "out=my out",
        "model=models/tuned",
        "start=",
        "--",
        "--steps",
        "4",
    ]
    ended = subprocess.run(
        ["bash", RUNS / script, "data", "2", *settings],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
    )
    said = ended.stdout.splitlines()
    trained, drawn = said[: said.index("generate") - 1], said[said.index("generate") + 2 :]
    assert trained[4:] == ["urae", "train", name, "data=data", *settings[:5], "gradient_accumulation=2"]
    assert dict(zip(drawn[::2], drawn[1::2], strict=True)) == {
        "--model": "models/tuned",
        "--size": "1536x1536",
        "--adapter": "my out/adapter.safetensors",
        "--out": "my out/images",
        "--steps": "4",
    }
