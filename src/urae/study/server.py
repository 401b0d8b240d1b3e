"""Running the site of a study."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

from urae.errors import MissingExtra
from urae.study.ballots import BallotBox
from urae.study.manifest import Study

__all__ = ["invitation_link", "make_server", "serve", "site_url"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(study: Study, *, host: str = "127.0.0.1", port: int = 8000, url: str = "") -> None:
    """Serve `study` until interrupted.

    `url` is the address at which raters reach the site, `http://host:port` unless given; a host other than this
    machine's own needs it, since votes are only taken from pages of that address. `MissingExtra` without fastapi.
    """
    with BallotBox(study) as box:
        make_server(study, box, host=host, port=port, url=site_url(host, port, url)).run()


def make_server(study: Study, box: BallotBox, *, host: str, port: int, url: str) -> Any:
    """A `uvicorn.Server`, not yet running."""
    uvicorn = _uvicorn()
    from urae.study.site import make_site

    config = uvicorn.Config(
        make_site(study, box, url=url),
        host=host,
        port=port,
        # Its lines would hold the tokens of invitations and the addresses of raters.
        access_log=False,
        log_level="warning",
        server_header=False,
        # Nothing here depends on what a proxy says.
        proxy_headers=False,
    )
    return uvicorn.Server(config)


def site_url(host: str, port: int, url: str) -> str:
    """`url`, checked and as browsers write an origin, or that of this machine."""
    if not url and host not in LOOPBACK:
        raise ValueError(
            f"host is {host!r}: give the address at which raters reach it too, such as http://192.168.0.7:{port}"
        )
    given = url or f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if not re.fullmatch(r"https?://[a-z0-9.\-\[\]:]+", given):
        raise ValueError(
            f"url is {given!r}: expected an address without a path, such as https://study.example"
        )
    # Browsers leave out the port that the scheme implies.
    return given.removesuffix(":443" if given.startswith("https") else ":80")


def invitation_link(url: str, token: str) -> str:
    """What a rater is sent."""
    return f"{url}/join/{token}"


def _uvicorn() -> ModuleType:
    try:
        import fastapi  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise MissingExtra("the study's site needs fastapi and uvicorn: pip install 'urae[study]'") from error
    return uvicorn
