"""What was written stays, whatever happens to the process; nothing else is taken for it."""

import os
import subprocess
import sys
import threading

import pytest

from urae.errors import BadFile, CannotWrite, UraeError
from urae.io.journal import Journal, read_journal

LINES = [{"key": "a", "text": "one\u2028two\x85\x0b"}, {"key": "b", "cost": 0.5}, {"key": "猫"}]


def write(path, lines=LINES):
    with Journal(path) as journal:
        for line in lines:
            journal.append(line)
        return journal.lines


def test_lines_are_there_for_the_next_run_and_every_reader_of_lines(tmp_path):
    path = tmp_path / "a" / "x.jsonl"
    assert write(path) == read_journal(path) == LINES
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3
    with Journal(path) as journal:
        assert journal.lines == LINES
    assert read_journal(tmp_path / "absent") == []


def test_a_journal_torn_at_any_byte_keeps_all_whole_lines_and_goes_on(tmp_path):
    path = tmp_path / "x.jsonl"
    write(path)
    whole = path.read_bytes()
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        complete = sum(end >= len(b"\n".join(whole.split(b"\n")[: i + 1])) for i in range(3))
        assert read_journal(path) == LINES[:complete]
        write(path, [{"key": "new"}])
        assert read_journal(path) == [*LINES[:complete], {"key": "new"}]


@pytest.mark.parametrize(
    "wrong", [b"x", b"[1]", b"", b'{"cost": NaN}', b'{"a": 1, "a": 2}', b"\xff", b"[" * 5000]
)
def test_any_other_damaged_line_is_named(tmp_path, wrong):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n' + wrong + b'\n{"a": 2}\n')
    for read in (read_journal, lambda path: Journal(path).__enter__()):
        with pytest.raises(BadFile, match=r"x\.jsonl, line 2 is damaged: repair or remove it"):
            read(path)
    assert path.read_bytes().count(b"\n") == 3


def test_a_journal_goes_on_from_an_earlier_length(tmp_path):
    path = tmp_path / "x.jsonl"
    with Journal(path, sync=False) as journal:
        journal.append(LINES[0])
        kept = journal.length()
        journal.append(LINES[1])
    with Journal(path, start=kept) as journal:
        assert journal.lines == LINES[:1]
        journal.append(LINES[2])
    assert read_journal(path) == [LINES[0], LINES[2]]
    path.write_bytes(path.read_bytes()[: kept - 1])
    with pytest.raises(BadFile, match=r"x\.jsonl has lost lines: restore it, or start again"):
        Journal(path, start=kept).__enter__()


def test_the_older_form_is_read(tmp_path):
    (tmp_path / "x").write_bytes(b'{"text": "\\u732b\\u2028"}\n')
    assert read_journal(tmp_path / "x") == [{"text": "猫\u2028"}]


def test_threads_write_whole_lines(tmp_path):
    with Journal(tmp_path / "x") as journal:
        threads = [
            threading.Thread(
                target=lambda i=i: [journal.append({"i": i, "text": "x" * 500}) for _ in range(5)]
            )
            for i in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = read_journal(tmp_path / "x")
    assert sorted(line["i"] for line in found) == sorted(list(range(8)) * 5)


def test_a_second_run_is_refused_and_no_handle_is_left(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    with Journal(tmp_path / "x"), pytest.raises(UraeError, match="another run is writing .*x: wait"):
        Journal(tmp_path / "x").__enter__()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/full", path)])
def test_only_a_plain_file_is_a_journal(tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises(ValueError, match="x is not a plain file"), Journal(tmp_path / "x"):
        pytest.fail("it is none")


def test_a_killed_run_loses_nothing_that_it_wrote(tmp_path):
    code = (
        "import sys; from urae.io.journal import Journal\n"
        "with Journal(sys.argv[1]) as journal:\n"
        "    for i in range(10**6):\n"
        "        journal.append({'i': i}); print(i, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "x")], stdout=subprocess.PIPE)
    for _ in range(20):
        seen = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    with Journal(tmp_path / "x") as journal:
        assert [line["i"] for line in journal.lines] == list(range(len(journal.lines)))
        assert len(journal.lines) > seen


def test_a_full_disk_leaves_whole_lines_and_the_same_run_goes_on(tmp_path):
    """The limit of the file's size stands for the disk's, and lets half of the last line through."""
    code = (
        "import resource, signal, sys; from urae.io.journal import Journal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "with Journal(sys.argv[1]) as journal:\n"
        "    for i in range(100):\n"
        "        journal.append({'i': i, 'text': 'x' * 100})\n"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "x")]
    for _ in range(2):
        result = subprocess.run(run, stderr=subprocess.PIPE, text=True)
        assert "x cannot be written: " in result.stderr.splitlines()[-1]
        assert [line["i"] for line in read_journal(tmp_path / "x")] == list(range(8))
    with pytest.raises(CannotWrite), Journal(tmp_path / "x" / "y"):
        pytest.fail("x is a file")
