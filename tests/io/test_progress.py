import pytest

from urae.io import Progress, tracked


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
