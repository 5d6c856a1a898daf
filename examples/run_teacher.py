"""Make a teacher: fine-tune a model on a task.

    python examples/run_teacher.py --teacher_model bert-base-uncased --task glue/sst2 --output_dir outputs/teacher

Flags, or one YAML file with flags after it: `python examples/run_teacher.py teacher.yaml --seed 1`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hf_distill.commands.ending import run_command
from hf_distill.commands.results import cost_of_training
from hf_distill.commands.teach import teach
from hf_distill.settings import FineTuningArguments, TaskArguments, TeacherArguments
from hf_distill.settings.parsing import parse


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, fine-tune, print the score."""
    task, teacher, training = parse((TaskArguments, TeacherArguments, FineTuningArguments), argv, __doc__)
    results = teach(task, teacher, training)
    print(
        f"{results['task']}: {results['metric']} {100 * results['score']:.1f} after "
        f"{cost_of_training(results)}. Teacher written to {results['model']}"
    )
    return results


if __name__ == "__main__":
    sys.exit(run_command("run_teacher.py", main))
