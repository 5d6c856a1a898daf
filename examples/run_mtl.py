"""Fine-tune one encoder on many tasks at once: the teacher of MITKD.

    python examples/run_mtl.py --teacher_model bert-base-uncased --tasks glue/sst2 glue/rte glue/mrpc \
        --output_dir outputs/mtl_teacher --save_heads all

Then distil the encoder on general text, and adapt the student to any task:

    python examples/run_distillation.py --teacher_model outputs/mtl_teacher --textbook general.parquet \
        --student_shape 4x312 --output_dir outputs/student

Flags, or one YAML file with flags after it: `python examples/run_mtl.py mtl.yaml --seed 1`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hf_distill.commands.ending import run_command
from hf_distill.commands.mtl import fine_tune_on_tasks
from hf_distill.settings import MTLArguments, TasksArguments, TeacherArguments
from hf_distill.settings.parsing import parse


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, fine-tune, print the score of every task."""
    tasks, teacher, training = parse((TasksArguments, TeacherArguments, MTLArguments), argv, __doc__)
    results = fine_tune_on_tasks(tasks, teacher, training)
    for task, score in results["headlines"].items():
        print(f"{task}: {results['metrics'][task]} {100 * score:.1f}")
    print(f"Encoder after {results['steps']} steps written to {results['model']}")
    return results


if __name__ == "__main__":
    sys.exit(run_command("run_mtl.py", main))
