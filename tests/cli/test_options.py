"""Options that come from the fields of a dataclass, and what every command's options have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from typer.testing import CliRunner

from urae.cli.main import VERBS
from urae.cli.options import Fields, field_docs
from urae.cli.verbs import Commands, Listed, verb
from urae.execution.caches import CACHES
from urae.execution.choices import Offload, VaeWay
from urae.generation.asking import DrawingRequest, ModelRequest
from urae.generation.methods import METHODS

if TYPE_CHECKING:
    from nowhere import Thing

FROZEN = Path(__file__).with_name("options.json")


@dataclass(frozen=True, kw_only=True)
class Base:
    """What others ask for too."""

    name: str = "a"
    """What it is
    called."""


@dataclass(frozen=True, kw_only=True)
class Asked(Base):
    """A field of every kind."""

    size: int
    """How large."""
    steps: int | Literal["auto"] = "auto"
    """How long."""
    way: Literal["fast", "slow"] = "slow"
    """How."""
    compiled: bool | Literal["auto"] = "auto"
    exact: bool = False
    shown: bool = True
    seed: int | Sequence[int] = 0
    files: Path | Sequence[Path] | Thing | None = None
    changes: tuple[str, ...] = field(default=(), metadata={"option": "--set"})
    one: Path | None = None
    thing: Thing | None = None
    pair: tuple[int, int] = (0, 1)


def run(*arguments: str) -> dict[str, Any]:
    app, given = Commands(), {}

    @app.command()
    def command(word: str, asked: Annotated[dict[str, Any], Fields(Asked, size=64)]) -> None:
        """A command."""
        given.update(asked, word=word)

    result = CliRunner().invoke(app, ["w", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return given


def test_each_field_is_an_option_of_its_type_and_default():
    assert run() == {
        "word": "w",
        "name": "a",
        "size": 64,
        "steps": "auto",
        "way": "slow",
        "compiled": "auto",
        "exact": False,
        "shown": True,
        "seed": (0,),
        "files": None,
        "changes": (),
        "one": None,
    }
    assert run(
        "--steps", "3", "--way", "fast", "--compiled", "off", "--exact", "--no-shown", "--one", "x"
    ) == {
        "word": "w",
        "name": "a",
        "size": 64,
        "steps": 3,
        "way": "fast",
        "compiled": False,
        "exact": True,
        "shown": False,
        "seed": (0,),
        "files": None,
        "changes": (),
        "one": Path("x"),
    }
    several = run("--seed", "3", "--seed", "4", "--files", "a", "--files", "b", "--set", "x=1")
    assert (several["seed"], several["files"], several["changes"]) == (
        (3, 4),
        (Path("a"), Path("b")),
        ("x=1",),
    )


def test_the_help_is_the_string_below_the_field():
    options = Fields(Asked).options()
    assert options["name"].help == "What it is called."
    assert options["way"].parameter("way").annotation.__metadata__[0].help == "How. One of fast, slow."
    assert {"thing", "pair"} & options.keys() == set()  # what no text can say


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--way", "soon"), "way is 'soon': expected one of fast, slow"),
        (("--steps", "some"), "steps is 'some': expected a whole number or auto"),
        (("--compiled", "yes"), "compiled is 'yes': expected one of auto, on, off"),
        (("--size", "1", "--size", "2"), "--size is given twice: give it once"),
        (("--exact", "--exact"), "--exact is given twice: give it once"),
    ],
)
def test_what_an_option_cannot_be_is_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        run(*arguments)


@pytest.mark.parametrize("of", [DrawingRequest, ModelRequest])
def test_each_field_of_a_request_is_explained(of):
    assert set(field_docs(of)) == set(of.__dataclass_fields__)


def test_what_the_strings_list_is_what_there_is():
    docs = field_docs(DrawingRequest)
    assert docs["method"] == f"One of {', '.join(METHODS)}."
    assert f"a cache, {' or '.join(CACHES)}, with" in docs["speed"]
    options = Fields(DrawingRequest).options()
    assert options["offload"].words == ("auto", *Offload.__args__)
    assert options["decode"].words == ("auto", *VaeWay.__args__)


# Every command


def leaves(name: str, command: Any) -> dict[str, Any]:
    if isinstance(command, Listed):
        command = command.imported()
    if not hasattr(command, "list_commands"):
        return {name: command}
    parts = {part: command.get_command(None, part) for part in command.list_commands(None)}
    return {path: leaf for part, c in parts.items() for path, leaf in leaves(f"{name} {part}", c).items()}


COMMANDS = {path: leaf for name in VERBS for path, leaf in leaves(name, verb(name)).items()}


@pytest.mark.parametrize("path", COMMANDS)
def test_it_shows_an_example(path):
    command = COMMANDS[path]
    assert f"urae {path}" in f"{command.help or ''} {getattr(command, 'epilog', '') or ''}"


def test_the_options_of_each_command_are_these():
    """A name that a script may hold does not change unawares: this file is changed with it."""
    there = {
        path: sorted(flag for one in command.params for flag in one.opts if flag.startswith("-"))
        for path, command in COMMANDS.items()
    }
    assert there == json.loads(FROZEN.read_text())


OPTIONLESS = ("show", "recipe list", "recipe show")


NUMBERS = [
    (path, option)
    for path, command in COMMANDS.items()
    for option in command.params
    if option.param_type_name == "option" and option.type_descriptor.annotation in (float, float | None)
]


@pytest.mark.parametrize(
    ("path", "option"), NUMBERS, ids=[f"{path} {option.opts[0]}" for path, option in NUMBERS]
)
def test_no_number_may_be_nan(path, option):
    """A price, a threshold or a limit of NaN is neither passed nor kept."""
    needed = [one for one in COMMANDS[path].params if one.required]
    given = [part for one in needed for part in ([one.opts[0]] * (one.param_type_name == "option") + ["x"])]
    with pytest.raises(Exception, match="is nan: expected a number|Input should be"):
        COMMANDS[path].main([*given, option.opts[0], "nan"], standalone_mode=False)


@pytest.mark.parametrize("path", [path for path in COMMANDS if path not in OPTIONLESS])
def test_an_option_of_one_value_given_twice_is_refused(path):
    command = COMMANDS[path]
    single = [one for one in command.params if one.param_type_name == "option" and not one.multiple]
    option = next(one for one in single if not one.is_flag)
    twice = [option.opts[0], "1", option.opts[0], "2"]
    with pytest.raises(ValueError, match=f"{option.opts[0]} is given twice: give it once"):
        command.main(twice, standalone_mode=False)
