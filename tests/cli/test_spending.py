"""How long what is paid for takes, before it is asked."""

from datetime import UTC, datetime, timedelta

import pytest

from urae.cli.spending import tell_time

START = datetime(2026, 1, 1, tzinfo=UTC)


def answers(*seconds):
    return [{"time": (START + timedelta(seconds=one)).isoformat()} for one in seconds]


def test_the_pace_is_that_of_earlier_answers_without_the_pauses_between_runs(capsys):
    came = answers(*range(0, 60, 6), *range(9_000, 9_060, 6))  # ten a minute, and hours between two runs
    assert tell_time(6_000, came) == pytest.approx(10)
    assert capsys.readouterr().out == "time, estimated: 10 hours, as the last 18 came\n"


@pytest.mark.parametrize(
    ("came", "at_a_time", "said", "hours"),
    [
        ([], 4, "time, estimated: 1.4 hours, if each takes 10 s, 4 at a time\n", 2_000 * 10 / 4 / 3600),
        (answers(1, 2), 4, "time, estimated: 1.4 hours, if each takes 10 s, 4 at a time\n", 25 / 18),
        ([{"time": "yesterday"}] * 20 + [{}], 0, "time: known once some have come\n", None),
    ],
)
def test_before_there_are_answers_it_says_what_it_assumes(capsys, came, at_a_time, said, hours):
    assert tell_time(2_000, came, at_a_time=at_a_time) == pytest.approx(hours)
    assert capsys.readouterr().out == said


def test_nothing_to_ask_takes_no_time(capsys):
    assert tell_time(0, [], at_a_time=4) == 0
    assert capsys.readouterr().out == ""
