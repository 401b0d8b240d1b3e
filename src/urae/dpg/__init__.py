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
    from urae.dpg import server
    from urae.dpg.answerer import Answerer, Ask, ModelAnswer
    from urae.dpg.benchmark import Dpg, DpgPlan, DpgRequest, dpg_bench, plan_dpg
    from urae.dpg.model import LocalModel
    from urae.dpg.questions import DpgItem, Question, read_questions, write_questions
    from urae.dpg.scenes import SceneModel, scene_item
    from urae.dpg.scoring import Scores, YesShare, score
    from urae.dpg.server import ServerModel

__getattr__, __dir__, __all__ = lazily(__name__)
