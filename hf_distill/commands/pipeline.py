"""The whole job: teach, build the corpus, distil, adapt and evaluate, export, measure, write card and report.

Every stage writes its own folder and is skipped if it was finished with the same settings, so a killed run continues
where it stopped.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

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
from hf_distill.commands.pipeline_plan import (
    ONNX_STAGE,
    PLACES,
    AdaptationPlan,
    Plan,
    knows_task,
    make_plan,
    plan_adaptation,
    reckon_work,
    rows_distilled,
    stage_names,
    stage_of,
)
from hf_distill.commands.results import environment, write_results
from hf_distill.commands.stages import Stages
from hf_distill.commands.student_facts import ONE_FILE_FOLDER, pipeline_facts, rows_per_update, write_card
from hf_distill.commands.teach import load_task_from
from hf_distill.hub.loading import load_model
from hf_distill.hub.selection import EXPORT_FILE, RESULTS_FILE
from hf_distill.reports.onnx.onnx_model import INT8_FILE, OnnxModel
from hf_distill.reports.runs import INT8
from hf_distill.reports.speed.latency import latency_ratio, median_ratio, random_batch, take_turns
from hf_distill.reports.speed.quality import ONNX_FOLDER
from hf_distill.settings import (
    AdaptationArguments,
    ColumnArguments,
    CorpusArguments,
    ExportArguments,
    PipelineArguments,
    ReportArguments,
    ScoredTaskArguments,
    StudentArguments,
    TaskArguments,
    TeacherArguments,
    TeacherModelArguments,
    TextbookArguments,
)
from hf_distill.storage.files import copy_folder, remove
from hf_distill.tasks.loading import LoadedTask, takes_columns
from hf_distill.tasks.majority import constant_remark
from hf_distill.tasks.one_file import write_task_folder

logger = logging.getLogger(__name__)

# Files that are not copied when the student leaves the folder of the distillation.
_KEPT_APART = ("checkpoint-*", RESULTS_FILE, "arguments.yaml", "_*", ".*")
# The protocol of the latency measurement at the end; it has few batches, because every demo runs it.
SPEED_PROTOCOL = {"batch_size": 32, "seq_length": 128, "num_batches": 8, "warmup": 2}
# Seconds to wait before ONNX Runtime or torch runs, until the threads of the other one stop spinning.
PAUSE = 0.02
# The rows of the final table.
ROLES = ("majority", "teacher", "student", "baseline")
REPORTED = ("teacher", "student", "baseline", "majority", "task", "kind", "metric", "split", "split_rows", "retention")


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

    Writes to `pipeline.output_dir`: `teacher/`, `corpus/` (or `augmented/`, `general/`, depending on the textbook
    source), `distilled/` (the student before it saw a label; with several textbooks also `distilled_cc/` and so on),
    `student/` (adapted, with its card), `student/baseline/`, `student/onnx/`, `report.json` and `report.html`.

    Args:
        task: The task and the location of its rows.
        teacher: The model that becomes the teacher.
        student: Shape and first weights of the student.
        corpus: The general corpus and the settings of the search.
        pipeline: Folder, seed, and the settings of each training stage.
        command: The command line that repeats the run, for report and card.

    Returns:
        The report: `teacher`, `student`, `baseline` and `int8` (each with `score`; `int8` is `None` without an
            export), `task`, `metric`, `retention`, `latency`, `command`, `seconds`.

    Raises:
        ValueError: If a stage's settings are unknown or do not match.
    """
    started = time.perf_counter()
    folder = Path(pipeline.output_dir)
    plan = make_plan(task, teacher, student, corpus, pipeline)
    rows, columns = load_task_from(task, seed=pipeline.seed), task.column_settings()
    if task.data_dir is not None:
        # From a folder with many tasks, only the files of this task are used.
        task = replace(task, data_dir=rows.source)
    if takes_columns(task.task):
        given = task.task
        task = _as_folder(task, rows, folder / ONE_FILE_FOLDER)
        for training in plan.distillations:
            # Its columns were named by flags, which the stages do not have.
            training.eval_task = task.task if training.eval_task == given else training.eval_task
    teaches = pipeline.finetune_teacher and not (pipeline.teach is None and knows_task(teacher, rows.spec))
    stages = Stages(folder, stage_names(plan, teaches), [rows.spec.to_dict(), rows.checksum()])

    taught, model = None, TeacherModelArguments(teacher.teacher_model, teacher.teacher_revision)
    if teaches:
        taught = stages.run("teacher", partial(teach.run, task, teacher, plan.teaching), task, teacher, plan.teaching)
        model = TeacherModelArguments(str(folder / "teacher"))

    places, built = _make_textbooks(stages, plan, task)
    seen = rows_distilled(plan, rows, built)
    adaptation = plan_adaptation(plan, model, rows, seen)
    stages.work = reckon_work(plan, adaptation, model, rows, seen)
    learner, distilled = plan.student, []
    for source, training in zip(plan.sources, plan.distillations, strict=True):
        # If students are scored on a file, it is read with the columns of the task.
        named = columns if training.eval_task and takes_columns(training.eval_task) else {}
        arguments = (learner, model, replace(_textbook(places[source], task, pipeline), **named), training)
        distilled.append(stages.run(stage_of(training), partial(distill.run, *arguments), *arguments))
        learner = replace(plan.student, student_model=str(training.output_dir))

    adapted = _adapt(stages, adaptation, task, model, pipeline)
    exported = _export(stages, task) if pipeline.export else None

    stages.begin("report")
    speed = measure_speed(str(model.teacher_model), str(folder / "student"))
    results = {"teach": taught, "corpus": built, "distill": distilled[-1], "adapt": adapted, "export": exported}
    # Seconds of the whole job, including stages that were finished in an earlier call.
    seconds = time.perf_counter() - started + stages.seconds_before
    report = make_report(results, speed, command, seconds, pipeline.seed)
    write_results(folder, report, name="report.json")
    write_card(folder / "student", pipeline_facts(folder, report, taught, distilled[0], corpus))
    report_verb.run(ReportArguments([str(folder)], str(folder / "report.html")))
    return {**report, "folder": str(folder)}


def summary(report: dict[str, Any]) -> str:
    """The final table: the majority, teacher, student, baseline, and the student in int8."""
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
    """Explain the rows of the table, and report where everything is."""
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
        lines.append(f"the report on all stages in {report['folder']}/report.html")
        lines.append(f"go on with: hf-distill push {student} USER/NAME --dry_run")
    return lines


def _budgets(report: dict[str, Any]) -> list[str]:
    """Report how long student and baseline were trained on the labels, whether it helped, and the evaluation rows."""
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


def _as_folder(task: TaskArguments, rows: LoadedTask, folder: Path) -> TaskArguments:
    """Write a task that flags describe as a folder with a `task.yaml`, so that every stage reads the same rows."""
    write_task_folder(rows, folder)
    unset: dict[str, Any] = {item.name: item.default for item in dataclasses.fields(ColumnArguments)}
    return replace(task, task=str(folder), data_dir=None, evaluation_splits=None, metrics=None, **unset)


def _make_textbooks(stages: Stages, plan: Plan, task: TaskArguments) -> tuple[dict[str, str], dict[str, Any] | None]:
    """Make the textbooks; return the path of each, and the result of the job that built the task's corpus."""
    built = None
    if plan.corpus is not None:
        job = partial(corpus_verb.run, task, plan.corpus, seed=plan.pipeline.seed)
        built = stages.run(PLACES["cc"], job, task, plan.corpus)
    if plan.augmentation is not None:
        stages.run(PLACES["taskda"], partial(augment.run, task, plan.augmentation), task, plan.augmentation)
    if plan.general is not None:
        stages.run(PLACES["general"], partial(general.run, plan.general), plan.general)
    return {**{name: str(stages.folder / place) for name, place in PLACES.items()}, "task": task.task}, built


def _textbook(place: str, task: TaskArguments, pipeline: PipelineArguments) -> TextbookArguments:
    """The text of one stage of the distillation."""
    return TextbookArguments(
        [place, *([task.task] if pipeline.with_task_text and place != task.task else [])],
        data_dir=task.data_dir,
        max_textbook_rows=pipeline.max_textbook_rows,
        with_labels=pipeline.with_labels,
        textbook_eval_rows=pipeline.textbook_eval_rows,
    )


def _adapt(
    stages: Stages,
    plan: AdaptationPlan,
    task: TaskArguments,
    teacher: TeacherModelArguments,
    pipeline: PipelineArguments,
) -> dict[str, Any]:
    """Fine-tune the distilled student if requested, and score it beside its teacher and its baseline."""
    distilled = stages.folder / "distilled"
    way: adapt.Way = ("better" if plan.learnt else "adapt") if pipeline.adapt_student else "keep"
    given = (task, AdaptationArguments(str(distilled), from_scratch=True), plan.student, teacher)
    adapted = stages.run(
        "student",
        partial(adapt.run, *given, way=way, baseline_training=plan.baseline),
        *given,
        way=way,
        baseline_epochs=plan.baseline.num_train_epochs,
    )
    if not pipeline.adapt_student:
        copy_folder(distilled, stages.folder / "student", leave_out=_KEPT_APART)
    return adapted


def _export(stages: Stages, task: TaskArguments) -> dict[str, Any] | None:
    """Export the student to ONNX and score the files; `None`, with a logged reason, if that is impossible."""
    folder = stages.folder / ONNX_STAGE
    scored = ScoredTaskArguments(**dataclasses.asdict(task))
    arguments = ExportArguments(str(folder.parent), output_dir=str(folder))
    try:
        job = partial(export.run, scored, arguments)
        return stages.run(ONNX_STAGE, job, scored, arguments, results_file=EXPORT_FILE)
    except (ImportError, ValueError) as error:
        # The other results are complete; files of an earlier student must not remain in the folder.
        remove(folder)
        logger.warning(f"[{ONNX_STAGE}] left out: {error}")
        return None


def measure_speed(*folders: str) -> dict[str, Any]:
    """Latency of the teacher divided by that of the student, and by that of its int8 file if there is one."""
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


def make_report(
    results: dict[str, Any], speed: dict[str, Any], command: str, seconds: float, seed: int
) -> dict[str, Any]:
    """Return the content of `report.json`.

    Args:
        results: Stage -> its result, `None` for a stage that was left out.
        speed: Latency of teacher and student, and of the student in int8 if it was exported.
        command: The command line that repeats the run.
        seconds: Duration of the whole job.
        seed: Seed of every stage.
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
