import logging
import re
import sys

import pytest

from urae.io import Progress, duration, tracked


def test_without_a_terminal_there_are_plain_lines(capsys):
    with Progress("training", total=3, done=1) as progress:
        progress.advance("loss 0.5")
        progress.advance("loss 0.4")
    out, error = capsys.readouterr()
    assert out == ""
    assert error == "training: 3/3, loss 0.4, 0:00 left\n"


def test_long_lines_are_not_broken(capsys):
    with Progress("x", total=1) as progress:
        progress.advance("[loss] " + "0" * 200)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(tracked([1, 2, 3], "caching")) == [1, 2, 3]
    error = capsys.readouterr().err
    assert "3/3" in error
    assert "━" in error


@pytest.mark.parametrize("total", [0, 2])
def test_nothing_is_shown_where_nobody_looks(capsys, total):
    with Progress("x", total=total, show=False) as progress:
        for _ in range(total):
            progress.advance()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_library_logs_once_and_above_the_bar(capsys, monkeypatch, terminal):
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    stream = sys.stderr
    handler, logger = logging.StreamHandler(stream), logging.getLogger("a.package")
    logger.addHandler(handler)
    try:
        with Progress("drawing", total=3) as progress:
            for _ in range(3):
                logger.warning("the prompt is long")
                progress.advance()
        assert handler.stream is stream
        logger.warning("the prompt is long")
    finally:
        logger.removeHandler(handler)
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", capsys.readouterr().err).replace("\r", "\n")
    said = [line for line in plain.splitlines() if "long" in line]
    assert said == ["the prompt is long"] * 2  # above the bar, and after it


def test_a_duration_is_in_words():
    said = [duration(hours) for hours in (0.001, 0.5, 1.44, 60)]
    assert said == ["1 minute", "30 minutes", "1.4 hours", "60 hours (2.5 days)"]
