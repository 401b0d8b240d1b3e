"""Collecting from a server that speaks the API's contract and fails in every documented way."""

from __future__ import annotations

import io
import itertools
import json
import re
import signal
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from collect_server import KEY, Server, picture, running, sometimes
from PIL import Image

from small_disk import small_disk
from urae.collecting import (
    FluxProUltra,
    LocalPipeline,
    collect,
    plan_collection,
    read_prompts,
    run_collection,
)
from urae.collecting.plan import image_orders
from urae.collecting.teachers.bfl import _same_site
from urae.collecting.teachers.teacher import ImageOrder, Later, Unserved
from urae.data import read_manifest, write_manifest
from urae.errors import BadFile, CannotWrite, UraeError
from urae.io import Journal, read_journal
from urae.io.files import MACHINE

PROMPTS = [f"a scene number {number}" for number in range(6)]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("BFL_API_KEY", KEY)
    with running() as state:
        yield state


def teacher_at(server: Server, **settings) -> FluxProUltra:
    fast = {"poll_every": 0.01, "rate": 6e4, "timeout": 20.0, "grace": 0.0}
    return FluxProUltra(base_url=server.url, **{**fast, **settings})


def gather(server: Server, out: Path, prompts=PROMPTS, *, teacher=None, **options):
    return collect(prompts, teacher or teacher_at(server), out, **{"pause": 0.01, **options})


def events(out: Path) -> Counter[str]:
    return Counter(line["event"] for line in read_journal(out / "orders.jsonl"))


def test_every_prompt_becomes_a_record_that_knows_where_it_comes_from(server, tmp_path):
    collection = gather(server, tmp_path, licence="CC0-1.0")
    assert read_manifest(tmp_path / "manifest.jsonl") == list(collection.records)
    assert [record.captions for record in collection.records] == [{"original": p} for p in PROMPTS]
    assert server.orders == Counter(PROMPTS)
    by_prompt = {task.prompt: task for task in server.tasks.values()}
    for record in collection.records:
        task = by_prompt[record.captions["original"]]
        assert (tmp_path / record.file).read_bytes() == task.image
        assert (record.size, record.source, record.licence) == ((48, 32), "flux-pro-1.1-ultra", "CC0-1.0")
        assert record.teacher["seed"] == task.body["seed"]
        assert record.teacher["shape"] == task.body["aspect_ratio"]
        assert record.time.endswith("+00:00")
    assert collection.spent == pytest.approx(6 * 0.06)
    assert (collection.refused, collection.unfetched, collection.failed, collection.num_lost) == (
        (),
        (),
        (),
        0,
    )


def test_the_settings_reach_the_server(server, tmp_path):
    settings = {"raw": True, "safety_tolerance": 5, "output_format": "jpeg", "shapes": {"21:9": 1}}
    (record,) = gather(server, tmp_path, ["one"], teacher=teacher_at(server, **settings)).records
    (task,) = server.tasks.values()
    sent = {name: task.body[name] for name in ("raw", "safety_tolerance", "output_format", "aspect_ratio")}
    assert sent == {"raw": True, "safety_tolerance": 5, "output_format": "jpeg", "aspect_ratio": "21:9"}
    assert record.teacher.items() >= {"raw": True, "safety_tolerance": 5}.items()


def test_a_second_call_orders_nothing_and_more_prompts_only_what_is_new(server, tmp_path):
    first = gather(server, tmp_path, PROMPTS[:4])
    assert gather(server, tmp_path, PROMPTS[:4]).records == first.records
    assert len(server.tasks) == 4
    more = gather(server, tmp_path, PROMPTS, copies=2)
    assert len(more.records) == 12
    assert server.orders == Counter(dict.fromkeys(PROMPTS, 2))
    assert all(record in more.records for record in first.records)


def test_shapes_follow_the_mix_and_depend_on_nothing_else(tmp_path):
    """A draw is a function of the prompt and the seed: neither order nor other prompts change it."""
    prompts = [f"prompt {number}" for number in range(1000)]

    def shapes(prompts, seed=0):
        teacher = FluxProUltra(shapes={"1:1": 3, "16:9": 1})
        return {r.prompt: (r.shape, r.seed) for r in image_orders(prompts, teacher, copies=1, seed=seed)}

    drawn = shapes(prompts)
    assert shapes(prompts[::-1][:500]) == {p: drawn[p] for p in prompts[500:]}
    share = sum(shape == "1:1" for shape, _ in drawn.values()) / len(prompts)
    assert share == pytest.approx(0.75, abs=0.055)  # four standard deviations
    assert shapes(prompts, seed=1) != drawn


def test_faults_of_every_kind_cost_no_second_order(server, tmp_path):
    server.most_tasks = 3
    server.faults["order"] = sometimes(1, ["429:0.01", "429", "500", "503"], 0.4)
    server.faults["poll"] = sometimes(2, ["500", "429", "503"], 0.2)
    server.faults["download"] = sometimes(3, ["cut off", "short", "corrupt", "expired", "500"], 0.5)
    prompts = [f"prompt {number}" for number in range(20)]
    collection = gather(server, tmp_path, prompts, retries=30)
    assert server.orders == Counter(prompts)
    assert len(collection.records) == 20
    assert collection.spent == pytest.approx(20 * 0.06)
    assert {429, 500, 503} <= set(server.refused)
    assert server.most_active <= 3
    whole = {task.image for task in server.tasks.values()}
    assert {(tmp_path / record.file).read_bytes() for record in collection.records} == whole


@pytest.mark.parametrize("fault", ["cut off", "short", "corrupt", "expired", "500", "moved"])
def test_a_download_that_fails_is_repeated(server, tmp_path, fault):
    server.fail("download", fault, fault)
    (record,) = gather(server, tmp_path, ["one"]).records
    assert (tmp_path / record.file).read_bytes() == server.tasks["task-0"].image
    assert len(server.tasks) == 1


def test_a_slow_answer_is_given_up_and_asked_for_again(server, tmp_path):
    server.fail("download", "slow")
    started = time.monotonic()
    collection = gather(server, tmp_path, ["one"], teacher=teacher_at(server, timeout=0.3))
    assert len(collection.records) == len(server.tasks) == 1
    assert time.monotonic() - started >= 0.3


def test_the_pause_is_the_one_the_server_names(server, tmp_path):
    server.fail("order", "429:0.5")
    gather(server, tmp_path, ["one"])
    first, second = server.times
    assert second - first >= 0.5
    assert events(tmp_path) == {"opened": 1, "sending": 2, "declined": 1, "ordered": 1, "arrived": 1}


def test_the_rate_is_kept(server, tmp_path):
    gather(server, tmp_path, PROMPTS, teacher=teacher_at(server, rate=1200))
    gaps = [after - before for before, after in itertools.pairwise(server.times)]
    assert sum(gaps) >= 5 * 60 / 1200 * 0.95


def test_moderation_is_recorded_never_repeated_and_not_paid(server, tmp_path):
    prompts = ["a forbidden thing", "an unsafe thing", "a cat"]
    first = gather(server, tmp_path, prompts)
    assert [prompt for prompt, _ in first.refused] == ["a forbidden thing", "an unsafe thing"]
    assert "Request Moderated" in first.refused[0][1]
    assert "Derivative Works" in first.refused[1][1]
    assert first.spent == pytest.approx(0.06)
    again = gather(server, tmp_path, prompts)
    assert again == first
    assert server.orders == Counter(prompts)


def test_a_task_that_failed_is_ordered_once_more_and_then_left(server, tmp_path):
    server.fail("poll", "error")
    assert len(gather(server, tmp_path / "a", ["one"]).records) == 1
    assert server.orders == {"one": 2}
    server.faults["poll"] = itertools.repeat("error")
    collection = gather(server, tmp_path / "b", ["two"])
    assert collection.failed == (("two", "the task failed"),)
    assert server.orders["two"] == 2
    assert collection.spent == pytest.approx(0.12)
    assert not collection.manifest.exists()


def test_a_new_task_may_be_unknown_for_a_moment(server, tmp_path):
    """The API runs on several servers. After the grace an unknown task is gone, and ordered anew."""
    server.fail("poll", "unknown", "unknown")
    gather(server, tmp_path / "a", ["one"], teacher=teacher_at(server, grace=60))
    assert server.orders == {"one": 1}
    server.fail("poll", "unknown")
    gather(server, tmp_path / "b", ["two"], teacher=teacher_at(server, grace=0))
    assert server.orders["two"] == 2


def test_the_limit_holds_over_all_runs(server, tmp_path):
    first = gather(server, tmp_path, limit=0.25)
    assert len(server.tasks) == 4
    assert (len(first.records), first.num_not_ordered) == (4, 2)
    assert first.spent == pytest.approx(0.24)
    assert gather(server, tmp_path, limit=0.25).num_not_ordered == 2
    assert len(server.tasks) == 4
    assert len(gather(server, tmp_path, limit=0.36).records) == 6


def test_an_order_without_an_answer_is_counted_as_paid_and_repeated(server, tmp_path):
    server.fail("order", "taken, then cut off")
    collection = gather(server, tmp_path, ["one"])
    assert server.orders == {"one": 2}
    assert (collection.num_lost, len(collection.records)) == (1, 1)
    assert collection.spent == pytest.approx(0.12)


def test_a_refused_connection_is_not_an_order(server, tmp_path):
    nowhere = replace(teacher_at(server), base_url="http://127.0.0.1:9")
    with pytest.raises(Unserved, match=r"no order was taken in 3 attempts.*127.0.0.1:9"):
        gather(server, tmp_path, ["one"], teacher=nowhere, retries=2)
    assert events(tmp_path)["lost"] == 0
    assert gather(server, tmp_path, ["one"], teacher=nowhere, retries=0, limit=0.01).num_not_ordered == 1


@pytest.mark.parametrize(
    ("status", "said"),
    [("402", "no credits left"), ("403", "check BFL_API_KEY"), ("422", "status 422"), ("302", "status 302")],
)
def test_what_waiting_cannot_mend_ends_the_run_and_keeps_what_is_there(server, tmp_path, status, said):
    server.faults["order"] = itertools.chain(["", ""], itertools.repeat(status))
    with pytest.raises(Unserved, match=said) as raised:
        gather(server, tmp_path, teacher=teacher_at(server, concurrency=1))
    assert KEY not in str(raised.value)
    assert "***" in str(raised.value)
    assert len(read_manifest(tmp_path / "manifest.jsonl")) == 2
    server.fail("order")
    assert len(gather(server, tmp_path).records) == 6
    assert server.orders == Counter(PROMPTS)


def test_the_key_is_needed_and_is_written_nowhere(server, tmp_path, monkeypatch, capfd):
    gather(server, tmp_path / "a")
    monkeypatch.setenv("BFL_API_KEY", "wrong-key")
    with pytest.raises(Unserved, match=r"403: .*\*\*\*"):
        gather(server, tmp_path / "b")
    monkeypatch.setenv("BFL_API_KEY", f"{KEY}\nx")
    with pytest.raises(ValueError, match="BFL_API_KEY holds characters that no key has"):
        gather(server, tmp_path / "c")
    monkeypatch.delenv("BFL_API_KEY")
    with pytest.raises(ValueError, match="BFL_API_KEY is not set: export it"):
        gather(server, tmp_path / "c")
    assert len(gather(server, tmp_path / "a").records) == 6, "nothing is left to ask, so no key is needed"
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    said = "".join(capfd.readouterr())
    for key in (KEY, "wrong-key"):
        assert key.encode() not in written
        assert key not in said
        assert key not in repr(teacher_at(server))


def test_the_key_goes_to_the_api_alone(server, tmp_path):
    teacher = teacher_at(server)
    for stranger in ("http://localhost/v1/get_result", "https://127.0.0.1/v1", "file:///etc/passwd"):
        with pytest.raises(Unserved, match="key is not sent to another site"):
            teacher.fetch({"id": "x", "polling_url": stranger, "time": 0})
    assert _same_site("https://api.eu2.bfl.ai/v1/get_result?id=1", "https://api.bfl.ai")
    assert not _same_site("https://api.bfl.ai.evil.org/v1", "https://api.bfl.ai")
    assert not _same_site("http://api.bfl.ai/v1", "https://api.bfl.ai")


def test_an_image_that_is_never_ready_stays_for_the_next_run(server, tmp_path):
    server.seconds = 1000
    collection = gather(server, tmp_path, ["one"], patience=0.05)
    assert collection.unfetched == (("one", "not ready after 0.05 s"),)
    plan = plan_collection(["one"], teacher_at(server), tmp_path)
    assert (plan.num_outstanding, plan.num_to_order, plan.cost) == (1, 0, 0.0)
    server.seconds = server.tasks["task-0"].ready = 0
    assert len(gather(server, tmp_path, ["another prompt"]).records) == 2, (
        "it was paid, whatever is asked now"
    )
    assert server.orders == {"one": 1, "another prompt": 1}


def test_addresses_that_are_always_expired_mean_a_new_order(server, tmp_path):
    server.fail("download", *["expired"] * 3)
    collection = gather(server, tmp_path, ["one"], retries=2)
    assert len(collection.records) == 1
    assert server.orders == {"one": 2}


def test_an_image_that_came_without_its_line_in_the_journal_is_found(server, tmp_path):
    """Killed between the file and the line; its address may have expired since."""
    gather(server, tmp_path, ["one"])
    journal = tmp_path / "orders.jsonl"
    journal.write_text("".join(line for line in journal.open() if '"arrived"' not in line))
    (tmp_path / "images" / f".urae-{MACHINE}-{2**22 + 1}-0-half.png.tmp").write_bytes(b"torn")
    server.tasks.clear()
    (record,) = gather(server, tmp_path, ["one"]).records
    assert (tmp_path / record.file).is_file()
    assert not server.tasks
    assert not list((tmp_path / "images").glob(".*"))


def test_a_removed_image_stays_removed_and_added_captions_stay(server, tmp_path):
    first, second = gather(server, tmp_path, PROMPTS[:2]).records
    (tmp_path / first.file).unlink()
    detailed = replace(second, captions=second.captions | {"detailed": "all of it"}, licence="CC0-1.0")
    write_manifest([first, detailed], tmp_path / "manifest.jsonl")
    collection = gather(server, tmp_path, PROMPTS[:2])
    assert collection.removed == (first.file,)
    assert collection.records == (detailed,)
    assert len(server.tasks) == 2


def test_images_that_are_the_same_become_one_record(tmp_path):
    black = Image.new("RGB", (64, 32))
    teacher = LocalPipeline(draw=lambda *_: black, name="black", shapes={"64x32": 1}, described={})
    collection = collect(["one", "two"], teacher, tmp_path)
    assert len(collection.records) == len(collection.twins) == 1
    assert collection.twins[0] != collection.records[0].file
    assert len(read_manifest(collection.manifest)) == 1


def test_a_local_pipeline_draws_each_image_once_from_its_own_seed(tmp_path):
    drawn = []

    def draw(prompt, size, seed):
        drawn.append((prompt, size, seed))
        return Image.open(io.BytesIO(picture(prompt))).resize(size)

    teacher = LocalPipeline(
        draw=draw, name="mini", shapes={"64x32": 1, "32x64": 1}, described={"method": "imax"}
    )
    collection = collect(PROMPTS, teacher, tmp_path)
    assert [record.captions["original"] for record in collection.records] == PROMPTS
    assert [(r.captions["original"], r.size, r.teacher["seed"]) for r in collection.records] == drawn
    assert {size for _, size, _ in drawn} == {(64, 32), (32, 64)}
    assert collection.records[0].teacher["method"] == "imax"
    assert collect(PROMPTS, teacher, tmp_path) == collection
    assert len(drawn) == 6


def test_every_copy_that_is_refused_is_counted(server, tmp_path):
    collection = gather(server, tmp_path, ["a forbidden thing", "a cat"], copies=3)
    assert len(collection.refused) == 3
    assert len(collection.records) == 3


def test_another_data_set_is_not_overwritten(server, tmp_path):
    (tmp_path / "manifest.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="holds another data set, whose manifest would be lost"):
        gather(server, tmp_path)
    assert not server.tasks


def test_other_settings_need_another_folder(server, tmp_path):
    gather(server, tmp_path, ["one"])
    with pytest.raises(ValueError, match=r"was collected with settings .*'raw': False.*give another folder"):
        gather(server, tmp_path, ["one"], teacher=teacher_at(server, raw=True))
    with pytest.raises(ValueError, match="was collected with seed 0"):
        gather(server, tmp_path, ["one"], seed=1)
    assert len(server.tasks) == 1


def test_two_runs_at_once_would_pay_twice(server, tmp_path):
    with Journal(tmp_path / "orders.jsonl"), pytest.raises(UraeError, match="another run is writing"):
        gather(server, tmp_path)
    assert not server.tasks


def test_a_journal_that_was_torn_goes_on_and_a_damaged_one_is_named(server, tmp_path):
    gather(server, tmp_path, PROMPTS)
    journal = tmp_path / "orders.jsonl"
    whole = journal.read_bytes()
    for cut in (1, 2, 30):
        journal.write_bytes(whole[:-cut])
        assert len(gather(server, tmp_path, PROMPTS).records) == 6
    assert server.orders == Counter(PROMPTS)
    journal.write_bytes(b"{torn\n" + whole)
    with pytest.raises(BadFile, match=r"orders.jsonl, line 1 is damaged"):
        gather(server, tmp_path, PROMPTS)


def test_the_plan_is_what_the_run_then_does(server, tmp_path):
    teacher = teacher_at(server)
    plan = plan_collection(PROMPTS, teacher, tmp_path, copies=2)
    assert (plan.num_images, plan.num_to_order, plan.cost) == (12, 12, pytest.approx(0.72))
    assert not list(tmp_path.iterdir())
    gather(server, tmp_path, PROMPTS, copies=1)
    plan = plan_collection(PROMPTS, teacher, tmp_path, copies=2)
    assert (plan.num_arrived, plan.num_to_order, plan.spent) == (6, 6, pytest.approx(0.36))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: FluxProUltra(shapes={"3:1": 1}),
            "shape is '3:1': expected an aspect ratio between 21:9 and 9:21",
        ),
        (lambda: FluxProUltra(shapes={}), "mix of shapes is empty"),
        (lambda: FluxProUltra(shapes={"1:1": 0}), r"mix of shapes is 1:1=0: expected"),
        (lambda: FluxProUltra(safety_tolerance=7), r"safety_tolerance is 7: expected 0 \(strict\) to 6"),
        (lambda: FluxProUltra(output_format="gif"), "expected png or jpeg"),
        (lambda: FluxProUltra(concurrency=25), "allows 1 to 24 tasks"),
        (lambda: collect(["a", "a"], FluxProUltra(), "x"), "more than once: keep one of each .*: a"),
        (lambda: collect([], FluxProUltra(), "x"), "there are 0 prompts"),
        (lambda: collect(["a"], FluxProUltra(price=0), "x", limit=1), "limit of 1 has no effect"),
    ],
)
def test_wrong_settings(make, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        make()
    assert not list(tmp_path.iterdir())


@pytest.fixture
def interruptible():
    """Ctrl-C as at a terminal: a shell starts what runs in the background without it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_leaves_what_is_ordered_for_the_next_run(server, tmp_path):
    """Tickets are on the disk, so nothing has to be awaited."""

    def press() -> None:
        wait_for(lambda: len(server.tasks) == 6)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    server.seconds = 1000
    watcher = threading.Thread(target=press)
    watcher.start()
    with pytest.raises(KeyboardInterrupt):
        gather(server, tmp_path)
    watcher.join()
    for task in server.tasks.values():
        task.ready = 0
    assert len(gather(server, tmp_path).records) == 6
    assert server.orders == Counter(PROMPTS)


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def test_the_journal_holds_what_was_sent_before_it_was_sent(server, tmp_path):
    """While the answer is held, the disk already says what may have to be paid."""
    server.fail("order", "taken, then held")
    thread = threading.Thread(target=lambda: gather(server, tmp_path, ["one"]))
    thread.start()
    wait_for(lambda: server.tasks)
    lines = [json.loads(line) for line in (tmp_path / "orders.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["opened", "sending"]
    server.gate.set()
    thread.join()
    assert events(tmp_path)["arrived"] == 1


@pytest.mark.parametrize("cost", [-1000, float("nan"), float("inf"), "6", None, True, []])
def test_no_answer_of_a_teacher_breaks_the_limit(server, tmp_path, cost, capfd):
    """What cannot be a cost is counted as the price, in this run and in the next."""
    server.cost = cost
    teacher = teacher_at(server, concurrency=1)
    if cost != cost or cost == float("inf"):  # no JSON, so no answer either: it may have been paid
        with pytest.raises(Unserved, match="answered with no task"):
            gather(server, tmp_path, limit=0.15, teacher=teacher)
        assert plan_collection(PROMPTS, teacher, tmp_path).spent == pytest.approx(0.06)
        return
    first = gather(server, tmp_path, limit=0.15, teacher=teacher)
    assert (len(server.tasks), len(first.records), first.num_not_ordered) == (2, 2, 4)
    assert first.spent == pytest.approx(0.12)
    assert ("names an impossible cost" in capfd.readouterr().err) == (cost is not None)
    assert gather(server, tmp_path, limit=0.15, teacher=teacher).spent == pytest.approx(0.12)
    assert len(server.tasks) == 2


def test_a_cost_below_nothing_in_a_journal_takes_nothing_back(server, tmp_path):
    gather(server, tmp_path, PROMPTS[:2])
    journal = tmp_path / "orders.jsonl"
    journal.write_text(journal.read_text().replace('"cost": 0.06', '"cost": -1000'))
    assert plan_collection(PROMPTS, teacher_at(server), tmp_path).spent == pytest.approx(0.12)


@pytest.mark.parametrize(
    "answer", [{"polling_url": 7}, {"result": "x"}, {"result": {"sample": ["x"]}}, {"id": {}}, {"status": []}]
)
def test_answers_of_other_types_are_sentences(server, tmp_path, answer):
    server.odd = answer
    try:
        collection = gather(server, tmp_path, ["one"], retries=1, patience=0.05)
    except Unserved as error:
        assert re.search(r"no task|to ask for a task", str(error))  # noqa: PT017
    else:
        assert len(collection.unfetched) + len(collection.failed) == 1


@pytest.mark.parametrize("line", [{"event": "ordered", "key": "x"}, {"event": "sung"}, {"key": "x"}])
def test_a_journal_of_something_else_is_named(server, tmp_path, line):
    gather(server, tmp_path, ["one"])
    with (tmp_path / "orders.jsonl").open("a") as journal:
        journal.write(json.dumps(line) + "\n")
    with pytest.raises(BadFile, match=r"orders.jsonl, line 5"):
        gather(server, tmp_path, ["one"])


def test_a_wait_without_end_has_one(server):
    server.fail("order", "429:1000000000")
    with pytest.raises(Later, match="status 429") as raised:
        teacher_at(server).order(ImageOrder(key="x", name="x", prompt="one", shape="1:1", seed=0))
    assert raised.value.seconds == 600


@pytest.mark.parametrize("ends", ["\u2028", "\u2029", "\x85", "\v", "\f"])
def test_prompts_and_manifests_have_lines_of_their_own(server, tmp_path, ends):
    (tmp_path / "p.txt").write_text(f"\ufeffa cat{ends}and a dog\r\nb\n", encoding="utf-8")
    prompts = read_prompts(tmp_path / "p.txt")
    assert prompts == [f"a cat{ends}and a dog", "b"]
    collection = gather(server, tmp_path / "out", prompts)
    assert read_manifest(collection.manifest) == list(collection.records)
    assert gather(server, tmp_path / "out", prompts) == collection


def test_an_image_that_is_transparent_is_paid_and_kept(tmp_path):
    """Training refuses it by its name; ordered anew it would be paid twice, and be as transparent."""
    clear = Image.new("RGBA", (64, 32), (0, 0, 0, 0))
    teacher = LocalPipeline(draw=lambda *_: clear, name="clear", shapes={"64x32": 1}, described={})
    collection = collect(["one"], teacher, tmp_path)
    assert [record.size for record in collection.records] == [(64, 32)]


def test_the_plan_can_be_printed_compared_and_run(server, tmp_path):
    plan = plan_collection(PROMPTS, teacher_at(server), tmp_path, limit=0.2)
    assert plan == plan_collection(PROMPTS, teacher_at(server), tmp_path, limit=0.2)
    assert plan != plan_collection(PROMPTS, teacher_at(server), tmp_path, limit=0.3)
    assert "to order: 6\ncost, expected: 0.36 (0.06 each), spent before: 0.00" in str(plan)
    assert len(run_collection(plan).records) == 3


def test_a_place_that_cannot_be_written_is_named_before_anything_is_ordered(server, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises((ValueError, CannotWrite), match="file"):
            gather(server, out)
    assert not server.tasks
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("num_bytes", [200, 900, 3000])
def test_a_disk_without_room_is_one_sentence_and_nothing_is_paid_twice(server, tmp_path, num_bytes):
    """But for the order whose answer could not be written down, which is counted as lost."""
    with small_disk(num_bytes), pytest.raises(UraeError, match=r"cannot be written: .*run again"):
        gather(server, tmp_path, teacher=teacher_at(server, concurrency=1))
    assert not list(tmp_path.rglob(".urae-*"))
    collection = gather(server, tmp_path)
    assert len(collection.records) == 6
    assert sum(server.orders.values()) == 6 + collection.num_lost
    assert collection.num_lost <= 1
