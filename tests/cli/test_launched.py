"""The command line under a launcher, on a machine without a GPU."""

import os
from pathlib import Path

import pytest

from processes import urae
from ranks import finish, start
from tiny import write_images


def cache(data: Path) -> None:
    rank = os.environ["RANK"]
    for number, kind in ((1, "out"), (2, "err")):
        os.dup2(os.open(data.with_suffix(f".{kind}{rank}"), os.O_WRONLY | os.O_CREAT), number)
    from urae.cli import app

    app(["data", "cache", str(data), "--size", "128"], standalone_mode=False)


def test_processes_share_a_cache_and_one_reports(tmp_path):
    data = write_images(tmp_path / "images", [(128, 128)] * 5)
    finish(start(2, cache, data))
    said = (tmp_path / "images.out0").read_text()
    assert "encoded 5 images" in said
    assert (tmp_path / "images.out1").read_text() == ""


@pytest.mark.parametrize("command", ["plan mini_2x", "data collect out --prompts shipped", "adapter show x"])
def test_what_processes_do_not_share_is_refused(monkeypatch, tmp_path, command):
    monkeypatch.chdir(tmp_path)
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    ended = urae(*command.split())
    assert ended.returncode == 2
    assert "is done by one process, and 2 were started: leave out the launcher" in ended.stderr
    assert not Path("out").exists()
