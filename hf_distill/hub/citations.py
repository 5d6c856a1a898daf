"""BibTeX of the methods and data that a student rests on, by the keys that objectives, corpora and tasks name."""

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
    "embeddistill": """@article{kim2023embeddistill,
  title = {{EmbedDistill}: A Geometric Knowledge Distillation for Information Retrieval},
  author = {Kim, Seungyeon and Rawat, Ankit Singh and Zaheer, Manzil and Jayasumana, Sadeep
            and Sadhanala, Veeranjaneyulu and Jitkrittum, Wittawat and Menon, Aditya Krishna and Fergus, Rob
            and Kumar, Sanjiv},
  journal = {arXiv preprint arXiv:2301.12005},
  year = {2023}
}""",
    "similarity_preserving": """@inproceedings{tung2019similarity,
  title = {Similarity-Preserving Knowledge Distillation},
  author = {Tung, Frederick and Mori, Greg},
  booktitle = {Proceedings of the {IEEE/CVF} International Conference on Computer Vision},
  year = {2019}
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
    "tinybert": """@inproceedings{jiao2020tinybert,
  title = {{TinyBERT}: Distilling {BERT} for Natural Language Understanding},
  author = {Jiao, Xiaoqi and Yin, Yichun and Shang, Lifeng and Jiang, Xin and Chen, Xiao and Li, Linlin
            and Wang, Fang and Liu, Qun},
  booktitle = {Findings of the Association for Computational Linguistics: EMNLP 2020},
  year = {2020}
}""",
    "distilbert": """@article{sanh2019distilbert,
  title = {{DistilBERT}, a Distilled Version of {BERT}: Smaller, Faster, Cheaper and Lighter},
  author = {Sanh, Victor and Debut, Lysandre and Chaumond, Julien and Wolf, Thomas},
  journal = {arXiv preprint arXiv:1910.01108},
  year = {2019}
}""",
    "pkd": """@inproceedings{sun2019patient,
  title = {Patient Knowledge Distillation for {BERT} Model Compression},
  author = {Sun, Siqi and Cheng, Yu and Gan, Zhe and Liu, Jingjing},
  booktitle = {Proceedings of the 2019 Conference on Empirical Methods in Natural Language Processing},
  year = {2019}
}""",
    "fsp": """@inproceedings{yim2017gift,
  title = {A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and Transfer Learning},
  author = {Yim, Junho and Joo, Donggyu and Bae, Jihoon and Kim, Junmo},
  booktitle = {Proceedings of the IEEE Conference on Computer Vision and Pattern Recognition},
  year = {2017}
}""",
    "nst": """@article{huang2017like,
  title = {Like What You Like: Knowledge Distill via Neuron Selectivity Transfer},
  author = {Huang, Zehao and Wang, Naiyan},
  journal = {arXiv preprint arXiv:1707.01219},
  year = {2017}
}""",
    "bert_emd": """@inproceedings{li2020bertemd,
  title = {{BERT-EMD}: Many-to-Many Layer Mapping for {BERT} Compression with Earth Mover's Distance},
  author = {Li, Jianquan and Liu, Xiaokang and Zhao, Honghong and Xu, Ruifeng and Yang, Min and Jin, Yaohong},
  booktitle = {Proceedings of the 2020 Conference on Empirical Methods in Natural Language Processing},
  year = {2020}
}""",
    "textbrewer": """@inproceedings{yang2020textbrewer,
  title = {{TextBrewer}: An Open-Source Knowledge Distillation Toolkit for Natural Language Processing},
  author = {Yang, Ziqing and Cui, Yiming and Chen, Zhipeng and Che, Wanxiang and Liu, Ting and Wang, Shijin
            and Hu, Guoping},
  booktitle = {Proceedings of the 58th Annual Meeting of the Association for Computational Linguistics: System
               Demonstrations},
  year = {2020}
}""",
    "xtremedistil": """@inproceedings{mukherjee2020xtremedistil,
  title = {{XtremeDistil}: Multi-stage Distillation for Massive Multilingual Models},
  author = {Mukherjee, Subhabrata and Hassan Awadallah, Ahmed},
  booktitle = {Proceedings of the 58th Annual Meeting of the Association for Computational Linguistics},
  year = {2020}
}""",
    "mt_dnn_kd": """@article{liu2019mtdnnkd,
  title = {Improving Multi-Task Deep Neural Networks via Knowledge Distillation for Natural Language Understanding},
  author = {Liu, Xiaodong and He, Pengcheng and Chen, Weizhu and Gao, Jianfeng},
  journal = {arXiv preprint arXiv:1904.09482},
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
