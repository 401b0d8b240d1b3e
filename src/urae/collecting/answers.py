"""What a vision-language model answers in place of a caption: a refusal, a thought, a loop, half a sentence.

Servers send all of these as successes. What is no caption would be trained on like one.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

__all__ = ["CaptionAnswer", "judged"]

MIN_WORDS = 12
"""A caption that says something has more."""
LONGEST = 40_000
"""Characters of an answer; half of it is more than any caption has."""
LONGEST_PHRASE = 12
"""Words of what is repeated in a loop."""
REPEATS, REPEATED_WORDS = 4, 12
"""In a row, and words in all, from which on a repetition is a loop: "row after row after row" is none."""
SENTENCES = 3
"""Times that one sentence may not stand in a caption."""

THOUGHT = re.compile(r"<(think|thinking|thought|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
MARK = re.compile(r"</?(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
SORRY = re.compile(
    r"(?:(?:i'?m|i am)(?: (?:so|very|really))? sorry\b|sorry\b|(?:i|we) apologi[sz]e\b|(?:my )?apologies\b"
    r"|unfortunately,? i\b"
    r"|as an? (?:ai|artificial|large|language|text|vision|multimodal)\b[^.]{0,60}?\b(?:i|model|assistant)\b"
    r"|(?:i|we) (?:can'?t|can ?not|could ?n[o']t|won'?t|will not|do not|don'?t|am not|am unable|must decline|"
    r"have to decline)\b"
    r"|i'?m (?:unable|not able|not allowed|not permitted|afraid)\b)",
    re.IGNORECASE,
)
"""How a refusal begins; what a caption tells of a sign or a letter stands later."""


@dataclass(frozen=True, kw_only=True)
class CaptionAnswer:
    """What an answer comes to."""

    text: str
    """In one line; a thought that was thought to its end is cut off."""
    outcome: Literal["caption", "invalid", "refused"]
    reason: str
    """Why it is no caption; empty for one."""


def judged(answer: str, finish_reason: str) -> CaptionAnswer:
    """What an answer comes to that ended for this reason, by the words of the protocol: "stop", "length", ..."""
    text = " ".join(_without_thought(answer[:LONGEST]).split())
    if finish_reason == "content_filter" or SORRY.match(_plain(text)):
        return CaptionAnswer(text=text, outcome="refused", reason="the model refuses")
    reason = _fault(text, finish_reason)
    return CaptionAnswer(text=text, outcome="invalid" if reason else "caption", reason=reason)


def _without_thought(answer: str) -> str:
    """Some servers leave out the mark with which a thought begins."""
    return re.split(r"</(?:think|thinking|thought|reasoning)>", THOUGHT.sub(" ", answer), flags=re.I)[-1]


def _fault(text: str, finish_reason: str) -> str:
    words = _plain(text).lower().split()
    if MARK.search(text):
        return "it thinks aloud and comes to no end"
    if finish_reason == "length" or len(text) >= LONGEST // 2:
        return "it is cut off at the most tokens"
    if phrase := _loop(words) or _repeated_sentence(text):
        return f"it repeats {phrase!r}"
    if len(words) < MIN_WORDS:
        return f"it has {len(words)} words, expected {MIN_WORDS} or more"
    return ""


def _plain(text: str) -> str:
    return text.translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'}).lstrip(" \"'*_#>-")


def _loop(words: list[str]) -> str:
    """The phrase that is repeated over and over; "" for none."""
    bare = [word.strip(".,;:!?") for word in words]
    for length in range(1, LONGEST_PHRASE + 1):
        run = 0
        for index in range(length, len(bare)):
            run = run + 1 if bare[index] == bare[index - length] else 0
            if run >= max((REPEATS - 1) * length, REPEATED_WORDS - length):
                return " ".join(bare[index - length + 1 : index + 1])
    return ""


def _repeated_sentence(text: str) -> str:
    sentences = Counter(part.strip().lower() for part in re.split(r"[.!?]\s", text))
    return next((s for s, count in sentences.items() if count >= SENTENCES and len(s.split()) >= 4), "")
