"""Run a teacher once over a text and store what students learn from; then distil without the teacher.

    python examples/run_precompute.py --teacher_model outputs/teacher --textbook outputs/corpus \
        --objectives relation logits --output_dir outputs/stored_teacher

    python examples/run_distillation.py --teacher_model outputs/stored_teacher --student_shape 4x312 \
        --objectives relation:1 logits:1 --output_dir outputs/student

Flags, or one YAML file with flags after it. A run that was killed is continued by the same command.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hf_distill.commands.ending import run_command
from hf_distill.commands.precompute import precompute
from hf_distill.settings import PrecomputeArguments, TeacherArguments, TextbookArguments
from hf_distill.settings.parsing import parse


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, precompute, say where the stored teacher is."""
    results = precompute(*parse((TeacherArguments, TextbookArguments, PrecomputeArguments), argv, __doc__))
    size = f"{results['bytes'] / 1e6:,.1f} MB, {results['bytes_per_row']:,.0f} bytes a row"
    print(f"Stored teacher of {results['rows']:,} rows ({size}) written to {results['folder']}")
    print(f"{results['new_rows']:,} rows computed, {results['rows_per_second']:,.1f} a second")
    return results


if __name__ == "__main__":
    sys.exit(run_command("run_precompute.py", main))
