"""What is no caption is told from what is one."""

import pytest

from urae.collecting.answers import judged

GOOD = (
    "A small wooden house with a red roof stands at the edge of a calm lake, its two lit windows mirrored in the "
    "dark water while fog drifts between the pines behind it."
)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"  {GOOD}\n\nThe sky above is pale.  ",
        f'A hand-painted sign reads "I\'m sorry, but we are closed": {GOOD}',
        f"Sorrel and clover grow in front. {GOOD}",
        f"Row after row after row of vines leads up the hill. {GOOD}",
        f"A very, very, very old stone bridge. {GOOD}",
        f"I-beams and rivets frame the view. {GOOD}",
    ],
)
def test_a_caption_is_kept_in_one_line(text):
    answer = judged(text, "stop")
    assert (answer.outcome, answer.reason, answer.text) == ("caption", "", " ".join(text.split()))


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with identifying the people in this image, as that would be against my rules.",
        "I’m sorry, but I can’t describe this image since it shows somebody who could be recognised by others.",
        "As an AI language model I am unable to view images, so please provide a textual description instead.",
        "Unfortunately, I cannot see any picture in your message, please send it again and I will describe it.",
        "I cannot assist with that request because the picture may contain a person who did not agree to it.",
        "I am not able to provide a description of this image because it was not attached to the message at all.",
        '"I apologize, but describing this picture would not be in line with the guidelines that I have to follow."',
        "Sorry, no.",
    ],
)
def test_a_refusal_in_words_is_refused(text):
    assert judged(text, "stop").outcome == "refused"


@pytest.mark.parametrize("mark", ["think", "thinking", "THINK"])
def test_a_thought_is_cut_off_and_one_without_an_end_refused(mark):
    assert judged(f"<{mark}>A house?\nMaybe a barn.</{mark}>\n{GOOD}", "stop").text == GOOD
    assert judged(f"A house? Maybe a barn.</{mark}> {GOOD}", "stop").text == GOOD
    endless = judged(f"<{mark}>{GOOD} Or should I rather say that it is a barn and not a house", "stop")
    assert (endless.outcome, endless.reason) == ("invalid", "it thinks aloud and comes to no end")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A house " * 11, "it repeats 'a house'"),
        (f"{GOOD} " + "trees, " * 40, "it repeats 'trees'"),
        (f"{GOOD} " + "and beside it another house with a roof, " * 4, "it repeats"),
        (f"It is a very quiet evening. {GOOD} " * 3 + "The end.", "it repeats"),
        ("A house by a lake.", "it has 5 words, expected 12 or more"),
        ("<think>Hm.</think> A house.", "it has 2 words"),
        ("word " * 10_000, "it is cut off"),
    ],
)
def test_loops_and_what_says_nothing_are_invalid(text, reason):
    answer = judged(text, "stop")
    assert answer.outcome == "invalid"
    assert answer.reason.startswith(reason)


def test_what_ended_at_the_most_tokens_or_by_a_filter_is_no_caption():
    assert judged(GOOD, "length").reason == "it is cut off at the most tokens"
    assert judged(GOOD, "content_filter").outcome == "refused"
