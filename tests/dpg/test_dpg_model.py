"""Local models: tiny random ones, read from their folders by the code that reads real ones."""

from __future__ import annotations

import json

import pytest
import torch
from dpg_material import item, question
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import save_blip, save_llava
from transformers import AutoProcessor, BlipForQuestionAnswering, LlavaForConditionalGeneration

from urae.dpg.answerer import INSTRUCTION
from urae.dpg.benchmark import dpg_bench, plan_dpg
from urae.dpg.model import LocalModel
from urae.errors import BadFile
from urae.statistics.table import UNTRAINED

QUESTIONS = ["is it 1?", "is there a 1 or a 2 with it?"]


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    return save_blip(tmp_path_factory.mktemp("models") / "tiny-blip")


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    return save_llava(tmp_path_factory.mktemp("models") / "tiny-llava")


@pytest.fixture
def picture():
    return Image.radial_gradient("L").convert("RGB").resize((96, 64))


def told(folder, picture, questions=QUESTIONS, **settings) -> list[str]:
    with LocalModel(folder, **settings).opened() as ask:
        return [answer.text for answer in ask(picture, questions, 0)]


def test_a_chat_model_is_asked_through_its_template(llava, picture):
    """Against one question at a time, put together by hand: padding and the cut after the prompt are right."""
    network = LlavaForConditionalGeneration.from_pretrained(llava).eval()
    processor = AutoProcessor.from_pretrained(llava)
    expected = []
    for text in QUESTIONS:
        asked = processor(images=picture, text=f"<image> {text} {INSTRUCTION.lower()} ", return_tensors="pt")
        with torch.no_grad():
            written = network.generate(**asked, max_new_tokens=8, do_sample=False)
        expected.append(processor.decode(written[0, asked["input_ids"].shape[1] :], skip_special_tokens=True))
    assert told(llava, picture) == [text.strip() for text in expected]
    assert told(llava, picture, batch_size=1) == told(llava, picture)


def test_a_question_answering_model_gets_the_bare_question(blip, picture):
    network = BlipForQuestionAnswering.from_pretrained(blip).eval()
    processor = AutoProcessor.from_pretrained(blip)
    expected = []
    for text in QUESTIONS:
        asked = processor(images=picture, text=text, return_tensors="pt")
        with torch.no_grad():
            written = network.generate(**asked, max_new_tokens=8, do_sample=False)
        expected.append(processor.decode(written[0], skip_special_tokens=True))
    assert told(blip, picture) == expected


def test_a_model_that_says_yes_gets_full_points(blip, tmp_path):
    """Its output layer is made to prefer one word, so the whole way from picture to score is known."""
    said_yes = tmp_path / "says-yes"
    said_yes.mkdir()
    for file in blip.iterdir():
        (said_yes / file.name).write_bytes(file.read_bytes())
    weights = load_file(blip / "model.safetensors")
    place = AutoProcessor.from_pretrained(blip).tokenizer.convert_tokens_to_ids("yes")
    bias = [name for name in weights if name.startswith("text_decoder") and name.endswith("predictions.bias")]
    for name in bias:
        weights[name][place] = 100.0
    # A step of training moves the scales of normalisation, which is how random weights are told from trained ones.
    weights = {
        name: w * (1.01 if "norm" in name.lower() and w.ndim == 1 else 1) for name, w in weights.items()
    }
    save_file(weights, said_yes / "model.safetensors", metadata={"format": "pt"})
    names = [f"p{i}" for i in range(6)]
    (tmp_path / "a").mkdir()
    for i, name in enumerate(names):
        Image.new("RGB", (40, 40), (40 * i, 0, 0)).save(tmp_path / "a" / f"{name}.png")
    items = [item(name, question(1), question(2, 1)) for name in names]
    model = LocalModel(said_yes)
    result = dpg_bench(plan_dpg({"a": tmp_path / "a"}, items, model), journal=tmp_path / "j")
    assert (result.model, result.untrained) == ("says-yes", False)
    assert result.table.cells["a"]["dpg[says-yes]"].value == 100
    random = dpg_bench(plan_dpg({"a": tmp_path / "a"}, items, LocalModel(blip)), journal=tmp_path / "j")
    assert random.untrained
    assert UNTRAINED in random.to_markdown()


def test_other_weights_are_another_model(blip, llava):
    assert LocalModel(blip).identity != LocalModel(llava).identity
    assert LocalModel(blip).identity == LocalModel(blip).identity
    assert LocalModel(blip).name == "tiny-blip"


def test_what_is_no_model_is_refused(llava, tmp_path):
    with pytest.raises(BadFile, match="has no config.json: expected the folder of an image-text model"):
        LocalModel(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    with pytest.raises(BadFile, match="cannot be read as an image-text model"), LocalModel(tmp_path).opened():
        pass
    mute = tmp_path / "mute"
    mute.mkdir()
    for file in llava.iterdir():
        if file.name != "chat_template.jinja":
            (mute / file.name).write_bytes(file.read_bytes())
    with pytest.raises(BadFile, match="has no chat template"), LocalModel(mute).opened():
        pass
