"""A job under a real Slurm of one machine, which its time limit stops: it queues again by itself and goes on."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("sbatch", "slurmctld", "slurmd", "munge")

CONFIGURATION = """
ClusterName=urae
SlurmctldHost={host}
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=5
NodeName={host} CPUs={cpus} RealMemory=2000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why there can be no Slurm here."""
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if absent:
        return f"no {', '.join(absent)} here: apt install slurm-wlm munge"
    if os.getuid() != 0:
        return "Slurm's daemons want to be started by root"
    if subprocess.run(["munge", "-n"], capture_output=True).returncode:
        return "munged does not run"
    return ""


@pytest.fixture
def cluster(tmp_path):
    """The environment in which Slurm's commands find a cluster of this machine alone."""
    if reason := missing():
        pytest.skip(reason)
    host = socket.gethostname().partition(".")[0]
    for name in ("state", "spool"):
        (tmp_path / name).mkdir()
    ports = {"controller": free_port(), "daemon": free_port()}
    text = CONFIGURATION.format(host=host, folder=tmp_path, cpus=os.cpu_count(), **ports)
    (tmp_path / "slurm.conf").write_text(text)
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "SLURM_CONF": str(tmp_path / "slurm.conf"), "PATH": paths}
    daemons = [subprocess.Popen([name, "-D"], env=environment) for name in ("slurmctld", "slurmd")]
    try:
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait()


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("", 0))
        return opened.getsockname()[1]


@pytest.mark.slow
def test_a_job_at_its_time_limit_saves_queues_again_and_goes_on(cluster, tmp_path):
    command = [
        "sbatch",
        "--parsable",
        "--gpus-per-node=0",
        "--cpus-per-task=1",
        "--time=5",
        "--signal=B:USR1@90",
    ]
    command += [
        f"--output={tmp_path}/job.log",
        "runs/slurm.sbatch",
        "mini_2x",
        "data=mini:clean:8",
        "size=128",
    ]
    command += [f"out={tmp_path}/out", "steps=100000", "batch_size=2", "gradient_accumulation=1"]
    command += ["sample_every=0", "checkpoint_every=0", "checkpoint_minutes=0", "loggers=[]"]
    environment = {**cluster, "PROCESSES": "2", "OMP_NUM_THREADS": "1"}
    wait_for(lambda: "idle" in told(["sinfo", "--noheader"], cluster))
    job = told(command, environment, cwd=ROOT).strip()
    log = tmp_path / "job.log"
    try:
        wait_for(lambda: log.exists() and "going on after step" in log.read_text())
    finally:
        told(["scancel", job], cluster)
    said = log.read_text()
    (stopped,) = set(re.findall(r"stopped after step (\d+) of 100000", said))
    assert f"going on after step {stopped}\n" in said
    assert "Restarts=1 " in told(["scontrol", "show", "job", job], cluster)
    assert "Traceback" not in said.partition("Slurm warns")[0]


def told(command: list[str], environment: dict[str, str], cwd: Path | None = None) -> str:
    return subprocess.run(
        command, env=environment, cwd=cwd, capture_output=True, text=True, check=True
    ).stdout


def wait_for(moment) -> None:
    """For a quarter of an hour at most: Slurm itself waits two minutes before it starts a job again."""
    until = time.monotonic() + 900
    while not moment():
        assert time.monotonic() < until
        time.sleep(1)
