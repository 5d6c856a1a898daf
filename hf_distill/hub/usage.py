"""Code with which a reader of a card tries the model (`templates/usage.md`): a pipeline, or else a few lines."""

from __future__ import annotations

import json
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

# Models for which `usage.md` loads model and tokenizer itself: transformers 5 has no pipeline for them.
_WITHOUT_PIPELINE = ("question-answering", "multiple-choice")


def usage(
    name: str, pipeline_tag: str | None, *, language: str = "en", pairs: bool = False, writes: bool = False
) -> str | None:
    """Python that loads the model and tries it on a text that suits it.

    Args:
        name: What the model is loaded by.
        pipeline_tag: The Hub's name for what it does.
        language: ISO code of its texts; English where there is no text in that language.
        pairs: Whether it reads two texts at once.
        writes: Whether it is an encoder that writes (`EncoderForGeneration`).

    Returns:
        The code; `None` where what the model does is unknown.
    """
    texts = _TEXTS.get(language, _TEXTS["en"])
    first, second = texts["pair"]
    given: dict[str, object] = {**texts, "texts": [first, second]}
    given |= {"text": {"text": first, "text_pair": second}} if pairs else {}
    # Lists and mappings of texts are written alike in JSON and in Python.
    shown: dict[str, Any] = {key: json.dumps(value, ensure_ascii=False) for key, value in given.items()}
    return render_template("usage.md", {}, name=name, pipeline_tag=pipeline_tag, writes=writes, **shown) or None


def parts(name: str, pipeline_tag: str | None, *, writes: bool = False) -> str | None:
    """Python that loads model and tokenizer; `None` where `usage` does that already."""
    if not writes and pipeline_tag in _WITHOUT_PIPELINE:
        return None
    auto_class = "AutoModelForMaskedLM" if writes else _AUTO_CLASSES.get(pipeline_tag or "", "AutoModel")
    return _PARTS.format(name=name, auto_class=auto_class)
