"""Models from the hub: downloaded by one process at a time, and a sentence where that cannot be done.

huggingface_hub does the work, with its own settings: HF_HOME and HF_HUB_CACHE for the place, HF_TOKEN, HF_ENDPOINT for
a mirror, HF_HUB_OFFLINE. Processes that want the same repository wait for a lock file beside the cache, and in no
collective, whose time limit a download of 30 GB outlasts; those that come later find it there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, get_token, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from urae.errors import BadFile, UraeError
from urae.io.files import locked
from urae.io.progress import Progress
from urae.io.texts import read_json_object

__all__ = ["hub_file", "hub_parts", "hub_snapshot", "telling_of_hub"]

ENDINGS = (".json", ".txt", ".model", ".jinja", ".safetensors")
"""Of the files of a part that are read: settings, words of a tokenizer, weights."""

HttpError: type[Exception] = HfHubHTTPError.__bases__[0]
"""Of the library that huggingface_hub asks with, which has changed."""


def hub_file(name: str, file: str) -> Path:
    """One file of a repository, from the cache or downloaded. Raises as `hub_snapshot` does."""
    with telling_of_hub(name, file), _alone(name):
        return Path(hf_hub_download(name, file))


def hub_parts(name: str, parts: Sequence[str], *, weights: bool = True) -> Path:
    """The folder of a pipeline's repository with these parts of it, their weights or their settings alone. Raises as
    `hub_snapshot` does, and `BadFile` where a list of shards names files that are not there."""
    endings = ENDINGS if weights else ENDINGS[:1]
    folder = hub_snapshot(name, ["model_index.json", *(f"{one}/*{end}" for one in parts for end in endings)])
    for index in (file for one in parts for file in sorted((folder / one).glob("*.safetensors.index.json"))):
        named = read_json_object(index).get("weight_map", {})
        if missing := sorted({file for file in named.values() if not (index.parent / str(file)).is_file()}):
            raise BadFile(
                f"{name} lacks {', '.join(f'{index.parent.name}/{file}' for file in missing)}, which {index.name} "
                "names: download it again, or name a complete repository"
            )
    return folder


def hub_snapshot(name: str, patterns: Sequence[str]) -> Path:
    """The folder with the files of a repository that fit the patterns, those that are missing downloaded.

    `ValueError` where there is no such repository, `UraeError` for one that is gated, lacks a file or cannot be
    reached.
    """
    with telling_of_hub(name), _alone(name):
        return Path(snapshot_download(name, allow_patterns=list(patterns)))


@contextmanager
def telling_of_hub(name: str, file: str = "") -> Iterator[None]:
    """Turn what huggingface_hub raises into a sentence: what to accept, how to log in, which file is missing."""
    try:
        yield
    except (OSError, HttpError) as error:
        causes = list(_causes(error))
        if any(isinstance(cause, RepositoryNotFoundError) for cause in causes) and not _is_gated(causes):
            raise ValueError(
                f"there is no model {name!r}, neither a folder here nor at {constants.ENDPOINT}, or it is private: "
                f"check the name{_and_log_in()}"
            ) from error
        raise UraeError(f"{name} cannot be downloaded: {_reason(name, file, causes)}") from error


def _reason(name: str, file: str, causes: list[BaseException]) -> str:
    what = file or "a file of it"
    if _is_gated(causes):
        return f"it is gated: accept its licence at {constants.ENDPOINT}/{name}{_and_log_in()}"
    if constants.HF_HUB_OFFLINE or any(isinstance(cause, OfflineModeIsEnabled) for cause in causes):
        return (
            f"{what} is not in {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids to ask for it: run `hf download "
            f"{name}` once where that is allowed, or unset it"
        )
    answers = [cause for cause in causes if isinstance(cause, HfHubHTTPError)]
    if any(isinstance(cause, EntryNotFoundError) for cause in answers):
        missing = file or _path_of(answers[0], name)
        return f"it has no {missing}: name a repository in the diffusers layout that is whole"
    if answers:
        return f"{constants.ENDPOINT} answers with status {answers[0].response.status_code}: try again later"
    said = str(causes[-1]).strip().partition("\n")[0] or type(causes[-1]).__name__
    return (
        f"{constants.ENDPOINT} cannot be reached ({said}): look after the connection, or name a mirror in HF_ENDPOINT; "
        "what was downloaded is kept"
    )


def _is_gated(causes: list[BaseException]) -> bool:
    return any(isinstance(cause, GatedRepoError) for cause in causes)


def _and_log_in() -> str:
    if get_token() is not None:
        return ", with the account that this machine's token is of, and let the token read gated repositories"
    return (
        f", then make a token at {constants.ENDPOINT}/settings/tokens and log in with it here: `hf auth login`, or "
        "HF_TOKEN"
    )


def _path_of(error: HfHubHTTPError, name: str) -> str:
    """The file that was asked for."""
    path = str(error.response.request.url).partition(f"/{name}/")[2]
    return path.partition("resolve/")[2].partition("/")[2] or "such file"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Wait while another process downloads from the same repository, if need be for hours."""
    cache = Path(constants.HF_HUB_CACHE)
    there = cache if cache.is_dir() else next(folder for folder in cache.parents if folder.is_dir())
    if not os.access(there, os.W_OK):
        yield  # a cache that is shared for reading
        return

    def waiting() -> None:
        Progress("", total=0).say(f"another process is downloading {name}: waiting for it")

    with locked(cache / ".locks" / f"urae--{name.replace('/', '--')}.lock", waiting=waiting):
        yield
