"""The classification tasks of CLUE and LCQMC as data.

Columns and label names are those of `clue/clue` on the Hub; the answer tasks of CLUE are in `question_answering`.
Fine-tuning settings: MITKD (ERNIE 3.0 Tiny), appendix A.7 and table 6, where the epochs stand; batch 16 to 64 and
learning rate 1e-5 to 5e-5 are searched there; the defaults here are those found best for the four-layer student (ERNIE
3.0 Nano) in PaddleNLP's scripts, which the appendix follows.
"""

from __future__ import annotations

from functools import partial

from hf_distill.tasks.spec import TaskSpec
from hf_distill.tasks.spec_values import FineTuningDefaults

HUB_PATH = "clue/clue"
PAIR = ("sentence1", "sentence2")
NUMBERED = ("0", "1")
INFERENCE = ("neutral", "entailment", "contradiction")
# Codes of the fifteen topics; 105 and 111 do not exist.
TOPICS = tuple(str(code) for code in range(100, 117) if code not in (105, 111))
APPLICATIONS = tuple(str(code) for code in range(119))
NO_MAJORITY = ("-",)

_SOURCE = "MITKD, appendix A.7 and table 6 (epochs; batch 16-64, rate 1e-5 to 5e-5 searched); scores in its table 5"
settings = partial(FineTuningDefaults, warmup=0.1, weight_decay=0.01, max_length=128, source=_SOURCE)
chinese_task = partial(
    TaskSpec, metrics=("accuracy", "f1_macro"), language="zh", licence="research use (CLUE and the sources' terms)"
)
_clue_task = partial(chinese_task, hub_path=HUB_PATH)

AFQMC = _clue_task(
    name="clue/afqmc",
    text_columns=PAIR,
    label_names=NUMBERED,
    metrics=("accuracy", "f1"),
    hub_config="afqmc",
    fine_tuning=settings(epochs=3.0, learning_rate=2e-5, batch_size=32),
)
TNEWS = _clue_task(
    name="clue/tnews",
    text_columns=("sentence",),
    label_names=TOPICS,
    hub_config="tnews",
    fine_tuning=settings(epochs=3.0, learning_rate=5e-5, batch_size=16),
)
IFLYTEK = _clue_task(
    name="clue/iflytek",
    text_columns=("sentence",),
    label_names=APPLICATIONS,
    hub_config="iflytek",
    fine_tuning=settings(
        epochs=3.0,
        learning_rate=5e-5,
        batch_size=16,
        source=f"{_SOURCE}; dropout 0, which it also tries, is not set here",
    ),
)
CMNLI = _clue_task(
    name="clue/cmnli",
    text_columns=PAIR,
    label_names=INFERENCE,
    dropped_labels=NO_MAJORITY,
    hub_config="cmnli",
    fine_tuning=settings(
        epochs=2.0,
        learning_rate=3e-5,
        batch_size=32,
        source="PaddleNLP, ERNIE 3.0 on CLUE (2 epochs; batch 16-64, rate 1e-5 to 5e-5 searched)",
    ),
)
OCNLI = _clue_task(
    name="clue/ocnli",
    text_columns=PAIR,
    label_names=INFERENCE,
    dropped_labels=NO_MAJORITY,
    hub_config="ocnli",
    split_aliases={"train": ("train.50k",)},
    fine_tuning=settings(epochs=5.0, learning_rate=3e-5, batch_size=16),
    licence="CC BY-NC 2.0",
)
CLUEWSC = _clue_task(
    name="clue/cluewsc2020",
    text_columns=("text",),
    label_names=("false", "true"),
    preprocessing="mark_spans",
    hub_config="cluewsc2020",
    folder_names=("cluewsc",),
    fine_tuning=settings(
        epochs=50.0,
        learning_rate=1e-5,
        batch_size=8,
        source="MITKD, table 6 (50 epochs); batch 8, which its appendix A.7 does not search, and rate 1e-5 are "
        "PaddleNLP's for ERNIE 3.0 Nano, with dropout 0 there and the model's own here",
    ),
)
CSL = _clue_task(
    name="clue/csl",
    text_columns=("keyword", "abst"),
    label_names=NUMBERED,
    metrics=("accuracy", "f1"),
    preprocessing="join_keywords",
    hub_config="csl",
    fine_tuning=settings(epochs=5.0, learning_rate=3e-5, batch_size=32, max_length=256),
)
LCQMC = chinese_task(
    name="lcqmc",
    text_columns=PAIR,
    label_names=NUMBERED,
    metrics=("accuracy", "f1"),
    hub_path="C-MTEB/LCQMC",
    column_aliases={"label": ("score",)},
    fine_tuning=settings(
        epochs=3.0,
        learning_rate=3e-5,
        batch_size=64,
        source="no paper gives them: MITKD's ranges, appendix A.7; scores in TextBrewer, table 5",
    ),
    licence="research use (HIT)",
)

CLUE_TASKS = (AFQMC, TNEWS, IFLYTEK, CMNLI, OCNLI, CLUEWSC, CSL, LCQMC)
