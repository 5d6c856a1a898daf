"""The teachers that a job's arguments name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hf_distill.hub.loading import load_model, load_tokenizer
from hf_distill.hub.tokenizers import check_same_tokens
from hf_distill.settings import DistillationArguments, MultiTeacherArguments, TeacherArguments
from hf_distill.teachers.stored.manifest import is_stored_teacher
from hf_distill.teachers.stored.teacher import StoredTeacher

# What these fields of `MultiTeacherArguments` are where nobody set them.
ONLY_SEVERAL = {"combine": "mean_logits", "teacher_weights": None, "offload_teachers": False}


@dataclass
class Teachers:
    """The teachers of one run.

    Attributes:
        names: Ids or folders, in the order in which teachers are counted.
        sources: Their models, or `StoredTeacher`.
        tokenizers: That of each; they are alike unless `--align_tokenizers` lets them differ.
    """

    names: list[str]
    sources: list[Any]
    tokenizers: list[Any]

    @property
    def models(self) -> list[Any]:
        """Their models, without weights (on the meta device) where a teacher is stored."""
        return [source.skeleton() if isinstance(source, StoredTeacher) else source for source in self.sources]

    @property
    def stored(self) -> list[StoredTeacher]:
        """Those that bring their own rows."""
        return [source for source in self.sources if isinstance(source, StoredTeacher)]


def open_teachers(teacher: TeacherArguments, training: DistillationArguments) -> Teachers:
    """Load the one teacher of `--teacher_model`, or those of `--teacher_models`.

    Raises:
        ValueError: If neither or both are given, a setting of several is given for one, or two teachers have
            different vocabularies without `--align_tokenizers`.
        OSError: If there is no such model or tokenizer.
    """
    several = training.teacher_models if isinstance(training, MultiTeacherArguments) else None
    if several:
        return _open_several(several, teacher, align=training.align_tokenizers)
    _refuse_settings_of_several(training)
    name = teacher.teacher_model
    if name is None:
        raise ValueError(
            "`--teacher_model` is missing: give the Hub id or folder of the teacher, or those of several as "
            "`--teacher_models`."
        )
    if is_stored_teacher(name):
        stored = StoredTeacher(name)
        return Teachers([name], [stored], [stored.tokenizer()])
    model = load_model(name, flag="--teacher_model", revision=teacher.teacher_revision)
    tokenizer = load_tokenizer(name, flag="--teacher_model", revision=teacher.teacher_revision)
    return Teachers([name], [model], [tokenizer])


def _open_several(names: list[str], teacher: TeacherArguments, *, align: bool) -> Teachers:
    if teacher.teacher_model is not None or teacher.teacher_revision is not None:
        given = "teacher_model" if teacher.teacher_model is not None else "teacher_revision"
        raise ValueError(f"`--{given}` is for one teacher: leave it out, or leave `--teacher_models` out.")
    # Columns of stored signals need a name for each teacher.
    sources = [
        StoredTeacher(name, name=f"teacher_{index}")
        if is_stored_teacher(name)
        else load_model(name, flag="--teacher_models")
        for index, name in enumerate(names)
    ]
    tokenizers = [load_tokenizer(name, flag="--teacher_models") for name in names]
    for other in [] if align else tokenizers[1:]:
        check_same_tokens(other, tokenizers[0])
    return Teachers(list(names), sources, tokenizers)


def _refuse_settings_of_several(training: DistillationArguments) -> None:
    """Settings that would have no effect on one teacher."""
    if not isinstance(training, MultiTeacherArguments):
        return
    given = [f"`--{name}`" for name, unset in ONLY_SEVERAL.items() if getattr(training, name) != unset]
    if given:
        raise ValueError(f"{', '.join(given)} has no effect on one teacher: name several with `--teacher_models`.")
