"""Code with which a reader of a card tries the model (`templates/usage.md`): a pipeline, or else a few lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from .rendering import render_template

_AUTO_CLASSES = {
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "multiple-choice": "AutoModelForMultipleChoice",
    "fill-mask": "AutoModelForMaskedLM",
    "text-generation": "AutoModelForCausalLM",
    "feature-extraction": "AutoModel",
    "sentence-similarity": "AutoModel",
    "text-ranking": "AutoModelForSequenceClassification",
}

# Sample texts, written for this package, by language and use.
_TEXTS = {
    "en": {
        "text": "A quiet film that nobody will forget.",
        "pair": ("A man plays the guitar.", "Somebody makes music."),
        "words": "Anna Schmidt works for the United Nations in Geneva.",
        "question": "Where does Anna work?",
        "before": "The cat sees the ",
        "after": ".",
        "beginning": "She opens the door and",
        "endings": ["leaves the house.", "is a colour."],
    },
    "zh": {
        "text": "这部电影很好看。",
        "pair": ("一个男人在弹吉他。", "有人在演奏音乐。"),
        "words": "安娜在北京大学工作。",
        "question": "安娜在哪里工作？",
        "before": "北京是中国的首",
        "after": "。",
        "beginning": "她打开门，",
        "endings": ["走出了房子。", "是一种颜色。"],
    },
}

_PARTS = """from transformers import {auto_class}, AutoTokenizer

model = {auto_class}.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")"""

_ONNX = """import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
session = onnxruntime.InferenceSession("{file}")  # in a copy of this folder
rows = tokenizer({given}, return_tensors="np")
print(session.run(None, {{item.name: rows[item.name]{row} for item in session.get_inputs()}})[0])"""

# What a pipeline of transformers answers, with the options that `usage.md` gives it.
PIPELINES: dict[str, dict[str, Any]] = {
    "text-classification": {},
    "token-classification": {"aggregation_strategy": "simple"},
    "fill-mask": {},
}
# Models for which `usage.md` loads model and tokenizer itself: transformers 5 has no pipeline for them.
_WITHOUT_PIPELINE = ("question-answering", "multiple-choice")


def usage(
    name: str,
    pipeline_tag: str | None,
    *,
    language: str = "en",
    pairs: bool = False,
    writes: bool = False,
    inputs: Mapping[str, Any] | None = None,
) -> str | None:
    """Python that loads the model and tries it on a text that suits it.

    Args:
        name: What the model is loaded by.
        pipeline_tag: The Hub's name for what it does.
        language: ISO code of its texts; English where there is no text in that language.
        pairs: Whether it reads two texts at once.
        writes: Whether it is an encoder that writes (`EncoderForGeneration`).
        inputs: Other texts to show, as `example_inputs` gives them.

    Returns:
        The code; `None` where what the model does is unknown.
    """
    texts = _TEXTS.get(language, _TEXTS["en"])
    first, second = texts["pair"]
    given: dict[str, object] = {**texts, "texts": [first, second]}
    given |= {"text": {"text": first, "text_pair": second}} if pairs else {}
    if inputs is not None:
        given |= _shown_texts(pipeline_tag, inputs)
    # Lists and mappings of texts are written alike in JSON and in Python.
    shown: dict[str, Any] = {key: json.dumps(value, ensure_ascii=False) for key, value in given.items()}
    return render_template("usage.md", {}, name=name, pipeline_tag=pipeline_tag, writes=writes, **shown) or None


def example_inputs(
    pipeline_tag: str | None, mask_token: str | None, *, language: str = "en", pairs: bool = False
) -> dict[str, Any] | None:
    """The texts of `usage` under the names of the Hub's widgets; `None` where there is no widget for texts.

    Args:
        pipeline_tag: The Hub's name for what the model does.
        mask_token: That of its tokenizer, for the gap of a masked language model.
        language: ISO code of its texts.
        pairs: Whether it reads two texts at once.
    """
    texts: dict[str, Any] = _TEXTS.get(language, _TEXTS["en"])
    first, second = texts["pair"]
    known: dict[str, dict[str, Any]] = {
        "text-classification": {"text": first, "text_pair": second} if pairs else {"text": texts["text"]},
        "token-classification": {"text": texts["words"]},
        "question-answering": {"text": texts["question"], "context": texts["words"]},
        "sentence-similarity": {"source_sentence": first, "sentences": [second, texts["text"]]},
    }
    if mask_token:
        known["fill-mask"] = {"text": f"{texts['before']}{mask_token}{texts['after']}"}
    return known.get(pipeline_tag or "")


def _shown_texts(pipeline_tag: str | None, inputs: Mapping[str, Any]) -> dict[str, object]:
    """The values of the template for these inputs; of kinds whose example is always the package's there are none."""
    if pipeline_tag == "text-classification":
        return {"text": dict(inputs) if "text_pair" in inputs else inputs["text"]}
    return {"words": inputs["text"]} if pipeline_tag == "token-classification" else {}


def onnx_usage(name: str, folder: str, language: str, files: Iterable[str], pipeline_tag: str | None = None) -> str:
    """Python that runs the smallest of a student's ONNX files.

    Args:
        name: What its tokenizer is loaded by.
        folder: Where the files lie, with a slash at its end; empty where that is the working folder.
        language: ISO code of its texts.
        files: Which there are: `onnx`, `onnx_int8`.
        pipeline_tag: The Hub's name for what it does: of a multiple choice the texts are one row.
    """
    file = "model_quantized.onnx" if "onnx_int8" in files else "model.onnx"
    texts: dict[str, Any] = _TEXTS.get(language, _TEXTS["en"])
    shown = {key: json.dumps(texts[key], ensure_ascii=False) for key in ("text", "beginning", "endings")}
    given, row = f"[{shown['text']}]", ""
    if pipeline_tag == "multiple-choice":
        given, row = f"[{shown['beginning']}] * 2, {shown['endings']}, padding=True", "[None]"
    return _ONNX.format(name=name, file=f"{folder}{file}", given=given, row=row)


def parts(name: str, pipeline_tag: str | None, *, writes: bool = False) -> str | None:
    """Python that loads model and tokenizer; `None` where `usage` does that already."""
    if not writes and pipeline_tag in _WITHOUT_PIPELINE:
        return None
    auto_class = "AutoModelForMaskedLM" if writes else _AUTO_CLASSES.get(pipeline_tag or "", "AutoModel")
    return _PARTS.format(name=name, auto_class=auto_class)
