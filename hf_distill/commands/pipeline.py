"""The whole job: teach, build the corpus, distil, adapt and evaluate, measure, write the card.

Every stage writes its own folder and is skipped when it was finished with the same settings, so that a killed run
continues where it stopped.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from transformers import AutoConfig
from transformers.utils import logging

from hf_distill.commands import adapt, augment, distill, general, teach
from hf_distill.commands import corpus as corpus_verb
from hf_distill.commands.folders import writes_folder
from hf_distill.commands.pipeline_stages import Stages
from hf_distill.commands.results import environment, write_results
from hf_distill.commands.teach import load_task_from
from hf_distill.corpus.build.loading import corpus_label
from hf_distill.hub.loading import UNREADABLE, load_model
from hf_distill.hub.model_card import (
    CardFacts,
    CorpusFacts,
    ScoreFacts,
    read_facts,
    shown_name,
    write_model_card,
)
from hf_distill.objectives import build_objectives
from hf_distill.reports.speed.latency import latency_ratio
from hf_distill.settings import (
    AdaptationArguments,
    AugmentationArguments,
    CorpusArguments,
    DistillationArguments,
    FineTuningArguments,
    GeneralCorpusArguments,
    PipelineArguments,
    StudentArguments,
    TaskArguments,
    TeacherArguments,
    TextbookArguments,
)
from hf_distill.settings.parsing import changed_arguments, from_mapping
from hf_distill.settings.presets import read_preset
from hf_distill.storage.files import copy_folder
from hf_distill.students.shapes import parse_shape
from hf_distill.tasks.labels import is_generic, names_of_head, order_by_name
from hf_distill.tasks.majority import constant_remark
from hf_distill.tasks.one_file import is_one_file, write_task_folder
from hf_distill.trainers.fine_tuning.heads import head_of

logger = logging.get_logger(__name__)

# Of the folder of the distillation; checkpoints hold more than the student.
_KEPT_APART = ("checkpoint-*", "results.json", "arguments.yaml", "_*", ".*")
# The textbooks of the paper (Contextualized Corpus, Table 2): retrieved text, the task's rows with words replaced,
# general text as it is, and the task's own text.
SOURCES = ("cc", "taskda", "general", "task")
# The latency of one stage: small, because it runs at the end of every demo.
SPEED_PROTOCOL = {"batch_size": 32, "seq_length": 128, "num_batches": 8, "warmup": 2}
REPORTED = ("teacher", "student", "baseline", "majority", "task", "kind", "metric", "split", "retention")
_NO_LORA: dict[str, Any] = {"lora_r": None, "lora_alpha": None, "lora_target_modules": None}


@writes_folder("task", "teacher", "corpus", "augmented", "general", "distilled*", "student")
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
    `student/` (adapted, with its card), `student/baseline/` and `report.json`.

    Args:
        task: The task and where its rows are.
        teacher: The model to make the teacher of.
        student: Shape and first weights of the student.
        corpus: The general corpus and how to search it.
        pipeline: Folder, seed, and the settings of each training stage.
        command: What repeats the run, for report and card.

    Returns:
        The report: `teacher`, `student`, `baseline` (each with `score`), `task`, `metric`, `retention`, `latency`,
        `command`, `seconds`.

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
    _check(teacher, student, pipeline, sources, trainings)
    if pipeline.with_task_text and task.spec_fields():
        raise ValueError(
            f"`--with_task_text` reads the task by its name alone, but {sorted(task.spec_fields())} came as flags: "
            "write them into a task.yaml beside its files."
        )
    inputs = [task.task] if is_one_file(task.task) else []
    if inputs:
        task = _as_folder(task, folder / "task", pipeline.seed)
    teaches = pipeline.finetune_teacher and not (pipeline.teach is None and knows_task(teacher, task))
    total = int(teaches) + len([one for one in sources if one != "task"]) + len(sources) + 1
    stages = Stages(folder, total, inputs)

    taught, own_teacher = None, teacher
    if teaches:
        taught = stages.run("teacher", lambda: teach.run(task, teacher, fine_tuning), task, teacher, fine_tuning)
        own_teacher = replace(teacher, teacher_model=str(folder / "teacher"), teacher_revision=None, **_NO_LORA)

    made, built = _make_textbooks(stages, sources, task, corpus, pipeline)
    learner, distilled = student, []
    for source, training in zip(sources, trainings, strict=True):
        arguments = (learner, own_teacher, _textbook(made[source], task, pipeline), training)
        distilled.append(stages.run(Path(str(training.output_dir)).name, partial(distill.run, *arguments), *arguments))
        learner = replace(student, student_model=str(training.output_dir))

    student_arguments = AdaptationArguments(str(folder / "distilled"), from_scratch=True)
    given = (task, student_arguments, adaptation, own_teacher)
    adapted = stages.run(
        "student",
        lambda: adapt.run(*given, as_it_is=not pipeline.adapt_student),
        *given,
        adapt_student=pipeline.adapt_student,
    )

    if not pipeline.adapt_student:
        copy_folder(folder / "distilled", folder / "student", leave_out=_KEPT_APART)
    speed = measure_speed(str(own_teacher.teacher_model), str(folder / "student"))
    results = {"teach": taught, "corpus": built, "distill": distilled[-1], "adapt": adapted}
    # Of the whole job, also where stages were finished in an earlier call.
    seconds = time.perf_counter() - started + stages.seconds_before
    report = make_report(results, speed, command, seconds, pipeline.seed)
    write_results(folder, report, name="report.json")
    write_model_card(folder / "student", card_facts(folder, report, taught, distilled[0], adapted, corpus))
    return {**report, "folder": str(folder)}


def summary(report: dict[str, Any]) -> str:
    """The table that a run ends with."""
    speedup = report["latency"]["speedup"]
    teacher = report["teacher"]["score"]
    rows = [f"{'':<10}{report['metric']:>22}{'of the teacher':>16}{'parameters':>12}{'speed-up':>10}"]
    for role in ("teacher", "student", "baseline"):
        model = report[role]
        retention = f"{model['score'] / teacher:.1%}" if teacher else "-"
        speed = "1.0x" if role == "teacher" else f"{speedup:.1f}x"
        size = f"{model['parameters'] / 1e6:.1f} M"
        rows.append(f"{role:<10}{model['score']:>22.4f}{retention:>16}{size:>12}{speed:>10}")
    majority = report.get("majority")
    if majority is not None:
        score = majority["score"]
        shown = "not defined" if score is None else f"{score:.4f}"
        retention = f"{score / teacher:.1%}" if teacher and score is not None else "-"
        rows.append(f"{'majority':<10}{shown:>22}{retention:>16}{'-':>12}{'-':>10}")
        rows.append(f"majority: {majority['label']!r} for every row, whatever it says")
    constants = {role: report[role].get("constant") for role in ("teacher", "student", "baseline")}
    rows += [f"{role}:{constant_remark(label)}" for role, label in constants.items() if label is not None]
    rows.append("baseline: the same student, trained on the labels without a teacher")
    if "folder" in report:
        student = f"{report['folder']}/student"
        rows.append(f"student with its card in {student}; go on with: hf-distill export --model {student}, or")
        rows.append(f"hf-distill push {student} USER/NAME --dry_run")
    return "\n".join(rows)


# --- the task and its teacher ----------------------------------------------------------------------------------------


def _as_folder(task: TaskArguments, folder: Path, seed: int) -> TaskArguments:
    """A task of one file as a folder, so that every stage reads the same rows."""
    write_task_folder(load_task_from(task, seed=seed), folder)
    flags: dict[str, Any] = dict.fromkeys(("data_dir", "text_columns", "label_column", "class_names", "metrics"))
    return replace(task, task=str(folder), evaluation_splits=None, **flags)


def knows_task(teacher: TeacherArguments, task: TaskArguments) -> bool:
    """Whether a teacher has the head of a task, with its labels by name, so that it need not be fine-tuned."""
    if teacher.teacher_model is None:
        return False
    try:
        config = AutoConfig.from_pretrained(teacher.teacher_model, revision=teacher.teacher_revision)
    except UNREADABLE:
        return False  # The stage that loads it says what is wrong.
    spec = load_task_from(task, seed=0, splits="evaluation").spec
    heads = [name for name in config.architectures or () if name.endswith(head_of(spec).suffix)]
    names = names_of_head(config)
    if not heads or spec.label_names is None or is_generic(names) or order_by_name(names, spec.label_names) is None:
        return False
    logger.warning(f"The teacher has a head with the labels {names}: it is taken as it is. `--teach` fine-tunes it.")
    return True


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
    teacher: TeacherArguments,
    student: StudentArguments,
    pipeline: PipelineArguments,
    sources: list[str],
    trainings: list[DistillationArguments],
) -> None:
    """Refuse before the first stage what a late one would refuse."""
    if teacher.teacher_model is None:
        raise ValueError("`--teacher_model` is missing: give the Hub id or folder of the model to fine-tune.")
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
        corpus = replace(corpus, corpus_dir=str(folder / "corpus"))
        built = stages.run("corpus", lambda: corpus_verb.run(task, corpus, seed=pipeline.seed), task, corpus)
    if "taskda" in sources:
        augmentation = augmentation_settings(pipeline, folder / "augmented")
        stages.run("augmented", lambda: augment.run(task, augmentation), task, augmentation)
    if "general" in sources:
        mixture = general_settings(pipeline, corpus, folder / "general")
        stages.run("general", lambda: general.run(mixture), mixture)
    places = {"cc": folder / "corpus", "taskda": folder / "augmented", "general": folder / "general"}
    return {**{name: str(place) for name, place in places.items()}, "task": task.task}, built


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


def make_report(
    results: dict[str, Any], speed: dict[str, Any], command: str, seconds: float, seed: int
) -> dict[str, Any]:
    """Return the content of `report.json`.

    Args:
        results: Stage -> what it returned, `None` for one that was left out.
        speed: Latency of teacher and student.
        command: What repeats the run.
        seconds: Of the whole job.
        seed: Of every stage.
    """
    built, distilled, adapted = results["corpus"], results["distill"], results["adapt"]
    return {
        **{name: adapted[name] for name in REPORTED},
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
    """Latency of the teacher over that of the student."""
    teacher, student = (load_model(folder, flag="--teacher_model") for folder in folders)
    positions = (getattr(model.config, "max_position_embeddings", None) for model in (teacher, student))
    seq_length = min(SPEED_PROTOCOL["seq_length"], *(number for number in positions if number))
    return latency_ratio(teacher, student, **{**SPEED_PROTOCOL, "seq_length": seq_length}).to_dict()


def card_facts(
    folder: Path,
    report: dict[str, Any],
    taught: dict[str, Any] | None,
    distilled: dict[str, Any],
    adapted: dict[str, Any],
    corpus: CorpusArguments,
) -> CardFacts:
    """The card of the distilled student, completed with what came before and after it.

    Args:
        folder: Of the pipeline; its name is in the student's.
        report: What `make_report` returned.
        taught: Result of the teacher's stage, `None` where the teacher was taken as it is.
        distilled: Result of the first stage of the distillation: where the first weights came from.
        adapted: Result of the student's stage.
        corpus: The general corpus and its licence.
    """
    facts, task = read_facts(folder / "distilled"), report["task"]
    own = read_facts(folder / "student")
    names = ("student", "task", "labels", "text_pairs", "language", "pipeline_tag", "scores")
    facts = dataclasses.replace(facts, **{name: getattr(own, name) for name in names})
    facts.model_name = facts.student.name = f"{folder.name}-{Path(task).name}"
    if facts.teacher and taught:
        base = taught.get("base_name") or shown_name(str(taught["base_model"]))
        facts.teacher[0].name = f"{base}, fine-tuned on {task}"
        facts.teacher[0].lineage = f"{base} fine-tuned on {task} for {taught['steps']} steps"
    facts.initialisation = str(distilled["first_weights"])
    if report["corpus"]:
        facts.corpus = CorpusFacts(
            name=f"Contextualized corpus of {task}",
            description=(
                f"sentences of {corpus_label(str(corpus.corpus))} that BM25 ({report['corpus']['engine']['name']}) "
                "finds for the task's training sentences"
            ),
            licence=corpus.corpus_licence,
            statistics={k: v for k, v in report["corpus"].items() if isinstance(v, (int, float, str))},
        )
    settings = adapted["student"].get("settings")
    if settings is not None:
        facts.adaptation = (
            f"fine-tuned on the labels of {task} ({settings['num_train_epochs']:g} epochs, learning rate "
            f"{settings['learning_rate']:g})"
        )
    if not facts.scores:
        student, teacher, baseline = (report[role]["score"] for role in ("student", "teacher", "baseline"))
        facts.scores = [ScoreFacts(task, report["metric"], report["split"], student, teacher, baseline)]
    facts.speed = report["latency"]
    facts.commands = [report["command"]] if report["command"] else []
    facts.seconds = report["seconds"]
    facts.hardware = f"{report['environment']['device']}, {report['environment']['threads']} threads"
    facts.limits = [
        "One seed; differences of about a point are within what another seed gives.",
        "Knows the task it was made for, in the language of its corpus.",
    ]
    if report["corpus"]:
        facts.citations = [*facts.citations, "contextualized_corpus", "rake"]
    # The Hub names what a head does as kinds of tasks are named here, with hyphens.
    facts.pipeline_tag = report["kind"].replace("_", "-")
    return facts
