"""Cards of models that verbs write, with the facts that the verb knows and the trainer does not."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from hf_distill.corpus.build.loading import corpus_label
from hf_distill.hub.model_card import (
    CardFacts,
    CorpusFacts,
    ModelFacts,
    ScoreFacts,
    read_facts,
    shown_name,
    write_model_card,
)
from hf_distill.settings import CorpusArguments
from hf_distill.tasks.catalogue.generation import GenerationSpec
from hf_distill.tasks.spec import TaskSpec
from hf_distill.trainers.distillation.card import (
    SILENT_SETTINGS,
    chosen_settings,
    labels_of,
    lineage_of,
    model_facts,
    pipeline_tag,
)

# Flags that say where something lies on this machine, or how the run looked.
_UNSHOWN = (SILENT_SETTINGS - {"objectives", "output_dir", "teacher_models", "use_cpu", "seed"}) | {"data_dir"}
# Flags whose values may be folders.
_PLACES = frozenset(
    {"output_dir", "teacher_model", "teacher_models", "student_model", "tokenizer_name", "textbook", "task"}
)


def shown_command(verb: str, *arguments: Any) -> str:
    """The command of a run for readers: what differs from the defaults, folders by their names."""
    words = ["hf-distill", verb]
    chosen = {name: value for item in arguments for name, value in chosen_settings(item).items()}
    for name, value in chosen.items():
        if name in _UNSHOWN:
            continue
        items = value if isinstance(value, list) else [value]
        shown = [json.dumps(item) if isinstance(item, (dict, list)) else str(item) for item in items]
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no_{name}")
        else:
            words += [f"--{name}", *(_place(item) if name in _PLACES else item for item in shown)]
    return shlex.join(words)


def distillation_details(
    first_weights: str, textbook: Any, rows: int, command: str, environment: Mapping[str, Any]
) -> dict[str, Any]:
    """Fields of the card's facts that a distillation's arguments say.

    Args:
        first_weights: Where the student's first weights came from, in words.
        textbook: `TextbookArguments`.
        rows: Rows to learn from.
        command: The run's command, as `shown_command` gives it.
        environment: Of the results.
    """
    names = ", ".join(_place(source) for source in textbook.textbook or ["the rows of the stored teacher"])
    return {
        "initialisation": first_weights,
        "corpus": CorpusFacts(name=names, statistics={"rows": rows}),
        "commands": [command],
        "hardware": hardware(environment),
    }


def hardware(environment: Mapping[str, Any]) -> str:
    """The machine of a run in words."""
    return f"{environment['device']}, {environment['cpus']} cores, {environment['threads']} of them used"


def adapted_facts(
    model: Any, source: str, spec: TaskSpec, results: Mapping[str, Any], folder: str, command: str
) -> CardFacts:
    """The facts of a student that was fine-tuned on a task's labels, over those of its distillation.

    Args:
        model: The student.
        source: Folder or id of the model that it began as.
        spec: The task.
        results: Content of `results.json`.
        folder: Where it is written.
        command: The run's command.
    """
    own = results["student"]
    settings = own["settings"]
    trained = (
        f"fine-tuned on {own['train_rows']:,} labelled rows of {spec.name}: {own['steps']:,} updates of "
        f"{_rows_per_update(settings)} rows, learning rate {settings['learning_rate']:g}, seed {results['seed']}"
    )
    return dataclasses.replace(
        _begun(model, source, folder, results, command),
        adaptation=trained,
        task=spec.name,
        language=[spec.language],
        text_pairs=spec.is_pair and spec.kind == "text_classification",
        scores=task_scores(spec, results),
    )


def shared_facts(
    model: Any, source: str, specs: Sequence[TaskSpec], results: Mapping[str, Any], folder: str, command: str
) -> CardFacts:
    """The facts of an encoder that was fine-tuned on many tasks at once; see `adapted_facts`."""
    found = (results.get("task_teachers") or {}).values()
    teachers = dict.fromkeys(place for places in found for place in ([places] if isinstance(places, str) else places))
    names = ", ".join(spec.name for spec in specs)
    settings = results["settings"]
    scores = [
        ScoreFacts(
            spec.name,
            spec.headline,
            split,
            student=values[spec.headline],
            seed=results["seed"],
            majority=_score((results.get("majority") or {}).get(spec.name), split, spec.headline),
            constant=(results.get("constants") or {}).get(spec.name) if split == spec.headline_split else None,
        )
        for spec in specs
        for split, values in results["scores"].get(spec.name, {}).items()
        if spec.headline in values
    ]
    facts = _begun(model, source, folder, results, command)
    return dataclasses.replace(
        facts,
        teacher=facts.teacher + [ModelFacts(shown_name(place), lineage=lineage_of(place)) for place in teachers],
        adaptation=f"fine-tuned on many tasks at once: {names}; {results['steps']:,} updates of "
        f"{_rows_per_update(settings)} rows, learning rate {settings['learning_rate']:g}, seed {results['seed']}",
        language=list(dict.fromkeys(spec.language for spec in specs)),
        scores=scores,
    )


def writing_facts(
    model: Any, source: str, spec: GenerationSpec, results: Mapping[str, Any], folder: str, command: str
) -> CardFacts:
    """The facts of an encoder that learnt to write; see `adapted_facts`."""
    settings = results["settings"]
    scores = [
        ScoreFacts(spec.name, metric, split, student=values[metric], seed=results["seed"], task_type="text-generation")
        for split, values in results["scores"].items()
        for metric in spec.metrics
        if metric in values
    ]
    return dataclasses.replace(
        _begun(model, source, folder, results, command),
        adaptation=f"fine-tuned to write on {results['train_rows']:,} rows of {spec.name}: {results['steps']:,} "
        f"updates of {_rows_per_update(settings)} rows, learning rate {settings['learning_rate']:g}, seed "
        f"{results['seed']}",
        task=spec.name,
        language=[spec.language],
        writes=True,
        scores=scores,
    )


def pipeline_facts(
    folder: Path,
    report: dict[str, Any],
    taught: dict[str, Any] | None,
    distilled: dict[str, Any],
    adapted: dict[str, Any],
    corpus: CorpusArguments,
) -> CardFacts:
    """The facts of a pipeline's distilled student, completed with what came before and after it.

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


def task_scores(spec: TaskSpec, results: Mapping[str, Any]) -> list[ScoreFacts]:
    """Every metric of every evaluated split, beside the scores of the other models of the run."""
    from_hub = spec.hub_path is not None and str(results["data"]).startswith(spec.hub_path)
    rows = {results["split"]: results["split_rows"]}
    return [
        ScoreFacts(
            task=spec.name,
            metric=metric,
            split=split,
            student=_score(results["student"], split, metric),
            teacher=_score(results["teacher"], split, metric),
            baseline=_score(results["baseline"], split, metric),
            majority=_score(results.get("majority"), split, metric),
            constant=results["student"].get("constant") if split == results["split"] else None,
            hub_dataset=spec.hub_path if from_hub else None,
            hub_config=spec.hub_config if from_hub else None,
            complete=results["max_eval_samples"] is None,
            rows=rows.get(split),
            seed=results["seed"],
            task_type=spec.kind.replace("_", "-"),
        )
        for split, scores in results["student"]["scores"].items()
        for metric in (spec.headline, *(name for name in spec.metrics if name != spec.headline))
        if metric in scores
    ]


def write_card(folder: str, facts: CardFacts) -> None:
    """Write the card of a folder that a training saved a model to."""
    size = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
    student = dataclasses.replace(facts.student, bytes=size or None)
    write_model_card(folder, dataclasses.replace(facts, student=student))


def _begun(model: Any, source: str, folder: str, results: Mapping[str, Any], command: str) -> CardFacts:
    """Return the facts known about a model before its last training, and those about the model itself."""
    name = Path(folder).absolute().name
    student = model_facts(model, name)
    machine = results["environment"]
    own: dict[str, Any] = {
        "model_name": name,
        "student": student,
        "pipeline_tag": pipeline_tag(model),
        "labels": labels_of(model),
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
        "hardware": hardware(machine),
    }
    try:
        known = read_facts(source)
    except (OSError, ValueError):
        began = f"the weights of {shown_name(source)}"
        base = None if Path(source).expanduser().exists() else source
        return CardFacts(teacher=[], **own, initialisation=began, base_model=base, commands=[command])
    # How fast the student is, and how long the first training took, was measured with another head.
    return dataclasses.replace(known, **own, speed={}, seconds=None, commands=[*known.commands, command])


def _score(found: Any, split: str, metric: str) -> float | None:
    """One score of what the results say of a model."""
    value = ((found or {}).get("scores") or {}).get(split, {}).get(metric)
    return None if value is None else float(value)


def _rows_per_update(settings: Mapping[str, Any]) -> int:
    return (
        settings["per_device_train_batch_size"]
        * settings.get("gradient_accumulation_steps", 1)
        * settings.get("world_size", 1)
    )


def _place(value: str) -> str:
    """A Hub id or name as it is, a folder or file by its name."""
    path = Path(value).expanduser()
    return shown_name(str(path.absolute())) if path.is_absolute() or path.exists() else value
