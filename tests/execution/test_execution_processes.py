"""Two real processes that talk: who decides, what they must agree on, and what is said when one is lost."""

import atexit
import os
import signal
import time
from pathlib import Path

import torch

from ranks import finish, start
from urae.errors import BadFile


def refusal_of(call) -> Exception:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was refused")


def talk() -> None:
    """What each of the two does; a failure in one is an exit code."""
    from urae.execution import agree, first_here, from_main_, in_all, on_main, this_process

    rank = this_process().process_index
    agree({"lr": 0.5, "data": "a"})
    error = refusal_of(lambda: agree({"lr": rank, "data": "a", "only here" * rank: 1}))
    assert type(error) is ValueError
    assert "lr is 0 in process 0 on " in str(error)
    assert " and 1 in process 1 on " in str(error)
    assert "only here is None in process 0" in str(error)
    assert "data is" not in str(error)

    assert on_main(lambda: rank) == 0
    assert in_all(lambda: rank) == rank
    error = refusal_of(lambda: in_all(lambda: failing("/there is none") if rank else rank))
    assert type(error) is BadFile
    assert str(error).startswith("process 1 on ")
    assert str(error).endswith(": /there is none")
    assert str(refusal_of(lambda: in_all(lambda: failing("alike")))) == "alike"

    mine = [torch.full((3, 2), rank + 1.0), torch.tensor(rank), torch.full((4,), rank, dtype=torch.bfloat16)]
    transposed = torch.full((2, 5), float(rank)).T
    from_main_([*mine, transposed])
    assert mine[0].eq(1).all()
    assert mine[1] == 0
    assert mine[2].eq(0).all()
    assert transposed.eq(0).all()

    order: list[str] = []
    assert first_here(lambda: order.append("made") or rank) == rank
    assert order == ["made"]


def failing(message: str) -> int:
    raise BadFile(message)


def test_processes_agree_or_say_what_differs():
    finish(start(2, talk))


def stand_still(err: Path) -> None:
    """The third process is done, the second stops for good without a word, and the first is at work."""
    from urae.execution import this_process, watch

    watch.SILENCE = 8.0
    rank = this_process().process_index
    os.dup2(os.open(err.with_suffix(f".{rank}"), os.O_WRONLY | os.O_CREAT), 2)
    if rank == 2:
        atexit._run_exitfuncs()  # as an interpreter does at its end
        return
    if rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(600)


def test_a_process_that_says_nothing_ends_the_others_with_a_sentence(tmp_path):
    processes = start(3, stand_still, tmp_path / "err")
    processes[0].join()
    processes[1].kill()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [2, -signal.SIGKILL, 0]
    said = (tmp_path / "err.0").read_text()
    assert said.startswith("error: nothing was heard of process 1 on ")
    assert "process 2" not in said
    assert said.count("\n") == 1
