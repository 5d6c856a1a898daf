"""BibTeX of what a student rests on, by the keys that objectives, corpora and tasks name."""

from __future__ import annotations

from collections.abc import Iterable

CITATIONS: dict[str, str] = {
    "minilm": """@inproceedings{wang2020minilm,
  title = {{MiniLM}: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained Transformers},
  author = {Wang, Wenhui and Wei, Furu and Dong, Li and Bao, Hangbo and Yang, Nan and Zhou, Ming},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {33},
  year = {2020}
}""",
    "minilmv2": """@inproceedings{wang2021minilmv2,
  title = {{MiniLMv2}: Multi-Head Self-Attention Relation Distillation for Compressing Pretrained Transformers},
  author = {Wang, Wenhui and Bao, Hangbo and Huang, Shaohan and Dong, Li and Wei, Furu},
  booktitle = {Findings of the Association for Computational Linguistics: ACL-IJCNLP 2021},
  year = {2021}
}""",
    "hinton2015": """@article{hinton2015distilling,
  title = {Distilling the Knowledge in a Neural Network},
  author = {Hinton, Geoffrey and Vinyals, Oriol and Dean, Jeff},
  journal = {arXiv preprint arXiv:1503.02531},
  year = {2015}
}""",
    "bam": """@inproceedings{clark2019bam,
  title = {{BAM}! Born-Again Multi-Task Networks for Natural Language Understanding},
  author = {Clark, Kevin and Luong, Minh-Thang and Khandelwal, Urvashi and Manning, Christopher D. and Le, Quoc V.},
  booktitle = {Proceedings of the 57th Annual Meeting of the Association for Computational Linguistics},
  year = {2019}
}""",
    "contextualized_corpus": """@inproceedings{liu2022rethinking,
  title = {Rethinking Task-Specific Knowledge Distillation: Contextualized Corpus as Better Textbook},
  author = {Liu, Chang and Tao, Chongyang and Liang, Jianxin and Shen, Tao and Feng, Jiazhan and Huang, Quzhe
            and Zhao, Dongyan},
  booktitle = {Proceedings of the 2022 Conference on Empirical Methods in Natural Language Processing},
  year = {2022}
}""",
    "rake": """@incollection{rose2010rake,
  title = {Automatic Keyword Extraction from Individual Documents},
  author = {Rose, Stuart and Engel, Dave and Cramer, Nick and Cowley, Wendy},
  booktitle = {Text Mining: Applications and Theory},
  publisher = {Wiley},
  year = {2010}
}""",
    "bm25": """@article{robertson2009bm25,
  title = {The Probabilistic Relevance Framework: {BM25} and Beyond},
  author = {Robertson, Stephen and Zaragoza, Hugo},
  journal = {Foundations and Trends in Information Retrieval},
  volume = {3},
  number = {4},
  year = {2009}
}""",
    "glue": """@inproceedings{wang2019glue,
  title = {{GLUE}: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding},
  author = {Wang, Alex and Singh, Amanpreet and Michael, Julian and Hill, Felix and Levy, Omer
            and Bowman, Samuel R.},
  booktitle = {International Conference on Learning Representations},
  year = {2019}
}""",
    "wordnet": """@book{fellbaum1998wordnet,
  title = {{WordNet}: An Electronic Lexical Database},
  editor = {Fellbaum, Christiane},
  publisher = {MIT Press},
  year = {1998}
}""",
}


def resolve_citations(items: Iterable[str]) -> list[str]:
    """BibTeX entries for keys of `CITATIONS`; an item that is an entry already (`@…`) stays; copies go.

    Raises:
        ValueError: If an item is neither a known key nor an entry.
    """
    entries: list[str] = []
    for item in items:
        entry = item.strip() if item.lstrip().startswith("@") else CITATIONS.get(item)
        if entry is None:
            raise ValueError(f"Unknown citation {item!r}: use a BibTeX entry or one of {', '.join(CITATIONS)}.")
        if entry not in entries:
            entries.append(entry)
    return entries
