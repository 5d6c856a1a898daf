"""The plan of a pipeline: its stages, their settings, and an estimate of how much each of them computes."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from transformers import AutoConfig, TrainingArguments

from hf_distill.hub.loading import UNREADABLE
from hf_distill.objectives import WeightedObjective, build_objectives
from hf_distill.reports.speed.quality import ONNX_FOLDER
from hf_distill.settings import (
    AugmentationArguments,
    CorpusArguments,
    DistillationArguments,
    FineTuningArguments,
    GeneralCorpusArguments,
    PipelineArguments,
    StudentArguments,
    TaskArguments,
    TeacherArguments,
    TeacherModelArguments,
)
from hf_distill.settings.parsing import changed_arguments, from_mapping
from hf_distill.settings.presets import read_preset
from hf_distill.students.shapes import StudentShape, parse_shape, shape_of
from hf_distill.tasks.label_names import is_generic, names_of_head, order_by_name
from hf_distill.tasks.loading import LoadedTask, takes_columns
from hf_distill.tasks.spec import TaskSpec
from hf_distill.trainers.fine_tuning.heads import head_of

logger = logging.getLogger(__name__)

# The textbooks of the paper (Contextualized Corpus, Table 2): retrieved text (cc), the task's rows with replaced words
# (taskda), unfiltered general text, and the task's own text.
SOURCES = ("cc", "taskda", "general", "task")
# The folders of the textbooks that a stage makes.
PLACES = {"cc": "corpus", "taskda": "augmented", "general": "general"}
# The stage that exports the student, and its folder.
ONNX_STAGE = f"student/{ONNX_FOLDER}"
# Epochs of fine-tuning for a student whose head was already distilled.
EPOCHS_OF_A_HEAD = 1.0


@dataclass(frozen=True)
class Plan:
    """The settings of every stage, all read before the first one starts.

    Attributes:
        pipeline: The arguments that they come from.
        sources: The textbooks of the student, in the order of the stages: names from `SOURCES`.
        corpus: Settings of the task's corpus; `None` if it is not used.
        augmentation: Settings of the augmentation of the task's rows; `None` if it is not used.
        general: Settings of the sample from the general corpus; `None` if it is not used.
        teaching: Settings of the teacher's fine-tuning.
        student: Shape and first weights of the student.
        distillations: Settings of the distillation on each source.
        adaptation: The user's settings for fine-tuning student and baseline; see `plan_adaptation`.
    """

    pipeline: PipelineArguments
    sources: list[str]
    corpus: CorpusArguments | None
    augmentation: AugmentationArguments | None
    general: GeneralCorpusArguments | None
    teaching: FineTuningArguments
    student: StudentArguments
    distillations: list[DistillationArguments]
    adaptation: FineTuningArguments


def make_plan(
    task: TaskArguments,
    teacher: TeacherArguments,
    student: StudentArguments,
    corpus: CorpusArguments,
    pipeline: PipelineArguments,
) -> Plan:
    """Read the settings of every stage.

    Raises:
        ValueError: If a stage's settings are unknown or do not match.
    """
    folder = Path(pipeline.output_dir)
    sources = _chosen_sources(pipeline, corpus)
    retrieved = replace(corpus, corpus_dir=str(folder / PLACES["cc"]))
    plan = Plan(
        pipeline=pipeline,
        sources=sources,
        corpus=retrieved if "cc" in sources else None,
        augmentation=_augmentation(pipeline, folder / PLACES["taskda"]) if "taskda" in sources else None,
        general=_general(pipeline, corpus, folder / PLACES["general"]) if "general" in sources else None,
        teaching=_stage_arguments(FineTuningArguments, "teach", folder / "teacher", pipeline),
        student=_with_preset(student, pipeline.preset),
        distillations=[_distillation(pipeline, task, folder, source, sources) for source in sources],
        adaptation=_stage_arguments(FineTuningArguments, "adapt", folder / "student", pipeline),
    )
    if corpus.corpus is None and changed_arguments(corpus).get("text_column"):
        raise ValueError(
            f"`--text_column {corpus.text_column}` is the column of `--corpus`, which is not given; those of the task "
            f"are `--text_columns {corpus.text_column}`."
        )
    _check(plan, task, teacher)
    return plan


def _chosen_sources(pipeline: PipelineArguments, corpus: CorpusArguments) -> list[str]:
    """The textbooks in the order of their stages.

    Raises:
        ValueError: If one is unknown or occurs twice, or its input is missing.
    """
    if pipeline.textbook_source is None:
        return ["task" if corpus.corpus is None else "cc"]
    sources = pipeline.textbook_source.split("+")
    if not set(sources) <= set(SOURCES) or len(set(sources)) < len(sources):
        raise ValueError(
            f"`--textbook_source` is {pipeline.textbook_source!r}; it is one of {list(SOURCES)}, or several different "
            "ones in the order of their stages (cc+taskda)."
        )
    if corpus.corpus is None and {"cc", "general"} & set(sources):
        raise ValueError(f"`--textbook_source {pipeline.textbook_source}` needs a general corpus: `--corpus`.")
    if "taskda" in sources and "masked_lm" not in pipeline.settings("augment"):
        raise ValueError(
            f"`--textbook_source {pipeline.textbook_source}` needs a masked language model: "
            "`--augment '{\"masked_lm\": ...}'`."
        )
    return sources


def _augmentation(pipeline: PipelineArguments, folder: Path) -> AugmentationArguments:
    """Settings for augmenting the task's rows."""
    common: dict[str, Any] = {"seed": pipeline.seed, "use_cpu": pipeline.use_cpu, "corpus_dir": str(folder)}
    made: AugmentationArguments = from_mapping(
        AugmentationArguments, {**common, **pipeline.settings("augment")}, "`--augment`"
    )
    return made


def _general(pipeline: PipelineArguments, corpus: CorpusArguments, folder: Path) -> GeneralCorpusArguments:
    """Settings of a sample from the general corpus, split and filtered as for the search of the task's corpus."""
    same = (
        *("corpus_split", "corpus_licence", "text_column", "source_column", "unit", "passage_words", "language"),
        *("max_chars", "min_words", "max_words", "num_proc"),
    )
    where = f"{corpus.corpus}:{corpus.corpus_config}" if corpus.corpus_config else str(corpus.corpus)
    return GeneralCorpusArguments(
        corpora=[where],
        rows=None if pipeline.max_textbook_rows is None else [pipeline.max_textbook_rows],
        seed=pipeline.seed,
        corpus_dir=str(folder),
        **{name: getattr(corpus, name) for name in same},
    )


def _distillation(
    pipeline: PipelineArguments, task: TaskArguments, folder: Path, source: str, sources: list[str]
) -> DistillationArguments:
    """The settings of one stage of the distillation; only the last stage gets the plain folder name."""
    output = folder / ("distilled" if source == sources[-1] else f"distilled_{source}")
    later = {} if source == sources[0] else pipeline.settings("distill_next")
    if source == "task" and pipeline.preset is None:
        # The teacher's head was trained on the task's own text, so its logits are meaningful there.
        later = {"objectives": ["relation", "logits"], **pipeline.settings("distill"), **later}
    training: DistillationArguments = _stage_arguments(
        DistillationArguments, "distill", output, pipeline, later, max_length=task.max_length
    )
    if training.eval_task is not None and training.eval_task_dir is None:
        training.eval_task_dir = task.data_dir
    return training


def _with_preset(student: StudentArguments, preset: str | None) -> StudentArguments:
    """Apply the student of a preset; flags that the user gave take precedence."""
    if preset is None:
        return student
    return replace(student, **{**read_preset(preset).student, **changed_arguments(student)})


def _stage_arguments(
    argument_class: type,
    stage: Literal["teach", "distill", "adapt"],
    folder: Path,
    pipeline: PipelineArguments,
    later: Mapping[str, Any] | None = None,
    **more: Any,
) -> Any:
    """The arguments of a training stage: `later` over the stage's own settings over those of all stages."""
    given = {**pipeline.settings(stage), **(later or {})}
    if "output_dir" in given:
        raise ValueError(f"`--{stage}` cannot set `output_dir`: stages write below `--output_dir`.")
    common = {"seed": pipeline.seed, "use_cpu": pipeline.use_cpu, "bf16": pipeline.bf16, "save_strategy": "no"}
    preset = dict(read_preset(pipeline.preset).training) if stage == "distill" and pipeline.preset else {}
    values = preset | {name: value for name, value in {**more, **common, **given}.items() if value is not None}
    return from_mapping(argument_class, {"output_dir": str(folder), **values}, f"`--{stage}`")


def _check(plan: Plan, task: TaskArguments, teacher: TeacherArguments) -> None:
    """Refuse, before the first stage, settings that a later stage would refuse."""
    pipeline = plan.pipeline
    if teacher.teacher_model is None:
        raise ValueError(
            "`--teacher_model` is missing: give the Hub id or folder of a classifier, or of an encoder to make one of."
        )
    if "task" in plan.sources or pipeline.with_task_text:
        columns = [] if takes_columns(task.task) else sorted(task.column_fields())
        if columns:
            raise ValueError(
                f"`--with_task_text` reads the task by its name alone, but {columns} came as flags: write them into a "
                "task.yaml beside its files."
            )
    first = plan.distillations[0]
    if first.world_size > 1 or first.n_gpu > 1:
        found = f"{first.world_size} processes" if first.world_size > 1 else f"{first.n_gpu} GPUs in one process"
        raise ValueError(
            f"`hf-distill pipeline` is one process on one GPU, but there are {found}: start it as "
            "`CUDA_VISIBLE_DEVICES=0 hf-distill pipeline ...`; or start its verbs (teach, corpus, distill, adapt) one "
            "by one, the trainings on all GPUs by `torchrun --nproc_per_node NUM_GPUS -m hf_distill distill ...`."
        )
    if pipeline.with_labels and plan.sources != ["task"]:
        raise ValueError(
            "`--with_labels` needs the task's own text alone (`--with_task_text` without `--corpus`, or "
            "`--textbook_source task`): only the task's rows have labels."
        )
    if plan.student.student_model is None:
        parse_shape(plan.student.student_shape)
    for training in plan.distillations:
        _objectives_of(training)


def _objectives_of(training: DistillationArguments) -> list[WeightedObjective]:
    """The objectives of a distillation."""
    return build_objectives(
        ["relation"] if training.objectives is None else training.objectives, training.objective_options()
    )


def stage_names(plan: Plan, teaches: bool) -> list[str]:
    """The stages in order, with or without the teacher's."""
    return [
        *(["teacher"] if teaches else []),
        *(place for source, place in PLACES.items() if source in plan.sources),
        *map(stage_of, plan.distillations),
        "student",
        *([ONNX_STAGE] if plan.pipeline.export else []),
        "report",
    ]


def stage_of(distillation: DistillationArguments) -> str:
    """The stage of a distillation, which has the name of its folder."""
    return Path(str(distillation.output_dir)).name


def knows_task(teacher: TeacherModelArguments, spec: TaskSpec) -> bool:
    """Whether a teacher has the task's head with the same label names, so that it need not be fine-tuned."""
    names, found = head_names(teacher, spec), _names_of_any_head(teacher, spec)
    if names is not None:
        logger.warning(
            f"The teacher has a head with the labels {names}: it is taken as it is. `--teach` fine-tunes it."
        )
    elif found is not None and not spec.is_span:
        labels = "numbers" if spec.label_names is None else list(spec.label_names)
        logger.warning(
            f"The teacher has a head with the labels {found}, but those of the task are {labels}: it is fine-tuned. "
            "If they mean the same, name them alike in `id2label` of its config.json, or say `--no_finetune_teacher`."
        )
    return names is not None


def head_names(teacher: TeacherModelArguments, spec: TaskSpec) -> list[str] | None:
    """The labels of a teacher that has the task's head with the same label names; `None` for any other teacher."""
    names = _names_of_any_head(teacher, spec)
    if names is None or spec.label_names is None or is_generic(names):
        return None
    return None if order_by_name(names, spec.label_names) is None else names


def _names_of_any_head(teacher: TeacherModelArguments, spec: TaskSpec) -> list[str] | None:
    """The labels of a teacher that has a head of the task's kind, with any labels; `None` for any other teacher."""
    if teacher.teacher_model is None:
        return None
    try:
        config = AutoConfig.from_pretrained(teacher.teacher_model, revision=teacher.teacher_revision)
    except UNREADABLE:
        return None  # The stage that loads it will report the error.
    heads = [name for name in config.architectures or () if name.endswith(head_of(spec).suffix)]
    return names_of_head(config) if heads else None


@dataclass(frozen=True)
class AdaptationPlan:
    """Settings for fine-tuning student and baseline.

    Attributes:
        student: Settings of the student's fine-tuning.
        baseline: Settings of the baseline's fine-tuning.
        learnt: Whether the student's head was distilled for the task.
    """

    student: FineTuningArguments
    baseline: FineTuningArguments
    learnt: bool


def plan_adaptation(
    plan: Plan, teacher: TeacherModelArguments, rows: LoadedTask, seen: Mapping[str, float]
) -> AdaptationPlan:
    """Choose the epochs of student and baseline if `--adapt` does not set them.

    A student whose head was distilled gets one epoch on the labels. Its baseline gets as many rows as the student saw
    in all its training, but at most the task's epochs. A student without a head, and its baseline, get the task's
    epochs.

    Args:
        plan: The settings of all stages; the last distillation decides whether the head was distilled.
        teacher: The teacher of the distillations.
        rows: The task.
        seen: Stage -> number of rows of each distillation.
    """
    given, last = plan.adaptation, plan.distillations[-1]
    learns = any(item.objective.student_request.logits for item in _objectives_of(last))
    learnt = learns and head_names(teacher, rows.spec) is not None
    student, baseline = copy.copy(given), copy.copy(given)
    if learnt and given.num_train_epochs is None and given.max_steps <= 0:
        student.num_train_epochs = EPOCHS_OF_A_HEAD
        baseline.num_train_epochs = rows.spec.fine_tuning.epochs
        if stage_of(last) in seen:
            as_many = EPOCHS_OF_A_HEAD + sum(seen.values()) / len(rows.train)
            baseline.num_train_epochs = min(baseline.num_train_epochs, as_many)
    return AdaptationPlan(student, baseline, learnt)


def rows_distilled(plan: Plan, rows: LoadedTask, built: dict[str, Any] | None) -> dict[str, float]:
    """Stage -> rows in all its batches, for the distillations whose text has a known number of rows.

    Args:
        plan: The settings of all stages.
        rows: The task.
        built: Result of the stage that built the task's corpus; `None` if there is none.
    """
    texts = {"task": len(rows.train), "cc": built["statistics"]["rows"] if built else None}
    seen = {}
    for source, training in zip(plan.sources, plan.distillations, strict=True):
        number = texts.get(source)
        if number is not None:
            number = min(number, plan.pipeline.max_textbook_rows or number)
            seen[stage_of(training)] = _rows_seen(training, number)
    return seen


def reckon_work(
    plan: Plan, adaptation: AdaptationPlan, teacher: TeacherModelArguments, rows: LoadedTask, seen: Mapping[str, float]
) -> dict[str, float]:
    """Estimate how much each training computes, in products of a weight and a row; all rows count as equally long.

    A forward pass multiplies every weight of the layers once, a training step three times. Export and report take
    seconds at any size and count as zero.

    Returns:
        Stage -> work; stages whose models or rows are not known in advance are left out.
    """
    try:
        config = AutoConfig.from_pretrained(str(teacher.teacher_model), revision=teacher.teacher_revision)
        large = _layer_weights(shape_of(config))
        first, shape = plan.student.student_model, plan.student.student_shape
        small = _layer_weights(parse_shape(shape) if first is None else shape_of(AutoConfig.from_pretrained(first)))
    except UNREADABLE:
        return {}
    models = [adaptation.baseline, *([adaptation.student] if plan.pipeline.adapt_student else [])]
    given, adapted = (
        sum(_rows_seen(training.with_task_defaults(rows.spec), len(rows.train)) for training in trainings)
        for trainings in ([plan.teaching], models)
    )
    return {
        "teacher": 3 * large * given,
        "student": 3 * small * adapted,
        ONNX_STAGE: 0.0,
        "report": 0.0,
        **{stage: (large + 3 * small) * number for stage, number in seen.items()},
    }


def _layer_weights(shape: StudentShape) -> int:
    """Number of weights in the matrices of all layers."""
    return shape.num_layers * (4 * shape.hidden_size**2 + 2 * shape.hidden_size * shape.intermediate_size)


def _rows_seen(training: TrainingArguments, rows: int) -> float:
    """Number of rows in all batches of a training."""
    if training.max_steps > 0:
        return training.max_steps * training.per_device_train_batch_size * training.gradient_accumulation_steps
    return training.num_train_epochs * rows
