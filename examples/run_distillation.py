"""Distil a teacher into a small student on unlabelled text.

    python examples/run_distillation.py --teacher_model outputs/teacher --student_shape 4x312 \
        --textbook outputs/corpus --objectives relation:1 logits:1 --output_dir outputs/student

Flags, or one YAML file with flags after it: `python examples/run_distillation.py distil.yaml --seed 1`. The
settings of a paper by name: `--preset minilmv2` (`hf-distill info presets`); file and flags win over it. `--dry_run`
shows what would be trained, and stops.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hf_distill.commands.distill import distill
from hf_distill.commands.dry_run import dry_run, format_dry_run
from hf_distill.commands.ending import run_command
from hf_distill.commands.results import cost_of_training
from hf_distill.settings import (
    MultiTeacherArguments,
    RunArguments,
    StudentArguments,
    TeacherArguments,
    TextbookArguments,
)
from hf_distill.settings.parsing import parse


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, distil, say where the student is; or show what would be done."""
    classes = (StudentArguments, TeacherArguments, TextbookArguments, MultiTeacherArguments, RunArguments)
    *arguments, run = parse(classes, argv, __doc__, presets=True)
    if run.dry_run:
        results = dry_run(*arguments)
        print(format_dry_run(results))
        return results
    results = distill(*arguments)
    student, teacher = results["student_parameters"] / 1e6, results["teacher_parameters"] / 1e6
    print(f"Student of {student:.1f} M parameters (teacher {teacher:.1f} M) written to {results['model']}")
    print(f"{cost_of_training(results)}")
    return results


if __name__ == "__main__":
    sys.exit(run_command("run_distillation.py", main))
