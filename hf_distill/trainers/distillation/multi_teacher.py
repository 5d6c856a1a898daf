"""`MultiTeacherTrainer`: a student learns from several teachers at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import datasets
import torch
from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalPrediction

from ...objectives import Objective, WeightedObjective, build_objectives
from ...settings import DistillationArguments, MultiTeacherArguments
from ...teachers.alignment import Reading
from ...teachers.base import TeacherSource
from ...teachers.opening import teacher_sources
from ...teachers.own_tokenizers import let_teachers_read
from ...teachers.routing import TEACHER_COLUMN
from ...teachers.several import TeacherPanel
from ..drop_in import settled, sorted_by_kind
from .inputs import check_tokenizer, num_ids
from .text import makes_rows_when_asked
from .trainer import DistillationTrainer


class MultiTeacherTrainer(DistillationTrainer):
    """A `DistillationTrainer` with several teachers.

    Objectives on logits learn from what the teachers say together (`MultiTeacherArguments.combine`). An objective with
    `teacher` learns from that one alone, which is how layers are matched; with the rule `route` and teachers of one
    shape, layers too come from the teacher of each row. With one teacher it is a `DistillationTrainer`.
    """

    arguments_class: ClassVar[type[DistillationArguments]] = MultiTeacherArguments

    teacher: Any  # A `TeacherPanel`.

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

    @property
    def teachers(self) -> list[TeacherSource]:
        """The teachers in their order."""
        return self.teacher.teachers

    def _prepare_teacher(self, teacher: Any) -> Any:
        args = self.args
        # Several stored for the same rows need different names for their columns.
        names = [f"teacher_{index}" for index in range(len(teacher))]
        teachers = teacher_sources(teacher, args, flag="--teacher_models", names=names)
        return TeacherPanel(teachers, args.combine, args.teacher_weights, offload=args.offload_teachers)

    def _build_objectives(self, options: Mapping[str, Any]) -> list[WeightedObjective]:
        """Every objective with the settings that follow from its own teacher."""
        given_items = self._items()
        items = build_objectives(given_items, options)
        built = []
        for given, item in zip(given_items, items, strict=True):
            index = self.teacher.index_of(item)
            one = self.teacher if index is None else self.teachers[index]
            built += build_objectives([given], {**options, "teacher_model_type": one.model_type})
        return built

    def _num_teacher_layers(self, item: WeightedObjective) -> int | None:
        index = self.teacher.index_of(item)
        return self.teacher.num_layers if index is None else self.teachers[index].num_layers

    def _connect_teacher(self, student: Any, objectives: Sequence[WeightedObjective]) -> None:
        self.teacher.connect(objectives, student.config, self._num_tokens)

    def _reading_of(self, item: WeightedObjective) -> Reading | None:
        return self.teacher.reading_of(item) if item.objective.teacher_request else None

    def _let_teachers_read(self, given: Any, processing_class: Any, teacher_processing_class: Any) -> None:
        tokenizers = self._one_for_each(teacher_processing_class)
        self.teacher.teachers = let_teachers_read(self.teachers, given, processing_class, tokenizers)

    def _check_tokenizers(self, given: Any, processing_class: Any, teacher_processing_class: Any) -> None:
        tokenizers = self._one_for_each(teacher_processing_class)
        known = []
        for index, (source, one, own) in enumerate(zip(self.teachers, given, tokenizers, strict=True)):
            try:
                known.append(check_tokenizer(source, one, processing_class, own, self._reads_pairs))
            except ValueError as error:
                raise ValueError(f"Teacher {index}: {error}") from error
        self._num_tokens = num_ids(processing_class) if all(known) else None

    def _one_for_each(self, tokenizers: Any) -> list[Any]:
        """The tokenizer of each teacher; one that is no list is that of all."""
        if not isinstance(tokenizers, (list, tuple)):
            return [tokenizers] * len(self.teachers)
        if len(tokenizers) != len(self.teachers):
            raise ValueError(
                f"`teacher_processing_class` has {len(tokenizers)} tokenizers, but there are {len(self.teachers)} "
                "teachers; give one for each."
            )
        return list(tokenizers)

    def _kept_columns(self) -> Sequence[str]:
        """Return the columns that the combination of teachers reads beside the tokens."""
        if self.teacher.routes:
            return (TEACHER_COLUMN,)
        return ("labels",) if self.args.combine == "confidence" else ()

    def _check_rows(self, dataset: Any, name: str) -> None:
        if self.teacher.routes:
            self._check_routes(dataset, name)
        super()._check_rows(dataset, name)

    def _check_routes(self, dataset: Any, what: str) -> None:
        """Every row must name a teacher that exists."""
        if isinstance(dataset, Mapping) and not isinstance(dataset, datasets.Dataset):
            for name, part in dataset.items():
                self._check_routes(part, f"{what}[{name!r}]")
            return
        columns = getattr(dataset, "column_names", None)
        if not isinstance(columns, list) or makes_rows_when_asked(dataset):
            return  # A stream shows its columns batch by batch, and is checked there.
        allowed = f"a number from 0 to {len(self.teachers) - 1} for every row"
        if TEACHER_COLUMN not in columns:
            raise ValueError(
                f"`--combine route` needs the column {TEACHER_COLUMN!r} in `{what}`, with {allowed}; it has {columns}."
            )
        if isinstance(dataset, datasets.Dataset):
            found = set(dataset.with_format(None).unique(TEACHER_COLUMN))
            wrong = sorted(found - set(range(len(self.teachers))), key=str)
            if wrong:
                raise ValueError(
                    f"`--combine route`: the column {TEACHER_COLUMN!r} of `{what}` has {wrong[:5]}; allowed is "
                    f"{allowed}: {self.teacher.list_teachers()}."
                )
