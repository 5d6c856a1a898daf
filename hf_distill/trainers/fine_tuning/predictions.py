"""The predictions of a classifier for texts, as records with labels and probabilities.

Shape legend: B rows, C outputs of the head.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.special import expit, softmax

from hf_distill.capture.architectures import forward_columns
from hf_distill.storage.files import write_text
from hf_distill.tasks.label_names import names_of_head
from hf_distill.tasks.rows.text import say_cut

ROUNDED = 6


@torch.no_grad()
def predict_texts(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    seconds: Sequence[str | None] | None = None,
    *,
    batch_size: int = 64,
    max_length: int | None = 128,
) -> np.ndarray:
    """The outputs of a classifier for texts, or pairs of texts.

    Args:
        model: A model for sequence classification, in evaluation mode.
        tokenizer: Its tokenizer.
        texts: One for each row.
        seconds: The second text of each row, where a row is two.
        batch_size: Rows of one forward pass; those of like length run together.
        max_length: Tokens at which a row is cut; `None` takes what the tokenizer says.

    Returns:
        (B, C) fp32 logits in the order of the rows. A warning counts those that were cut.

    Raises:
        ValueError: If an output is not finite.
    """
    columns, device = forward_columns(model), next(model.parameters()).device
    pairs = list(zip(texts, seconds or [None] * len(texts), strict=True))
    order = sorted(range(len(pairs)), key=lambda row: -sum(len(text or "") for text in pairs[row]))
    found: dict[int, np.ndarray] = {}
    limit = max_length or tokenizer.model_max_length
    at_limit = 0
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        encoded = [
            tokenizer(*(text for text in pairs[row] if text is not None), truncation=True, max_length=max_length)
            for row in rows
        ]
        at_limit += sum(len(one["input_ids"]) >= limit for one in encoded)
        inputs = tokenizer.pad(encoded, return_tensors="pt")
        logits = model(**{name: value.to(device) for name, value in inputs.items() if name in columns}).logits
        found |= dict(zip(rows, logits.float().cpu().numpy(), strict=True))
    say_cut(at_limit, len(pairs), limit, "texts" if seconds is None else "pairs of texts")
    outputs = np.stack([found[row] for row in range(len(pairs))])
    if not np.isfinite(outputs).all():
        raise ValueError("The model's outputs are not finite (NaN or infinite): nothing is predicted with it.")
    return outputs


def prediction_records(config: Any, logits: np.ndarray) -> list[dict[str, Any]]:
    """One record a row: `label` and `probabilities` by name; `labels` where a row has several; `value` of a number.

    Args:
        config: Configuration of the model; its `label_thresholds`, if there are, say from which probability on a
            label is given.
        logits: (B, C).

    Raises:
        ValueError: If there is not one threshold for each label.
    """
    problem = getattr(config, "problem_type", None)
    if problem == "regression" or logits.shape[1] == 1:
        return [{"row": row, "value": round(float(value), ROUNDED)} for row, value in enumerate(logits[:, 0])]
    names = names_of_head(config)
    several = problem == "multi_label_classification"
    probabilities = expit(logits.astype(np.float64)) if several else softmax(logits.astype(np.float64), axis=1)
    bounds = (several and getattr(config, "label_thresholds", None)) or [0.5] * len(names)
    if len(bounds) != len(names):
        raise ValueError(f"`label_thresholds` of the configuration has {len(bounds)} numbers for {len(names)} labels.")
    records: list[dict[str, Any]] = []
    for row, shares in enumerate(probabilities):
        by_name = {name: round(float(share), ROUNDED) for name, share in zip(names, shares, strict=True)}
        if several:
            given = [name for name, share, bound in zip(names, shares, bounds, strict=True) if share > bound]
            records.append({"row": row, "labels": given, "probabilities": by_name})
        else:
            records.append({"row": row, "label": names[int(shares.argmax())], "probabilities": by_name})
    return records


def write_predictions(
    path: str | Path, records: Sequence[dict[str, Any]], file_format: Literal["jsonl", "csv"] = "jsonl"
) -> Path:
    """Write records as a JSON object a line, or as a table with a column for each probability.

    In a table several labels of a row stand in one cell with `;` between.

    Args:
        path: The file.
        records: Those of `prediction_records`.
        file_format: `jsonl` or `csv`.

    Raises:
        ValueError: If the format is another one.
    """
    if file_format == "jsonl":
        return write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    if file_format != "csv":
        raise ValueError(f"`--file_format` is {file_format!r}; allowed are 'jsonl' and 'csv'.")
    flat = [_flat(record) for record in records]
    table = io.StringIO()
    writer = csv.DictWriter(table, list(flat[0]) if flat else ["row"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return write_text(path, table.getvalue())


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    shares = {f"probability_{name}": share for name, share in record.get("probabilities", {}).items()}
    rest = {name: value for name, value in record.items() if name != "probabilities"}
    return {name: ";".join(value) if isinstance(value, list) else value for name, value in rest.items()} | shares
