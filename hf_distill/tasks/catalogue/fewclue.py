"""Tasks of FewCLUE as data: the unions of its five folds (`few_all`), which MITKD trains and evaluates on.

The files of the distribution do: `train_few_all.json`, `dev_few_all.json`, `test_public.json`; or, where these are
missing, `train_0.json` to `train_4.json` and `dev_0.json` to `dev_4.json`, joined without duplicates. For one fold
give its folder with files `train` and `dev`.
"""

from __future__ import annotations

import dataclasses
from functools import partial

from hf_distill.tasks.catalogue import clue
from hf_distill.tasks.catalogue.label_lists import DISCIPLINES
from hf_distill.tasks.spec import TaskSpec

FOLDS = range(5)

_SOURCE = "MITKD, appendix A.2 (3, 5 or 10 epochs, batch 16-48, rate 1e-5 to 5e-5 searched)"
_settings = partial(
    clue.settings, epochs=10.0, learning_rate=5e-5, batch_size=16, source=f"{_SOURCE}; scores in its table 5"
)
_few_task = partial(
    clue.chinese_task,
    split_aliases={"train": ("train_few_all",), "validation": ("dev_few_all",), "test": ("test_public",)},
    split_sources={
        "train": tuple(f"train_{fold}" for fold in FOLDS),
        "validation": tuple(f"dev_{fold}" for fold in FOLDS),
    },
    merge_duplicates=True,
    fine_tuning=_settings(),
)


def _as_few_shot(spec: TaskSpec, name: str) -> TaskSpec:
    """A task of CLUE with few rows: its columns and labels, FewCLUE's files and settings."""
    few = _few_task(name=name, text_columns=spec.text_columns, label_names=spec.label_names)
    length = spec.fine_tuning.max_length
    return dataclasses.replace(
        few,
        metrics=spec.metrics,
        headline_metric=None,
        preprocessing=spec.preprocessing,
        dropped_labels=spec.dropped_labels,
        licence=spec.licence,
        fine_tuning=_settings(max_length=length, source=_SOURCE),
    )


EPRSTMT = _few_task(
    name="fewclue/eprstmt",
    text_columns=("sentence",),
    label_names=("Negative", "Positive"),
    metrics=("accuracy", "f1"),
)
BUSTM = _few_task(name="fewclue/bustm", text_columns=clue.PAIR, label_names=clue.NUMBERED, metrics=("accuracy", "f1"))
CSLDCP = _few_task(
    name="fewclue/csldcp", text_columns=("content",), label_names=DISCIPLINES, fine_tuning=_settings(max_length=256)
)

FEWCLUE_TASKS = (
    EPRSTMT,
    BUSTM,
    CSLDCP,
    _as_few_shot(clue.TNEWS, "fewclue/tnews"),
    _as_few_shot(clue.OCNLI, "fewclue/ocnli"),
    _as_few_shot(clue.CSL, "fewclue/csl"),
    _as_few_shot(clue.CLUEWSC, "fewclue/cluewsc"),
    _as_few_shot(clue.IFLYTEK, "fewclue/iflytek"),
)
