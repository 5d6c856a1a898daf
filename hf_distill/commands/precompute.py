"""Precompute: run a teacher once over a textbook and store the signals that students will learn from."""

from __future__ import annotations

import time
from typing import Any

from accelerate import PartialState

from hf_distill.commands.folders import writes_folder
from hf_distill.commands.results import finish
from hf_distill.commands.textbook import read_rows
from hf_distill.hub.loading import load_model, load_tokenizer
from hf_distill.settings import PrecomputeArguments, TeacherModelArguments, TextbookArguments
from hf_distill.students.shapes import parse_shape
from hf_distill.teachers.stored.precompute import precompute
from hf_distill.teachers.zero_shot import precompute_zero_shot, read_candidate_labels


@writes_folder()
def run(teacher: TeacherModelArguments, textbook: TextbookArguments, storing: PrecomputeArguments) -> dict[str, Any]:
    """Store the signals of a teacher for every row of a textbook, or the labels of a zero-shot teacher.

    Writes to `storing.output_dir`: the stored teacher, which `hf-distill distill --teacher_model` accepts, with
    `results.json` and `arguments.yaml`, which repeats the run. A killed run is continued by the same command.

    Args:
        teacher: The teacher, as an id or folder.
        textbook: The text; rows are held out later, when a student is distilled.
        storing: Which signals are stored, and how.

    Returns:
        The content of `results.json`: rows, bytes and seconds.

    Raises:
        ValueError: If teacher or textbook is missing, or the folder was begun with other settings.
    """
    if teacher.teacher_model is None:
        raise ValueError("`--teacher_model` is missing: give the Hub id or folder of the teacher.")
    if textbook.textbook_eval_rows:
        raise ValueError(
            "`--textbook_eval_rows` is for `hf-distill distill`, which can hold out rows of a stored teacher too: "
            "leave it out here, so that all rows are stored."
        )
    started = time.perf_counter()
    model = load_model(teacher.teacher_model, flag="--teacher_model", revision=teacher.teacher_revision)
    tokenizer = load_tokenizer(teacher.teacher_model, flag="--teacher_model", revision=teacher.teacher_revision)
    if not storing.use_cpu and storing.teacher_dtype != "int8":
        model.to(PartialState().device)
    options: dict[str, Any] = {
        "dtype": storing.store_dtype,
        "top_k": storing.top_k,
        "teacher_dtype": storing.teacher_dtype,
        "batch_size": storing.batch_size,
        "shard_rows": storing.shard_rows,
        "text_column": storing.text_column,
        "max_length": storing.max_length,
    }
    if storing.candidate_labels:
        other = storing.tokenizer_name
        done = precompute_zero_shot(
            read_rows(textbook, storing.text_column),
            model,
            tokenizer,
            read_candidate_labels(storing.candidate_labels),
            storing.output_dir,
            hypothesis_template=storing.hypothesis_template,
            multi_label=storing.multi_label,
            processing_class=None if other is None else load_tokenizer(other, flag="--tokenizer_name"),
            **options,
        )
    else:
        depth = None if storing.student_shape is None else parse_shape(storing.student_shape).num_layers
        done = precompute(
            read_rows(textbook, storing.text_column, tokenizer, storing.max_length, model.config),
            model,
            storing.objectives,
            storing.output_dir,
            processing_class=tokenizer,
            num_student_layers=depth,
            **options,
        )
    facts = {
        "job": "precompute",
        "folder": done.folder,
        "teacher": teacher.teacher_model,
        "textbook": textbook.textbook,
        "objectives": ["logits"] if storing.candidate_labels else storing.objectives,
        "rows": done.rows,
        "new_rows": done.new_rows,
        "bytes": done.num_bytes,
        "bytes_per_row": round(done.num_bytes / done.rows, 1),
        "rows_per_second": round(done.new_rows / done.seconds, 2),
    }
    given, writes = (teacher, textbook, storing), PartialState().is_main_process
    return finish(storing.output_dir, facts, started, *given, write=writes)


def summary(results: dict[str, Any]) -> str:
    """Report how many rows were stored, their size in bytes, and where."""
    return (
        f"{results['rows']:,} rows in {results['seconds']:.0f} s ({results['bytes'] / 1e6:,.1f} MB); "
        f"stored teacher in {results['folder']}"
    )
