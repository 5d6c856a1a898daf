"""`MultiTeacherTrainer`: a student learns from several teachers at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import nn
from transformers import PreTrainedModel, TrainingArguments

from ...objectives import Objective, WeightedObjective
from ...settings import DistillationArguments, MultiTeacherArguments
from ...settings.distill import settled
from ...teachers.base import TeacherSource
from ...teachers.opening import sorted_by_kind
from ..signature import takes_what_trainer_takes
from .trainer import DistillationTrainer


class MultiTeacherTrainer(DistillationTrainer):
    """A `DistillationTrainer` with several teachers.

    Objectives on logits learn from the combined logits of all teachers (`MultiTeacherArguments.combine`). An objective
    with the setting `teacher` learns from that teacher alone; objectives on layers need it. With the rule `route` and
    teachers of the same shape, every row has one teacher, for layers too. With one teacher it is a
    `DistillationTrainer`.
    """

    arguments_class: ClassVar[type[DistillationArguments]] = MultiTeacherArguments

    @takes_what_trainer_takes()
    def __init__(
        self,
        model: PreTrainedModel | nn.Module | str | None = None,
        args: TrainingArguments | None = None,
        data_collator: Any = None,
        *,
        teacher_models: Sequence[PreTrainedModel | nn.Module | TeacherSource | str] | None = None,
        objectives: Sequence[str | Mapping[str, Any] | Objective | WeightedObjective] | None = None,
        **kwargs: Any,
    ) -> None:
        """Prepare student and teachers; nothing is trained yet.

        Positional arguments are those of `Trainer` in its order, as for `DistillationTrainer`.

        Args:
            model: The student: a model, a Hub id or a folder.
            args: `MultiTeacherArguments`.
            data_collator: As in `DistillationTrainer`.
            teacher_models: Overrides `args.teacher_models`: models, Hub ids, folders (of models, or that `precompute`
                wrote) or `TeacherSource` objects, such as those of `adapter_teachers`. All read the same tokens, or,
                with `args.align_tokenizers`, each reads the text with its own tokenizer.
            objectives: As for `DistillationTrainer`. Default: `logits`, or `relation` if there is one teacher.
            kwargs: Whatever else `DistillationTrainer` takes. All models read with `processing_class`;
                `teacher_processing_class` may be a list with the tokenizer of each teacher.

        Raises:
            TypeError: If `args` is neither training arguments nor teachers.
            ValueError: If there is no teacher, or teachers, student, objectives and data do not fit each other.
        """
        args, data_collator, teacher_models = sorted_by_kind(args, data_collator, teacher_models, "teacher_models")
        own = settled(args, MultiTeacherArguments, distilling=True)
        given = teacher_models if teacher_models is not None else own.teacher_models
        if isinstance(given, str) or not given:
            raise ValueError(f"`--teacher_models` is {given!r}; give a list of at least one teacher.")
        if objectives is None:
            objectives = own.objectives or (["logits"] if len(given) > 1 else None)
        super().__init__(
            model,
            args,
            data_collator,
            teacher_model=list(given),  # type: ignore[arg-type]
            objectives=objectives,
            **kwargs,
        )
