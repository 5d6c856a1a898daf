"""The teachers of a distillation: one or several, each a live model or a stored teacher."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hf_distill.hub.loading import load_model, load_tokenizer
from hf_distill.hub.tokenizers import check_same_tokens
from hf_distill.settings import DistillationArguments, MultiTeacherArguments, TeacherModelArguments
from hf_distill.teachers.stored.manifest import is_stored_teacher
from hf_distill.teachers.stored.teacher import StoredTeacher

# Defaults of the fields of `MultiTeacherArguments` that only several teachers use.
ONLY_SEVERAL = {"combine": "mean_logits", "teacher_weights": None, "offload_teachers": False}


@dataclass
class Teachers:
    """The teachers of one run.

    Attributes:
        names: Ids or folders, in order.
        sources: The models, or instances of `StoredTeacher`.
        models: The models; without weights (on the meta device) for stored teachers.
        stored: The teachers that bring their own rows.
        tokenizers: The tokenizer of each teacher; all are alike unless `--align_tokenizers` is set.
    """

    names: list[str]
    sources: list[Any] = field(default_factory=list)
    models: list[Any] = field(default_factory=list)
    stored: list[StoredTeacher] = field(default_factory=list)
    tokenizers: list[Any] = field(default_factory=list)

    def open(self, name: str, number: str, flag: str, revision: str | None = None) -> None:
        """Open the next teacher.

        Args:
            name: Its id or folder.
            number: Prefix of its signal columns, if it is stored.
            flag: The setting that named it.
            revision: Its revision on the Hub.
        """
        if is_stored_teacher(name):
            source = StoredTeacher(name, name=number)
            self.stored.append(source)
            self.sources.append(source)
            self.models.append(source.skeleton())
            self.tokenizers.append(source.tokenizer())
            return
        model = load_model(name, flag=flag, revision=revision)
        self.sources.append(model)
        self.models.append(model)
        self.tokenizers.append(load_tokenizer(name, flag=flag, revision=revision))

    def let_go(self) -> None:
        """Drop the references to the models: a trainer may hold smaller copies (`--teacher_dtype int8`)."""
        self.sources.clear()
        self.models.clear()


def open_teachers(teacher: TeacherModelArguments, training: DistillationArguments) -> Teachers:
    """Load the teacher of `--teacher_model`, or those of `--teacher_models`.

    Raises:
        ValueError: If neither or both are given, a setting for several teachers is given for one, or two teachers have
            different vocabularies without `--align_tokenizers`.
        OSError: If a model or tokenizer does not exist.
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
    found = Teachers([name])
    found.open(name, "teacher", "--teacher_model", teacher.teacher_revision)
    return found


def _open_several(names: list[str], teacher: TeacherModelArguments, *, align: bool) -> Teachers:
    if teacher.teacher_model is not None or teacher.teacher_revision is not None:
        given = "teacher_model" if teacher.teacher_model is not None else "teacher_revision"
        raise ValueError(f"`--{given}` is for one teacher: leave it out, or leave `--teacher_models` out.")
    found = Teachers(list(names))
    for index, name in enumerate(names):
        # Columns of stored signals need a different prefix for each teacher.
        found.open(name, f"teacher_{index}", "--teacher_models")
    for other in [] if align else found.tokenizers[1:]:
        check_same_tokens(other, found.tokenizers[0])
    return found


def _refuse_settings_of_several(training: DistillationArguments) -> None:
    """Refuse settings that have no effect on a single teacher."""
    if not isinstance(training, MultiTeacherArguments):
        return
    given = [f"`--{name}`" for name, unset in ONLY_SEVERAL.items() if getattr(training, name) != unset]
    if given:
        raise ValueError(f"{', '.join(given)} has no effect on one teacher: name several with `--teacher_models`.")
