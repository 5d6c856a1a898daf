"""Code with which a reader of a card tries the model: a pipeline where transformers has one, else a few lines."""

from __future__ import annotations

import json

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

_TEXT = """from transformers import pipeline

classify = pipeline("text-classification", model="{name}")
print(classify({text}))"""

_WORDS = """from transformers import pipeline

tag = pipeline("token-classification", model="{name}", aggregation_strategy="simple")
print(tag({words}))"""

_MASK = """from transformers import pipeline

fill = pipeline("fill-mask", model="{name}")
print(fill({before} + fill.tokenizer.mask_token + {after}))"""

_VECTORS = """from transformers import pipeline

encode = pipeline("feature-extraction", model="{name}")
print(encode({text}, return_tensors=True).shape)  # rows, tokens, width"""

_SIMILAR = """from sentence_transformers import SentenceTransformer

encoder = SentenceTransformer("{name}")
vectors = encoder.encode({texts})
print(encoder.similarity(vectors, vectors))"""

_WRITE = """from transformers import pipeline

write = pipeline("text-generation", model="{name}")
print(write({before}, max_new_tokens=20))"""

# transformers 5 has no pipeline for answers.
_ANSWER = """import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModelForQuestionAnswering.from_pretrained("{name}")
question, context = {question}, {words}
tokens = tokenizer(question, context, return_tensors="pt")
with torch.no_grad():
    outputs = model(**tokens)
start, end = int(outputs.start_logits.argmax()), int(outputs.end_logits.argmax())
print(tokenizer.decode(tokens["input_ids"][0, start : end + 1], skip_special_tokens=True))"""

_CHOOSE = """import torch
from transformers import AutoModelForMultipleChoice, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModelForMultipleChoice.from_pretrained("{name}")
beginning, endings = {beginning}, {endings}
tokens = tokenizer([beginning] * len(endings), endings, padding=True, return_tensors="pt")
with torch.no_grad():
    scores = model(**{{key: value[None] for key, value in tokens.items()}}).logits[0]
print(endings[int(scores.argmax())])"""

# The folder of an encoder that writes, which transformers alone reads as a masked language model.
_GENERATE = """from hf_distill import EncoderForGeneration

model = EncoderForGeneration.from_pretrained("{name}")
print(model.generate_texts([{words}]))"""

_PARTS = """from transformers import {auto_class}, AutoTokenizer

model = {auto_class}.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")"""

_SNIPPETS = {
    "text-classification": _TEXT,
    "token-classification": _WORDS,
    "fill-mask": _MASK,
    "feature-extraction": _VECTORS,
    "sentence-similarity": _SIMILAR,
    "text-generation": _WRITE,
    "question-answering": _ANSWER,
    "multiple-choice": _CHOOSE,
}


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
    snippet = _GENERATE if writes else _SNIPPETS.get(pipeline_tag or "")
    if snippet is None:
        return None
    texts = _TEXTS.get(language, _TEXTS["en"])
    first, second = texts["pair"]
    given = {**texts, "texts": [first, second]}
    given |= {"text": {"text": first, "text_pair": second}} if pairs else {}
    # Lists and mappings of texts are written alike in JSON and in Python.
    return snippet.format(name=name, **{key: json.dumps(value, ensure_ascii=False) for key, value in given.items()})


def parts(name: str, pipeline_tag: str | None, *, writes: bool = False) -> str | None:
    """Python that loads model and tokenizer; `None` where `usage` does that already."""
    if not writes and "AutoTokenizer" in _SNIPPETS.get(pipeline_tag or "", ""):
        return None
    auto_class = "AutoModelForMaskedLM" if writes else _AUTO_CLASSES.get(pipeline_tag or "", "AutoModel")
    return _PARTS.format(name=name, auto_class=auto_class)
