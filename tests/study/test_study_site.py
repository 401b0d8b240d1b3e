"""The site, over real connections: what a rater can do, and what nobody can."""

from __future__ import annotations

import asyncio
import json
import re
import threading

import pytest
from study_material import HOSTILE, IDS, NAMES, Client

from urae.study.ballots import BallotBox, read_invitations
from urae.study.manifest import ASPECTS
from urae.study.site import make_site

POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


def test_a_rater_votes_through_the_study_and_is_done(site):
    client = site.client()
    answer = client.join(site.tokens[0])
    assert answer.json == {"next": "/ballot/1"}
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    cast = {}
    for position in range(1, len(IDS) + 1):
        assert client.get("/").headers["location"] == f"/ballot/{position}"
        for place, aspect in enumerate(ASPECTS):
            cast[position, aspect.name] = client.shown(position)[(position + place) % 3]
            answer = client.vote(position, aspect.name, cast[position, aspect.name])
            done = position + (aspect is ASPECTS[-1])
            assert (answer.status, answer.json) == (200, {"open": list(range(done, len(IDS) + 1))})
    assert "All 6 prompts are answered" in client.get("/finish").text
    assert client.post("/submit", {}).json == {"next": "/finish"}
    assert "have been submitted. Thank you!" in client.get("/finish").text
    assert client.get("/ballot/1").headers["location"] == client.get("/").headers["location"] == "/finish"
    assert {(vote.position, vote.aspect): vote.picture for vote in site.votes()} == cast


def test_progress_is_kept_and_resumed_on_another_device(site):
    client = site.rater(1)
    for position in (1, 3):
        for aspect in ASPECTS:
            client.vote(position, aspect.name, client.shown(position)[0])
    client.vote(2, "overall", client.shown(2)[1])
    again = site.client()
    assert again.join(site.tokens[0]).json == {"next": "/ballot/2"}
    assert again.shown(2) == client.shown(2)
    pressed = re.findall(r'data-picture="(\w+)" aria-pressed="true"', again.get("/ballot/2").text)
    assert pressed == [again.shown(2)[1]]
    assert "<b>2</b> of 6" in again.get("/ballot/2").text
    assert 'value="2"' in again.get("/ballot/2").text


def test_opening_a_link_is_not_using_it(site):
    """Mail and chat programs open links to show what is behind them."""
    page = site.client().get(f"/join/{site.tokens[0]}")
    assert page.status == 200
    assert "set-cookie" not in page.headers
    with BallotBox(site.study) as box:
        assert box.raters()[0].joined == ""
        site.rater(1)
        assert box.raters()[0].joined
        assert not box.raters()[1].joined


# --- vote stuffing


def test_voting_again_and_again_is_still_one_vote(site):
    """The same question from sixteen connections at once, of two devices of one rater."""
    devices = [site.rater(1), site.rater(1)]
    shown = devices[0].shown(1)
    answers = []
    threads = [
        threading.Thread(target=lambda i=i: answers.append(devices[i % 2].vote(1, "overall", shown[i % 3])))
        for i in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status for answer in answers} == {200}
    (vote,) = site.votes()
    assert vote.picture in shown


def test_after_submitting_nothing_can_be_voted(site):
    client = site.rater(1)
    for position in range(1, len(IDS) + 1):
        picture = client.shown(position)[0]
        for aspect in ASPECTS:
            client.vote(position, aspect.name, picture)
    first = site.votes()
    names = {vote.position: vote.slots for vote in first}
    assert client.post("/submit", {}).status == 200
    assert client.vote(1, "overall", names[1][1]).status == 409
    assert client.post("/submit", {}).status == 409
    # A second go with the same invitation is no second rater.
    assert site.rater(1).vote(1, "overall", names[1][1]).status == 409
    assert site.votes() == first


@pytest.mark.parametrize("position", [0, -1, 7, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30])
def test_an_address_of_a_ballot_that_is_not_there(site, position):
    assert site.rater(1).get(f"/ballot/{position}").status == 404


def test_an_unfinished_ballot_cannot_be_submitted(site):
    client = site.rater(1)
    answer = client.post("/submit", {})
    assert (answer.status, answer.json) == (409, {"detail": "6 sets of pictures still have open questions"})


# --- forged ballots


@pytest.mark.parametrize("forged", ["sharp", "", "0" * 32, "elsewhere", "1 OR 1=1"])
def test_a_picture_that_is_not_on_the_ballot(site, forged):
    client = site.rater(1)
    answer = client.vote(1, "overall", client.shown(2)[0] if forged == "elsewhere" else forged)
    assert answer.status == 409
    assert site.votes() == []


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"position": 7}, 404),
        ({"position": 0}, 422),
        ({"position": -1}, 422),
        ({"position": 10**9}, 422),
        ({"position": 2**63}, 422),
        ({"position": "1"}, 422),
        ({"position": 1.5}, 422),
        ({"aspect": "beauty"}, 409),
        ({"aspect": "x" * 65}, 422),
        ({"picture": ["a", "b"]}, 422),
        ({"picture": None}, 422),
        ({"zoomed": "yes"}, 422),
        ({"rater": 2}, 422),
        ({"rater": "rater-02"}, 422),
        ({"changes": 0}, 422),
    ],
)
def test_a_ballot_of_another_form(site, changes, status):
    client = site.rater(1)
    choice = {"position": 1, "aspect": "overall", "picture": client.shown(1)[0], "zoomed": False}
    answer = client.post("/vote", {**choice, **changes})
    assert answer.status == status
    assert isinstance(answer.json["detail"], str)
    assert site.votes() == []


def test_without_an_invitation_there_is_nothing(site):
    picture = site.rater(1).shown(1)[0]
    with BallotBox(site.study) as box:
        stored = box._db.execute("SELECT token_hash FROM raters").fetchone()[0]
    for cookie in ("", "urae_rater=", "urae_rater=rater-01", "urae_rater=1", f"urae_rater={stored}"):
        client = site.client()
        client.cookie = cookie
        for path in ("/", "/ballot/1", "/finish", f"/picture/{picture}", f"/preview/{picture}"):
            answer = client.get(path)
            assert answer.status == 401
            assert "open the link that you were given" in answer.text
        assert client.vote(1, "overall", picture).status == 401
        assert client.post("/submit", {}).status == 401
    for token in ("", "x", stored, site.tokens[0][:-1], site.tokens[0] + "="):
        assert site.client().post("/join", {"token": token}).status == 403
    assert site.client().get("/join/nobody").status == 404
    assert site.votes() == []


def test_a_vote_counts_for_the_rater_of_the_cookie_and_for_nobody_else(site):
    one, two = site.rater(1), site.rater(2)
    one.vote(1, "overall", one.shown(1)[0])
    two.vote(1, "overall", two.shown(1)[2])
    votes = {vote.rater: (vote.slots, vote.picture) for vote in site.votes()}
    assert votes["rater-01"] == (tuple(one.shown(1)), one.shown(1)[0])
    assert votes["rater-02"] == (tuple(two.shown(1)), two.shown(1)[2])


# --- path traversal


@pytest.mark.parametrize(
    "path",
    ["../study.json", "../../study.json", "..%2fstudy.json", "%2e%2e/study.json", "%2e%2e%2fstudy.json"]
    + ["..\\study.json", "%5c..%5cstudy.json", "....//study.json", "..%252fstudy.json", "../votes.sqlite"]
    + ["../invitations.csv", "/etc/passwd", "%2fetc%2fpasswd"]
    + ["study.json", ".", "..", "%00", "{name}.png", "../previews/{name}.jpg"],
)  # fmt: skip
def test_only_what_is_listed_can_be_fetched(site, path):
    client = site.rater(1)
    path = path.replace("{name}", client.shown(1)[0])
    for start in ("/picture/", "/preview/", "/static/", "/", "//"):
        answer = client.get(start + path)
        assert answer.status == 404
        assert answer.headers["content-type"].startswith("text/html")
        assert "There is no such p" in answer.text or "Not Found" in answer.text


def test_pictures_are_the_files_and_say_nothing_else(site):
    client = site.rater(1)
    for name in client.shown(1):
        native, preview = client.get(f"/picture/{name}"), client.get(f"/preview/{name}")
        assert native.body == site.study.pictures[name].read_bytes()
        assert preview.body == site.study.previews[name].read_bytes()
        assert (native.headers["content-type"], preview.headers["content-type"]) == (
            "image/png",
            "image/jpeg",
        )
        # The time of writing would give away the order of the candidates.
        assert native.headers["last-modified"] == "Thu, 01 Jan 1970 00:00:00 GMT"
        assert native.headers["etag"] == f'"{name}"'
        assert "content-disposition" not in native.headers


# --- injection


def test_a_prompt_is_shown_as_text(site):
    client = site.rater(1)
    pages = [client.get(f"/ballot/{position}").text for position in range(1, len(IDS) + 1)]
    (hostile,) = [page for page in pages if "alert(" in page]
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in hostile
    assert "{{ 7*7 }}" in hostile
    for page in pages:
        # The page's own script, by address; and nothing that runs from within it.
        assert re.findall(r"<script[^>]*>", page) == ['<script src="/static/study.js" defer>']
        assert not re.search(r"\son\w+=|javascript:|style=", page.replace(HOSTILE, ""))


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE votes; --", "' OR '1'='1", '" OR 1=1 --', "x'); DELETE FROM raters; --"]
)
def test_sql_is_text_too(site, text):
    client = site.rater(1)
    assert client.vote(1, text, client.shown(1)[0]).status == 409
    assert client.vote(1, "overall", text).status == 409
    assert client.post("/join", {"token": text}).status == 403
    client.vote(1, "overall", client.shown(1)[0])
    assert len(site.votes()) == 1
    with BallotBox(site.study) as box:
        assert len(box.raters()) == 2
    client.cookie = f"urae_rater={text}"
    assert client.get("/").status == 401


def test_errors_do_not_repeat_what_was_asked(site):
    for path, status in (("/ballot/%3Cb%3Ealert", 422), ("/%3Cb%3Ealert", 404), ("/join/%3Cb%3Ealert", 404)):
        answer = site.rater(1).get(path)
        assert answer.status == status
        assert "alert" not in answer.text


# --- requests from other sites


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "", "http://127.0.0.1", "{url}.evil.example", "{url}/"]
)
def test_other_sites_cannot_vote(site, origin):
    client = site.rater(1)
    picture = client.shown(1)[0]
    origin = origin.replace("{url}", site.url)
    assert client.vote(1, "overall", picture, Origin=origin).status == 403
    assert client.post("/submit", {}, Origin=origin).status == 403
    assert client.post("/join", {"token": site.tokens[1]}, Origin=origin).status == 403
    assert site.votes() == []


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_what_a_form_can_send_is_no_vote(site, kind):
    client = site.rater(1)
    assert client.vote(1, "overall", client.shown(1)[0], Content_Type=kind).status == 415
    assert site.votes() == []


@pytest.mark.parametrize("path", ["/vote", "/submit", "/join"])
def test_a_link_or_a_picture_on_another_site_does_nothing(site, path):
    client = site.rater(1)
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        answer = client.ask(method, path, Origin="https://evil.example")
        assert answer.status in (404, 405)
        assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content_Length": "5000"}, 413),
        ({"Content_Length": "99999999999999999999"}, 413),
        ({"Transfer_Encoding": "chunked"}, 411),
    ],
)
def test_a_body_that_is_too_long_is_not_read(site, headers, status):
    client = site.rater(1)
    answer = client.ask("POST", "/vote", Origin=site.url, Content_Type="application/json", **headers)
    assert answer.status == status


def test_every_answer_carries_the_policy(site):
    client = site.rater(1)
    name = client.shown(1)[0]
    paths = [
        "/",
        "/ballot/1",
        "/finish",
        f"/join/{site.tokens[1]}",
        "/ballot/99",
        "/nothing",
        f"/picture/{name}",
    ]
    answers = [
        client.get(path) for path in [*paths, f"/preview/{name}", "/static/study.js", "/static/study.css"]
    ]
    answers += [client.vote(1, "overall", name), client.vote(1, "overall", ""), site.client().get("/")]
    answers += [client.vote(1, "overall", name, Origin="null")]
    for answer in answers:
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "server" not in answer.headers
        kind = answer.headers.get("content-type", "text/html")
        assert ("no-store" in answer.headers["cache-control"]) == kind.startswith(
            ("text/html", "application/json")
        )


def test_pages_are_blind_and_need_nothing_from_outside(site):
    client = site.rater(1)
    paths = ["/finish", f"/join/{site.tokens[1]}", *(f"/ballot/{n}" for n in range(1, 7))]
    said = "".join(client.get(path).text for path in paths)
    said += "".join(client.get(f"/static/{name}").text for name in ("study.js", "study.css"))
    sources = [source for item in site.study.items for source in item.sources.values()]
    for secret in (*NAMES, *IDS, *sources, "study.json", "invitations"):
        assert secret not in said
    assert not re.search(r"https?://|//[a-z0-9-]+\.[a-z]", said)


def test_there_is_no_description_of_an_interface(site):
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert site.rater(1).get(path).status == 404


def test_a_failure_of_the_server_says_nothing_about_it(site):
    client = site.rater(1)
    picture = client.shown(1)[0]
    with BallotBox(site.study) as box:
        box._db.execute("ALTER TABLE votes RENAME TO gone")
        answer = client.vote(1, "overall", picture)
        page = client.get("/ballot/1")
        box._db.execute("ALTER TABLE gone RENAME TO votes")
    assert (answer.status, answer.json) == (500, {"detail": "The server failed."})
    assert page.status == 500
    assert "sqlite" not in page.text.lower()
    assert page.headers["content-security-policy"] == POLICY


def test_a_site_behind_https_marks_its_cookie(study):
    """Behind a proxy that ends TLS; here its requests are made by hand."""
    token, sent = next(iter(read_invitations(study.folder).values())), []

    async def receive():
        body = json.dumps({"token": token}).encode()
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    headers = [
        (b"origin", b"https://study.example"),
        (b"content-type", b"application/json"),
        (b"content-length", b"40"),
    ]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/join",
        "headers": headers,
        "query_string": b"",
        "root_path": "",
    }
    with BallotBox(study) as box:
        asyncio.run(make_site(study, box, url="https://study.example")(scope, receive, send))
    cookie = dict(sent[0]["headers"])[b"set-cookie"].lower()
    assert b"secure" in cookie
    assert b"samesite=strict" in cookie


def test_many_raters_at_once(site):
    """Nothing is lost or mixed up when both vote at the same moment."""
    clients = [site.rater(1), site.rater(2)]
    wanted = {}

    def work(number: int, client: Client) -> None:
        for position in range(1, len(IDS) + 1):
            for place, aspect in enumerate(ASPECTS):
                picture = client.shown(position)[(place + number) % 3]
                wanted[f"rater-{number:02d}", position, aspect.name] = picture
                assert client.vote(position, aspect.name, picture).status == 200

    threads = [threading.Thread(target=work, args=(n, c)) for n, c in enumerate(clients, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wanted) == 2 * len(IDS) * 3
    assert {(v.rater, v.position, v.aspect): v.picture for v in site.votes()} == wanted
