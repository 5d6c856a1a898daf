"""The students of a distillation: a single one, or a family that is trained in one pass of the teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_distill.settings import DistillationArguments, FamilyArguments, StudentArguments
from hf_distill.settings.parsing import from_mapping
from hf_distill.settings.values import json_mapping
from hf_distill.storage.folders import safe_name
from hf_distill.storage.plain_values import did_you_mean, shown
from hf_distill.trainers.distillation.family import SHARED_SETTINGS

# Settings that a student of a family cannot have for itself, in addition to those of its batches.
SHARED = frozenset(
    {*SHARED_SETTINGS, "output_dir", "resume_from_checkpoint", "push_to_hub", "hub_model_id", "report_to", "use_cpu"}
    | {"student_vocabulary", "teacher_models", "combine", "teacher_weights", "offload_teachers", "data_seed"}
    | {"metric_for_best_model", "greater_is_better"}
)
Members = dict[str, tuple[StudentArguments, DistillationArguments]]


def members(student: StudentArguments, training: DistillationArguments) -> Members:
    """The settings of every student by name, as if it were distilled alone; a single student has the name "".

    Args:
        student: The shape or model of one student; for `FamilyArguments` the shapes of several, or mappings.
        training: The settings that they share.

    Raises:
        ValueError: If two have the same name, or a mapping has an unknown setting, or one that all students share.
    """
    if not isinstance(student, FamilyArguments):
        return {"": (student, training)}
    given = {field.name: getattr(student, field.name) for field in dataclasses.fields(StudentArguments)}
    items = [_own_settings(item) for item in student.student_shape]
    if not items:
        raise ValueError("`--student_shape` is empty; give at least one shape.")
    if len(items) == 1:
        if set(items[0]) - {"shape"}:
            raise ValueError("`--student_shape` has one student: give its settings as separate flags.")
        return {"": (StudentArguments(**{**given, "student_shape": items[0]["shape"]}), training)}
    if student.student_model is not None:
        raise ValueError(
            "`--student_model` is one student, but `--student_shape` has several: give it there, as "
            '{"name": ..., "student_model": ...}.'
        )
    found: Members = {}
    for item in items:
        name = _name(item)
        if name in found:
            raise ValueError(f"`--student_shape` has two students {name!r}: give each its own `name`.")
        changes = {key: value for key, value in item.items() if key not in ("shape", "name")}
        found[name] = _member(name, given | {"student_shape": item.get("shape")}, changes, training)
    return found


def _own_settings(item: Any) -> dict[str, Any]:
    """The settings in an item: `shape` or `student_model`, `name` and others."""
    if isinstance(item, str) and not item.lstrip().startswith("{"):
        return {"shape": item}
    found = json_mapping(item, "--student_shape")
    if found.get("shape") is None and found.get("student_model") is None:
        raise ValueError(f"`--student_shape` has {shown(found)}, which has no `shape` and no `student_model`.")
    return found


def _name(item: Mapping[str, Any]) -> str:
    own = item.get("shape") or Path(str(item["student_model"])).name
    return safe_name(item.get("name", str(own).replace(":", "-")), "`--student_shape`: a name")


def _member(
    name: str, given: Mapping[str, Any], changes: Mapping[str, Any], training: DistillationArguments
) -> tuple[StudentArguments, DistillationArguments]:
    """The settings of one student of a family; its folder has its name."""
    where, kind = f"`--student_shape`: {name}", type(training)
    own = {field.name for field in dataclasses.fields(StudentArguments)} - {"student_shape"}
    known = (own | {field.name for field in dataclasses.fields(kind) if field.init}) - SHARED
    for key in changes:
        if key in SHARED:
            raise ValueError(f"{where} has `{key}`, which all students of a family share: give it once, as a flag.")
        if key not in known:
            raise ValueError(f"{where} has an unknown setting {key!r}.{did_you_mean(key, known)}")
    folder = Path(str(training.output_dir))
    of_training = {key: value for key, value in changes.items() if key not in own}
    checked = from_mapping(kind, {**of_training, "output_dir": str(folder)}, where)
    if changes.get("student_model") is not None:
        # Settings for making a student do not apply to one that already exists.
        given = {key: value for key, value in given.items() if key not in ("student_shape", "student_init_model")}
    values = {key: value for key, value in {**given, **changes}.items() if key in own or key == "student_shape"}
    return from_mapping(StudentArguments, values, where), dataclasses.replace(
        training,
        **{key: getattr(checked, key) for key in of_training},
        output_dir=str(folder / name),
        hub_model_id=f"{training.hub_model_id or folder.absolute().name}-{name}" if training.push_to_hub else None,
    )


def table(students: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table of the students of a family: size, cost and scores.

    Args:
        students: Name -> content of `results.json`.
    """
    head = ("student", "parameters", "of the teacher", "updates", "last loss", "evaluation", "folder")
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 2) + "|---|"]
    for name, facts in students.items():
        cells = (
            name,
            f"{facts['student_parameters'] / 1e6:.2f} M",
            f"{facts['student_parameters'] / facts['teacher_parameters']:.1%}",
            str(facts["steps"]),
            f"{facts['history'][-1]['loss']:.4f}" if facts["history"] else "–",
            _score(facts["evaluation"] or {}),
            facts["model"],
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _score(evaluation: Mapping[str, Any]) -> str:
    """The main score of a task, else the loss on the held-out rows."""
    for key in ("eval_headline", "eval_loss"):
        if isinstance(evaluation.get(key), float):
            return f"{key.removeprefix('eval_')} {evaluation[key]:.4f}"
    return "–"
