"""Writes the submission files of the leaderboards of GLUE and CLUE.

GLUE: `index` and `prediction` separated by a tab, with a header, one file for each task and test set. CLUE (its page
on submissions): a JSON object on each line with `id` and `label`, in the order of the test file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .spec import TaskSpec

# Task and split (if there are several test sets) -> file name.
_GLUE = {
    ("glue/cola", "test"): "CoLA.tsv",
    ("glue/sst2", "test"): "SST-2.tsv",
    ("glue/mrpc", "test"): "MRPC.tsv",
    ("glue/qqp", "test"): "QQP.tsv",
    ("glue/stsb", "test"): "STS-B.tsv",
    ("glue/mnli", "test_matched"): "MNLI-m.tsv",
    ("glue/mnli", "test_mismatched"): "MNLI-mm.tsv",
    ("glue/qnli", "test"): "QNLI.tsv",
    ("glue/rte", "test"): "RTE.tsv",
    ("glue/wnli", "test"): "WNLI.tsv",
    ("glue/ax", "test"): "AX.tsv",
}
# The leaderboard wants names of classes here, not numbers.
_BY_NAME = ("glue/mnli", "glue/qnli", "glue/rte", "glue/ax")
# CLUE 1.1, in which two tasks have new test sets.
_CLUE = {
    "clue/afqmc": "afqmc_predict.json",
    "clue/tnews": "tnews11_predict.json",
    "clue/iflytek": "iflytek_predict.json",
    "clue/cmnli": "cmnli_predict.json",
    "clue/ocnli": "ocnli_50k_predict.json",
    "clue/cluewsc2020": "cluewsc11_predict.json",
    "clue/csl": "csl_predict.json",
}


def submission(spec: TaskSpec, split: str, said: Sequence[float], ids: Sequence[Any] | None = None) -> tuple[str, str]:
    """Name and content of a submission file.

    Args:
        spec: The task.
        split: Its test split.
        said: The model's prediction for every row, in the order of the split: the index of the class in the task's
            order, or a value.
        ids: Ids of the rows in their source; by default their row numbers.

    Raises:
        ValueError: If no leaderboard accepts this task and split.
    """
    numbers = list(range(len(said))) if ids is None else list(ids)
    names = spec.label_names or ()
    if (spec.name, split) in _GLUE:
        if spec.label_names is None:
            low, high = spec.label_range or (0.0, 5.0)
            shown = [f"{min(max(value, low), high):.3f}" for value in said]
        else:
            shown = [names[int(label)] if spec.name in _BY_NAME else str(int(label)) for label in said]
        lines = ["index\tprediction", *(f"{number}\t{text}" for number, text in zip(numbers, shown, strict=True))]
        return _GLUE[spec.name, split], "\n".join(lines) + "\n"
    if spec.name in _CLUE and split in spec.test_splits:
        rows = zip(numbers, said, strict=True)
        lines = [json.dumps({"id": number, "label": names[int(label)]}, ensure_ascii=False) for number, label in rows]
        return _CLUE[spec.name], "\n".join(lines) + "\n"
    known = sorted({name for name, _ in _GLUE} | set(_CLUE))
    raise ValueError(
        f"`--submission`: no leaderboard accepts the split {split!r} of {spec.name!r}; known are the test splits of "
        f"{', '.join(known)}."
    )
