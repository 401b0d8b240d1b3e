"""Requests against a real server: what is sent where, what is taken for an answer, and that everything ends."""

import base64
import hashlib
import json
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from loopback import answer, drip, serving

from urae.io.http import (
    Answer,
    BadAddress,
    NoAnswer,
    TooLong,
    check_public,
    download,
    exchange,
    seconds_to_wait,
    without_query,
)


def test_a_request_and_its_answer():
    with serving(lambda handler, body: answer(handler, 418, b'{"a": 1}', X_Kind="tea")) as (url, asked):
        found = exchange(f"{url}/x?q=1", headers={"X-Key": "secret"}, body={"prompt": "猫"}, timeout=20)
        assert (found.status, found.json(), found.headers["x-kind"]) == (418, {"a": 1}, "tea")
        assert exchange(url, timeout=20).text == '{"a": 1}'
    (path, headers, body), (_, _, empty) = asked
    assert (path, headers["x-key"], json.loads(body), empty) == ("/x?q=1", "secret", {"prompt": "猫"}, b"")


@pytest.mark.parametrize(
    "body", [b"", b"[1]", b"{", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"\xff", b"[" * 5000]
)
def test_a_body_that_is_no_object_is_an_empty_one(body):
    assert Answer(status=200, headers={}, body=body).json() == {}


# --- redirections ----------------------------------------------------------------------------------------------


def test_a_redirection_is_followed_within_the_origin_alone_and_only_on_request():
    with serving(lambda handler, body: answer(handler, body=b"elsewhere")) as (other, others):

        def react(handler, body):
            places = {
                "/there": "/here",
                "/away": f"{other}/x",
                "/loop": "/loop",
                "/file": "file:///etc/passwd",
            }
            place = places.get(handler.path.partition("?")[0])
            answer(handler, 302 if place else 200, b"here", **({"Location": place} if place else {}))

        with serving(react) as (url, asked):
            key = {"Authorization": "secret"}
            assert exchange(f"{url}/there", headers=key, timeout=20).status == 302
            assert exchange(f"{url}/there", headers=key, timeout=20, follow=True).body == b"here"
            for path, shown in (("/away?signature=secret", other), ("/file", "file:")):
                with pytest.raises((BadAddress, NoAnswer), match=shown) as raised:
                    exchange(f"{url}{path}", headers=key, timeout=20, follow=True)
                assert "secret" not in str(raised.value)
            with pytest.raises(NoAnswer, match="no whole answer"):
                exchange(f"{url}/loop", timeout=20, follow=True)
    assert others == []
    assert all(headers["authorization"] == "secret" for path, headers, _ in asked if path != "/loop")


def test_the_same_name_at_another_port_is_another_origin():
    with serving(lambda handler, body: answer(handler, body=b"2")) as (second, others):
        redirect = second.replace("127.0.0.1", "localhost")
        with (
            serving(lambda handler, body: answer(handler, 307, Location=redirect)) as (first, _),
            pytest.raises(BadAddress, match="another server"),
        ):
            download(first.replace("127.0.0.1", "localhost"), timeout=20)
    assert others == []


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://a/b",
        "http://",
        "//a/b",
        "http://[::1",
        "http://a:b/",
        "http://a b/",
        "http://a/é",
        "x",
        "",
    ],
)
def test_what_is_no_address_is_not_asked(url):
    with pytest.raises(BadAddress, match="not HTTP"):
        exchange(url, timeout=5)


@pytest.mark.parametrize("key", ["sec\nret", "sec\rret", "sec\u2028ret"])
def test_a_key_with_a_line_break_is_not_shown(key):
    with pytest.raises(ValueError, match="the header X-Key holds a line break") as raised:
        exchange("http://127.0.0.1:9/", headers={"X-Key": key}, timeout=5)
    assert "ret" not in str(raised.value)


# --- ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 200,
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 40,
        b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 400,
        b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n" + b"x" * 400,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 80,
    ],
    ids=["a long header", "many headers", "a body without length", "a body", "chunks"],
)
def test_an_answer_that_drips_is_cut_off_at_the_deadline(text):
    """Each byte comes in time for the socket; all of them would take seconds more than the answer may."""
    with (
        serving(lambda handler, body: drip(handler, text)) as (url, _),
        pytest.raises(NoAnswer, match="the answer takes too long") as raised,
    ):
        exchange(url, timeout=1.5)
    assert raised.value.sent


def test_a_silent_server_is_not_waited_for():
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(NoAnswer, match="takes too long|timed out") as raised,
    ):
        exchange(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout=0.3)
    assert raised.value.sent


def test_a_body_has_a_limit():
    def endless(handler, body):
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
        while True:
            handler.wfile.write(bytes(2**16))

    announced = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000000\r\n\r\n"
    for react in (endless, lambda handler, body: handler.wfile.write(announced)):
        with serving(react) as (url, _), pytest.raises(TooLong, match="longer than 100000 bytes"):
            exchange(url, timeout=20, limit=100_000)
    with serving(lambda handler, body: answer(handler, body=b"x" * 100)) as (url, _):
        assert len(exchange(url, timeout=20, limit=100).body) == 100


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 999999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000 + b"\r\n\r\n",
    ],
)
def test_a_broken_answer_is_no_answer(text):
    with (
        serving(lambda handler, body: handler.wfile.write(text)) as (url, _),
        pytest.raises(NoAnswer, match="no whole answer from") as raised,
    ):
        exchange(f"{url}/x?key=secret", timeout=20)
    assert raised.value.sent
    assert "secret" not in str(raised.value)


def test_a_request_that_nobody_got_was_not_sent():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/", "http://nowhere.invalid/"):
        with pytest.raises(NoAnswer) as raised:
            exchange(url, timeout=20)
        assert not raised.value.sent


def test_a_download_that_was_changed_on_the_way_is_no_answer():
    right = base64.b64encode(hashlib.md5(b"picture").digest()).decode()
    for body in (b"picture", b"pictuse"):
        with serving(lambda handler, _, body=body: answer(handler, body=body, Content_MD5=right)) as (url, _):
            if body == b"picture":
                assert download(url, timeout=20).body == body
            else:
                with pytest.raises(NoAnswer, match="came damaged"):
                    download(url, timeout=20)


# --- what a server asks for, and addresses ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        ("1.5", 1.5),
        ("1e9", 60),
        ("inf", 60),
        ("9" * 400, 60),
        ("-5", 0),
        ("-inf", 0),
        ("nan", 0),
        ("soon", 0),
        ("", 0),
        ("Mon, 99 Foo 2020 25:61:61 GMT", 0),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 60),
    ],
)
def test_what_retry_after_asks_for_has_an_end(value, seconds):
    assert seconds_to_wait({"retry-after": value}, at_most=60) == seconds


def test_retry_after_as_a_date():
    soon = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert 3000 < seconds_to_wait({"retry-after": soon}, at_most=7200) <= 3600
    assert seconds_to_wait({}) == 0


def test_addresses_are_shown_without_secrets():
    for url in ("https://a.b/c?sig=secret", "https://user:secret@a.b/c", "https://secret@a.b/c#secret?x"):
        assert without_query(url) == "https://a.b/c"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "10.1.2.3",
        "192.168.0.1",
        "172.16.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "2130706433",
        "0x7f.1",
        "[::1]",
        "[fe80::1]",
        "[fd00::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::a00:1]",
        "[2002:7f00:1::]",
        "nowhere.invalid",
    ],
)
def test_addresses_of_the_local_network_are_refused(host):
    for scheme in ("http", "https"):
        with pytest.raises(BadAddress, match="leads into a private network|leads nowhere"):
            check_public(f"{scheme}://{host}/latest/meta-data?x")


def test_public_addresses_pass_and_this_machine_on_request():
    for host in ("1.1.1.1", "[2606:4700:4700::1111]", "8.8.8.8:8080"):
        check_public(f"https://{host}/x")
    check_public("http://127.0.0.1:8000/v1", loopback=True)
    with pytest.raises(BadAddress):
        check_public("http://10.0.0.1/", loopback=True)
    with pytest.raises(BadAddress, match="not HTTP"):
        check_public("file:///etc/passwd")
