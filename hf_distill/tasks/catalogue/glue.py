"""The nine tasks of GLUE as data.

Columns, label order and sizes are those of `nyu-mll/glue` on the Hub; the aliases are the columns of the tab-separated
files of the original distribution. Fine-tuning settings: Contextualized Corpus, section 3 (teacher and final student):
10 epochs, warm-up 0.06, weight decay 0.01, length 128; batch 32 and learning rate 1e-5 for MNLI, QQP, QNLI and SST-2;
batch 16 or 32 and learning rate 1e-5 or 2e-5 for the others (the first and the last are the defaults here).
"""

from __future__ import annotations

from hf_distill.tasks.spec import FineTuningDefaults, TaskSpec

HUB_PATH = "nyu-mll/glue"

LARGE_TASK = FineTuningDefaults(
    epochs=10.0,
    learning_rate=1e-5,
    batch_size=32,
    source="Contextualized Corpus, section 3, training details (fine-tuning; MNLI, QQP, QNLI, SST-2)",
)
SMALL_TASK = FineTuningDefaults()

_DEV = {"validation": ("dev",)}

COLA = TaskSpec(
    name="glue/cola",
    text_columns=("sentence",),
    label_names=("unacceptable", "acceptable"),
    metrics=("matthews_correlation", "accuracy"),
    hub_path=HUB_PATH,
    hub_config="cola",
    folder_names=("CoLA",),
    split_aliases=_DEV,
    headerless_columns=("source", "label", "mark", "sentence"),
    fine_tuning=SMALL_TASK,
    licence="published sentences, research use (CoLA terms)",
)
SST2 = TaskSpec(
    name="glue/sst2",
    text_columns=("sentence",),
    label_names=("negative", "positive"),
    metrics=("accuracy", "f1"),
    hub_path=HUB_PATH,
    hub_config="sst2",
    folder_names=("SST-2",),
    split_aliases=_DEV,
    fine_tuning=LARGE_TASK,
    licence="research use (Stanford Sentiment Treebank)",
)
MRPC = TaskSpec(
    name="glue/mrpc",
    text_columns=("sentence1", "sentence2"),
    label_names=("not_equivalent", "equivalent"),
    metrics=("accuracy", "f1"),
    hub_path=HUB_PATH,
    hub_config="mrpc",
    folder_names=("MRPC",),
    split_aliases=_DEV | {"train": ("msr_paraphrase_train",), "test": ("msr_paraphrase_test",)},
    column_aliases={"sentence1": ("#1 String",), "sentence2": ("#2 String",), "label": ("Quality",)},
    fine_tuning=SMALL_TASK,
    licence="Microsoft Research paraphrase terms",
)
QQP = TaskSpec(
    name="glue/qqp",
    text_columns=("question1", "question2"),
    label_names=("not_duplicate", "duplicate"),
    metrics=("accuracy", "f1"),
    hub_path=HUB_PATH,
    hub_config="qqp",
    folder_names=("QQP",),
    split_aliases=_DEV,
    column_aliases={"label": ("is_duplicate",)},
    fine_tuning=LARGE_TASK,
    licence="Quora terms, non-commercial",
)
STSB = TaskSpec(
    name="glue/stsb",
    text_columns=("sentence1", "sentence2"),
    label_names=None,
    metrics=("pearson", "spearman"),
    hub_path=HUB_PATH,
    hub_config="stsb",
    folder_names=("STS-B",),
    split_aliases=_DEV,
    column_aliases={"label": ("score",)},
    label_range=(0.0, 5.0),
    fine_tuning=SMALL_TASK,
    licence="CC BY-SA 4.0 and the terms of the sources",
)
MNLI = TaskSpec(
    name="glue/mnli",
    text_columns=("premise", "hypothesis"),
    label_names=("entailment", "neutral", "contradiction"),
    metrics=("accuracy",),
    evaluation_splits=("validation_matched", "validation_mismatched"),
    test_splits=("test_matched", "test_mismatched"),
    hub_path=HUB_PATH,
    hub_config="mnli",
    folder_names=("MNLI",),
    split_aliases={"validation_matched": ("dev_matched",), "validation_mismatched": ("dev_mismatched",)},
    column_aliases={"premise": ("sentence1",), "hypothesis": ("sentence2",), "label": ("gold_label",)},
    fine_tuning=LARGE_TASK,
    licence="OANC, CC BY 3.0 and CC BY-SA 3.0 by genre",
)
QNLI = TaskSpec(
    name="glue/qnli",
    text_columns=("question", "sentence"),
    label_names=("entailment", "not_entailment"),
    metrics=("accuracy",),
    hub_path=HUB_PATH,
    hub_config="qnli",
    folder_names=("QNLI",),
    split_aliases=_DEV,
    fine_tuning=LARGE_TASK,
    licence="CC BY-SA 4.0 (from SQuAD)",
)
RTE = TaskSpec(
    name="glue/rte",
    text_columns=("sentence1", "sentence2"),
    label_names=("entailment", "not_entailment"),
    metrics=("accuracy",),
    hub_path=HUB_PATH,
    hub_config="rte",
    folder_names=("RTE",),
    split_aliases=_DEV,
    fine_tuning=SMALL_TASK,
    licence="research use (PASCAL RTE)",
)
WNLI = TaskSpec(
    name="glue/wnli",
    text_columns=("sentence1", "sentence2"),
    label_names=("not_entailment", "entailment"),
    metrics=("accuracy",),
    hub_path=HUB_PATH,
    hub_config="wnli",
    folder_names=("WNLI",),
    split_aliases=_DEV,
    fine_tuning=SMALL_TASK,
    licence="CC BY 4.0 (Winograd schemas)",
)

GLUE_TASKS = (COLA, SST2, MRPC, QQP, STSB, MNLI, QNLI, RTE, WNLI)
