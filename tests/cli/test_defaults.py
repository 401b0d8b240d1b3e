"""urae.toml and environment variables: what they set, what comes before them, and what they cannot say."""

import pytest
import yaml

import processes
from urae import recipes
from urae.cli.defaults import defaults_for


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def drawn(*words, **environment):
    result = processes.urae("generate", "a flat tiger", "--steps", 1, *words)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_file_sets_what_the_command_line_leaves_out(folder):
    (folder / "urae.toml").write_text('out = "mine"\n[generate]\nsize = "128x128"\nseed = ["3-4"]\n')
    drawn()
    assert sorted(path.name.split("-seed")[1][0] for path in (folder / "mine").glob("*128x128*.png")) == [
        "3",
        "4",
    ]
    drawn("--out", "yours", "--seed", 0)
    assert [path.name for path in (folder / "yours").glob("*-seed0-*.png")]
    assert len(list((folder / "yours").iterdir())) == 1


def test_the_environment_stands_before_the_file(folder, monkeypatch):
    (folder / "urae.toml").write_text('[generate]\nsize = "256x256"\nout = "file"\n')
    monkeypatch.setenv("URAE_GENERATE_OUT", "environment")
    monkeypatch.setenv("URAE_GENERATE_SIZE", "128x128")
    drawn()
    assert len(list((folder / "environment").glob("*128x128*.png"))) == 1
    assert not (folder / "file").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[generate]\nsise = 1\n", "sets 'sise' for urae generate"),
        ("[genrate]\nsize = 1\n", "table [genrate]: expected a command"),
        ("size = \n", "urae.toml is not TOML"),
        ('[generate]\nsize = "1"\n', "expected WIDTHxHEIGHT"),
    ],
)
def test_what_it_cannot_say_is_one_sentence(folder, text, said):
    (folder / "urae.toml").write_text(text)
    result = processes.urae("generate", "x")
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_shared_keys_go_where_there_is_such_an_option():
    told = {"model": "m", "out": "o", "data": {"cache": {"size": 5}}}
    assert defaults_for(["generate"], ["model", "out"], told) == {"model": "m", "out": "o"}
    assert defaults_for(["judge"], ["out"], told) == {"out": "o"}
    assert defaults_for(["data", "cache"], ["model", "size"], told) == {"model": "m", "size": 5}


def test_a_recipe_is_shown_as_a_file_that_trains(folder):
    shown = processes.urae("recipe", "show", "flux_2k", "steps=7", "adapter.rank=4")
    assert shown.returncode == 0
    assert yaml.safe_load(shown.stdout)["adapter"]["rank"] == 4
    (folder / "mine.yaml").write_text(shown.stdout)
    again = processes.urae("recipe", "show", "mine.yaml")
    assert again.stdout == shown.stdout
    listed = processes.urae("recipe", "list").stdout
    assert all(name in listed for name in recipes.RECIPES)


def test_a_slip_is_answered_with_the_nearest_name():
    result = processes.urae("recipe", "show", "flux_2K")
    assert result.returncode == 2
    assert "did you mean flux_2k?" in result.stderr
