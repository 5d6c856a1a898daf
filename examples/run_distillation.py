"""Distil a teacher into a small student on unlabelled text.

    python examples/run_distillation.py --teacher_model outputs/teacher --student_shape 4x312 \
        --textbook outputs/corpus --objectives relation:1 logits:1 --output_dir outputs/student

Flags, or one YAML file with flags after it: `python examples/run_distillation.py distil.yaml --seed 1`. The
settings of a paper by name: `--preset minilmv2` (`hf-distill info presets`); file and flags win over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hf_distill.arguments import MultiTeacherArguments, StudentArguments, TeacherArguments, TextbookArguments
from hf_distill.jobs.distill import distill
from hf_distill.parsing import parse


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, distil, say where the student is."""
    classes = (StudentArguments, TeacherArguments, TextbookArguments, MultiTeacherArguments)
    results = distill(*parse(classes, argv, __doc__, presets=True))
    student, teacher = results["student_parameters"] / 1e6, results["teacher_parameters"] / 1e6
    print(f"Student of {student:.1f} M parameters (teacher {teacher:.1f} M) written to {results['model']}")
    print(f"{results['steps']} steps in {results['training_seconds']:.0f} s")
    return results


if __name__ == "__main__":
    main()
