"""Times students against their teacher on every engine, and draws quality against latency."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import BertConfig

from hf_distill.capture.architectures import forward_columns
from hf_distill.commands.folders import writes_folder
from hf_distill.commands.results import finish
from hf_distill.hub.disclosure import public
from hf_distill.hub.loading import load_model, load_tokenizer
from hf_distill.hub.tokenizers import check_same_tokens
from hf_distill.kernels.cpu import configure_fp32_matmul
from hf_distill.reports.speed.comparison import ComparedModel, Protocol, Source, compare
from hf_distill.reports.speed.latency import Batch, describe_device, random_batch
from hf_distill.reports.speed.quality import read_quality
from hf_distill.reports.speed.report import draw_quality, format_report, points_of
from hf_distill.settings import BenchmarkArguments
from hf_distill.settings.parsing import arguments_to_dict
from hf_distill.storage.files import write_text
from hf_distill.students.creation import create_student
from hf_distill.tasks.loading import load_task

logger = logging.getLogger(__name__)

RESULTS_FILE = "bench.json"
REPORT_FILE = "bench.md"
FIGURE_FILE = "quality_against_latency.png"


@writes_folder()
def run(arguments: BenchmarkArguments, command: str = "") -> dict[str, Any]:
    """Time a teacher and its students.

    Writes to `arguments.output_dir`: `bench.json`, `bench.md` and, if the scores of the models are known,
    `quality_against_latency.png`.

    Args:
        arguments: Models, engines and protocol.
        command: The command line that repeats the run.

    Returns:
        The content of `bench.json`: the result of `hf_distill.reports.speed.comparison.compare`, with the scores of
        the models, the figure and the machine.

    Raises:
        ValueError: If models, shapes and protocol do not match.
    """
    started = time.perf_counter()
    fp32_matmul = configure_fp32_matmul(arguments.fp32_matmul)
    teacher, students = _compared_models(arguments)
    protocol = Protocol(**{item.name: getattr(arguments, item.name) for item in dataclasses.fields(Protocol)})
    source, inputs = _source(arguments, [teacher, *students])
    compared = compare(teacher, students, protocol, source)
    for model, entry in zip(compared["models"], [teacher, *students], strict=True):
        model["quality"] = _quality_facts(entry, protocol.engines)
    facts: dict[str, Any] = {
        "job": "bench",
        **compared,
        "inputs": inputs,
        "device": describe_device(teacher.model.device),
        "fp32_matmul": fp32_matmul,
        "command": command,
        "settings": arguments_to_dict(arguments),
    }
    folder = Path(arguments.output_dir)
    facts["figure"] = _draw(facts, folder)
    finish(folder, facts, started, name=RESULTS_FILE)
    write_text(folder / REPORT_FILE, format_report(public(facts)))
    return facts


def summary(results: dict[str, Any]) -> str:
    """Return the tables, and where they were written."""
    where = results["settings"]["output_dir"]
    return f"{format_report(results)}\n{results['seconds']:.0f} s; written to {where}"


# --- models ---------------------------------------------------------------------------------------------------------


def _compared_models(arguments: BenchmarkArguments) -> tuple[ComparedModel, list[ComparedModel]]:
    """The teacher and its students on the device, in eval mode."""
    if arguments.teacher_model is not None:
        teacher = _loaded(arguments.teacher_model, "--teacher_model", arguments)
    else:
        model = create_student(
            BertConfig(),
            str(arguments.teacher_shape),
            model_class="AutoModelForSequenceClassification",
            seed=arguments.seed,
        )
        teacher = ComparedModel(str(arguments.teacher_shape), model)
    students = [_loaded(name, "--student_models", arguments) for name in arguments.student_models or []]
    for shape in arguments.student_shapes or []:
        students.append(
            ComparedModel(shape, create_student(teacher.model, shape, seed=arguments.seed), teacher.tokenizer)
        )
    device = torch.accelerator.current_accelerator(check_available=True)
    for entry in (teacher, *students):
        entry.model.eval()
        if device is not None and not arguments.use_cpu:
            nn.Module.to(entry.model, device)
    names = [entry.name for entry in (teacher, *students)]
    if len(set(names)) < len(names):
        raise ValueError(f"Two of the models {names} have the same name: give their folders different names.")
    return teacher, students


def _loaded(name: str, flag: str, arguments: BenchmarkArguments) -> ComparedModel:
    model = load_model(name, flag=flag)
    # Random tokens need no tokenizer.
    tokenizer = None if arguments.task is None else load_tokenizer(name, flag=flag)
    return ComparedModel(Path(name).name, model, tokenizer, name)


# --- batches --------------------------------------------------------------------------------------------------------


def _source(arguments: BenchmarkArguments, entries: Sequence[ComparedModel]) -> tuple[Source, str]:
    """Return the function that makes batches, and a description of their rows."""
    if arguments.task is not None:
        return _text_batches(arguments, entries)
    vocab_size = min(entry.model.config.vocab_size for entry in entries)

    def random(batch_size: int, seq_length: int, _number: int) -> list[Batch]:
        # The time of a batch depends only on its shape.
        return [random_batch(entries[0].model, vocab_size, batch_size, seq_length, arguments.seed)]

    return random, "random tokens without padding"


def _text_batches(arguments: BenchmarkArguments, entries: Sequence[ComparedModel]) -> tuple[Source, str]:
    """Rows of the task in random order, truncated and padded to the requested length."""
    tokenizer: Any = entries[0].tokenizer
    for entry in entries[1:]:
        check_same_tokens(tokenizer, entry.tokenizer)
    task = load_task(str(arguments.task), arguments.data_dir, splits=[], **arguments.column_fields())
    # Training rows as in the papers; another split if there are none.
    split = task.spec.train_split if task.spec.train_split in task.dataset else next(iter(task.dataset))
    columns = [task.dataset[split][column] for column in task.spec.text_columns]
    if not isinstance(columns[0][0], str):
        raise ValueError(
            f"`--task` {arguments.task!r} has words in place of texts: name a task of sentences or pairs."
        )
    order = np.random.default_rng(arguments.seed).permutation(len(columns[0])).tolist()
    known = set.intersection(*(set(forward_columns(entry.model)) for entry in entries))

    def batches(batch_size: int, seq_length: int, number: int) -> list[Batch]:
        rows = islice(cycle(order), batch_size * number)
        chosen = list(rows)
        encoded = tokenizer(
            *([column[row] for row in chosen] for column in columns),
            truncation=True,
            padding="max_length",
            max_length=seq_length,
            return_tensors="pt",
        )
        device = entries[0].model.device
        tensors = {name: tensor.to(device) for name, tensor in encoded.items() if name in known}
        return [
            {name: tensor[start : start + batch_size] for name, tensor in tensors.items()}
            for start in range(0, len(chosen), batch_size)
        ]

    return batches, f"rows of {arguments.task} ({split})"


# --- quality --------------------------------------------------------------------------------------------------------


def _quality_facts(entry: ComparedModel, engines: Sequence[str]) -> dict[str, Any] | None:
    """The score of a model from a folder, and the score with every engine."""
    quality = None if entry.source is None else read_quality(entry.source)
    if quality is None:
        return None
    by_engine = {engine: quality.on(engine) for engine in engines}
    names = ("task", "metric", "score", "majority", "constant")
    return {**{name: getattr(quality, name) for name in names}, "by_engine": by_engine}


def _draw(facts: dict[str, Any], folder: Path) -> str | None:
    """Draw the figure; if scores or matplotlib are missing, record the reason."""
    points = points_of(facts)
    if len({point.model for point in points}) < 2:
        reason = "fewer than two models have a score of the same task in results.json or in the facts of their card."
        facts["left_out"].append({"what": "the figure of quality against latency", "reason": reason})
        return None
    shape = f"{facts['grid'][-1]['batch_size']} x {facts['grid'][-1]['seq_length']} tokens"
    quality = next(model["quality"] for model in facts["models"] if model["quality"] is not None)
    path = folder / FIGURE_FILE
    try:
        draw_quality(
            points,
            path,
            title=f"{facts['device']}, batches of {shape}",
            ylabel=f"{quality['metric']} on {quality['task']}",
        )
    except ImportError as error:
        logger.warning(str(error))
        facts["left_out"].append({"what": "the figure of quality against latency", "reason": str(error)})
        return None
    return path.name
