"""The facts on a student's card: collects what each verb knows of the student that it writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import pipeline

from hf_distill.capture.forward import evaluating
from hf_distill.commands.results import command_line
from hf_distill.corpus.build.loading import corpus_label
from hf_distill.hub.model_card import (
    RERANKING,
    SENTENCES,
    CardFacts,
    CorpusFacts,
    ExampleFacts,
    ModelFacts,
    OnnxFacts,
    ScoreFacts,
    hub_id_of,
    limits_of,
    linked,
    read_facts,
    shown_name,
    write_model_card,
)
from hf_distill.hub.selection import EXPORT_FILE, RESULTS_FILE, onnx_is_outdated
from hf_distill.hub.usage import PIPELINES, example_inputs, pipeline_options
from hf_distill.reports.speed.quality import ONNX_FOLDER
from hf_distill.settings import CorpusArguments
from hf_distill.storage.files import read_json
from hf_distill.students.sentence import keep_activation, read_head
from hf_distill.tasks.catalogue.generation import GenerationSpec
from hf_distill.tasks.rows.text import PAIR_COLUMN
from hf_distill.tasks.spec import TaskSpec
from hf_distill.tasks.vectors import Pairs
from hf_distill.trainers.distillation.card import (
    SILENT_SETTINGS,
    chosen_settings,
    labels_of,
    lineage_of,
    model_facts,
    pipeline_tag,
)

# The folder in which a pipeline keeps the rows of a task that was one file.
ONE_FILE_FOLDER = "task"
# Number of labels in an example that the Hub shows.
_ANSWERS = 5
# Number of rows that are checked for pairs.
_LOOKED_AT = 100
# Flags that a shown command leaves out: local paths, and settings of the progress display.
_UNSHOWN = (SILENT_SETTINGS - {"objectives", "output_dir", "teacher_models", "use_cpu", "seed"}) | {"data_dir"}
# Flags whose values may be folders.
_PLACES = frozenset(
    {"output_dir", "teacher_model", "teacher_models", "student_model", "model", "tokenizer_name", "textbook", "task"}
)


def adapted_facts(
    model: Any, source: str | None, spec: TaskSpec, results: Mapping[str, Any], folder: str, command: str
) -> CardFacts:
    """The facts of a student that was fine-tuned on a task's labels, in addition to those of its distillation.

    Args:
        model: The student.
        source: Folder or id of the model that the fine-tuning started from; `None` for random weights.
        spec: The task.
        results: Content of `results.json`.
        folder: Folder of the student.
        command: The run's command line.
    """
    own, trained = results["student"], None
    if (own.get("choice") or {}).get("kept") != "distilled":
        trained = f"fine-tuned on {own['train_rows']:,} labelled rows of {spec.name}: {_updates(own, results['seed'])}"
    begun = _begun(model, source, folder, results, command)
    return dataclasses.replace(begun, adaptation=trained, scores=task_scores(spec, results), **of_task(spec, begun))


def of_task(spec: TaskSpec, begun: CardFacts) -> dict[str, Any]:
    """The fields of a card that follow from a task, for a model with its head.

    Args:
        spec: The task.
        begun: Known facts of the model; its languages are kept if the task's is unknown.
    """
    return {
        "task": spec.name,
        "language": [spec.language] if spec.language else begun.language,
        "text_pairs": spec.is_pair and spec.kind == "text_classification",
        "writes": False,
    }


def searching_facts(
    model: Any, source: str | None, results: Mapping[str, Any], folder: str, command: str
) -> CardFacts:
    """The facts of a sentence encoder that was trained on pairs, or of a model that was scored on a retrieval task.

    See `adapted_facts`.
    """
    own, encodes = results["student"], results["kind"] == "vectors"
    of_pairs = results["metric"] == Pairs.headline
    kind = RERANKING if not encodes else SENTENCES if of_pairs else "information-retrieval"
    scores = [
        ScoreFacts(
            results["task"],
            metric,
            results["split"],
            student=value,
            teacher=_score(results["teacher"], results["split"], metric),
            baseline=_score(results["baseline"], results["split"], metric),
            complete=results["max_eval_samples"] is None,
            rows=results["split_rows"],
            seed=results["seed"],
            task_type=kind,
        )
        for metric, value in results["student"]["scores"][results["split"]].items()
    ]
    begun = _begun(model, source, folder, results, command)
    trained = None
    if "train_rows" in own:
        trained = f"fine-tuned by CoSENT on {own['train_rows']:,} scored pairs of {results['task']}: " + _updates(
            own, results["seed"], "pairs"
        )
    return dataclasses.replace(
        begun,
        pipeline_tag=SENTENCES if encodes else RERANKING,
        labels=[],
        adaptation=trained or begun.adaptation,
        scores=[*begun.scores, *scores],
    )


def baseline_results(results: Mapping[str, Any]) -> dict[str, Any]:
    """The results of `adapt` for the card of the baseline, which is listed as the student there and had no teacher."""
    return {**results, "student": results["baseline"], "teacher": None, "baseline": None}


def trimmed_facts(
    model: Any, source: str, vocabulary: str, results: Mapping[str, Any], folder: str, command: str
) -> CardFacts:
    """The facts of a model with a trimmed vocabulary, without the scores of the original; see `adapted_facts`.

    Args:
        model: The model.
        source: Folder or id of the original model.
        vocabulary: Description of what was kept.
        results: Content of `results.json`.
        folder: Folder of the model.
        command: The run's command line.
    """
    facts = _begun(model, source, folder, results, command)
    before = f"{facts.adaptation}; then " if facts.adaptation else ""
    cut = f"{before}vocabulary cut to {vocabulary}"
    return dataclasses.replace(facts, adaptation=cut, pipeline_tag=_tag_of(model, folder), scores=[])


def shared_facts(
    model: Any, source: str, specs: Sequence[TaskSpec], results: Mapping[str, Any], folder: str, command: str
) -> CardFacts:
    """The facts of an encoder, or of one of its heads, after multi-task fine-tuning; see `adapted_facts`.

    Args:
        model: The encoder, or a model with the head for the only task of `specs`.
        source: Folder or id of the model that the fine-tuning started from.
        specs: The tasks whose scores are on the card.
        results: Content of `results.json`.
        folder: Folder of the model.
        command: The run's command line.
    """
    found = (results.get("task_teachers") or {}).values()
    teachers = dict.fromkeys(place for places in found for place in ([places] if isinstance(places, str) else places))
    names = ", ".join(results["tasks"])
    scores = [
        ScoreFacts(
            spec.name,
            spec.headline,
            split,
            student=values[spec.headline],
            complete=results["max_eval_samples"] is None,
            rows=results["split_rows"].get(spec.name, {}).get(split),
            seed=results["seed"],
            task_type=spec.kind.replace("_", "-"),
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
        teacher=facts.teacher
        + [ModelFacts(shown_name(place), hub_id_of(place), lineage=lineage_of(place)) for place in teachers],
        adaptation=f"fine-tuned on many tasks at once: {names}; {_updates(results, results['seed'])}",
        language=[language for language in dict.fromkeys(spec.language for spec in specs) if language],
        scores=scores,
    )


def writing_facts(
    model: Any, source: str, spec: GenerationSpec, results: Mapping[str, Any], folder: str, command: str
) -> CardFacts:
    """The facts of an encoder that was trained to generate text; see `adapted_facts`."""
    scores = [
        ScoreFacts(
            spec.name,
            metric,
            split,
            student=values[metric],
            complete=results["max_eval_samples"] is None,
            rows=results["split_rows"].get(split),
            seed=results["seed"],
            task_type="text-generation",
        )
        for split, values in results["scores"].items()
        for metric in spec.metrics
        if metric in values
    ]
    return dataclasses.replace(
        _begun(model, source, folder, results, command),
        adaptation=f"fine-tuned to write on {results['train_rows']:,} rows of {spec.name}: "
        + _updates(results, results["seed"]),
        task=spec.name,
        language=[spec.language] if spec.language else [],
        writes=True,
        scores=scores,
    )


def exported_facts(model: Any, tokenizer: Any, source: str, exported: Mapping[str, Any]) -> CardFacts:
    """The facts of a student's ONNX files in a separate folder; see `adapted_facts`."""
    local = Path(source).is_dir()
    facts = facts_of_folder(model, source, shown_name(str(Path(source).absolute())) if local else source)
    facts = dataclasses.replace(facts, model_name=f"{facts.model_name} (ONNX)", onnx=onnx_facts(exported, ""))
    if not local:
        facts.base_model, facts.initialisation = source, f"the weights of {linked(source, source)}"
    return completed(facts, model, tokenizer)


def pipeline_facts(
    folder: Path,
    report: dict[str, Any],
    taught: dict[str, Any] | None,
    distilled: dict[str, Any],
    corpus: CorpusArguments,
) -> CardFacts:
    """The facts of a pipeline's distilled student, completed with the stages before and after it.

    Args:
        folder: Folder of the pipeline; its name is part of the student's.
        report: The result of `make_report`.
        taught: Result of the teacher's stage, `None` if the teacher was used unchanged.
        distilled: Result of the first stage of the distillation: the origin of the first weights.
        corpus: The general corpus and its licence.
    """
    facts, task = read_facts(folder / "distilled"), report["task"]
    own = read_facts(folder / "student")
    names = ["student", "task", "labels", "text_pairs", "several_labels", "language", "pipeline_tag"]
    names += ["scores", "example", "adaptation"]
    facts = dataclasses.replace(facts, **{name: getattr(own, name) for name in names}, limits=[])
    facts.model_name = f"{folder.name}-{Path(task).name}"
    # The code on the card is meant to run beside the folder of the pipeline.
    facts.student.name = f"{folder.name}/{facts.student.name}"
    if facts.teacher and taught:
        base = linked(taught.get("base_name") or shown_name(str(taught["base_model"])), taught.get("base_id"))
        facts.teacher[0].name = f"{taught.get('base_name') or 'the teacher'}, fine-tuned on {task}"
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
    elif facts.corpus is not None and facts.corpus.name == ONE_FILE_FOLDER:
        facts.corpus.name = f"The texts of {task}"
    if not facts.scores:
        scores: dict[str, Any] = {
            role: (report[role] or {}).get("score") for role in ("student", "teacher", "baseline", "majority")
        }
        facts.scores = [ScoreFacts(task, report["metric"], report["split"], **scores, seed=report["seed"])]
    facts.speed = report["latency"]
    facts.commands = [report["command"]] if report["command"] else []
    facts.seconds = report["seconds"]
    facts.hardware = f"{report['environment']['device']}, {report['environment']['threads']} threads"
    if report["int8"]:
        facts.onnx = onnx_facts(report["int8"] | {"metric": report["metric"]}, "onnx/")
    if report["corpus"]:
        facts.citations = [*facts.citations, "contextualized_corpus", "rake"]
    # The Hub's pipeline tag is the kind of the task with hyphens.
    facts.pipeline_tag = report["kind"].replace("_", "-")
    return facts


def distillation_details(
    first_weights: str, textbook: Any, rows: Any, command: str, environment: Mapping[str, Any]
) -> dict[str, Any]:
    """Fields of the card's facts that follow from the arguments of a distillation.

    Args:
        first_weights: Origin of the student's first weights, in words.
        textbook: `TextbookArguments`.
        rows: The training rows, as text or tokens.
        command: The run's command line, from `shown_command`.
        environment: The environment in the results.
    """
    seconds = rows[:_LOOKED_AT][PAIR_COLUMN] if PAIR_COLUMN in rows.column_names else [None]
    names = ", ".join(_place(source) for source in textbook.textbook or ["the rows of the stored teacher"])
    return {
        "initialisation": first_weights,
        "corpus": CorpusFacts(name=names, statistics={"rows": len(rows)}),
        "text_pairs": None not in seconds,
        "commands": [command],
        "hardware": hardware(environment),
    }


def _begun(model: Any, source: str | None, folder: str, results: Mapping[str, Any], command: str) -> CardFacts:
    """Return the known facts of a model before its last training, and those of the model itself."""
    place = Path(folder).absolute()
    # Every baseline's folder has the same name, so the name of its parent is added.
    name = f"{place.parent.name}-{place.name}" if source is None else place.name
    student = model_facts(model, name if source is not None else f"{place.parent.name}/{place.name}")
    machine = results["environment"]
    own: dict[str, Any] = {
        "model_name": name,
        "student": student,
        "pipeline_tag": pipeline_tag(model),
        "labels": labels_of(model),
        "several_labels": _has_several(model),
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
        "hardware": hardware(machine),
    }
    if source is None:
        return CardFacts(teacher=[], **own, initialisation="random weights", commands=[command])
    try:
        known = read_facts(source)
    except (OSError, ValueError):
        began = f"the weights of {shown_name(source)}"
        return CardFacts(teacher=[], **own, initialisation=began, base_model=hub_id_of(source), commands=[command])
    # The speed of the student and the duration of its first training were measured with another head.
    reset: dict[str, Any] = {"speed": {}, "seconds": None, "example": None, "onnx": None, "limits": []}
    return dataclasses.replace(known, **own, **reset, commands=[*known.commands, command])


def facts_of_folder(model: Any, folder: str, name: str) -> CardFacts:
    """The facts file of a folder, or else facts from its weights and results; ONNX files in the folder are listed."""
    path = Path(folder)
    try:
        facts = read_facts(folder)
    except (OSError, ValueError):
        results = read_json(path / RESULTS_FILE) if (path / RESULTS_FILE).is_file() else {}
        facts = CardFacts(
            model_name=name,
            teacher=[],
            student=model_facts(model, name),
            pipeline_tag=_tag_of(model, folder),
            labels=labels_of(model),
            several_labels=_has_several(model),
            scores=_scores_of_results(results),
        )
    exported = path / ONNX_FOLDER / EXPORT_FILE
    if not exported.is_file():
        return facts
    return dataclasses.replace(
        facts, onnx=None if onnx_is_outdated(path) else onnx_facts(read_json(exported), "onnx/")
    )


def _tag_of(model: Any, folder: str) -> str:
    """The Hub's pipeline tag of a model, from the files beside it and from its head."""
    if read_head(folder) is not None:
        return SENTENCES
    kind = pipeline_tag(model)
    keep_activation(model, [model])
    ranks = model.config.num_labels == 1 and hasattr(model.config, "sentence_transformers")
    return RERANKING if ranks and kind == "text-classification" else kind


def _has_several(model: Any) -> bool:
    """Whether a row may have several of the model's labels."""
    several = getattr(model.config, "problem_type", None) == "multi_label_classification"
    return several and pipeline_tag(model) == "text-classification"


def _scores_of_results(results: Mapping[str, Any]) -> list[ScoreFacts]:
    """The headline score in the results of `adapt` or `evaluate`; empty for those of other verbs."""
    own = results.get("student") if results.get("job") == "adapt" else results
    if results.get("job") not in ("adapt", "evaluate") or not isinstance(own, Mapping):
        return []
    others: dict[str, Any] = {
        role: (results.get(role) or {}).get("score") for role in ("teacher", "baseline", "majority")
    }
    task, metric, split = (str(results[name]) for name in ("task", "metric", "split"))
    known: dict[str, Any] = {
        "complete": results.get("max_eval_samples") is None,
        "rows": results.get("split_rows"),
        "seed": results.get("seed"),
        "constant": own.get("constant"),
    }
    return [ScoreFacts(task, metric, split, own["score"], **others, **known)]


def task_scores(spec: TaskSpec, results: Mapping[str, Any]) -> list[ScoreFacts]:
    """Every metric on every evaluated split, beside the scores of the run's other models."""
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


def _score(found: Any, split: str, metric: str) -> float | None:
    """One score of a model in the results; `None` if it was not measured."""
    value = ((found or {}).get("scores") or {}).get(split, {}).get(metric)
    return None if value is None else float(value)


def onnx_facts(exported: Mapping[str, Any], folder: str) -> OnnxFacts:
    """The ONNX files of an export.

    Args:
        exported: Content of `export.json`.
        folder: Path of the files relative to the card, with a trailing slash; empty for the card's own folder.
    """
    sizes = {name: size for name, size in exported["bytes"].items() if name != "pytorch"}
    own = {name: exported.get(name) for name in ("difference", "int8_difference", "metric")}
    return OnnxFacts(folder, sizes, **own, scores=dict(exported.get("scores") or {}))


def example_of(model: Any, tokenizer: Any, facts: CardFacts, texts: Sequence[str] = ()) -> ExampleFacts | None:
    """Run a student on an example text in the same way as the code on its card.

    Args:
        model: The student, on its device.
        tokenizer: Its tokenizer.
        facts: Its pipeline tag, its language, and whether it reads pairs.
        texts: One text, or the two texts of a pair, instead of the built-in examples.

    Returns:
        The example; without answers for tags that transformers has no pipeline for; `None` if the Hub has no widget.
    """
    tag = facts.pipeline_tag or ""
    language = facts.language[0] if facts.language else "en"
    inputs = example_inputs(tag, tokenizer.mask_token, language=language, pairs=facts.text_pairs)
    if inputs is None or facts.writes:
        return None
    if texts and tag in ("text-classification", "token-classification"):
        inputs = dict(zip(("text", "text_pair"), texts, strict=False))
    # Pipelines accept only the model classes of transformers.
    if tag not in PIPELINES or not type(model).__module__.startswith("transformers."):
        return ExampleFacts(inputs)
    given = inputs if "text_pair" in inputs else inputs["text"]
    make_pipeline: Any = pipeline
    with evaluating(model):
        answer = make_pipeline(tag, model=model, tokenizer=tokenizer, device=model.device, **PIPELINES[tag])
        printed = _rounded(answer(given, **pipeline_options(tag, several=facts.several_labels)))
        likeliest = [] if tag == "token-classification" else _rounded(answer(given, top_k=_ANSWERS))
    output = [{"label": one.get("label", one.get("token_str")), "score": one["score"]} for one in likeliest]
    return ExampleFacts(inputs, str(printed), output)


def _rounded(value: Any) -> Any:
    """Round the numbers in the output of a pipeline."""
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    # JSON cannot hold NumPy numbers.
    return value if isinstance(value, (str, int)) else round(float(value), 4)


def completed(facts: CardFacts, model: Any = None, tokenizer: Any = None) -> CardFacts:
    """Complete the facts with an example, if a model is given, and with the derived limits, if there are none."""
    example = facts.example
    if example is None and model is not None and tokenizer is not None:
        example = example_of(model, tokenizer, facts)
    return dataclasses.replace(facts, example=example, limits=facts.limits or limits_of(facts))


def write_card(folder: str | Path, facts: CardFacts) -> None:
    """Write the card of a student's folder, with the limits that follow from the facts."""
    facts = completed(facts)
    size = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
    student = dataclasses.replace(facts.student, bytes=size or facts.student.bytes)
    write_model_card(folder, dataclasses.replace(facts, student=student))


def shown_command(verb: str, *arguments: Any) -> str:
    """The command line of a run for readers: arguments that differ from the defaults, with folders by name."""
    chosen = {name: value for item in arguments for name, value in chosen_settings(item).items()}
    shown = {name: value for name, value in chosen.items() if name not in _UNSHOWN}
    for name in _PLACES & set(shown):
        value = shown[name]
        shown[name] = list(map(_place, value)) if isinstance(value, list) else _place(value)
    return command_line(verb, shown)


def _place(value: str) -> str:
    """Return a Hub id or name unchanged, and for a path the name of its file or folder."""
    path = Path(value).expanduser()
    return shown_name(str(path.absolute())) if path.is_absolute() or path.exists() else value


def hardware(environment: Mapping[str, Any]) -> str:
    """Describe the machine of a run."""
    return f"{environment['device']}, {environment['cpus']} cores, {environment['threads']} of them used"


def _updates(trained: Mapping[str, Any], seed: int, of: str = "rows") -> str:
    """Describe a fine-tuning in words, from its `steps` and `settings`."""
    settings = trained["settings"]
    rate = f"{settings['learning_rate']:g}"
    return f"{trained['steps']:,} updates of {rows_per_update(settings)} {of}, learning rate {rate}, seed {seed}"


def rows_per_update(settings: Mapping[str, Any]) -> int:
    """Rows of one update of a fine-tuning, over all processes."""
    return (
        settings["per_device_train_batch_size"]
        * settings.get("gradient_accumulation_steps", 1)
        * settings.get("world_size", 1)
    )
