"""`urae study`: folders of pictures in, a blind vote of people on them, shares with intervals out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from urae import study as studies
from urae.cli.named import named
from urae.cli.printed import say, say_report
from urae.cli.verbs import Commands
from urae.io import Progress, check_can_write
from urae.metrics.matching import prompts_by_id
from urae.study.report import to_markdown
from urae.study.server import invitation_link, site_url

__all__ = ["app"]

app = Commands(no_args_is_help=True, help="Let people vote on pictures without knowing who made them.")

Folder = Annotated[Path, typer.Argument(help="The study's folder.", metavar="STUDY")]
Host = Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for the whole network.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")]
Url = Annotated[
    str, typer.Option(help="Address at which raters reach the site.", show_default="http://HOST:PORT")
]


@app.command(
    epilog="Example: urae study build --candidate ours=out/ours --candidate base=out/base --out study --raters 17"
)
def build(
    candidate: Annotated[
        list[str], typer.Option(help="name=FOLDER with a picture of each prompt; repeat, two to nine.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to make.")] = Path("study"),
    prompts: Annotated[
        Path | None,
        typer.Option(
            help='Lines of {"id": "lighthouse", "prompt": "a lighthouse at dusk"}; the picture is <id>.png. '
            "Without, pictures of urae generate are matched by prompt and seed.",
            show_default=False,
        ),
    ] = None,
    title: Annotated[str, typer.Option(help="What raters see first.")] = "Which picture is best?",
    raters: Annotated[int, typer.Option(min=0, help="People to invite; more can follow.")] = 1,
    encoding: Annotated[
        str, typer.Option(help="Native pictures as png (exact) or jpeg (quality 97, far fewer bytes).")
    ] = "png",
    preview: Annotated[int, typer.Option(min=1, help="Longest side of the fit view, pixels.")] = 1024,
) -> None:
    """Make a study: pictures re-encoded without metadata, under random names, and invitations."""
    if encoding not in ("png", "jpeg"):
        raise ValueError(f"encoding is {encoding!r}: expected png or jpeg")
    check_can_write(out, folder=True)
    with Progress("encoding", total=0) as progress:

        def encoded(total: int) -> None:
            progress.expect(total)
            progress.advance()

        study = studies.build_study(
            named(candidate, "candidate", value="FOLDER"),
            out,
            prompts=None if prompts is None else prompts_by_id(prompts),
            title=title,
            num_raters=raters,
            encoding=encoding,  # type: ignore[arg-type]
            preview=preview,
            on_picture=encoded,
        )
    questions = len(study.items) * len(study.aspects)
    say(
        f"{len(study.items)} sets of {len(study.candidates)} pictures; {questions} questions a rater, {raters} invited"
    )
    say(f"wrote {out}; next: urae study serve {out}")


@app.command(epilog="Example: urae study invite study --raters 3")
def invite(
    folder: Folder,
    raters: Annotated[int, typer.Option(min=1, help="How many more.")] = 1,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    url: Url = "",
) -> None:
    """Invite more raters, also while the site is running, and print their links."""
    address = site_url(host, port, url)
    with studies.BallotBox(studies.read_study(folder)) as box:
        _show_links(studies.invite(box, raters), address)


@app.command(epilog="Example: urae study serve study --host 0.0.0.0 --url http://192.168.0.7:8000")
def serve(folder: Folder, host: Host = "127.0.0.1", port: Port = 8000, url: Url = "") -> None:
    """Serve a study until interrupted; each rater votes under a link of their own, which is printed."""
    study, address = studies.read_study(folder), site_url(host, port, url)
    _show_links(studies.read_invitations(folder), address)
    say(f"serving {folder} at {address}; interrupt to stop, votes are kept")
    studies.serve(study, host=host, port=port, url=address)


@app.command(epilog="Example: urae study report study")
def report(
    folder: Folder,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report.", show_default="STUDY/report")
    ] = None,
) -> str:
    """Count the votes: shares with intervals, agreement, raw votes; also while the site is running."""
    study, into = studies.read_study(folder), out or folder / "report"
    check_can_write(into, folder=True)
    outcome = studies.count_votes(study)
    say_report(to_markdown(outcome))
    for path in studies.write_report(study, outcome, into):
        say(f"wrote {path}")
    return outcome.to_json()


def _show_links(tokens: dict[str, str], address: str) -> None:
    for name, token in tokens.items():
        say(f"{name}: {invitation_link(address, token)}")
