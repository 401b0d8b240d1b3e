"""Reading answers: what is in the agreed form counts, and nothing else does."""

from __future__ import annotations

import json

import pytest

from urae.errors import BadFile
from urae.judge.answer import SCHEMAS, read_answer
from urae.judge.instructions import FORMATS, KINDS, OWN, read_instructions
from urae.judge.plan import ASPECTS


@pytest.mark.parametrize(
    ("text", "credit"),
    [
        ('{"reason": "sharper", "winner": "first"}', 1.0),
        ('{"winner": "second", "reason": ""}', 0.0),
        ('```json\n{"reason": "x", "winner": "tie"}\n```', 0.5),
        ('  {"reason": "x", "winner": "tie"}\n', 0.5),
        ('{"reason": "x", "winner": "First"}', None),
        ('{"reason": "x", "winner": 1}', None),
        ('{"reason": "x", "winner": ["first"]}', None),
        ('{"winner": "first"}', None),
        ('{"reason": 3, "winner": "first"}', None),
        ('{"reason": "x", "winner": "first", "score": 3}', None),
        ('{"reason": "x", "winner": "first", "winner": "second"}', None),
        ('{"reason": "x", "winner": "first"} I hope this helps', None),
        ('{"reason": "x", "winner": "fir', None),
        ('"first"', None),
        ("first", None),
        ("[" * 100_000, None),
        ("", None),
    ],
)
def test_pairs_in_json(text, credit):
    assert read_answer(text, "pair", "json") == credit


@pytest.mark.parametrize(
    ("value", "score"),
    [("0", 0), ("100", 100), ("87.5", 87.5), ("-1", None), ("101", None), ("NaN", None), ("Infinity", None)]
    + [("true", None), ('"90"', None), ("null", None), ("1e999", None)],
)
def test_scores_in_json(value, score):
    assert read_answer(f'{{"reason": "x", "score": {value}}}', "score", "json") == score


@pytest.mark.parametrize(
    ("text", "credit"),
    [
        ("[Image 1] is better, unlike [Image 2].", 1.0),
        ("The better one is [Image 2].", 0.0),
        ("Between [Image 1] and [Image 2], hard to say", None),
        ("Image 1", None),
        ("[Image 3]", None),
        ("", None),
    ],
)
def test_pairs_in_the_papers_form(text, credit):
    assert read_answer(text, "pair", "brackets") == credit


@pytest.mark.parametrize(
    ("text", "score"),
    [("88", 88), (" 91.5\n", 91.5), ("88.", 88), ("88/100", None), ("about 88", None), ("120", None)],
)
def test_scores_in_the_papers_form(text, score):
    assert read_answer(text, "score", "brackets") == score


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_in_the_instruction_fits_its_schema(kind):
    """A judge that copies the example keeps the form."""
    example = FORMATS[kind].split("nothing else: ")[1].split("}")[0] + "}"
    assert read_answer(example, kind, "json") is not None
    assert set(json.loads(example)) == set(SCHEMAS[kind]["required"]) == set(SCHEMAS[kind]["properties"])


def test_our_instructions_hold_every_aspect_and_the_prompt_as_it_is():
    own = read_instructions()
    for kind in KINDS:
        assert set(own.texts[kind]) == set(ASPECTS)
        for aspect in ASPECTS:
            assert "The request: a {prompt} of {0}\n" in own.text(kind, aspect, "a {prompt} of {0}")
            assert own.text(kind, aspect, "x").endswith(FORMATS[kind])


def test_our_words_are_not_the_papers():
    """Appendix C.1 is somebody else's text: no run of eight words of it."""
    said = " ".join(OWN.read_text().lower().split())
    assert "as an ai visual assistant" not in said
    assert "specialized in image quality analysis" not in said
    assert "object identities, properties, spatial relationships" not in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("answers: json\npair: {overall: no marker}", "pair / overall must hold {prompt} exactly once"),
        ("answers: json\npair: {overall: '{prompt} {prompt}'}", "exactly once"),
        ("answers: maybe\npair: {overall: '{prompt}'}", "answers: 'maybe'; expected json or brackets"),
        ("pair: {overall: '{prompt}'}", "expected the keys answers, pair and score"),
        ("answers: json", "expected the keys"),
        ("answers: json\npairs: {}", "expected the keys"),
        ("answers: json\npair: 3", "no texts under pair"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_a_wrong_instructions_file_says_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "words.yaml"
    path.write_text(content)
    with pytest.raises(BadFile, match=message):
        read_instructions(path)
