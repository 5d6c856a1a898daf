"""The students of a grid: those that an ablation compares are distilled first, each once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from hf_distill.commands.distill import distill
from hf_distill.commands.results import RESULTS_FILE
from hf_distill.hub.disclosure import is_secret_name, without_secrets
from hf_distill.settings import (
    GridArguments,
    MultiTeacherArguments,
    StudentArguments,
    TeacherArguments,
    TextbookArguments,
)
from hf_distill.settings.parsing import parse
from hf_distill.storage.files import read_mapping, write_yaml
from hf_distill.storage.steps import differences
from hf_distill.trainers.checkpoints import LAST_CHECKPOINT

logger = logging.get_logger(__name__)

STUDENTS = "students"
CLASSES = (StudentArguments, TeacherArguments, TextbookArguments, MultiTeacherArguments)


def distil_students(arguments: GridArguments) -> None:
    """Distil every student that is not finished, in their order.

    The settings of a student lie beside it as `students/NAME.yaml`, which `hf-distill distill` takes as it is.

    Args:
        arguments: The grid; a student's `teacher_model` may name a student before it (a teacher assistant).

    Raises:
        ValueError: If a student was begun with other settings, or a setting is none of `hf-distill distill`.
    """
    folder = Path(arguments.output_dir, STUDENTS)
    for name, settings in student_settings(arguments).items():
        file, student = folder / f"{name}.yaml", folder / name
        finished = (student / RESULTS_FILE).is_file()
        if finished or any(student.glob(f"{PREFIX_CHECKPOINT_DIR}-*")):
            _check_same(file, settings, name)
        if finished:
            logger.warning(f"[{name}] distilled before: {student}")
            continue
        write_yaml(file, _without_secret_fields(settings), sort_keys=False)
        logger.warning(f"[{name}] is distilled")
        # Secrets go to the training alone, in no file.
        words = [word for key in _secret_fields(settings) for word in (f"--{key}", str(settings[key]))]
        distill(*parse(CLASSES, [str(file), *words], presets=True, prog="hf-distill grid"))


def student_settings(arguments: GridArguments) -> dict[str, dict[str, Any]]:
    """Student -> the settings of its distillation: its own over those of all, with its folder."""
    shared, own = arguments.distill_settings(), arguments.student_changes()
    folder = Path(arguments.output_dir, STUDENTS)
    found: dict[str, dict[str, Any]] = {}
    for name, changes in own.items():
        settings = {"resume_from_checkpoint": LAST_CHECKPOINT, "use_cpu": arguments.use_cpu, **shared, **changes}
        if settings.get("teacher_model") in found:
            settings["teacher_model"] = str(folder / settings["teacher_model"])
        found[name] = {**settings, "output_dir": str(folder / name)}
    return found


def student_models(arguments: GridArguments) -> list[tuple[str, str]]:
    """Name and folder of every student."""
    return [(name, str(Path(arguments.output_dir, STUDENTS, name))) for name in arguments.student_changes()]


def _secret_fields(settings: Mapping[str, Any]) -> list[str]:
    return [name for name, value in settings.items() if is_secret_name(name) and value is not None]


def _without_secret_fields(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields without secrets, which may stand in a file."""
    kept = {name: value for name, value in settings.items() if not is_secret_name(name)}
    return dict(without_secrets(kept))


def _check_same(file: Path, settings: dict[str, Any], name: str) -> None:
    before = read_mapping(file) if file.is_file() else {}
    changed = differences(before, _without_secret_fields(settings))
    if changed:
        raise ValueError(
            f"`--students`: {name!r} was begun with other settings ({changed}); give it another name, or the grid "
            "another `--output_dir`."
        )
