"""Code on a card with which readers try the model (`templates/usage.md`): a pipeline, or a few lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
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

model = {auto_class}.from_pretrained({name})
tokenizer = AutoTokenizer.from_pretrained({name})"""

_ADAPTER = """from peft import PeftModel
from transformers import {auto_class}, AutoTokenizer

base = {auto_class}.from_pretrained({base}{labels})
model = PeftModel.from_pretrained(base, {name})
tokenizer = AutoTokenizer.from_pretrained({name})"""

_ONNX = """import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({name})
session = onnxruntime.InferenceSession("{file}")  # in a copy of this folder
rows = tokenizer({given}, return_tensors="np")
inputs = {{item.name: rows[item.name]{row} for item in session.get_inputs()}}
{shown}"""

# The output to request from a model's ONNX graph if it has no `logits`.
_OUTPUTS = {"sentence-similarity": "sentence_embedding", "feature-extraction": "last_hidden_state"}
_SPAN = """start, end = session.run(["start_logits", "end_logits"], inputs)
print(tokenizer.decode(rows["input_ids"][0, int(start[0].argmax()) : int(end[0].argmax()) + 1]))"""

# The pipelines of transformers, with the options that `usage.md` passes.
PIPELINES: dict[str, dict[str, Any]] = {
    "text-classification": {},
    "token-classification": {"aggregation_strategy": "simple"},
    "fill-mask": {},
}
# For these `usage.md` loads model and tokenizer explicitly: transformers 5 has no pipeline for them.
_WITHOUT_PIPELINE = ("question-answering", "multiple-choice")


def usage(
    name: str,
    pipeline_tag: str | None,
    *,
    language: str = "en",
    pairs: bool = False,
    several: bool = False,
    writes: bool = False,
    inputs: Mapping[str, Any] | None = None,
) -> str | None:
    """Python code that loads the model and tries it on a suitable text.

    Args:
        name: Name or path to load the model from.
        pipeline_tag: The Hub's pipeline tag of the model.
        language: ISO code of its texts; English is used if there are no examples in that language.
        pairs: Whether it reads two texts at once.
        several: Whether a text may have several labels.
        writes: Whether it is an encoder that generates text (`EncoderForGeneration`).
        inputs: Other texts to show, from `example_inputs`.

    Returns:
        The code; `None` if the tag is unknown.
    """
    shown: dict[str, Any] = _shown_texts(pipeline_tag, language, inputs, pairs=pairs)
    values: dict[str, Any] = {"name": quoted(name), "pipeline_tag": pipeline_tag, "several": several, "writes": writes}
    return render_template("usage.md", {}, **values, **shown) or None


def quoted(text: Any) -> str:
    """A text, or a list or mapping of texts, as a Python literal."""
    # The JSON form is valid Python for all of them.
    return json.dumps(text, ensure_ascii=False)


def pipeline_options(pipeline_tag: str, *, several: bool = False) -> dict[str, Any]:
    """The options of the pipeline's call in `usage`."""
    return {"top_k": None} if several and pipeline_tag == "text-classification" else {}


def example_inputs(
    pipeline_tag: str | None, mask_token: str | None, *, language: str = "en", pairs: bool = False
) -> dict[str, Any] | None:
    """The texts of `usage`, named as in the Hub's widgets; `None` if the Hub has no text widget for the tag.

    Args:
        pipeline_tag: The Hub's pipeline tag of the model.
        mask_token: Mask token of its tokenizer, for the gap of a masked language model.
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


def _shown_texts(
    pipeline_tag: str | None, language: str, inputs: Mapping[str, Any] | None, *, pairs: bool
) -> dict[str, str]:
    """The texts of a snippet as Python literals; `inputs` replace them for tags that have an example."""
    texts = _TEXTS.get(language, _TEXTS["en"])
    first, second = texts["pair"]
    given: dict[str, Any] = {**texts, "texts": [first, second]}
    given |= {"text": {"text": first, "text_pair": second}} if pairs else {}
    if inputs is not None and pipeline_tag == "text-classification":
        given["text"] = dict(inputs) if "text_pair" in inputs else inputs["text"]
    elif inputs is not None and pipeline_tag == "token-classification":
        given["words"] = inputs["text"]
    shown = {key: quoted(value) for key, value in given.items()}
    of_text = given["text"] if isinstance(given["text"], Mapping) else {"text": given["text"]}
    return {**shown, "sides": ", ".join(f"[{quoted(value)}]" for value in of_text.values())}


def onnx_usage(
    name: str,
    folder: str,
    language: str,
    files: Iterable[str],
    pipeline_tag: str | None = None,
    *,
    pairs: bool = False,
    inputs: Mapping[str, Any] | None = None,
) -> str:
    """Python that runs the smallest of a student's ONNX files.

    Args:
        name: Name or path to load the tokenizer from.
        folder: Path of the files, with a trailing slash; empty for the working folder.
        language: ISO code of its texts.
        files: The available files: `onnx`, `onnx_int8`.
        pipeline_tag: The Hub's pipeline tag; the texts of a multiple choice are one row.
        pairs: Whether it reads two texts at once.
        inputs: Other texts to show, from `example_inputs`.
    """
    file = "model_quantized.onnx" if "onnx_int8" in files else "model.onnx"
    text = _shown_texts(pipeline_tag, language, inputs, pairs=pairs)
    given = {
        "token-classification": f"[{text['words']}]",
        "question-answering": f"[{text['question']}], [{text['words']}]",
        "multiple-choice": f"[{text['beginning']}] * 2, {text['endings']}, padding=True",
        "fill-mask": f"[{text['before']} + tokenizer.mask_token + {text['after']}]",
        "sentence-similarity": f"{text['texts']}, padding=True",
        "text-ranking": f"[{text['question']}] * 2, [{text['words']}, {text['beginning']}], padding=True",
    }.get(pipeline_tag or "", text["sides"])
    asked = quoted([_OUTPUTS.get(pipeline_tag, "logits")]) if pipeline_tag in _AUTO_CLASSES else None
    return _ONNX.format(
        name=quoted(name),
        file=f"{folder}{file}",
        given=given,
        row="[None]" if pipeline_tag == "multiple-choice" else "",
        shown=_SPAN if pipeline_tag == "question-answering" else f"print(session.run({asked}, inputs)[0])",
    )


def parts(name: str, pipeline_tag: str | None, *, writes: bool = False) -> str | None:
    """Python code that loads model and tokenizer; `None` if `usage` does that already."""
    if not writes and pipeline_tag in _WITHOUT_PIPELINE:
        return None
    auto_class = "AutoModelForMaskedLM" if writes else _AUTO_CLASSES.get(pipeline_tag or "", "AutoModel")
    return _PARTS.format(name=quoted(name), auto_class=auto_class)


def adapter_parts(name: str, base: str, pipeline_tag: str | None, labels: Sequence[str]) -> str:
    """Python that loads an adapter on its base model, whose head may not know the labels.

    Args:
        name: What the adapter is loaded by.
        base: What its base model is loaded by.
        pipeline_tag: The Hub's name for what it does.
        labels: Names of the classes, in the order of the head's outputs.
    """
    names = ", ".join(f"{number}: {quoted(label)}" for number, label in enumerate(labels))
    return _ADAPTER.format(
        auto_class=_AUTO_CLASSES.get(pipeline_tag or "", "AutoModel"),
        base=quoted(base),
        name=quoted(name),
        labels=f", id2label={{{names}}}" if names else "",
    )
