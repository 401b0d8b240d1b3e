"""Any server with OpenAI's images endpoint as the teacher."""

from __future__ import annotations

import base64

import pytest
from collect_server import picture
from post_server import serving

from urae.collecting import OpenAIImages, collect
from urae.collecting.teachers.teacher import Unserved
from urae.io import read_journal

KEY = "sk-very-secret"
PROMPTS = ["a cat", "a dog", "a bird"]


def drawn(body, number):
    return 200, {"created": 0, "data": [{"b64_json": base64.b64encode(picture(body["prompt"])).decode()}]}


def gather(url, out, prompts=PROMPTS, **settings):
    teacher = OpenAIImages(model="toy", base_url=url, rate=6e4, **{"price": 0, **settings})
    return collect(prompts, teacher, out, pause=0.01, retries=3)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def test_images_in_the_answer_are_kept_and_paid_once(tmp_path):
    with serving(drawn) as (url, asked):
        settings = {"options": {"quality": "high"}, "shapes": {"1536x1024": 1}, "price": 0.25}
        collection = gather(url, tmp_path, **settings)
        assert gather(url, tmp_path, **settings) == collection
    assert sorted(body["prompt"] for body in asked) == sorted(PROMPTS)
    assert {(b["quality"], b["size"], b["model"], b["_path"]) for b in asked} == {
        ("high", "1536x1024", "toy", "/v1/images/generations")
    }
    assert "n" not in asked[0], "one is the default, and not every server knows the field"
    assert {body["_headers"]["authorization"] for body in asked} == {f"Bearer {KEY}"}
    assert "seed" not in asked[0]
    for record in collection.records:
        assert (tmp_path / record.file).read_bytes() == picture(record.captions["original"])
    assert collection.spent == pytest.approx(0.75)


def test_images_at_an_address_are_downloaded_without_the_key(tmp_path):
    def at_an_address(body, number):
        return 200, {"data": [{"url": f"{place[0]}/pictures/{number}.png"}]}

    with serving(at_an_address) as (url, asked):
        place = [url]
        collection = gather(url, tmp_path, send_seed=True)
    assert len(collection.records) == len(asked) == 3
    assert all(isinstance(body["seed"], int) for body in asked)


def test_refusals_are_recorded_and_busy_servers_asked_again(tmp_path):
    def react(body, number):
        if body["prompt"] == "a dog":
            return 400, {"error": {"message": "no", "code": "moderation_blocked"}}
        return (429, {"error": {"message": "busy"}}) if number < 2 else drawn(body, number)

    with serving(react) as (url, asked):
        collection = gather(url, tmp_path, concurrency=1)
        assert gather(url, tmp_path) == collection
    assert [prompt for prompt, _ in collection.refused] == ["a dog"]
    assert len(collection.records) == 2
    assert [body["prompt"] for body in asked] == ["a cat"] * 3 + ["a dog", "a bird"]
    assert len({body["_headers"]["idempotency-key"] for body in asked[:3]}) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (429, {"code": "insufficient_quota"}),
        (401, {"code": "invalid_api_key"}),
        (400, {"code": "unknown_parameter"}),
    ],
)
def test_what_waiting_cannot_mend_ends_the_run(tmp_path, status, error):
    said = {"error": {"message": f"what about {KEY}?", **error}}
    with (
        serving(lambda *_: (status, said)) as (url, asked),
        pytest.raises(Unserved, match=r"toy at .*\*\*\*") as raised,
    ):
        gather(url, tmp_path, concurrency=1)
    assert len(asked) == 1
    assert KEY not in str(raised.value)
    assert KEY not in (tmp_path / "orders.jsonl").read_text()


def test_an_answer_without_an_image_may_have_been_paid(tmp_path):
    with (
        serving(lambda *_: (200, {"data": []})) as (url, _),
        pytest.raises(Unserved, match="answered with no image"),
    ):
        gather(url, tmp_path, concurrency=1)
    assert [line["event"] for line in read_journal(tmp_path / "orders.jsonl")] == [
        "opened",
        "sending",
        "lost",
    ]


def test_a_damaged_image_is_paid_and_ordered_anew(tmp_path):
    def react(body, number):
        half = base64.b64encode(picture("x")[:1000]).decode()
        return (200, {"data": [{"b64_json": half}]}) if number == 0 else drawn(body, number)

    with serving(react) as (url, asked):
        collection = gather(url, tmp_path, ["a cat"], price=0.25)
    assert (len(asked), len(collection.records)) == (2, 1)
    assert len({body["_headers"]["idempotency-key"] for body in asked}) == 2, (
        "another order, not a repetition"
    )
    assert collection.spent == pytest.approx(0.5)


def test_an_address_with_a_password_is_refused_before_it_is_written_anywhere():
    with pytest.raises(
        ValueError, match="base_url holds a password: .* in the variable OPENAI_API_KEY"
    ) as raised:
        OpenAIImages(model="toy", base_url="https://me:hush@example.org/v1")
    assert "hush" not in str(raised.value)


def test_the_key_is_needed_at_openai_alone(monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ValueError, match="OPENAI_API_KEY is not set"):
        collect(["a cat"], OpenAIImages(model="toy", price=0.04), tmp_path)
    with serving(drawn) as (url, _):
        assert len(gather(url, tmp_path / "own").records) == 3
