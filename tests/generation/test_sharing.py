"""Several processes share a list of prompts, or the tokens of each picture, and draw what one draws."""

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ranks import finish, start
from urae.cli.generate import generate as command
from urae.cli.verbs import Commands

PROMPTS = ["a flat tiger", "a glossy whale", "a red kite", "two owls", "a bridge"]
TWO_PASS = ("--method", "imax", "--set", "native_steps=1", "--size", "144x144")


@pytest.fixture
def folder(small, tmp_path):
    """The model, and a list of prompts beside it."""
    small.save_pretrained(tmp_path / "tiny-flux")
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    return tmp_path


def draw(folder: Path, out: str, *options: str) -> str:
    """The command on that list, in this process."""
    app = Commands()
    app.command()(command)
    settings = ["--prompts", folder / "prompts.txt", "--model", folder / "tiny-flux", "--out", folder / out]
    small = ["--steps", "2", "--seed", "3", "--seed", "4"]
    small += [] if "--size" in options else ["--size", "96x80"]
    result = CliRunner().invoke(
        app, [str(each) for each in (*settings, *small, *options)], prog_name="urae generate"
    )
    if result.exception:
        raise result.exception
    return result.stdout


def drawn(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_processes_share_the_pictures_and_each_is_that_of_one_process(folder):
    draw(folder, "alone")
    finish(start(2, draw, folder, "shared"))
    assert len(drawn(folder / "alone")) == 10
    assert drawn(folder / "shared") == drawn(folder / "alone")


def test_processes_share_the_tokens_of_each_picture(folder):
    for options in ((), TWO_PASS):
        draw(folder, "alone", *options)
        finish(start(2, draw, folder, "together", "--context-parallel", "2", *options))
        names = sorted(path.name for path in (folder / "alone").iterdir())
        assert names == sorted(path.name for path in (folder / "together").iterdir())
        for name in names:
            one, two = (
                np.asarray(Image.open(folder / out / name), dtype=int) for out in ("alone", "together")
            )
            assert abs(one - two).max() <= 1, name  # in 255, where a sum was rounded otherwise


def test_a_list_goes_on_and_leaves_what_is_there(folder):
    first = draw(folder, "out", *TWO_PASS)
    assert first.count("wrote") == 10
    made = drawn(folder / "out")
    lost, other, foreign, *kept = sorted((folder / "out").iterdir())
    lost.unlink()
    other.write_bytes(made[kept[0].name])  # of another prompt
    Image.new("RGB", (8, 8)).save(foreign)
    before = {path: path.stat().st_mtime_ns for path in kept}
    again = draw(folder, "out", *TWO_PASS)
    assert "7 of 10 pictures are finished already, such as " in again
    beside = [
        path.with_name(f"{path.stem}-2.png") for path in (other, foreign)
    ]  # what is there is never replaced
    assert [line for line in again.splitlines() if line.startswith("wrote")] == [
        f"wrote {path}" for path in (lost, *beside)
    ]
    assert [path.read_bytes() for path in (lost, *beside)] == [
        made[path.name] for path in (lost, other, foreign)
    ]
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    assert "wrote" not in draw(folder, "out", *TWO_PASS)
    assert draw(folder, "out", *TWO_PASS, "--guidance", "2").count("wrote") == 10


def test_what_cannot_be_shared_is_refused(folder):
    with pytest.raises(
        ValueError, match="context_parallel is 2 and 1 processes were started: expected a div"
    ):
        draw(folder, "out", "--context-parallel", "2")
    with pytest.raises(ValueError, match="seed 3 is given twice: give it once"):
        draw(folder, "out", "--seed", "3")
    (folder / "prompts.txt").write_text("")
    with pytest.raises(ValueError, match="prompts on the command line and in"):
        draw(folder, "out", "another")
    assert not (folder / "out").exists()


def refused(folder: Path, message: str, *options: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(folder, "out", *options)


def test_more_processes_than_pictures_are_refused(folder):
    (folder / "prompts.txt").write_text("a kite")
    finish(start(3, refused, folder, "there are 2 pictures for 3 processes"))


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_whole_files_and_the_list_goes_on(folder):
    (folder / "prompts.txt").write_text("\n".join(f"{name} {word}" for name in PROMPTS for word in PROMPTS))
    draw(folder, "whole")
    processes = start(3, draw, folder, "broken")
    while len(list((folder / "broken").glob("*.png"))) < 6:
        assert all(process.is_alive() for process in processes)
        time.sleep(0.005)
    for process in processes:
        process.kill()
        process.join()
    whole = drawn(folder / "whole")
    there = {path.name: path.read_bytes() for path in (folder / "broken").glob("*.png")}
    assert 0 < len(there) < len(whole)
    assert there.items() <= whole.items()
    finish(start(2, draw, folder, "broken"))
    assert {path.name: path.read_bytes() for path in (folder / "broken").glob("*.png")} == whole
