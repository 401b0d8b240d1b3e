"""The plan: what is asked, in which orders, with which pixels, and what is refused before anything is spent."""

from __future__ import annotations

import base64
import io
import json
import shutil

import numpy as np
import pytest
from judge_material import IDS, PROMPTS, draw, small_plan
from PIL import Image

from urae.errors import BadFile
from urae.judge.instructions import Instructions
from urae.judge.pictures import View
from urae.metrics.matching import prompts_by_id


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def test_every_pair_is_asked_in_both_orders_and_every_picture_scored_once(folders):
    plan = small_plan(folders, aspects=("overall", "detail"), kinds=("pair", "score"))
    for aspect in ("overall", "detail"):
        for name in IDS:
            asked = [q for q in plan.questions if q.aspect == aspect and q.item.id == name]
            shown = sorted(q.shown for q in asked if q.kind == "pair")
            names = ("bright", "dark", "middle")
            assert shown == sorted((a, b) for a in names for b in names if a != b)
            assert sorted(q.shown for q in asked if q.kind == "score") == [(n,) for n in names]
    assert len({question.key for question in plan.questions}) == len(plan.questions) == 2 * 8 * 9


def test_against_one_baseline_only(folders):
    plan = small_plan(folders, against="middle")
    assert plan.pairs == (("dark", "middle"), ("bright", "middle"))


def test_the_cost_counts_what_is_still_to_be_asked(two):
    plan = small_plan(two, aspects=("overall", "detail"), kinds=("pair", "score"))
    cost = plan.cost({})
    assert (cost.num_questions, cost.num_answered, cost.num_requests) == (64, 0, 64)
    # Two whole pictures or 2 x 2 crops in a pair, one or two in a score.
    pictures = 8 * (2 * 2 + 2 * 4 + 2 * 1 + 2 * 2)
    text = sum(len(question.text) for question in plan.questions) // 4
    assert cost.input_tokens == pictures * 765 + text
    assert cost.price(per_million_in=2, per_million_out=8) == pytest.approx(
        (2 * cost.input_tokens + 8 * cost.output_tokens) / 1e6
    )
    first = plan.questions[0]
    answered = {first.key: [{"text": '{"reason": "", "winner": "tie"}'}]}
    assert plan.cost(answered).num_requests == 63


def test_a_key_depends_on_everything_that_an_answer_depends_on(two, tmp_path):
    def keys(folders=two, **changes):
        return [question.key for question in small_plan(folders, **changes).questions]

    assert keys() == keys(url="http://elsewhere/v1", timeout=1.0) == keys()
    words = Instructions(answers="json", texts={"pair": {"overall": "Which? {prompt}"}})
    other_pixels = {**two, "dark": draw(tmp_path / "other", 60, seed=99)}
    different = [
        keys(options={"temperature": 1}),
        keys(view=View(max_side=64)),
        keys(instructions=words),
        keys(other_pixels),
        keys(aspects=("alignment",)),
        keys(prompts={name: text + "!" for name, text in PROMPTS.items()}),
        keys(schema=False),
    ]
    assert not set(keys()) & {key for changed in different for key in changed}
    # A pair in the other order is another question, and copies of pictures under another name are the same one.
    assert len(set(keys())) == len(keys())
    copies = {"ours": shutil.copytree(two["dark"], tmp_path / "x"), "bright": two["bright"]}
    assert keys(copies) == keys()


def test_whole_pictures_lose_their_metadata_and_are_reduced_but_never_enlarged(two):
    path = two["dark"] / "p0.png"
    small = decoded(*View(max_side=48).show(path, "overall", "p0"))
    assert (small.format, small.size) == ("JPEG", (48, 32))
    same = decoded(*View(max_side=4096).show(path, "overall", "p0"))
    assert same.size == Image.open(path).size
    assert b"made by" in path.read_bytes()
    assert b"made by" not in base64.b64decode(View().show(path, "overall", "p0")[0].split(",")[1])
    blocks = [np.asarray(p.convert("RGB").reduce(8), float) for p in (same, Image.open(path))]
    assert np.abs(blocks[0] - blocks[1]).max() <= 2


def test_crops_are_the_native_pixels_at_the_same_places_for_every_candidate(two):
    view = View(crop=32, num_crops=3)
    shown = {name: view.show(folder / "p1.png", "detail", "p1") for name, folder in two.items()}
    boxes = view.crops((96, 64), "p1")
    for name, folder in two.items():
        for uri, box in zip(shown[name], boxes, strict=True):
            assert np.array_equal(
                np.asarray(decoded(uri)), np.asarray(Image.open(folder / "p1.png").crop(box))
            )
    assert all(x >= 0 and right <= 96 and y >= 0 and bottom <= 64 for x, y, right, bottom in boxes)
    assert boxes != view.crops((96, 64), "p2")


def test_a_turned_photograph_is_shown_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    picture = Image.new("RGB", (96, 64))
    picture.save(tmp_path / "p.jpg", exif=exif)
    assert decoded(*View().show(tmp_path / "p.jpg", "overall", "p")).size == (64, 96)


def test_16_bits_are_shown_as_they_look(tmp_path):
    Image.fromarray(np.full((64, 96), 0x8080, np.uint16)).save(tmp_path / "p.png")
    assert (
        decoded(*View().show(tmp_path / "p.png", "overall", "p")).convert("RGB").getpixel((5, 5))
        == (128,) * 3
    )


def test_a_plan_can_be_printed_and_compared(two):
    assert small_plan(two) == small_plan(two)
    assert small_plan(two) != small_plan(two, options={"seed": 1})
    assert str(small_plan(two)).splitlines() == [
        "judge: toy at http://127.0.0.1:9/v1",
        "prompts: 8, candidates: 2, pairs: 1, each in both orders, aspects: overall",
    ]


def test_candidates_of_another_size_are_refused_with_the_remedy(two, tmp_path):
    large = {**two, "large": draw(tmp_path / "large", 90, size=(192, 128))}
    with pytest.raises(ValueError, match="shown at different sizes .*large 192x128.* give a max side"):
        small_plan(large)
    assert small_plan(large, view=View(max_side=96)).pairs[-1] == ("bright", "large")
    with pytest.raises(ValueError, match="native crops, and the pictures of 'p0' differ in size"):
        small_plan(large, aspects=("detail",), view=View(crop=32))
    with pytest.raises(ValueError, match="a crop of 768 px does not fit .* smaller crop"):
        small_plan(two, aspects=("detail",), view=View())


def test_pictures_that_are_missing_twice_there_or_of_no_prompt(two):
    (two["dark"] / "p3.png").rename(two["dark"] / "stranger.png")
    with pytest.raises(
        ValueError, match=r"dark has no picture for 1 of 8 prompts, such as 'p3': .*dark/p3.png"
    ):
        small_plan(two)
    (two["dark"] / "p3.webp").write_bytes((two["dark"] / "stranger.png").read_bytes())
    plan = small_plan(two)
    assert plan.unused == {"dark": [str(two["dark"] / "stranger.png")], "bright": []}
    (two["dark"] / "p3.png").write_bytes((two["dark"] / "stranger.png").read_bytes())
    with pytest.raises(ValueError, match="dark has two pictures named p3, p3.png and p3.webp"):
        small_plan(two)


def test_a_damaged_picture_is_found_before_anything_is_spent(two):
    (two["dark"] / "p3.png").write_bytes(b"not a picture")
    with pytest.raises(BadFile, match="p3.png is none of JPEG, PNG"):
        small_plan(two)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": {k: PROMPTS[k] for k in IDS[:5]}}, "there are 5 different prompts: expected at least 6"),
        ({"prompts": dict.fromkeys(IDS, "the same")}, "there are 1 different prompts"),
        ({"aspects": ("beauty",)}, "no pair text for aspect 'beauty': they have overall"),
        ({"aspects": ()}, "some of each"),
        ({"aspects": ("overall", "overall")}, "each once"),
        ({"kinds": ("vote",)}, "there is no kind 'vote': expected pair or score"),
        ({"against": "nobody"}, "against is 'nobody': expected one of dark, bright"),
        ({"against": "dark", "kinds": ("score",)}, "and pairs to be asked"),
    ],
)
def test_what_is_refused(two, changes, message):
    with pytest.raises(ValueError, match=message):
        small_plan(two, **changes)


def test_one_candidate_can_be_scored_and_not_compared(two):
    one = {"dark": two["dark"]}
    assert len(small_plan(one, kinds=("score",)).questions) == 8
    with pytest.raises(ValueError, match="1 candidates: expected at least two"):
        small_plan(one)
    with pytest.raises(ValueError, match="expected a folder of pictures"):
        small_plan({**one, "x": two["dark"] / "nowhere"})


def test_prompts_files(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"id": "a", "prompt": "x", "more": 1}\n\n{"id": "b", "prompt": "y"}\n')
    assert prompts_by_id(path) == {"a": "x", "b": "y"}
    for content, message in [
        ('{"id": "a", "prompt": "x"}\n{"id": "a", "prompt": "y"}', "line 2 has the id 'a' again"),
        ('{"id": "a"}', "line 1 holds no prompt: expected a JSON object with the key 'prompt'"),
        ('{"prompt": "a"}', "has no ids: expected lines of "),
        ('{"id": "a", "prompt": "x"}\n{"prompt": "y"}', "line 2 has the id None"),
        ("[]", "line 1 is .*: expected an object"),
        ("not json", "line 1 is not JSON"),
        (json.dumps({"id": [3], "prompt": "x"}), "line 1 has the id"),
        (json.dumps({"id": "a/b", "prompt": "x"}), "line 1: "),
        (json.dumps({"id": "a", "prompt": 3}), "expected a text, got 3"),
        ("\n", "holds no prompts"),
    ]:
        path.write_text(content)
        with pytest.raises(BadFile, match=message):
            prompts_by_id(path)
