"""One client for every OpenAI-compatible server, asked for real."""

import gzip
import json

import pytest
from loopback import answer, drip, serving

from urae.errors import MissingExtra
from urae.io import servers
from urae.io.servers import Server, Unanswered, is_refusal, is_unpaid

CONTENT = [{"type": "text", "text": "what is it?"}]


def completion(text="a cat", **more):
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"choices": [choice], "model": "toy-2", "system_fingerprint": "f"} | more


def ask(react, *, timeout=20.0, retries=0, **options):
    with serving(react) as (url, asked):
        server = Server(base_url=f"{url}/v1", timeout=timeout)
        with server.connect(retries=retries) as client:
            reply = server.chat(client, CONTENT, **{"model": "toy", "options": {}, "key": "k"} | options)
    return reply, asked


def replying(body, status=200):
    return lambda handler, _: answer(
        handler,
        status,
        body if isinstance(body, bytes) else json.dumps(body).encode(),
        Content_Type="application/json",
    )


def test_what_is_sent_and_what_comes_back():
    usage = {"prompt_tokens": 7, "completion_tokens": True, "total_tokens": 9}
    schema = {"type": "object"}
    reply, asked = ask(
        replying(completion(usage=usage)), options={"temperature": 0, "seed": 1}, schema=schema
    )
    assert (reply.text, reply.model, reply.fingerprint, reply.finish_reason) == (
        "a cat",
        "toy-2",
        "f",
        "stop",
    )
    assert reply.usage == {"prompt_tokens": 7}
    ((path, headers, body),) = asked
    described = {"name": "verdict", "strict": True, "schema": schema}
    assert (path, headers["idempotency-key"]) == ("/v1/chat/completions", "k")
    assert json.loads(body) == {
        "model": "toy",
        "messages": [{"role": "user", "content": CONTENT}],
        "temperature": 0,
        "seed": 1,
        "response_format": {"type": "json_schema", "json_schema": described},
    }


def test_without_a_schema_none_is_sent():
    for schema in ({}, None):
        assert "response_format" not in json.loads(ask(replying(completion()), schema=schema)[1][0][2])


@pytest.mark.parametrize("code", ["content_filter", "content_policy_violation", "moderation_blocked"])
def test_a_refusal_is_an_answer_without_text(code):
    reply, _ = ask(replying({"error": {"message": "no", "code": code}}, 400))
    assert (reply.text, reply.finish_reason, reply.model) == ("", "content_filter", "toy")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"error": {"message": "no such model"}}, 404, "gave no answer: .*no such model"),
        ({"error": {"message": "bad option"}}, 400, "refused the request: .*bad option"),
        (b"<html>", 200, "answered with no chat completion: '<html>'"),
        ({"choices": []}, 200, "answered with no chat completion"),
        ({"choices": [{"message": None}]}, 200, "answered with no chat completion"),
        ({"choices": ["x"]}, 200, "answered with no chat completion"),
        (b"[" * 5000, 200, "answered with no chat completion"),
        (b'{"choices": NaN}', 200, "answered with no chat completion"),
    ],
)
def test_every_other_answer_is_none(body, status, said):
    with pytest.raises(Unanswered, match=f"^toy at http://.*/v1 {said}"):
        ask(replying(body, status))


def test_an_answer_that_is_no_text_is_not_mended():
    """httpx would put U+FFFD for a wrong byte, and the caption would be kept with it."""
    body = json.dumps(completion("a caf?"), ensure_ascii=False).encode().replace(b"?", b"\xe9")
    with pytest.raises(Unanswered, match="answered with no chat completion"):
        ask(replying(body))
    assert ask(replying(b"\xef\xbb\xbf" + json.dumps(completion()).encode()))[0].text == "a cat"


def test_a_packed_answer_is_not_unpacked():
    """Half a megabyte of it would be 512, and the limit is of what arrives."""
    asked_for = []

    def react(handler, _):
        asked_for.append(handler.headers["Accept-Encoding"])
        answer(handler, 200, gzip.compress(json.dumps(completion()).encode()), Content_Encoding="gzip")

    with pytest.raises(Unanswered, match="gave no answer: the answer is packed"):
        ask(react)
    assert asked_for == ["identity"]


def test_counts_below_zero_are_none():
    counted = {"prompt_tokens": -7, "completion_tokens": 3}
    assert ask(replying(completion(usage=counted)))[0].usage == {"completion_tokens": 3}


@pytest.mark.parametrize("message", [{"content": None}, {"content": [1]}, {}])
def test_an_answer_without_text_is_empty(message):
    reply, _ = ask(replying({"choices": [{"message": message}], "usage": "many"}))
    assert (reply.text, reply.usage, reply.model) == ("", {}, "toy")


def test_the_key_is_blackened_wherever_a_server_repeats_it(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    body = completion("it is sk-secret", model="sk-secret", system_fingerprint="sk-secret")
    reply, asked = ask(replying(body))
    assert (reply.text, reply.model, reply.fingerprint) == ("it is ***", "***", "***")
    assert asked[0][1]["authorization"] == "Bearer sk-secret"
    for wrong, status in (({"error": {"message": "bad key sk-secret"}}, 401), (b"sk-secret", 200)):
        with pytest.raises(Unanswered, match=r"\*\*\*") as raised:
            ask(replying(wrong, status))
        assert "sk-secret" not in str(raised.value)
        assert raised.value.__cause__ is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_pictures_are_not_carried_to_another_server(status, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with serving(replying(completion())) as (other, others):
        redirect = lambda handler, _: answer(handler, status, Location=f"{other}/v1/chat/completions")  # noqa: E731
        with pytest.raises(Unanswered, match="gave no answer"):
            ask(redirect)
    assert others == []


def test_an_answer_that_drips_or_never_ends_is_cut_off(monkeypatch):
    head, dripped = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", []

    def dripping(handler, _):
        handler.wfile.write(head)
        while len(dripped) < 10_000:
            drip(handler, b" ", pause=0.02)
            dripped.append(1)

    with pytest.raises(Unanswered, match="gave no answer"):
        ask(dripping, timeout=1.0)
    assert len(dripped) < 10_000
    monkeypatch.setattr(servers, "MOST_BYTES", 10_000)
    with pytest.raises(Unanswered, match="gave no answer"):
        ask(lambda handler, _: handler.wfile.write(head + b" " * 10_000_000))


def test_a_request_is_repeated_as_often_as_asked_and_not_after_a_day():
    def react(status, wait):
        return lambda handler, _: answer(handler, status, b"{}", Retry_After=wait)

    with serving(react(503, "0.001")) as (url, asked):
        server = Server(base_url=url)
        with server.connect(retries=2) as client, pytest.raises(Unanswered):
            server.chat(client, CONTENT, model="toy", options={}, key="k")
        assert len(asked) == 3
        assert {headers["idempotency-key"] for _, headers, _ in asked} == {"k"}
    with serving(react(429, "1e9")) as (url, asked):
        server = Server(base_url=url)
        with server.connect(retries=2) as client, pytest.raises(Unanswered):
            server.chat(client, CONTENT, model="toy", options={}, key="k")
        assert len(asked) == 1


def test_what_is_given_wrong(monkeypatch):
    with pytest.raises(ValueError, match="base_url holds a password"):
        Server(base_url="https://user:word@a.b/v1")
    for url in ("a.b/v1", "file:///x", ""):
        with pytest.raises(ValueError, match="expected an address that begins with http"):
            Server(base_url=url)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match="OPENAI_API_KEY is not set"):
        Server().connect()
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(MissingExtra, match=r"pip install 'urae\[judge\]'"):
        Server(base_url="http://a.b").connect(extra="judge")


def test_errors_are_told_apart_by_their_codes():
    class Error(Exception):
        code = "insufficient_quota"

    assert (is_unpaid(Error()), is_refusal(Error()), is_refusal(ValueError())) == (True, False, False)
