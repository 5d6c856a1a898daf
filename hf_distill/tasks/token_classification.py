"""Tasks that tag words, as data."""

from __future__ import annotations

from hf_distill.tasks.spec import ENTITY_METRICS, FineTuningDefaults, TaskSpec

CONLL2003 = TaskSpec(
    name="conll2003",
    text_columns=("tokens",),
    label_names=("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"),
    label_column="ner_tags",
    kind="token_classification",
    metrics=ENTITY_METRICS,
    hub_path="lhoestq/conll2003",
    folder_names=("conll2003", "CoNLL-2003", "conll"),
    fine_tuning=FineTuningDefaults(
        epochs=3.0,
        learning_rate=5e-5,
        batch_size=32,
        warmup=0.1,
        source="BERT, appendix A.3 (3 epochs, 5e-5, batch 32); length of TextBrewer's CoNLL example",
    ),
    licence="Reuters and LDC research terms",
)

TOKEN_CLASSIFICATION_TASKS = (CONLL2003,)
