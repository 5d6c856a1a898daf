"""The whole job: teach, build the corpus, distil, adapt and evaluate, export, measure, write card and report.

Every stage writes its own folder and is skipped when it was finished with the same settings, so that a killed run
continues where it stopped.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from transformers import AutoConfig, TrainingArguments

from hf_distill.capture.forward import evaluating
from hf_distill.commands import (
    adapt,
    augment,
    corpus as corpus_verb,
    distill,
    export,
    general,
    report as report_verb,
    teach,
)
from hf_distill.commands.folders import writes_folder
from hf_distill.commands.results import environment, write_results
from hf_distill.commands.stages import Stages
from hf_distill.commands.student_facts import ONE_FILE_FOLDER, pipeline_facts, rows_per_update, write_card
from hf_distill.commands.teach import load_task_from
from hf_distill.hub.loading import UNREADABLE, load_model
from hf_distill.objectives import build_objectives
from hf_distill.reports.onnx.onnx_model import INT8_FILE, OnnxModel
from hf_distill.reports.runs import INT8
from hf_distill.reports.speed.latency import latency_ratio, median_ratio, random_batch, take_turns
from hf_distill.reports.speed.quality import EXPORT_FILE, ONNX_FOLDER
from hf_distill.settings import (
    AdaptationArguments,
    AugmentationArguments,
    CorpusArguments,
    DistillationArguments,
    ExportArguments,
    FineTuningArguments,
    GeneralCorpusArguments,
    PipelineArguments,
    ReportArguments,
    ScoredTaskArguments,
    StudentArguments,
    TaskArguments,
    TeacherArguments,
    TextbookArguments,
)
from hf_distill.settings.parsing import changed_arguments, from_mapping
from hf_distill.settings.presets import read_preset
from hf_distill.storage.files import copy_folder, remove
from hf_distill.students.shapes import StudentShape, parse_shape, shape_of
from hf_distill.tasks.label_names import is_generic, names_of_head, order_by_name
from hf_distill.tasks.loading import LoadedTask
from hf_distill.tasks.majority import constant_remark
from hf_distill.tasks.one_file import is_one_file, write_task_folder
from hf_distill.tasks.spec import TaskSpec
from hf_distill.trainers.fine_tuning.heads import head_of

logger = logging.getLogger(__name__)

# Files that stay in the folder of the distillation when the student is copied.
_KEPT_APART = ("checkpoint-*", "results.json", "arguments.yaml", "_*", ".*")
# The textbooks of the paper (Contextualized Corpus, Table 2): retrieved text, the task's rows with words replaced,
# general text as it is, and the task's own text.
SOURCES = ("cc", "taskda", "general", "task")
# The folders of those that are made.
PLACES = {"cc": "corpus", "taskda": "augmented", "general": "general"}
# The stage that exports the student, and its folder.
ONNX_STAGE = f"student/{ONNX_FOLDER}"
# The latency of one stage: small, because it runs at the end of every demo.
SPEED_PROTOCOL = {"batch_size": 32, "seq_length": 128, "num_batches": 8, "warmup": 2}
# Rest before a run of ONNX Runtime or torch, whose threads wait for work for a while.
PAUSE = 0.02
# The rows of the table at the end.
ROLES = ("majority", "teacher", "student", "baseline")
# Epochs on the labels of a student that has learnt the task from its teacher.
EPOCHS_OF_A_HEAD = 1.0
REPORTED = (
    *("teacher", "student", "baseline", "majority", "task", "kind", "metric", "split", "split_rows", "retention"),
)
_NO_LORA: dict[str, Any] = {"lora_r": None, "lora_alpha": None, "lora_target_modules": None}


@writes_folder(ONE_FILE_FOLDER, "teacher", *PLACES.values(), "distilled*", "student")
def run(
    task: TaskArguments,
    teacher: TeacherArguments,
    student: StudentArguments,
    corpus: CorpusArguments,
    pipeline: PipelineArguments,
    command: str = "",
) -> dict[str, Any]:
    """Run every stage and compare teacher, student and baseline.

    Writes to `pipeline.output_dir`: `teacher/`, `corpus/` (or `augmented/`, `general/`, as the textbook source says),
    `distilled/` (the student before it saw a label; of an earlier stage `distilled_cc/` and the like),
    `student/` (adapted, with its card), `student/baseline/`, `student/onnx/`, `report.json` and `report.html`.

    Args:
        task: The task and where its rows are.
        teacher: The model to make the teacher of.
        student: Shape and first weights of the student.
        corpus: The general corpus and how to search it.
        pipeline: Folder, seed, and the settings of each training stage.
        command: What repeats the run, for report and card.

    Returns:
        The report: `teacher`, `student`, `baseline` (each with `score`), `int8` (likewise, `None` without an export),
        `task`, `metric`, `retention`, `latency`, `command`, `seconds`.

    Raises:
        ValueError: If a stage's settings are unknown or do not fit.
    """
    started = time.perf_counter()
    folder = Path(pipeline.output_dir)
    student = _with_preset(student, pipeline.preset)
    fine_tuning = _stage_arguments(FineTuningArguments, "teach", folder / "teacher", pipeline)
    sources = chosen_sources(pipeline, corpus)
    trainings = [_training(pipeline, task, folder, source, sources) for source in sources]
    adaptation = _stage_arguments(FineTuningArguments, "adapt", folder / "student", pipeline)
    _check(task, teacher, student, pipeline, sources, trainings)
    rows, inputs = load_task_from(task, seed=pipeline.seed), []
    if is_one_file(task.task):
        task, inputs = _as_folder(task, rows, folder / ONE_FILE_FOLDER), [task.task]
    teaches = pipeline.finetune_teacher and not (pipeline.teach is None and knows_task(teacher, rows.spec))
    stages = Stages(folder, _names(teaches, sources, trainings, pipeline), inputs)

    taught, own_teacher = None, teacher
    if teaches:
        taught = stages.run("teacher", lambda: teach.run(task, teacher, fine_tuning), task, teacher, fine_tuning)
        own_teacher = replace(teacher, teacher_model=str(folder / "teacher"), teacher_revision=None, **_NO_LORA)

    made, built = _make_textbooks(stages, sources, task, corpus, pipeline)
    seen = rows_distilled(rows, sources, trainings, built, pipeline)
    plan = plan_adaptation(adaptation, trainings[-1], own_teacher, rows, seen)
    stages.work = reckon_work(rows, own_teacher, student, fine_tuning, seen, plan, pipeline)
    learner, distilled = student, []
    for source, training in zip(sources, trainings, strict=True):
        arguments = (learner, own_teacher, _textbook(made[source], task, pipeline), training)
        distilled.append(stages.run(Path(str(training.output_dir)).name, partial(distill.run, *arguments), *arguments))
        learner = replace(student, student_model=str(training.output_dir))

    student_arguments = AdaptationArguments(str(folder / "distilled"), from_scratch=True)
    way: adapt.Way = ("better" if plan.learnt else "adapt") if pipeline.adapt_student else "keep"
    given = (task, student_arguments, plan.student, own_teacher)
    adapted = stages.run(
        "student",
        lambda: adapt.run(*given, way=way, baseline_training=plan.baseline),
        *given,
        way=way,
        baseline_epochs=plan.baseline.num_train_epochs,
    )
    if not pipeline.adapt_student:
        copy_folder(folder / "distilled", folder / "student", leave_out=_KEPT_APART)
    exported = _export(stages, task) if pipeline.export else None

    stages.begin("report")
    speed = measure_speed(str(own_teacher.teacher_model), str(folder / "student"))
    results = {"teach": taught, "corpus": built, "distill": distilled[-1], "adapt": adapted, "export": exported}
    # Of the whole job, also where stages were finished in an earlier call.
    seconds = time.perf_counter() - started + stages.seconds_before
    report = make_report(results, speed, command, seconds, pipeline.seed)
    write_results(folder, report, name="report.json")
    write_card(folder / "student", pipeline_facts(folder, report, taught, distilled[0], corpus))
    report_verb.run(ReportArguments([str(folder)], str(folder / "report.html")))
    return {**report, "folder": str(folder)}


def summary(report: dict[str, Any]) -> str:
    """The table that a run ends with: the majority, teacher, student, baseline, and the student in int8."""
    teacher, speed = report["teacher"]["score"], report["latency"]
    head = ("", report["metric"], "of the teacher", "parameters", "MB", "ms a row", "speed-up")
    sizes = {"teacher": "teacher", "student": "student", "baseline": "student", INT8: "int8"}
    rows = []
    for role in (*ROLES, INT8):
        model = report.get(role)
        if model is None:
            continue
        score, size = model["score"], sizes.get(role, "")
        seconds, own_bytes = speed.get(f"{size}_seconds"), speed.get(f"{size}_bytes")
        speedup = 1.0 if role == "teacher" else speed.get("int8_speedup" if role == INT8 else "speedup")
        rows.append(
            (
                role,
                "not defined" if score is None else f"{score:.4f}",
                f"{score / teacher:.1%}" if teacher and score is not None else "-",
                f"{model['parameters'] / 1e6:.1f} M" if "parameters" in model else "-",
                "-" if own_bytes is None else f"{own_bytes / 1e6:.1f}",
                "-" if seconds is None else f"{1000 * seconds / speed['batch_size']:.2f}",
                f"{speedup:.1f}x" if size and speedup is not None else "-",
            )
        )
    widths = [max(len(row[column]) for row in (head, *rows)) + 2 for column in range(len(head))]
    lines = [row[0].ljust(widths[0]) + "".join(map(str.rjust, row[1:], widths[1:])).rstrip() for row in (head, *rows)]
    return "\n".join([*lines, *_remarks(report)])


def _remarks(report: dict[str, Any]) -> list[str]:
    """Say what the rows of the table mean, and where everything is."""
    lines = _budgets(report)
    if report.get("majority") is not None:
        lines.insert(0, f"majority: {report['majority']['label']!r} for every row, whatever it says")
    constants = {role: report[role].get("constant") for role in ("teacher", "student", "baseline")}
    lines += [f"{role}:{constant_remark(label)}" for role, label in constants.items() if label is not None]
    speed = report["latency"]
    if "batch_size" in speed:
        lines.append(
            f"ms a row: rows of {speed['seq_length']} tokens, {speed['batch_size']} at once, on {speed['device']}"
        )
    if "folder" in report:
        student = f"{report['folder']}/student"
        lines.append(f"everything is in {report['folder']}: the student with its card in {student},")
        lines.append(f"curves and scores in {report['folder']}/report.html")
        lines.append(f"go on with: hf-distill push {student} USER/NAME --dry_run")
    return lines


def _budgets(report: dict[str, Any]) -> list[str]:
    """How long student and baseline were trained on the labels, whether the student is better for it, and the rows."""
    lines, baseline, choice = [], report["baseline"], report["student"].get("choice")
    if choice is not None:
        rows = "these rows" if choice["split"] == report["split"] else choice["split"]
        scores = f"{choice['before']:.4f} before, {choice['after']:.4f} after, on {rows}"
        is_adapted = choice["kept"] == "adapted"
        kept = "fine-tuned on the labels" if is_adapted else "as it was distilled; fine-tuning it is not better"
        lines.append(f"student: {kept} ({scores})")
    trained = "baseline: the same student, trained on the labels without a teacher"
    if "steps" in baseline:
        epochs = baseline["steps"] * rows_per_update(baseline["settings"]) / baseline["train_rows"]
        trained += f", for {epochs:.3g} epochs"
    lines.append(trained)
    if "split_rows" in report:
        lines.append(f"scores are of the {report['split_rows']:,} rows of {report['split']}")
    return lines


# --- the task and its teacher ----------------------------------------------------------------------------------------


def _as_folder(task: TaskArguments, rows: LoadedTask, folder: Path) -> TaskArguments:
    """A task of one file as a folder, so that every stage reads the same rows."""
    write_task_folder(rows, folder)
    flags: dict[str, Any] = dict.fromkeys(("data_dir", "text_columns", "label_column", "class_names", "metrics"))
    return replace(task, task=str(folder), evaluation_splits=None, **flags)


def knows_task(teacher: TeacherArguments, spec: TaskSpec) -> bool:
    """Whether a teacher has the head of a task, with its labels by name, so that it need not be fine-tuned."""
    names = head_names(teacher, spec)
    if names is not None:
        logger.warning(
            f"The teacher has a head with the labels {names}: it is taken as it is. `--teach` fine-tunes it."
        )
    return names is not None


def head_names(teacher: TeacherArguments, spec: TaskSpec) -> list[str] | None:
    """The labels of a teacher that has the head of a task, with its labels by name; `None` of any other."""
    if teacher.teacher_model is None:
        return None
    try:
        config = AutoConfig.from_pretrained(teacher.teacher_model, revision=teacher.teacher_revision)
    except UNREADABLE:
        return None  # The stage that loads it says what is wrong.
    heads = [name for name in config.architectures or () if name.endswith(head_of(spec).suffix)]
    names = names_of_head(config)
    if not heads or spec.label_names is None or is_generic(names) or order_by_name(names, spec.label_names) is None:
        return None
    return names


# --- what the stages are, and how long they take ---------------------------------------------------------------------


def _names(
    teaches: bool, sources: list[str], trainings: list[DistillationArguments], pipeline: PipelineArguments
) -> list[str]:
    """The stages in their order."""
    return [
        *(["teacher"] if teaches else []),
        *(place for source, place in PLACES.items() if source in sources),
        *(Path(str(training.output_dir)).name for training in trainings),
        "student",
        *([ONNX_STAGE] if pipeline.export else []),
        "report",
    ]


def rows_distilled(
    rows: LoadedTask,
    sources: Sequence[str],
    trainings: Sequence[DistillationArguments],
    built: dict[str, Any] | None,
    pipeline: PipelineArguments,
) -> dict[str, float]:
    """Stage -> rows of all its batches, for those distillations whose text has a known number of rows."""
    texts = {"task": len(rows.train), "cc": built["statistics"]["rows"] if built else None}
    seen = {}
    for source, training in zip(sources, trainings, strict=True):
        number = texts.get(source)
        if number is not None:
            number = min(number, pipeline.max_textbook_rows or number)
            seen[Path(str(training.output_dir)).name] = _rows_seen(training, number)
    return seen


@dataclasses.dataclass(frozen=True)
class AdaptationPlan:
    """How student and baseline are fine-tuned.

    Attributes:
        student: Settings of the student's fine-tuning.
        baseline: Those of the baseline's.
        learnt: Whether the student has the task's head from its distillation.
    """

    student: FineTuningArguments
    baseline: FineTuningArguments
    learnt: bool


def plan_adaptation(
    given: FineTuningArguments,
    last: DistillationArguments,
    teacher: TeacherArguments,
    rows: LoadedTask,
    seen: Mapping[str, float],
) -> AdaptationPlan:
    """Choose the epochs of student and baseline where `--adapt` names none.

    A student whose head was distilled gets one epoch on the labels, and its baseline as many rows as the student saw
    in all its training, but no more than the task's epochs. A student without a head, and its baseline, get the
    task's epochs.

    Args:
        given: What `--adapt` says.
        last: The last distillation, which decides whether there is a head.
        teacher: The teacher of that distillation.
        rows: The task.
        seen: Rows of the distillations, by their stages.
    """
    items = build_objectives(["relation"] if last.objectives is None else last.objectives, last.objective_options())
    learns = any(item.objective.student_request.logits for item in items)
    learnt = learns and head_names(teacher, rows.spec) is not None
    student, baseline = copy.copy(given), copy.copy(given)
    if learnt and given.num_train_epochs is None and given.max_steps <= 0:
        student.num_train_epochs = EPOCHS_OF_A_HEAD
        baseline.num_train_epochs = rows.spec.fine_tuning.epochs
        if Path(str(last.output_dir)).name in seen:
            as_many = EPOCHS_OF_A_HEAD + sum(seen.values()) / len(rows.train)
            baseline.num_train_epochs = min(baseline.num_train_epochs, as_many)
    return AdaptationPlan(student, baseline, learnt)


def reckon_work(
    rows: LoadedTask,
    teacher: TeacherArguments,
    student: StudentArguments,
    fine_tuning: FineTuningArguments,
    seen: Mapping[str, float],
    plan: AdaptationPlan,
    pipeline: PipelineArguments,
) -> dict[str, float]:
    """Estimate how much each training computes, in products of a weight and a row; all rows count as equally long.

    A model multiplies the weights of its layers once in a forward pass, three times in a step of a training. Export
    and report take seconds whatever the sizes are, and are reckoned as nothing.

    Returns:
        Stage -> work; a stage is not there where its models or its rows are not known beforehand.
    """
    try:
        config = AutoConfig.from_pretrained(str(teacher.teacher_model), revision=teacher.teacher_revision)
        large = _layer_weights(shape_of(config))
        of_student = student.student_model
        small = _layer_weights(
            parse_shape(student.student_shape)
            if of_student is None
            else shape_of(AutoConfig.from_pretrained(of_student))
        )
    except UNREADABLE:
        return {}
    models = [plan.baseline, *([plan.student] if pipeline.adapt_student else [])]
    given, adapted = (
        sum(_rows_seen(training.with_task_defaults(rows.spec), len(rows.train)) for training in trainings)
        for trainings in ([fine_tuning], models)
    )
    return {
        "teacher": 3 * large * given,
        "student": 3 * small * adapted,
        ONNX_STAGE: 0.0,
        "report": 0.0,
        **{stage: (large + 3 * small) * number for stage, number in seen.items()},
    }


def _layer_weights(shape: StudentShape) -> int:
    """Weights of the matrices in the layers."""
    return shape.num_layers * (4 * shape.hidden_size**2 + 2 * shape.hidden_size * shape.intermediate_size)


def _rows_seen(training: TrainingArguments, rows: int) -> float:
    """Rows of all the batches of a training."""
    if training.max_steps > 0:
        return training.max_steps * training.per_device_train_batch_size * training.gradient_accumulation_steps
    return training.num_train_epochs * rows


# --- settings of the stages ------------------------------------------------------------------------------------------


def _training(
    pipeline: PipelineArguments, task: TaskArguments, folder: Path, source: str, sources: list[str]
) -> DistillationArguments:
    """The settings of one stage of the distillation; only the last has the name of the whole."""
    output = folder / ("distilled" if source == sources[-1] else f"distilled_{source}")
    later = {} if source == sources[0] else pipeline.settings("distill_next")
    if source == "task" and pipeline.preset is None:
        # On the task's own text the teacher's head has something to say.
        later = {"objectives": ["relation", "logits"], **pipeline.settings("distill"), **later}
    training: DistillationArguments = _stage_arguments(
        DistillationArguments, "distill", output, pipeline, later, max_length=task.max_length
    )
    if training.eval_task is not None and training.eval_task_dir is None:
        training.eval_task_dir = task.data_dir
    return training


def _with_preset(student: StudentArguments, preset: str | None) -> StudentArguments:
    """The student of a preset; what was given as flags wins."""
    return (
        student
        if preset is None
        else replace(student, **{**read_preset(preset).student, **changed_arguments(student)})
    )


def _stage_arguments(
    argument_class: type,
    stage: Literal["teach", "distill", "adapt"],
    folder: Path,
    pipeline: PipelineArguments,
    later: Mapping[str, Any] | None = None,
    **more: Any,
) -> Any:
    """The arguments of a training stage: its settings, `later` first, over those of all stages."""
    given = {**pipeline.settings(stage), **(later or {})}
    if "output_dir" in given:
        raise ValueError(f"`--{stage}` cannot set `output_dir`: stages write below `--output_dir`.")
    common = {"seed": pipeline.seed, "use_cpu": pipeline.use_cpu, "bf16": pipeline.bf16, "save_strategy": "no"}
    preset = dict(read_preset(pipeline.preset).training) if stage == "distill" and pipeline.preset else {}
    values = preset | {name: value for name, value in {**more, **common, **given}.items() if value is not None}
    return from_mapping(argument_class, {"output_dir": str(folder), **values}, f"`--{stage}`")


def _check(
    task: TaskArguments,
    teacher: TeacherArguments,
    student: StudentArguments,
    pipeline: PipelineArguments,
    sources: list[str],
    trainings: list[DistillationArguments],
) -> None:
    """Refuse before the first stage what a late one would refuse."""
    if teacher.teacher_model is None:
        raise ValueError("`--teacher_model` is missing: give the Hub id or folder of the model to fine-tune.")
    if pipeline.with_task_text and task.spec_fields():
        raise ValueError(
            f"`--with_task_text` reads the task by its name alone, but {sorted(task.spec_fields())} came as flags: "
            "write them into a task.yaml beside its files."
        )
    first = trainings[0]
    if first.world_size > 1 or first.n_gpu > 1:
        found = f"{first.world_size} processes" if first.world_size > 1 else f"{first.n_gpu} GPUs in one process"
        raise ValueError(
            f"`hf-distill pipeline` is one process on one GPU, but there are {found}: start it as "
            "`CUDA_VISIBLE_DEVICES=0 hf-distill pipeline ...`; or start its verbs (teach, corpus, distill, adapt) one "
            "by one, the trainings on all GPUs by `torchrun --nproc_per_node NUM_GPUS -m hf_distill distill ...`."
        )
    if pipeline.with_labels and sources != ["task"]:
        raise ValueError(
            "`--with_labels` needs the task's own text alone (`--with_task_text` without `--corpus`, or "
            "`--textbook_source task`): only the task's rows have labels."
        )
    if student.student_model is None:
        parse_shape(student.student_shape)
    for training in trainings:
        build_objectives(
            ["relation"] if training.objectives is None else training.objectives, training.objective_options()
        )


# --- textbooks -------------------------------------------------------------------------------------------------------


def chosen_sources(pipeline: PipelineArguments, corpus: CorpusArguments) -> list[str]:
    """The textbooks in the order of their stages.

    Raises:
        ValueError: If one is unknown, there twice, or what it is made of is missing.
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


def augmentation_settings(pipeline: PipelineArguments, folder: Path) -> AugmentationArguments:
    """Return the settings by which the task's rows are augmented.

    Raises:
        ValueError: If a setting is unknown.
    """
    common: dict[str, Any] = {"seed": pipeline.seed, "use_cpu": pipeline.use_cpu, "corpus_dir": str(folder)}
    made: AugmentationArguments = from_mapping(
        AugmentationArguments, {**common, **pipeline.settings("augment")}, "`--augment`"
    )
    return made


def general_settings(pipeline: PipelineArguments, corpus: CorpusArguments, folder: Path) -> GeneralCorpusArguments:
    """A draw from the general corpus, cut and filtered as the rows that the task's corpus would be searched in."""
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


def _make_textbooks(
    stages: Stages, sources: list[str], task: TaskArguments, corpus: CorpusArguments, pipeline: PipelineArguments
) -> tuple[dict[str, str], dict[str, Any] | None]:
    """Make the textbooks; return the place of each, and the result of the job that built the task's corpus."""
    folder, built = stages.folder, None
    if "cc" in sources:
        corpus = replace(corpus, corpus_dir=str(folder / PLACES["cc"]))
        built = stages.run(PLACES["cc"], lambda: corpus_verb.run(task, corpus, seed=pipeline.seed), task, corpus)
    if "taskda" in sources:
        augmentation = augmentation_settings(pipeline, folder / PLACES["taskda"])
        stages.run(PLACES["taskda"], lambda: augment.run(task, augmentation), task, augmentation)
    if "general" in sources:
        mixture = general_settings(pipeline, corpus, folder / PLACES["general"])
        stages.run(PLACES["general"], lambda: general.run(mixture), mixture)
    return {**{name: str(folder / place) for name, place in PLACES.items()}, "task": task.task}, built


def _textbook(place: str, task: TaskArguments, pipeline: PipelineArguments) -> TextbookArguments:
    """The text of one stage."""
    return TextbookArguments(
        [place, *([task.task] if pipeline.with_task_text and place != task.task else [])],
        data_dir=task.data_dir,
        max_textbook_rows=pipeline.max_textbook_rows,
        with_labels=pipeline.with_labels,
        textbook_eval_rows=pipeline.textbook_eval_rows,
    )


# --- report ----------------------------------------------------------------------------------------------------------


def _export(stages: Stages, task: TaskArguments) -> dict[str, Any] | None:
    """The student as ONNX files, scored; `None`, with the reason in a line, where that cannot be."""
    folder = stages.folder / ONNX_STAGE
    scored = ScoredTaskArguments(**dataclasses.asdict(task))
    arguments = ExportArguments(str(folder.parent), output_dir=str(folder))
    try:
        return stages.run(
            ONNX_STAGE, lambda: export.run(scored, arguments), scored, arguments, results_file=EXPORT_FILE
        )
    except (ImportError, ValueError) as error:
        # Everything else is there; what an earlier student left in the folder is no file of this one.
        remove(folder)
        logger.warning(f"[{ONNX_STAGE}] left out: {error}")
        return None


def make_report(
    results: dict[str, Any], speed: dict[str, Any], command: str, seconds: float, seed: int
) -> dict[str, Any]:
    """Return the content of `report.json`.

    Args:
        results: Stage -> what it returned, `None` for one that was left out.
        speed: Latency of teacher and student, and of the student in int8 where it was exported.
        command: What repeats the run.
        seconds: Of the whole job.
        seed: Of every stage.
    """
    built, distilled, adapted, exported = (results[name] for name in ("corpus", "distill", "adapt", "export"))
    int8 = exported and {
        "score": exported["scores"]["onnx_int8"],
        "parameters": adapted["student"]["parameters"],
        **{name: exported[name] for name in ("bytes", "scores", "difference", "int8_difference")},
    }
    return {
        **{name: adapted[name] for name in REPORTED},
        INT8: int8,
        "latency": speed,
        "corpus": built["statistics"] if built else None,
        "distillation": {name: distilled[name] for name in ("objectives", "steps", "textbook_rows", "seed")},
        "stage_seconds": {name: result["seconds"] for name, result in results.items() if result},
        "command": command,
        "seconds": round(seconds, 1),
        "seed": seed,
        "environment": environment(),
    }


def measure_speed(*folders: str) -> dict[str, Any]:
    """Latency of the teacher over that of the student, and over that of the student's int8 file where it has one."""
    teacher, student = (load_model(folder, flag="--teacher_model") for folder in folders)
    positions = (getattr(model.config, "max_position_embeddings", None) for model in (teacher, student))
    seq_length = min(SPEED_PROTOCOL["seq_length"], *(number for number in positions if number))
    speed = latency_ratio(teacher, student, **{**SPEED_PROTOCOL, "seq_length": seq_length}).to_dict()
    file = Path(folders[1]) / ONNX_FOLDER / INT8_FILE
    if not file.is_file():
        return speed
    exported, size = OnnxModel(file), SPEED_PROTOCOL["batch_size"]
    rows = random_batch(student, student.config.vocab_size, size, seq_length, seed=0)
    runs = {"student": lambda batch: student(**batch), "int8": lambda batch: exported(**batch)}
    numbers = (SPEED_PROTOCOL["num_batches"], SPEED_PROTOCOL["warmup"])
    with evaluating(student):
        times = take_turns(runs, [rows], *numbers, student.device, pause=PAUSE)
    faster = median_ratio(times["student"], times["int8"])
    return speed | {
        "int8_seconds": float(speed["student_seconds"]) / faster,
        "int8_speedup": float(speed["speedup"]) * faster,
        "int8_bytes": file.stat().st_size,
    }
