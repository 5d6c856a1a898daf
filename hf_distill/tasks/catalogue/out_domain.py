"""The out-domain tasks of MITKD as data: nine English ones, two Chinese ones, and ChnSentiCorp.

Columns and labels are those of the distributions that are named, fine-tuning settings MITKD's (appendix A.2): warm-up
0.1, weight decay 0.01, and a search over 3, 5 or 10 epochs, batch 16 to 48 and learning rate 1e-5 to 5e-5, in which
the defaults here lie. Lengths are not given there. MITKD does not name its metrics: the rates at 1 % of the
rows show that they are accuracies.
"""

from __future__ import annotations

from functools import partial

from hf_distill.tasks.catalogue.clue import PAIR, chinese_task
from hf_distill.tasks.catalogue.cross_lingual import INFERENCE, TEXTS
from hf_distill.tasks.catalogue.label_lists import CONTRACT_PROVISIONS
from hf_distill.tasks.spec import TaskSpec
from hf_distill.tasks.spec_values import FineTuningDefaults

LEX_GLUE = "coastalcph/lex_glue"
SENTIMENT = ("negative", "positive")

_SOURCE = "MITKD, appendix A.2 (3, 5 or 10 epochs, batch 16-48, rate 1e-5 to 5e-5 searched); scores in its table {}"
_settings = partial(
    FineTuningDefaults, epochs=5.0, learning_rate=5e-5, batch_size=32, warmup=0.1, source=_SOURCE.format(1)
)
# Few rows: the most epochs and the smallest batch of the search.
_SMALL = _settings(epochs=10.0, batch_size=16, max_length=256)
_task = partial(TaskSpec, text_columns=("text",), metrics=("accuracy", "f1_macro"))
# Copies of the data of "Don't Stop Pretraining" by others; whether their numbers follow these names is unknown.
_copied_task = partial(_task, names_unverified=True)
_chinese = _settings(source=_SOURCE.format(5))

CHEMPROT = _copied_task(
    name="chemprot",
    label_names=(
        "ACTIVATOR",
        "AGONIST",
        "AGONIST-ACTIVATOR",
        "AGONIST-INHIBITOR",
        "ANTAGONIST",
        "DOWNREGULATOR",
        "INDIRECT-DOWNREGULATOR",
        "INDIRECT-UPREGULATOR",
        "INHIBITOR",
        "PRODUCT-OF",
        "SUBSTRATE",
        "SUBSTRATE_PRODUCT-OF",
        "UPREGULATOR",
    ),
    hub_path="yxchar/chemprot-tlm",
    fine_tuning=_settings(epochs=10.0, batch_size=16, max_length=256),
    licence="research use (BioCreative VI)",
)
ANLI = TaskSpec(
    name="anli",
    text_columns=TEXTS,
    label_names=INFERENCE,
    hub_path="facebook/anli",
    folder_names=("ANLI", "anli_v1.0"),
    # MITKD, appendix A.1: the three rounds are merged.
    split_sources={
        split: tuple(f"{name}_r{number}" for number in (1, 2, 3))
        for split, name in {"train": "train", "validation": "dev", "test": "test"}.items()
    },
    column_aliases={"premise": ("context",)},
    label_aliases={"entailment": ("e",), "neutral": ("n",), "contradiction": ("c",)},
    fine_tuning=_settings(max_length=256),
    licence="CC BY-NC 4.0",
)
ACL_ARC = _copied_task(
    name="acl_arc",
    label_names=("Background", "CompareOrContrast", "Extends", "Future", "Motivation", "Uses"),
    hub_path="yxchar/citation_intent-tlm",
    folder_names=("citation_intent",),
    fine_tuning=_SMALL,
    licence="research use (ACL-ARC)",
)
SCIERC = _copied_task(
    name="scierc",
    label_names=("COMPARE", "CONJUNCTION", "EVALUATE-FOR", "FEATURE-OF", "HYPONYM-OF", "PART-OF", "USED-FOR"),
    hub_path="yxchar/sciie-tlm",
    folder_names=("sciie",),
    fine_tuning=_SMALL,
    licence="research use (SciERC)",
)
HYPERPARTISAN = _copied_task(
    name="hyperpartisan",
    label_names=("false", "true"),
    metrics=("accuracy", "f1_macro", "f1"),
    hub_path="yxchar/hyp-tlm",
    folder_names=("hyperpartisan_news", "hyp"),
    fine_tuning=_settings(epochs=10.0, batch_size=16, max_length=512),
    licence="CC BY 4.0 (SemEval-2019 task 4)",
)
HELPFUL = _copied_task(
    name="helpful",
    label_names=("unhelpful", "helpful"),
    metrics=("accuracy", "f1_macro", "f1"),
    hub_path="yxchar/amazon-tlm",
    folder_names=("amazon", "amazon_helpful"),
    fine_tuning=_settings(epochs=3.0, max_length=256),
    licence="research use (Amazon reviews)",
)
SCOTUS = _task(
    name="scotus",
    label_names=tuple(str(number) for number in range(1, 14)),
    hub_path=LEX_GLUE,
    hub_config="scotus",
    fine_tuning=_settings(max_length=512),
    licence="CC BY 4.0 (LexGLUE)",
)
LEDGAR = _task(
    name="ledgar",
    label_names=CONTRACT_PROVISIONS,
    hub_path=LEX_GLUE,
    hub_config="ledgar",
    fine_tuning=_settings(max_length=512),
    licence="CC BY 4.0 (LexGLUE)",
)
FINANCIAL_PHRASEBANK = _task(
    name="financial_phrasebank",
    text_columns=("sentence",),
    label_names=("negative", "neutral", "positive"),
    hub_path="takala/financial_phrasebank",
    hub_config="sentences_50agree",
    hub_revision="refs/convert/parquet",
    folder_names=("finbank", "FinancialPhraseBank"),
    held_out_share=0.1,
    fine_tuning=_settings(epochs=10.0, batch_size=16),
    licence="CC BY-NC-SA 3.0",
)
CANLI = chinese_task(
    name="canli",
    text_columns=PAIR,
    label_names=INFERENCE,
    folder_names=("CANLI",),
    column_aliases={"sentence1": ("premise",), "sentence2": ("hypothesis",), "label": ("gold_label",)},
    held_out_share=0.1,
    fine_tuning=_chinese,
    licence="as its authors say (Xu and Markert, 2022)",
)
SHOPPING10 = chinese_task(
    name="shopping10",
    text_columns=("review",),
    label_names=SENTIMENT,
    metrics=("accuracy", "f1"),
    folder_names=("online_shopping_10_cats",),
    split_aliases={"train": ("online_shopping_10_cats",)},
    held_out_share=0.1,
    fine_tuning=_chinese,
    licence="research use (ChineseNlpCorpus)",
)
CHNSENTICORP = chinese_task(
    name="chnsenticorp",
    text_columns=("text",),
    label_names=SENTIMENT,
    metrics=("accuracy", "f1"),
    hub_path="lansinuote/ChnSentiCorp",
    folder_names=("chn_senti_corp", "ChnSentiCorp"),
    column_aliases={"text": ("text_a", "review")},
    fine_tuning=_settings(max_length=256, source="no paper here gives them: MITKD's ranges, appendix A.2"),
    licence="research use",
)

OUT_DOMAIN_TASKS = (
    *(CHEMPROT, ANLI, ACL_ARC, SCIERC, HYPERPARTISAN, HELPFUL, SCOTUS, LEDGAR, FINANCIAL_PHRASEBANK),
    *(CANLI, SHOPPING10, CHNSENTICORP),
)
