"""Tasks that find an answer in a context, as data."""

from __future__ import annotations

from hf_distill.tasks.spec import ANSWER_METRICS, FineTuningDefaults, TaskSpec

SQUAD = TaskSpec(
    name="squad",
    text_columns=("question", "context"),
    label_names=None,
    label_column="answers",
    kind="question_answering",
    metrics=ANSWER_METRICS,
    hub_path="rajpurkar/squad",
    folder_names=("squad", "SQuAD", "squad_v1"),
    test_splits=(),
    fine_tuning=FineTuningDefaults(
        epochs=3.0,
        learning_rate=5e-5,
        batch_size=32,
        warmup=0.1,
        max_length=384,
        doc_stride=128,
        source="BERT, section 4.2 (3 epochs, 5e-5, batch 32); windows of MiniLMv2 (384, 128)",
    ),
    licence="CC BY-SA 4.0",
)

QUESTION_ANSWERING_TASKS = (SQUAD,)
