"""Scores a model on a task without training it."""

from __future__ import annotations

import tempfile
import time
from typing import Any, cast

import torch

from hf_distill.commands.folders import writes_folder
from hf_distill.commands.results import finish
from hf_distill.commands.teach import load_task_from
from hf_distill.hub.loading import UNREADABLE, check_complete, load_error, load_model, load_tokenizer
from hf_distill.settings import EvaluationArguments, FineTuningArguments, TaskArguments
from hf_distill.students.sentence import SentenceHead, encode_texts, read_head
from hf_distill.tasks.loading import LoadedTask
from hf_distill.tasks.majority import constant_remark, majority_line, majority_scores
from hf_distill.tasks.vectors import Reranking, Retrieval, VectorTask, is_retrieval, pairs_of, read_retrieval
from hf_distill.trainers.distillation.task_scores import as_reranking
from hf_distill.trainers.fine_tuning.heads import head_of
from hf_distill.trainers.fine_tuning.predictions import predict_texts
from hf_distill.trainers.fine_tuning.trainer import evaluate_model


@writes_folder()
def run(task: TaskArguments, evaluation: EvaluationArguments) -> dict[str, Any]:
    """Score a model on the evaluation splits of a task.

    Writes to `evaluation.output_dir`: `results.json` and `arguments.yaml`, which repeats the run.

    Args:
        task: The task and the location of its rows; training rows are not needed.
        evaluation: The model, and how it is run.

    Returns:
        The content of `results.json`: `score` (headline metric on the headline split, as a fraction), `scores` of
        every split, `constant` (the only label that the model predicts, or `None`), and `majority`.

    Raises:
        ValueError: If no model is named, or model, labels and task do not match.
        OSError: If the model does not exist.
    """
    if evaluation.model is None:
        raise ValueError("`--model` is missing: give the Hub id or folder of the model to score.")
    started = time.perf_counter()
    head = read_head(evaluation.model, evaluation.revision)
    if head is not None or is_retrieval(task.task):
        return finish(evaluation.output_dir, score_vectors(task, evaluation, head), started, task, evaluation)
    rows = load_task_from(task, seed=evaluation.seed, splits="evaluation")
    with tempfile.TemporaryDirectory() as scratch:
        running = FineTuningArguments(
            output_dir=scratch,
            per_device_eval_batch_size=evaluation.eval_batch_size,
            bf16=evaluation.bf16,
            use_cpu=evaluation.use_cpu,
            seed=evaluation.seed,
            report_to="none",
        )
        found = score_model(
            evaluation.model,
            rows,
            running,
            task,
            flag="--model",
            revision=evaluation.revision,
            tokenizer_name=evaluation.tokenizer_name,
        )
    facts = {
        "job": "evaluate",
        "task": rows.spec.name,
        "kind": rows.spec.kind,
        "metric": rows.spec.headline,
        "split": rows.spec.headline_split,
        "split_rows": len(rows.split(rows.spec.headline_split)),
        "max_eval_samples": task.max_eval_samples,
        "model": evaluation.model,
        **{name: value for name, value in found.items() if name != "source"},
        "majority": majority_scores(rows),
        "seed": evaluation.seed,
        "data": rows.source,
    }
    return finish(evaluation.output_dir, facts, started, task, evaluation)


def summary(results: dict[str, Any]) -> str:
    """Report the score of every split beside the majority's, and the file of the results."""
    metric = results["metric"]
    lines = [
        f"{results['task']}: {metric} {scores[metric]:.4f} on {split}"
        + (constant_remark(results["constant"]) if split == results["split"] else "")
        for split, scores in results["scores"].items()
    ]
    before = results.get("first_search")
    first = None if before is None else f"before, in the order of BM25: {metric} {before[metric]:.4f}"
    return "\n".join(filter(None, [*lines, first, majority_line(results["majority"])]))


def score_vectors(task: TaskArguments, evaluation: EvaluationArguments, head: SentenceHead | None) -> dict[str, Any]:
    """Score a sentence encoder by the cosines of its vectors, or a reranker by its order of candidates.

    Raises:
        ValueError: If the model has neither a pooling nor a head with one score, or the task's rows are not two texts
            with one label.
    """
    found: VectorTask | Reranking | None
    if is_retrieval(task.task):
        split = task.evaluation_splits[0] if task.evaluation_splits else None
        found = read_retrieval(task.task, split, task.max_eval_samples)
    else:
        found = pairs_of(load_task_from(task, seed=evaluation.seed, splits="evaluation"))
    if found is None:
        raise ValueError(
            f"`--task` {task.task!r}: a sentence encoder is scored on pairs of texts with a number or a class, or on "
            "a folder with corpus.jsonl, queries.jsonl and qrels."
        )
    model = str(evaluation.model)
    encoder = load_model(model, flag="--model", **({"revision": evaluation.revision} if evaluation.revision else {}))
    one_score = type(encoder).__name__.endswith("ForSequenceClassification") and encoder.config.num_labels == 1
    if head is None and not one_score:
        raise ValueError(
            f"`--model` {model!r} is neither a sentence encoder (modules.json) nor a reranker (a head with one "
            f"score), which {task.task!r} needs."
        )
    if not evaluation.use_cpu:
        encoder.to(torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu"))
    device = next(encoder.parameters()).device
    own = evaluation.tokenizer_name
    tokenizer = (
        load_tokenizer(own, flag="--tokenizer_name")
        if own
        else load_tokenizer(model, flag="--model", revision=evaluation.revision)
    )
    options: dict[str, Any] = {"batch_size": evaluation.eval_batch_size, "max_length": task.max_length}
    before: dict[str, Any] = {}
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=evaluation.bf16):
        if head is None:
            found = as_reranking(cast(Retrieval, found))
            before = {"first_search": found.first_scores()}
            values = predict_texts(encoder.eval(), tokenizer, *zip(*found.pairs, strict=True), **options)[:, 0]
        else:
            head = head.eval().to(device)
            values = encode_texts(encoder.eval(), head, tokenizer, found.texts, prompt=head.prompt, **options)
    scores = found.scores(values)
    return {
        "job": "evaluate",
        "task": found.name,
        "kind": "vectors" if head is not None else "ranking",
        **before,
        "metric": found.headline,
        "split": found.split,
        "split_rows": found.rows,
        "max_eval_samples": task.max_eval_samples,
        "model": model,
        "score": scores[found.headline],
        "constant": None,
        "scores": {found.split: scores},
        "parameters": encoder.num_parameters(),
        "majority": None,
        "seed": evaluation.seed,
    }


def score_model(
    model: str,
    rows: LoadedTask,
    running: FineTuningArguments,
    task: TaskArguments,
    *,
    flag: str,
    revision: str | None = None,
    tokenizer_name: str | None = None,
) -> dict[str, Any]:
    """Load a model with its head and score it without training.

    Args:
        model: Hub id or folder.
        rows: The rows of the task.
        running: Batch size, device and arithmetic.
        task: Settings for the length of rows and the overlap of windows, in tokens.
        flag: The flag that named the model, for error messages.
        revision: Branch, tag or commit of the model.
        tokenizer_name: Hub id or folder of the tokenizer; by default the model's.

    Returns:
        `source`, `score`, `constant`, `scores` and `parameters`.

    Raises:
        ValueError: If a weight is missing (usually the head), or labels and task do not match.
        OSError: If the model does not exist.
    """
    try:
        loaded, report = head_of(rows.spec).auto_class.from_pretrained(
            model, revision=revision, dtype="float32", output_loading_info=True
        )
    except UNREADABLE as error:
        raise load_error(model, error, flag=flag) from error
    check_complete(model, report, flag=flag)
    tokenizer = (
        load_tokenizer(tokenizer_name, flag="--tokenizer_name")
        if tokenizer_name
        else load_tokenizer(model, flag=flag, revision=revision)
    )
    scores = evaluate_model(
        loaded,
        rows,
        tokenizer,
        running,
        name=f"`{flag}` {model!r}",
        max_length=task.max_length,
        doc_stride=task.doc_stride,
    )
    headline = rows.spec.headline_split
    return {
        "source": model,
        "score": scores[headline][rows.spec.headline],
        "constant": scores.constants.get(headline),
        "scores": scores,
        "parameters": loaded.num_parameters(),
    }
