"""Distil a tagger of words (named entities): teacher, T4-tiny student and the same student without a teacher.

    python examples/run_ner.py --teacher_model bert-base-cased --task conll2003 --output_dir outputs/ner

The teacher is fine-tuned on the task (`--no_finetune_teacher` takes one that is), the student learns by TextBrewer's
T4-tiny recipe on the task's own sentences (`--preset`), and all three are scored by their entities as conlleval does.
A task of your own is a folder with a task.yaml (`kind: token_classification`).

Flags, or one YAML file with flags after it: `python examples/run_ner.py ner.yaml --seed 1`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hf_distill.commands.ending import run_command
from hf_distill.commands.pipeline import run_pipeline
from hf_distill.commands.pipeline_report import format_report
from hf_distill.hub.disclosure import public_command
from hf_distill.settings import (
    CorpusArguments,
    PipelineArguments,
    StudentArguments,
    TaskArguments,
    TeacherArguments,
)
from hf_distill.settings.parsing import parse

CLASSES = (TaskArguments, TeacherArguments, StudentArguments, CorpusArguments, PipelineArguments)
DEFAULTS = {
    "task": "conll2003",
    "preset": "textbrewer_t4_tiny",
    "with_task_text": True,
    "adapt_student": False,
    "output_dir": "outputs/ner",
}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, run, print the table."""
    words = list(sys.argv[1:] if argv is None else argv)
    task, teacher, student, corpus, pipeline = parse(CLASSES, words, __doc__, defaults=DEFAULTS)
    command = public_command(["python", "examples/run_ner.py", *words])
    report = run_pipeline(task, teacher, student, corpus, pipeline, command)
    print(f"\n{format_report(report)}\n\nStudent, card and report: {pipeline.output_dir}")
    return report


if __name__ == "__main__":
    sys.exit(run_command("run_ner.py", main))
