"""Tasks that tag words, as data: entities in English news and, by characters, in Chinese text."""

from __future__ import annotations

from functools import partial

from hf_distill.tasks.spec import ENTITY_METRICS, TaskSpec
from hf_distill.tasks.spec_values import FineTuningDefaults

_SOURCE = "BERT, appendix A.3 (3 epochs, 5e-5, batch 32){}"
_settings = partial(FineTuningDefaults, epochs=3.0, learning_rate=5e-5, batch_size=32, warmup=0.1)
_task = partial(
    TaskSpec,
    text_columns=("tokens",),
    label_column="ner_tags",
    kind="token_classification",
    metrics=ENTITY_METRICS,
)
_chinese_task = partial(
    _task, language="zh", fine_tuning=_settings(max_length=256, source=_SOURCE.format("; a token a character"))
)


def _tags(*types: str) -> tuple[str, ...]:
    """`O`, and `B-` and `I-` of every type."""
    return ("O", *(f"{mark}-{name}" for name in types for mark in "BI"))


CONLL2003 = _task(
    name="conll2003",
    label_names=_tags("PER", "ORG", "LOC", "MISC"),
    hub_path="lhoestq/conll2003",
    folder_names=("conll2003", "CoNLL-2003", "conll"),
    fine_tuning=_settings(source=_SOURCE.format("; length of TextBrewer's CoNLL example")),
    licence="Reuters and LDC research terms",
)
MSRA = _chinese_task(
    name="msra_ner",
    label_names=_tags("PER", "ORG", "LOC"),
    # It has no development set.
    evaluation_splits=("test",),
    test_splits=(),
    hub_path="levow/msra_ner",
    hub_revision="refs/convert/parquet",
    folder_names=("msra", "MSRA"),
    licence="research use (SIGHAN 2006)",
)
PEOPLES_DAILY = _chinese_task(
    name="peoples_daily_ner",
    label_names=_tags("PER", "ORG", "LOC"),
    hub_path="peoples-daily-ner/peoples_daily_ner",
    hub_revision="refs/convert/parquet",
    folder_names=("peoples_daily",),
    licence="research use",
)
CLUENER = _chinese_task(
    name="cluener",
    label_names=_tags(
        *("address", "book", "company", "game", "government", "movie", "name", "organization", "position", "scene")
    ),
    folder_names=("cluener2020", "CLUENER"),
    licence="research use (CLUE)",
)

TOKEN_CLASSIFICATION_TASKS = (CONLL2003, MSRA, PEOPLES_DAILY, CLUENER)
