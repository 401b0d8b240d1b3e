"""What is written is whole or not there, whatever happens; nothing is left behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from urae.errors import UraeError
from urae.io.files import (
    MACHINE,
    CannotWrite,
    check_can_write,
    file_hash,
    locked,
    remove_leftovers,
    write_bytes,
    write_text,
    writing,
    writing_folder,
)

ROOT = os.getuid() == 0
UNSHARE = [shutil.which("unshare") or "false", "-Upfr"]
HAS_NAMESPACES = subprocess.run([*UNSHARE, "true"], capture_output=True).returncode == 0


def names(folder):
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("sync", [False, True])
def test_a_file_appears_whole_and_alone(tmp_path, sync):
    path = tmp_path / "a" / "b" / "file.txt"
    with writing(path, sync=sync) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent
    assert path.read_text() == "new"
    assert names(path.parent) == ["file.txt"]


def half_written(path, error):
    with writing(path) as temporary:
        temporary.write_text("half")
        raise error


def half_filled(path, sync):
    with writing_folder(path, sync=sync) as folder:
        (folder / "half").touch()
        raise ZeroDivisionError


def overtaken(path):
    with writing(path, replace=False) as temporary:
        temporary.write_text("mine")
        path.write_text("theirs")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    write_text(tmp_path / "file", "old")
    with pytest.raises(error):
        half_written(tmp_path / "file", error)
    assert (names(tmp_path), (tmp_path / "file").read_text()) == (["file"], "old")


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002, 0o027])
def test_the_mode_is_the_umasks(tmp_path, umask):
    before = os.umask(umask)
    try:
        with writing(tmp_path / "file") as temporary:
            temporary.touch(mode=0o600)
        with writing_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~umask


def test_texts_are_utf8_and_their_lines_end_alike(tmp_path):
    write_text(tmp_path / "x", "é\n\u2028\n")
    assert (tmp_path / "x").read_bytes() == b"\xc3\xa9\n\xe2\x80\xa8\n"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/null", path)])
def test_only_plain_files_are_replaced(tmp_path, make):
    make(tmp_path / "x")
    before = os.lstat(tmp_path / "x")
    with pytest.raises(ValueError, match=r"x is (a folder|not a plain file)"), writing(tmp_path / "x"):
        pytest.fail("nothing is written")
    assert os.path.samestat(before, os.lstat(tmp_path / "x"))
    assert names(tmp_path) == ["x"]


def test_an_existing_file_stays_without_replace(tmp_path):
    write_bytes(tmp_path / "x", b"1", replace=False)
    with pytest.raises(ValueError, match="exists already"):
        write_bytes(tmp_path / "x", b"2", replace=False)
    assert (names(tmp_path), (tmp_path / "x").read_bytes()) == (["x"], b"1")


def test_a_file_that_came_meanwhile_stays_without_replace(tmp_path):
    with pytest.raises(ValueError, match="exists already"):
        overtaken(tmp_path / "x")
    assert (names(tmp_path), (tmp_path / "x").read_text()) == (["x"], "theirs")


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, "x.safetensors"])
def test_every_name_that_the_disk_takes_can_be_written(tmp_path, name):
    write_bytes(tmp_path / name, b"1")
    assert names(tmp_path) == [name]


# --- refusals of the system ----------------------------------------------------------------------------------


def test_each_refusal_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    for path, reason in [
        (tmp_path / "file" / "x", "a file stands where a folder is needed"),
        (tmp_path / "file" / "y" / "x", "a file stands where a folder is needed"),
        (tmp_path / ("n" * 256), "the name is too long"),
        (Path("/proc/x"), "cannot be written: "),
    ]:
        with pytest.raises(CannotWrite, match=reason) as raised:
            write_bytes(path, b"1")
        assert str(raised.value).startswith(f"{path} cannot be written: ")
        with pytest.raises(CannotWrite, match=reason):
            check_can_write(path)
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_a_full_disk_is_one_sentence(tmp_path):
    with (
        pytest.raises(CannotWrite, match="x cannot be written: the disk is full: make room"),
        writing(tmp_path / "x"),
        open("/dev/full", "wb") as file,
    ):
        file.write(b"1" * 100_000)
    assert names(tmp_path) == []


@pytest.mark.skipif(not ROOT, reason="mounting a small disk needs root")
def test_a_disk_that_fills_up_leaves_nothing_and_the_same_goes_on_with_room(tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)])
    if mounted.returncode:
        pytest.skip("this machine does not let root mount")
    try:
        for write in (write_bytes, lambda path, data: fill(path, data)):
            with pytest.raises(CannotWrite, match="the disk is full"):
                write(tmp_path / "x", bytes(200_000))
            assert names(tmp_path) == []
            write(tmp_path / "x", bytes(1000))
            remove(tmp_path / "x")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def fill(path, data):
    with writing_folder(path) as folder:
        (folder / "part").write_bytes(data)


def remove(path):
    if path.is_dir():
        (path / "part").unlink()
        path.rmdir()
    else:
        path.unlink()


def test_a_limit_of_file_sizes_is_one_sentence(tmp_path):
    code = (
        "import resource, signal, sys; from urae.io.files import write_bytes\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "write_bytes(sys.argv[1], bytes(100_000))"
    )
    result = run(code, tmp_path / "x", stderr=subprocess.PIPE, text=True)
    assert "CannotWrite" in result.stderr
    assert "the file would be larger than the system allows" in result.stderr
    assert names(tmp_path) == []


@pytest.mark.skipif(not ROOT, reason="becoming another user needs root")
def test_missing_rights_are_one_sentence(tmp_path):
    code = (
        "import os, sys; from urae.errors import CannotWrite; from urae.io.files import check_can_write\n"
        "os.setuid(65534)\n"
        "try: check_can_write(sys.argv[1])\n"
        "except CannotWrite as error: print(error)"
    )
    result = run(code, tmp_path / "x", stdout=subprocess.PIPE, text=True)
    assert "x cannot be written: you have no right to write there" in result.stdout


def test_errors_of_other_files_are_not_ours(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"), writing(tmp_path / "x"):
        (tmp_path / "absent").read_bytes()


def test_checking_leaves_nothing_and_takes_what_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    check_can_write(tmp_path / "file")
    check_can_write(tmp_path / "a" / "b" / "file")
    check_can_write(tmp_path / "a" / "b", folder=True)
    with pytest.raises(ValueError, match="file is not a folder"):
        check_can_write(tmp_path / "file", folder=True)
    with pytest.raises(ValueError, match="is a folder"):
        check_can_write(tmp_path)
    assert names(tmp_path) == ["file"]


# --- folders ---------------------------------------------------------------------------------------------------


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    for sync in (False, True):
        path = tmp_path / f"step-{sync}"
        with pytest.raises(ZeroDivisionError):
            half_filled(path, sync)
        assert not path.exists()
        with writing_folder(path, sync=sync) as folder:
            (folder / "inner").mkdir()
            (folder / "inner" / "whole").write_text("1")
        assert [file.relative_to(path).as_posix() for file in path.rglob("*")] == ["inner", "inner/whole"]
    assert names(tmp_path) == ["step-False", "step-True"]
    with pytest.raises(ValueError, match="exists already"), writing_folder(path):
        pytest.fail("nothing is written")


# --- kills -----------------------------------------------------------------------------------------------------

ENDLESS = """
import sys, time
from urae.io.files import writing, writing_folder
with writing(sys.argv[1] + "/file") as file, writing_folder(sys.argv[1] + "/folder") as folder:
    file.write_text("half"); (folder / "part").write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""


def run(code, *arguments, **options):
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], **options)


def start(code, *arguments):
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


def test_what_a_killed_process_leaves_is_removed_and_what_a_living_one_writes_stays(tmp_path):
    killed, living = start(ENDLESS, tmp_path), start(ENDLESS, tmp_path)
    try:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert len(names(tmp_path)) == 4
        write_text(tmp_path / "other", "whoever writes there removes them")
        assert len(names(tmp_path)) == 3
        (tmp_path / "other").unlink()
        assert all(f"-{living.pid}-" in name for name in names(tmp_path))
        assert len(names(tmp_path)) == 2
    finally:
        living.kill()
        living.wait()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


def test_leftovers_are_only_what_bears_our_names(tmp_path):
    for name in (
        ".urae-notes.tmp",
        "x.tmp",
        f".urae-{MACHINE}-1-0-x.tmp",
        f".urae-{MACHINE}-{os.getpid()}-{time.time_ns()}-x.tmp",
    ):
        (tmp_path / name).touch()
    assert remove_leftovers(tmp_path) == []
    # Of an earlier process with our id, as in a container, and of one that is gone.
    for process in (os.getpid(), 2**40):
        (tmp_path / f".urae-{MACHINE}-{process}-0-x.tmp").touch()
        assert len(remove_leftovers(tmp_path)) == 1


@pytest.mark.skipif(not HAS_NAMESPACES, reason="no namespaces of process ids here")
def test_a_container_is_a_machine_of_its_own():
    """Two of one host may have its name, and neither knows the other's processes."""
    code = "from urae.io.files import MACHINE; print(MACHINE)"
    inside = subprocess.run(
        ["unshare", "-Upfr", sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    )
    assert len(inside.stdout.strip()) == len(MACHINE)
    assert inside.stdout.strip() != MACHINE


def test_what_another_machine_writes_is_a_leftover_after_an_hour_without_a_change(tmp_path):
    folder = tmp_path / f".urae-00000000-{2**40}-0-x.tmp"
    folder.mkdir()
    (folder / "part").touch()
    for ages in ((7200, 60), (60, 7200)):
        for path, age in zip((folder, folder / "part"), ages, strict=True):
            os.utime(path, (time.time() - age,) * 2)
        assert remove_leftovers(tmp_path) == []
    os.utime(folder, (time.time() - 7200,) * 2)
    assert remove_leftovers(tmp_path) == [folder]


# --- locks -----------------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from urae.io.files import locked
with locked(sys.argv[1]):
    print("ready", flush=True)
    sys.stdin.readline() if len(sys.argv) > 2 else time.sleep(600)
"""


def test_a_second_run_is_refused_and_a_killed_one_keeps_no_lock(tmp_path):
    path = tmp_path / "lock"
    holder = start(HOLDER, path)
    with (
        pytest.raises(UraeError, match="another run is writing the folder: wait"),
        locked(path, what="the folder"),
    ):
        pytest.fail("it is held")
    holder.kill()
    holder.wait()
    with locked(path):
        pass
    assert names(tmp_path) == []


def test_a_run_waits_for_the_other_when_told_to(tmp_path):
    path, told = tmp_path / "lock", []
    holder = start(HOLDER, path)

    def waiting():
        told.append(1)
        holder.kill()
        holder.wait()

    with locked(path, waiting=waiting):
        assert told == [1]


def test_of_many_runs_one_at_a_time_has_the_lock(tmp_path):
    """Each adds one to a number by reading and writing it."""
    code = (
        "import sys, time; from pathlib import Path; from urae.io.files import locked\n"
        "number = Path(sys.argv[1]) / 'number'\n"
        "for _ in range(40):\n"
        "    with locked(Path(sys.argv[1]) / 'lock', waiting=lambda: None):\n"
        "        found = int(number.read_text()); time.sleep(0.0005); number.write_text(str(found + 1))\n"
    )
    (tmp_path / "number").write_text("0")
    runs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [one.wait() for one in runs] == [0, 0, 0]
    assert (tmp_path / "number").read_text() == "120"


def test_the_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert file_hash(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
