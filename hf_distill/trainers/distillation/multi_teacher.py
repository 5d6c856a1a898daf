"""`MultiTeacherTrainer`: a student learns from several teachers at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalPrediction

from ...objectives import Objective, WeightedObjective
from ...settings import DistillationArguments, MultiTeacherArguments
from ...teachers.base import TeacherSource
from ..base import settled, sorted_by_kind
from .trainer import DistillationTrainer


class MultiTeacherTrainer(DistillationTrainer):
    """A `DistillationTrainer` with several teachers.

    Objectives on logits learn from what the teachers say together (`MultiTeacherArguments.combine`). An objective with
    `teacher` learns from that one alone, which is how layers are matched; with the rule `route` and teachers of one
    shape, layers too come from the teacher of each row. With one teacher it is a `DistillationTrainer`.
    """

    arguments_class: ClassVar[type[DistillationArguments]] = MultiTeacherArguments

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | str | None = None,
        args: TrainingArguments | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        model_init: Callable[..., PreTrainedModel] | None = None,
        compute_loss_func: Callable[..., Any] | None = None,
        compute_metrics: Callable[[EvalPrediction], dict] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[..., Any] | None = None,
        *,
        teacher_models: Sequence[PreTrainedModel | nn.Module | TeacherSource | str] | None = None,
        objectives: Sequence[str | Mapping[str, Any] | Objective | WeightedObjective] | None = None,
        **kwargs: Any,
    ) -> None:
        """Prepare student and teachers; nothing is trained yet.

        The places of the arguments are those of `Trainer`, as for `DistillationTrainer`.

        Args:
            model: The student: a model, a Hub id or a folder.
            args: `MultiTeacherArguments`.
            data_collator: As in `DistillationTrainer`, like all that follow up to the teachers.
            train_dataset: See there.
            eval_dataset: See there.
            processing_class: The tokenizer of all models.
            model_init: See there.
            compute_loss_func: See there.
            compute_metrics: See there.
            callbacks: See there.
            optimizers: See there.
            optimizer_cls_and_kwargs: See there.
            preprocess_logits_for_metrics: See there.
            teacher_models: Overrides `args.teacher_models`: models, Hub ids, folders (of models, or that `precompute`
                wrote) or sources of signals, such as those of `adapter_teachers`. All read the same tokens, or, with
                `args.align_tokenizers`, each those of its own tokenizer.
            objectives: As for `DistillationTrainer`. Default: `logits`, or `relation` if there is one teacher.
            kwargs: Whatever else `DistillationTrainer` takes by name; `teacher_processing_class` may be a list with
                the tokenizer of each teacher.

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
            own,
            data_collator,
            train_dataset,
            eval_dataset,
            processing_class,
            model_init,
            compute_loss_func,
            compute_metrics,
            callbacks,
            optimizers,
            optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics,
            teacher_model=list(given),  # type: ignore[arg-type]
            objectives=objectives,
            **kwargs,
        )
