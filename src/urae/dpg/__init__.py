"""DPG-Bench (Hu et al., 2024): does a picture show what a dense prompt asks for? Questions, answered by a model.

    items = read_questions("dpg_bench.csv")
    plan = plan_dpg({"ours": "out/ours"}, items, LocalModel(Path("models/llava")))
    print(dpg_bench(plan, journal="dpg/answers.jsonl").to_markdown())

The answering model is a local one of transformers, any OpenAI-compatible server, or, for scenes of the miniature, its
recogniser; its name is part of every result, for a score says as much about it as about the pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.dpg.answerer import Answer, Answerer, Ask
    from urae.dpg.benchmark import Dpg, DpgPlan, dpg_bench, plan_dpg
    from urae.dpg.model import LocalModel
    from urae.dpg.questions import Item, Question, read_questions, write_questions
    from urae.dpg.scenes import SceneModel, scene_item
    from urae.dpg.scoring import Scores, Share, score
    from urae.dpg.server import Server

__all__ = [
    "Answer",
    "Answerer",
    "Ask",
    "Dpg",
    "DpgPlan",
    "Item",
    "LocalModel",
    "Question",
    "SceneModel",
    "Scores",
    "Server",
    "Share",
    "dpg_bench",
    "plan_dpg",
    "read_questions",
    "scene_item",
    "score",
    "write_questions",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "answerer": ["Answer", "Answerer", "Ask"],
        "benchmark": ["Dpg", "DpgPlan", "dpg_bench", "plan_dpg"],
        "model": ["LocalModel"],
        "questions": ["Item", "Question", "read_questions", "write_questions"],
        "scenes": ["SceneModel", "scene_item"],
        "scoring": ["Scores", "Share", "score"],
        "server": ["Server"],
    },
    modules=["server"],
)
