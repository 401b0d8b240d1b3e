"""What goes out: files and folders that are complete or absent.

Each is written beside its place under a temporary name that holds the machine and the process id, and renamed when it
is whole. A failure removes the temporary. A killed process leaves one behind, which is recognised by a process that no
longer lives, and removed by the next one that writes in the same folder. Nothing but a plain file is ever replaced by a
file. A full disk is one sentence.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from urae.errors import CannotWrite, UraeError

__all__ = [
    "check_can_write",
    "check_file_name",
    "copy_folder",
    "file_hash",
    "force_to_disk",
    "hold",
    "holder_of",
    "locked",
    "remove_folder",
    "remove_leftovers",
    "telling",
    "write_bytes",
    "write_text",
    "writing",
    "writing_folder",
]

MARK, END = ".urae-", ".tmp"
"""Of every temporary name; the machine, the process id, a number and what it will be called stand between. No reader
takes what ends so for a picture or a manifest."""


def _machine() -> str:
    """Where process ids mean what they mean here: this machine, and in it this container, whose host may share its name
    with several."""
    try:
        container = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        container = ""
    return hashlib.sha256(f"{socket.gethostname()} {container}".encode()).hexdigest()[:8]


MACHINE = _machine()
STALE = 3600.0
"""Seconds without a change after which what another machine was writing is taken for a leftover."""
LONGEST_NAME = 255
"""Bytes, on every file system in use."""

CAUSES = {
    errno.ENOSPC: "the disk is full: make room and run again",
    errno.EDQUOT: "your quota of the disk is used up: make room and run again",
    errno.EFBIG: "the file would be larger than the system allows: raise the limit and run again",
    errno.EIO: "the disk failed: look after it, or give another place",
    errno.EROFS: "the disk is mounted read-only: give another place",
    errno.EACCES: "you have no right to write there: change the rights, or give another place",
    errno.EPERM: "you have no right to write there: change the rights, or give another place",
    errno.ENAMETOOLONG: "the name is too long: give a shorter one",
    errno.ENOTDIR: "a file stands where a folder is needed: give another place",
    errno.EEXIST: "a file stands where a folder is needed: give another place",
    errno.ENOENT: "its folder is not there: give another place",
    errno.EISDIR: "a folder stands there: give another name",
    errno.ELOOP: "its links lead in a circle: give another place",
    errno.ENODEV: "the drive is not there: give another place",
    errno.ENXIO: "the drive is not there: give another place",
    errno.ESTALE: "the network drive is gone: mount it again",
}
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
"""What can only come from writing, whatever name the error bears."""

_STARTED = time.time_ns()
_numbers = itertools.count(_STARTED)
"""Later than those of a process that had our id before: in a container each run may have the same."""
_swept: set[Path] = set()
"""Folders in which this process has looked for leftovers."""


@contextmanager
def writing(path: Path | str, *, sync: bool = False, replace: bool = True) -> Iterator[Path]:
    """A temporary path to write to; it takes `path`'s place when the block ends well, and is gone otherwise.

    sync: force the file and its name to the disk. `ValueError` before anything is written if something other than a
    plain file stands at `path`, or, without `replace`, a file. Raises `CannotWrite`.
    """
    path = Path(path)
    with telling(path):
        _check_place(path, replace=replace)
        path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    temporary = _temporary(path)
    try:
        with telling(path, temporary):
            yield temporary
        with telling(path):
            assert temporary.is_file(), "nothing was written"
            # Libraries that write through a temporary file of their own leave it readable by the owner alone.
            temporary.chmod(0o666 & ~_umask())
            if sync:
                force_to_disk(temporary)
            _rename(temporary, path, replace=replace)
            if sync:
                force_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing_folder(path: Path | str, *, sync: bool = False) -> Iterator[Path]:
    """A temporary folder to fill; it becomes `path` when the block ends well, and is gone otherwise.

    sync: force every file in it, and its name, to the disk. `ValueError` if anything but an empty folder stands at
    `path`. Raises `CannotWrite`.
    """
    path = Path(path)
    with telling(path):
        _check_vacant(path)
        path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    temporary = _temporary(path)
    try:
        with telling(path):
            temporary.mkdir()
        with telling(path, temporary):
            yield temporary
        with telling(path):
            if sync:
                for inner in sorted(temporary.rglob("*")):
                    force_to_disk(inner)
                force_to_disk(temporary)
            os.replace(temporary, path)
            if sync:
                force_to_disk(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def copy_folder(source: Path, target: Path, *, without: Callable[[Path], bool]) -> None:
    """Copy a folder's files, at any depth, but those of whose relative path `without` is true. Links become files."""
    for file in sorted(source.rglob("*")):
        place = file.relative_to(source)
        if file.is_file() and not without(place):
            with telling(target / place):
                (target / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target / place)


def write_bytes(path: Path | str, data: bytes, *, sync: bool = False, replace: bool = True) -> None:
    """Write a file, complete or not at all, as `writing` does."""
    with writing(path, sync=sync, replace=replace) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path | str, text: str) -> None:
    r"""Write UTF-8 with "\n" at the ends of lines, complete or not at all, as `writing` does."""
    write_bytes(path, text.encode())


def remove_folder(path: Path | str) -> None:
    """Remove a folder with all that is in it. It is never there in part: what a kill leaves is a leftover."""
    path = Path(path)
    with telling(path):
        doomed = _temporary(path)
        os.replace(path, doomed)
        shutil.rmtree(doomed)


def remove_leftovers(folder: Path | str) -> list[Path]:
    """Remove what killed processes did not finish writing in a folder, itself alone; what living ones write stays.

    Whoever writes in the folder does the same before; this is for folders in which nothing may be written any more.
    Returns the paths removed.
    """
    leftovers = [path for path in sorted(Path(folder).glob(f"{MARK}*{END}")) if _is_leftover(path)]
    for path in leftovers:
        with telling(path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    return leftovers


def check_can_write(path: Path | str, *, folder: bool = False) -> None:
    """Say before long work why a file, or with `folder` files in a folder, could not be written; leaves nothing.

    `ValueError` for what stands in the way, `CannotWrite` for what the system does not allow.
    """
    path = Path(path)
    with telling(path):
        if folder and path.exists() and not path.is_dir():
            raise ValueError(f"{path} is not a folder: give another place, or remove it")
        if not folder:
            _check_place(path, replace=True)
        inside = path if folder else path.parent
        made = _make_folders(inside)
        try:
            trial = _temporary(inside / "trial")
            trial.touch()
            trial.unlink()
        finally:
            for new in reversed(made):
                new.rmdir()


def check_file_name(name: str) -> None:
    """`ValueError` for an id that no file can be called by, on this system or on another."""
    if not 0 < len(name.encode(errors="replace")) <= 200 or not re.fullmatch(
        r'[^\s./\\:*?"<>|][^/\\:*?"<>|\0-\x1f]*', name
    ):
        raise ValueError(
            f"the id {name[:80]!r} cannot be a file's name: expected at most 200 bytes, none of / \\ : * ? < > | among "
            "them (nor a double quote), and no dot or space at the beginning"
        )


@contextmanager
def locked(
    path: Path | str, *, waiting: Callable[[], object] | None = None, what: object = None
) -> Iterator[None]:
    """Hold the lock file `path`; it is gone afterwards. `UraeError` if another process holds it, or, with `waiting`,
    that is called once and the lock waited for. `what` is named in the error in place of the lock file."""
    path = Path(path)
    with telling(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = _open_lock(path, waiting, what or path)
    try:
        with telling(path):
            os.truncate(opened, 0)
            os.write(opened, str(os.getpid()).encode())
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: a later one is another file
        os.close(opened)


def hold(opened: int, what: object, *, waiting: Callable[[], object] | None = None) -> None:
    """Lock an open file for this process, as `locked` does."""
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        if waiting is None:
            raise UraeError(f"another run is writing {what}: wait for it to end") from error
        waiting()
        fcntl.flock(opened, fcntl.LOCK_EX)


def holder_of(path: Path | str) -> int | None:
    """The process that holds the lock file `path` as `locked` does; None where nobody does."""
    try:
        opened = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        told = os.read(opened, 20)
        return int(told) if told.isdigit() else None
    finally:
        os.close(opened)


def force_to_disk(path: Path) -> None:
    """What is in a file, or the names in a folder, so that a loss of power leaves it."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def file_hash(path: Path | str) -> str:
    """SHA-256 of the file's bytes, 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def telling(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Turn the system's refusal to write into `CannotWrite`. With `temporary`, only where the error is of that file, or
    of the disk: the block may read other files, whose errors are not ours."""
    try:
        yield
    except OSError as error:
        ours = temporary is None or error.errno in OF_THE_DISK or _is_below(error.filename, temporary)
        if error.errno not in CAUSES or not ours:
            raise
        raise CannotWrite(f"{path} cannot be written: {CAUSES[error.errno]}") from error
    except CannotWrite as error:  # of a file in a folder that has a temporary name itself
        raise CannotWrite(str(error).replace(str(temporary), str(path))) from error


def _check_place(path: Path, *, replace: bool) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise ValueError(f"{path} is a folder: give the name of a file")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is not a plain file, and is not replaced: give another name")
    if not replace:
        raise ValueError(f"{path} exists already: remove it, or give another name")


def _check_vacant(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise ValueError(f"{path} is not a folder, and is not replaced: give another name")
    if path.is_dir() and any(path.iterdir()):
        raise ValueError(f"{path} exists already: remove it, or give another name")


def _temporary(path: Path) -> Path:
    """Beside `path`, since a rename stays within one file system."""
    head = f"{MARK}{MACHINE}-{os.getpid()}-{next(_numbers)}-"
    room = LONGEST_NAME - len(head) - len(END)
    return path.with_name(head + os.fsdecode(os.fsencode(path.name)[:room]) + END)


def _rename(temporary: Path, path: Path, *, replace: bool) -> None:
    if not replace:
        try:
            path.touch(exist_ok=False)  # which, unlike a rename, refuses a file that came meanwhile
        except FileExistsError as error:
            raise ValueError(f"{path} exists already: remove it, or give another name") from error
    os.replace(temporary, path)


def _sweep(folder: Path) -> None:
    """Once for each folder, which may hold many files. What cannot be removed, as somebody else's, stays."""
    if (place := folder.absolute()) not in _swept:
        _swept.add(place)
        with contextlib.suppress(OSError, UraeError):
            remove_leftovers(folder)


def _is_leftover(path: Path) -> bool:
    found = re.match(rf"{re.escape(MARK)}([0-9a-f]{{8}})-(\d+)-(\d+)-", path.name)
    if found is None:
        return False
    process, number = int(found[2]), int(found[3])
    if found[1] != MACHINE:
        return time.time() - _changed(path) > STALE
    return number < _STARTED if process == os.getpid() else not _is_alive(process)


def _changed(path: Path) -> float:
    """When a file, or the last one in a folder, was written to; now where it is gone meanwhile."""
    try:
        return max(inner.stat().st_mtime for inner in (path, *path.rglob("*")))
    except FileNotFoundError:
        return time.time()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # somebody else's
    return True


def _is_below(name: object, temporary: Path) -> bool:
    return isinstance(name, str | os.PathLike) and Path(name).is_relative_to(temporary)


def _make_folders(folder: Path) -> list[Path]:
    """The folders that were made, outermost first."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()][::-1]
    made: list[Path] = []
    try:
        for one in missing:
            one.mkdir()
            made.append(one)
    except OSError:
        for one in reversed(made):
            one.rmdir()
        raise
    return made


def _open_lock(path: Path, waiting: Callable[[], object] | None, what: object) -> int:
    while True:
        opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            hold(opened, what, waiting=waiting)
            if _is_at(opened, path):
                return opened
        except BaseException:
            os.close(opened)
            raise
        os.close(opened)  # Its holder removed it while we waited, and another may hold its successor.


def _is_at(opened: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(opened), path.stat())
    except FileNotFoundError:
        return False


def _umask() -> int:
    """Read from where reading does not change it, which other threads would feel, if the system has that."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"^Umask:\s*(\d+)", status.read_text(), re.MULTILINE)[1], 8)  # type: ignore[index]
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
