"""Tasks that find or choose an answer, as data: SQuAD 1.1 and 2.0, MLQA, CMRC 2018, DRCD, and the choices of SWAG."""

from __future__ import annotations

from functools import partial

from hf_distill.tasks.metrics.answers_mlqa import MLQA_LANGUAGES
from hf_distill.tasks.spec import ANSWER_METRICS, SQUAD_V2_METRICS, TaskSpec
from hf_distill.tasks.spec_values import FineTuningDefaults

_settings = partial(FineTuningDefaults, batch_size=32, warmup=0.1)
_task = partial(
    TaskSpec,
    text_columns=("question", "context"),
    label_names=None,
    label_column="answers",
    kind="question_answering",
    metrics=ANSWER_METRICS,
    test_splits=(),
)

SQUAD = _task(
    name="squad",
    hub_path="rajpurkar/squad",
    folder_names=("squad", "SQuAD", "squad_v1"),
    fine_tuning=_settings(
        epochs=3.0,
        learning_rate=5e-5,
        max_length=384,
        doc_stride=128,
        source="BERT, section 4.2 (3 epochs, 5e-5, batch 32); windows of MiniLMv2 (384, 128)",
    ),
    licence="CC BY-SA 4.0",
)
SQUAD_V2 = _task(
    name="squad_v2",
    metrics=SQUAD_V2_METRICS,
    answer_scorer="squad_v2",
    hub_path="rajpurkar/squad_v2",
    folder_names=("squad_v2", "SQuAD2", "squad_v2.0"),
    fine_tuning=_settings(
        epochs=3.0,
        learning_rate=6e-5,
        max_length=384,
        doc_stride=128,
        source="MiniLM's supplement, section 4 (3 epochs, 6e-5, batch 32, windows of 384 and 128; warm-up 0.1 is not "
        "stated); scores in table 1",
    ),
    licence="CC BY-SA 4.0",
)

_TESTS = {f"test_{language}": language for language in MLQA_LANGUAGES}

MLQA = _task(
    name="mlqa",
    answer_scorer="mlqa",
    # Trained on SQuAD, chosen on the English development set (MiniLM's supplement, section 4).
    evaluation_splits=("validation_en", *_TESTS),
    hub_path="facebook/mlqa",
    hub_revision="refs/convert/parquet",
    folder_names=("MLQA", "MLQA_V1"),
    split_sources={
        "train": ("rajpurkar/squad:train",),
        "validation_en": ("mlqa.en.en/validation",),
        **{split: (f"mlqa.{language}.{language}/test",) for split, language in _TESTS.items()},
    },
    split_languages=_TESTS,
    averages={"test_average": tuple(_TESTS)},
    fine_tuning=_settings(
        epochs=3.0,
        learning_rate=5e-5,
        max_length=512,
        doc_stride=128,
        source="MiniLM's supplement, section 4 (3 epochs, batch 32, rate 3e-5 to 6e-5 searched, windows of 512 and "
        "128; warm-up 0.1 is not stated); scores in table 6",
    ),
    licence="CC BY-SA 3.0",
)

_chinese_task = partial(
    _task,
    answer_scorer="cmrc2018",
    max_answer_length=50,
    hub_path="clue/clue",
    language="zh",
    fine_tuning=_settings(
        epochs=2.0,
        learning_rate=3e-5,
        max_length=512,
        doc_stride=128,
        source="PaddleNLP, ERNIE 3.0 on CLUE (2 epochs, length 512; batch 24-32, rate 1e-5 to 3e-5 searched); scores "
        "in TextBrewer, table 5",
    ),
)

CMRC2018 = _chinese_task(
    name="clue/cmrc2018", hub_config="cmrc2018", split_aliases={"validation": ("dev",)}, licence="CC BY-SA 4.0"
)
DRCD = _chinese_task(name="clue/drcd", hub_config="drcd", folder_names=("DRCD",), licence="CC BY-SA 3.0")

SWAG = TaskSpec(
    name="swag",
    text_columns=("sent1", "sent2"),
    choice_columns=("ending0", "ending1", "ending2", "ending3"),
    label_names=("0", "1", "2", "3"),
    kind="multiple_choice",
    hub_path="allenai/swag",
    hub_config="regular",
    folder_names=("SWAG",),
    column_aliases={"sent1": ("context",)},
    fine_tuning=FineTuningDefaults(
        epochs=3.0,
        learning_rate=2e-5,
        batch_size=16,
        warmup=0.1,
        source="BERT, section 4.4 (3 epochs, 2e-5, batch 16)",
    ),
    licence="MIT (SWAG)",
)

QUESTION_ANSWERING_TASKS = (SQUAD, SQUAD_V2, MLQA, CMRC2018, DRCD, SWAG)
