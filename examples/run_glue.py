"""Adapt a student to a task and evaluate it, beside its teacher and beside itself without a teacher.

    python examples/run_glue.py --student_model outputs/student --task glue/sst2 --output_dir outputs/sst2

Add `--teacher_model outputs/teacher` to score that beside it, `--from_scratch` for the baseline.

Flags, or one YAML file with flags after it: `python examples/run_glue.py sst2.yaml --seed 1`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hf_distill.commands.ending import run_command
from hf_distill.commands.evaluate import adapt_and_evaluate
from hf_distill.settings import EvaluationArguments, FineTuningArguments, TaskArguments, TeacherArguments
from hf_distill.settings.parsing import parse


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, adapt, print a table."""
    classes = (TaskArguments, EvaluationArguments, FineTuningArguments, TeacherArguments)
    task, evaluation, training, teacher = parse(classes, argv, __doc__)
    results = adapt_and_evaluate(task, evaluation, training, teacher)
    print(f"{results['task']} ({results['split']})")
    print(f"{'model':<10} {'parameters':>12} {results['metric']:>22}")
    for name in ("teacher", "student", "baseline"):
        if results[name] is not None:
            print(f"{name:<10} {results[name]['parameters']:>12,} {100 * results[name]['score']:>22.1f}")
    if results["retention"] is not None:
        print(f"The student keeps {100 * results['retention']:.1f} % of the teacher's score.")
    return results


if __name__ == "__main__":
    sys.exit(run_command("run_glue.py", main))
