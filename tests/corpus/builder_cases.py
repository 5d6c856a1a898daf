"""A small general corpus, anchors, and a build with few settings, for the tests of the builder."""

import numpy as np
from datasets import Dataset

from hf_distill.corpus.build.builder import build_contextualized_corpus

WORDS = "fox dog river movie actor plot scene music bridge garden winter story city train letter".split()


def sentences(seed, count):
    random = np.random.default_rng(seed)
    return ["The " + " ".join(random.choice(WORDS, random.integers(2, 7))) + "." for _ in range(count)]


GENERAL = Dataset.from_dict({"text": sentences(0, 250), "source": [f"s{row % 3}" for row in range(250)]})
ANCHORS = sentences(1, 40)
SETTINGS = {"engine": "bm25s", "top_k": 8}


def build(work_dir, anchors=ANCHORS, corpus=GENERAL, **settings):
    return build_contextualized_corpus(anchors, corpus, work_dir=work_dir, **{**SETTINGS, **settings})


def rows_of(result):
    return result.dataset.to_list()
