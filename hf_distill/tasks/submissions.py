"""The files that the leaderboards of GLUE and CLUE take.

GLUE: `index` and `prediction` with a tab between and a header, one file a task and test set. CLUE (its page on
submissions): a JSON object a line with `id` and `label`, in the order of the test file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .spec import TaskSpec

# Task and split (of several test sets) -> name of the file.
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
# Where the leaderboard wants the names of the classes and not their numbers.
_BY_NAME = ("glue/mnli", "glue/qnli", "glue/rte", "glue/ax")
# Of CLUE 1.1, whose test sets of these two tasks are new.
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
    """Name and content of the file for the leaderboard.

    Args:
        spec: The task.
        split: Its test split.
        said: What the model says of every row, in the order of the split: the number of the class in the task's
            order, or a value.
        ids: Ids of the rows in their source; by default their numbers.

    Raises:
        ValueError: If no leaderboard takes this task and split.
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
        f"`--submission`: no leaderboard takes the split {split!r} of {spec.name!r}; known are the test splits of "
        f"{', '.join(known)}."
    )
