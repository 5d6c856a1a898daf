"""The report of a pipeline about its models: `report.json`, its table, and the facts of the student's card."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from hf_distill.commands.results import environment
from hf_distill.corpus import corpus_label
from hf_distill.hub.loading import load_model
from hf_distill.hub.model_card import CardFacts, CorpusFacts, ScoreFacts, read_facts, shown_name
from hf_distill.reports.speed.latency import latency_ratio
from hf_distill.settings import CorpusArguments
from hf_distill.tasks.majority import constant_remark

# The latency of one stage: small, because it runs at the end of every demo.
SPEED_PROTOCOL = {"batch_size": 32, "seq_length": 128, "num_batches": 8, "warmup": 2}
REPORTED = ("teacher", "student", "baseline", "majority", "task", "kind", "metric", "split", "retention")


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


def format_report(report: dict[str, Any]) -> str:
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
    return "\n".join(rows)
