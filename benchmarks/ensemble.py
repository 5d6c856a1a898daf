"""Score teachers of several seeds, their ensemble (mean of logits), and the single student distilled from all of them.

    python benchmarks/ensemble.py --teachers runs/ner/teacher1 runs/ner/teacher2 runs/ner/teacher3 \
        --student runs/ner/ensemble_student --task conll2003 --data_dir data \
        --output benchmarks/results/ensemble.jsonl

This is a small version of TextBrewer's table 4. The folders are those of `hf-distill teach` and `hf-distill distill
--teacher_models`; their settings are read from their results.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import append_line, head_commit
from transformers import EvalPrediction

from hf_distill.commands.results import environment
from hf_distill.hub.loading import load_model, load_tokenizer
from hf_distill.tasks import build_compute_metrics, load_task, tokenize_task
from hf_distill.trainers.fine_tuning.heads import head_of

BATCH = 64
SHOWN = ("learning_rate", "num_train_epochs", "per_device_train_batch_size", "bf16", "objectives")


def outputs_of(folder: str, batches: list[dict[str, torch.Tensor]]) -> list[torch.Tensor]:
    """Logits of a model, a tensor for each batch."""
    model = load_model(folder, flag="--teachers").eval()
    with torch.no_grad():
        return [model(**batch).logits for batch in batches]


def batched(tokens: Any, collate: Any, columns: set[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of what a model reads, in the order of the rows."""
    for start in range(0, len(tokens), BATCH):
        rows = [tokens[number] for number in range(start, min(start + BATCH, len(tokens)))]
        kept = [{name: value for name, value in row.items() if name in columns | {"labels"}} for row in rows]
        yield {name: value for name, value in collate(kept).items() if name in columns}


def padded(outputs: list[torch.Tensor]) -> np.ndarray:
    """Outputs of all batches as one array; where tokens have outputs, padded to the longest row."""
    if outputs[0].ndim == 2:
        return torch.cat(outputs).numpy()
    width = max(part.shape[1] for part in outputs)
    return torch.cat([torch.nn.functional.pad(part, (0, 0, 0, width - part.shape[1])) for part in outputs]).numpy()


def settings_of(folder: str) -> dict[str, Any]:
    """Settings, steps and seed that made a model."""
    results = json.loads((Path(folder) / "results.json").read_text(encoding="utf-8"))
    settings = {**results.get("settings", {}), **{name: results.get(name) for name in ("seed", "steps")}}
    return {name: settings[name] for name in ("seed", "steps", *SHOWN) if settings.get(name) is not None}


def main() -> None:
    """Score all of them on the task's headline split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teachers", nargs="+", required=True)
    parser.add_argument("--student", required=True)
    parser.add_argument("--task", default="conll2003")
    parser.add_argument("--data_dir")
    parser.add_argument("--output", type=Path, required=True, help="file of JSON lines to append to")
    options = parser.parse_args()
    task = load_task(options.task, options.data_dir, splits="evaluation")
    rows, spec = task.split(task.spec.headline_split), task.spec
    tokenizer = load_tokenizer(options.student, flag="--student")
    tokens = tokenize_task(rows, spec, tokenizer)
    order = np.argsort(-np.asarray(tokens["length"]), kind="stable")
    tokens = tokens.select(order)
    batches = list(batched(tokens, head_of(spec).collator(tokenizer, None), set(tokenizer.model_input_names)))
    metrics = build_compute_metrics(spec, rows, tokens)
    labels = np.zeros(0) if spec.kind != "text_classification" else np.asarray(tokens["labels"])

    def score(outputs: list[torch.Tensor]) -> float:
        return round(metrics(EvalPrediction(padded(outputs), labels))[spec.headline], 4)

    found = [outputs_of(folder, batches) for folder in options.teachers]
    mean = [torch.stack(parts).mean(0) for parts in zip(*found, strict=True)]
    result = {
        "benchmark": "ensemble",
        "command": "python benchmarks/ensemble.py",
        "task": spec.name,
        "metric": spec.headline,
        "split": spec.headline_split,
        "teachers": [
            {"score": score(outputs), **settings_of(folder)}
            for folder, outputs in zip(options.teachers, found, strict=True)
        ],
        "ensemble": score(mean),
        "student": {"score": score(outputs_of(options.student, batches)), **settings_of(options.student)},
        "commit": head_commit(),
        "environment": environment(),
    }
    print(json.dumps(result, indent=2))
    append_line(options.output, result)


if __name__ == "__main__":
    main()
