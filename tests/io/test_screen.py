"""What strangers wrote is shown and does nothing; what went wrong is a sentence, and a bug is a bug."""

import json
import os
import pickle
import zlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import safetensors
import yaml
from PIL import Image

from urae.errors import BadFile
from urae.io.screen import plain, sentence_of
from urae.io.servers import Server

SEQUENCES = [
    "\x1b[31m",
    "\x1b[2J\x1b[H",
    "\x1b[?25l",
    "\x1b[38;2;1;2;3m",
    "\x9b31m",
    "\x1b]0;title\x07",
    "\x1b]8;;http://a.b\x1b\\",
    "\x1b]52;c;c2VjcmV0\x07",
    "\x9d0;title\x9c",
    "\x1bP+q544e\x1b\\",
    "\x1b_app\x1b\\",
    "\x1b^pm\x1b\\",
    "\x1bc",
    "\x1b(0",
    "\r",
    "\b\b",
    "\x07",
    "\0",
    "\x7f",
    "\u202e",
    "\u2066",
    "\u200f",
    "\x8d",
]


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_terminal_sequences_vanish_and_text_stays(sequence):
    assert plain(f"a{sequence}bé 猫\tc\n[v2]") == "abé 猫\tc\n[v2]"


def test_a_sequence_that_never_ends_and_bytes_that_are_no_text():
    assert plain("a\x1b]0;" + "x" * 1000) == "a"
    assert plain(os.fsdecode(b"caf\xe9.png")) == "caf\\xe9.png"
    assert (plain("a\x1b"), plain("\x1b[31")) == ("a", "31")
    plain("\ud800").encode()
    assert plain(3) == "3"


# --- errors ----------------------------------------------------------------------------------------------------


def caught(function, *arguments):
    with pytest.raises(Exception) as raised:
        function(*arguments)
    return raised.value


def test_what_escaped_its_door_is_a_sentence_that_names_the_file(tmp_path):
    path = tmp_path / "named.bin"
    path.write_bytes(b"{\xff")
    loaders = {
        "JSON": lambda data: json.loads(data[:1]),
        "YAML": lambda data: yaml.safe_load("{"),
        "safetensors": safetensors.deserialize,
        "an image": lambda data: Image.open(path),
        "compressed data": zlib.decompress,
        "text": bytes.decode,
    }
    for kind, load in loaders.items():
        found = sentence_of(caught(_load, path, load))
        assert found.startswith(f"{path} cannot be read as {kind} ("), kind
        assert "\n" not in found


def _load(path, load):
    return load(path.read_bytes())


def test_errors_of_the_system_are_sentences(tmp_path):
    absent = tmp_path / "absent\x1b[31m"
    assert sentence_of(caught(absent.read_bytes)) == f"{tmp_path}/absent: No such file or directory"
    assert sentence_of(caught(tmp_path.read_bytes)) == f"{tmp_path}: Is a directory"
    moved = sentence_of(caught(os.rename, tmp_path / "a", tmp_path / "b"))
    assert moved == f"{tmp_path}/a -> {tmp_path}/b: No such file or directory"
    assert sentence_of(OSError("image file is truncated")) == "a file: image file is truncated"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_a_full_disk_is_said_in_our_words(tmp_path):
    def fill(path):
        with open("/dev/full", "wb") as file:
            file.write(bytes(10**6))

    said = "x cannot be written: the disk is full: make room and run again"
    assert sentence_of(caught(fill, Path("x"))) == said
    error = safetensors.SafetensorError("I/O error: No space left on device (os error 28)")
    assert "the disk is full" in sentence_of(error)


def test_our_own_errors_are_their_sentence():
    assert sentence_of(BadFile("x is \x1b[31mbad [a, b]")) == "x is bad [a, b]"
    assert sentence_of(caught(lambda: Server(base_url="x"))).startswith("base_url is 'x'")


def _in_another_process():
    Server(base_url="x")


def test_our_own_errors_cross_processes():
    with ProcessPoolExecutor(1) as pool:
        assert sentence_of(caught(pool.submit(_in_another_process).result)).startswith("base_url is 'x'")
    assert sentence_of(pickle.loads(pickle.dumps(ValueError("x")))) == "x"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: int("x"),
        lambda: {}["x"],
        lambda: None.x,
        lambda: 1 / 0,
        lambda: "é".encode(3),
        lambda: max([]),
    ],
)
def test_a_bug_is_none(wrong):
    assert sentence_of(caught(wrong)) is None


def test_a_valueerror_out_of_a_call_in_our_own_code_is_a_bug():
    """`compile` puts a line into the package that asks `int` for too much, and one that raises by itself."""
    from urae.io import screen

    for code, sentence in (("int('x')", None), ("raise ValueError('y is wrong')", "y is wrong")):
        assert sentence_of(caught(exec, compile(code, screen.__file__, "exec"))) == sentence


def test_of_a_sentence_without_end_both_ends_are_shown():
    said = sentence_of(BadFile(f"x.json has the key {'k' * 100_000}: expected another"))
    assert len(said) < 2_000
    assert said.startswith("x.json has the key kkk")
    assert said.endswith("kkk: expected another")
