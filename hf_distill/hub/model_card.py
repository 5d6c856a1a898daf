"""The model card of a student, rendered from facts alone.

A card states only the facts that were provided: missing measurements and sections without facts are left out. The
facts are plain data and lie beside the card as `distillation.json`, so that a card can be rendered again.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from hf_distill.hub.citations import resolve_citations
from hf_distill.hub.disclosure import public
from hf_distill.hub.rendering import render_template, write_card_text
from hf_distill.hub.selection import CARD_FILE, FACTS_FILE
from hf_distill.hub.usage import adapter_parts, onnx_usage, parts, usage
from hf_distill.storage.files import read_json, write_json
from hf_distill.storage.plain_values import as_hint

TEMPLATE = "model_card.md"
# Maximum number of labels on a card; the configuration has all of them.
MAX_LABELS = 30
# If fewer rows were scored, the card says how much a single row changes the score.
FEW_ROWS = 1_000
# Folder names that are meaningless to a reader.
_SAYS_NOTHING = re.compile(r"(?i)model|final|best|last|weights|checkpoint-\d+|snapshots|[0-9a-f]{40}")
# Optional columns of the table of scores, shown if any score has a value, before and after the ratio.
_SCORE_COLUMNS = ("teacher", "baseline", "majority")
_SCORE_ORIGIN = ("rows", "seed", "commit")
# The Hub's pipeline tags for sentence encoders and rerankers, and further tags for finding them.
SENTENCES = "sentence-similarity"
RERANKING = "text-ranking"
_TAGS = {
    SENTENCES: ("sentence-transformers", SENTENCES, "feature-extraction"),
    RERANKING: ("sentence-transformers", "cross-encoder", "reranker"),
}
# Fields that the card shows beside a speed-up.
_SPEED_FIELDS = ("num_batches", "batch_size", "seq_length", "device", "dtype")


@dataclass
class ModelFacts:
    """A teacher or student.

    Attributes:
        name: Name for readers.
        hub_id: Its id on the Hub; `None` for a local model, which is then not in the card's metadata.
        revision: Commit on the Hub.
        architecture: Model class.
        num_layers: Number of layers.
        hidden_size: Width.
        num_heads: Attention heads.
        intermediate_size: Feed-forward width.
        vocab_size: Tokens in the vocabulary.
        vector: How a sentence encoder pools a text into one vector, and the width of the vector.
        parameters: Number of all parameters.
        embedding_parameters: Number of parameters of the embeddings.
        bytes: Size of the weights on disk.
        lineage: Its own origin, such as "fine-tuned on GLUE SST-2 for 3 epochs".
        licence: Its licence, if known.
        adapter_of: Name by which the base model is loaded, for an adapter.
    """

    name: str
    hub_id: str | None = None
    revision: str | None = None
    architecture: str | None = None
    num_layers: int | None = None
    hidden_size: int | None = None
    num_heads: int | None = None
    intermediate_size: int | None = None
    vocab_size: int | None = None
    vector: str | None = None
    parameters: int | None = None
    embedding_parameters: int | None = None
    bytes: int | None = None
    lineage: str | None = None
    licence: str | None = None
    adapter_of: str | None = None


@dataclass
class ObjectiveFacts:
    """One objective of the training.

    Attributes:
        name: Registered name.
        weight: Weight in the sum; a schedule is described in words.
        terms: Its terms with their weights inside the objective.
        settings: Its settings, such as relation heads, temperature or layers.
    """

    name: str
    weight: float | str = 1.0
    terms: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class CorpusFacts:
    """The text that the student was trained on.

    Attributes:
        name: Name for readers.
        hub_id: Its id on the Hub.
        description: How it was made.
        licence: Its licence, if known.
        statistics: Numbers about it, such as sentences, tokens, anchors, engine.
    """

    name: str
    hub_id: str | None = None
    description: str | None = None
    licence: str | None = None
    statistics: dict[str, Any] = field(default_factory=dict)


@dataclass
class ScoreFacts:
    """One metric on one split of one task, as measured; `None` for models that were not evaluated.

    Attributes:
        task: Name of the task, such as `glue/sst2`.
        metric: Name of the metric.
        split: Evaluated split.
        student: Score of the student.
        teacher: Score of the teacher.
        baseline: Score of the same student trained on the labels without a teacher.
        hub_dataset: Data set on the Hub for the model index; by default the task's name.
        hub_config: Its configuration.
        complete: Whether the split is the complete official one; the card marks other splits.
        rows: Number of rows that were scored.
        seed: Seed of the run.
        commit: Commit of this package at the measurement.
        task_type: The Hub's name for the task, if it differs from the model's.
        majority: Score of always predicting the most frequent label.
        constant: The only label that the student predicts; `None` if it predicts several.
    """

    task: str
    metric: str
    split: str
    student: float | None = None
    teacher: float | None = None
    baseline: float | None = None
    hub_dataset: str | None = None
    hub_config: str | None = None
    complete: bool = True
    rows: int | None = None
    seed: int | None = None
    commit: str | None = None
    task_type: str | None = None
    majority: float | None = None
    constant: str | float | None = None

    @property
    def is_no_better(self) -> bool:
        """Whether the student scores no better than always predicting the most frequent label."""
        return self.student is not None and self.majority is not None and self.student <= self.majority


@dataclass
class ExampleFacts:
    """The student's output for one input.

    Attributes:
        inputs: The inputs, named as in the Hub's widgets: `text`, `context`, `source_sentence`, ...
        printed: The output of the card's code.
        output: Answers with scores for the Hub's widget, most likely first; empty for other kinds of models.
    """

    inputs: dict[str, Any]
    printed: str | None = None
    output: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class OnnxFacts:
    """ONNX files of the student.

    Attributes:
        folder: Path of the files in the repository, with a trailing slash; empty if they are beside the card.
        bytes: `onnx` and `onnx_int8` -> size of the file.
        difference: Largest difference of any fp32 output from PyTorch's.
        int8_difference: Largest difference of any int8 output from PyTorch's.
        metric: Name of the metric.
        scores: `pytorch`, `onnx` and `onnx_int8` -> score.
    """

    folder: str
    bytes: dict[str, int]
    difference: float | None = None
    int8_difference: float | None = None
    metric: str | None = None
    scores: dict[str, float] = field(default_factory=dict)


@dataclass
class CardFacts:
    """All facts that a card can state.

    Attributes:
        model_name: Title of the card and name in the model index.
        teacher: The teacher; several for multi-teacher distillation.
        student: The student.
        objectives: The objectives of the distillation.
        layer_map: Which student layer learnt from which teacher layer, in words.
        initialisation: Origin of the student's first weights.
        corpus: The text of the distillation.
        adaptation: Training after the distillation, in words, such as fine-tuning on labels.
        updates: Optimizer steps of the distillation.
        rows_per_update: Rows of each optimizer step.
        seed: Seed of the distillation.
        scale: The scale of the training compared with the paper's, in words.
        settings: Training settings that differ from the defaults.
        curves: Term -> pairs (step, value), as logged.
        scores: Scores, the headline first.
        speed: Record of `benchmark.speed.SpeedComparison.to_dict`.
        commands: Commands that reproduce the student, in order.
        seconds: Wall-clock seconds of the whole job.
        hardware: Machine of the run.
        versions: Package -> version.
        limits: Known limits, one sentence each.
        citations: Keys of `hub.citations` or BibTeX entries.
        language: ISO codes.
        licence: Licence of the student, as an id of the Hub.
        tags: Tags in addition to those that follow from the facts.
        pipeline_tag: Task of the Hub's widget, such as `text-classification`.
        task: The task on whose labels the student was last fine-tuned.
        labels: Names of the classes, in the order of the head's outputs.
        text_pairs: Whether a row has two texts.
        several_labels: Whether a row may have several labels.
        writes: Whether it is an encoder that generates text (`EncoderForGeneration`).
        base_model: Hub id of the model that its first weights came from, if that is not a teacher.
        example: The student's output for a text.
        onnx: Its ONNX files; beside the card, if it has no other weights.
    """

    model_name: str
    teacher: list[ModelFacts]
    student: ModelFacts
    objectives: list[ObjectiveFacts] = field(default_factory=list)
    layer_map: str | None = None
    initialisation: str | None = None
    corpus: CorpusFacts | None = None
    adaptation: str | None = None
    updates: int | None = None
    rows_per_update: int | None = None
    seed: int | None = None
    scale: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    scores: list[ScoreFacts] = field(default_factory=list)
    speed: dict[str, Any] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    seconds: float | None = None
    hardware: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    limits: list[str] = field(default_factory=list)
    citations: list[str] = field(default_factory=list)
    language: list[str] = field(default_factory=list)
    licence: str | None = None
    tags: list[str] = field(default_factory=list)
    pipeline_tag: str | None = None
    task: str | None = None
    labels: list[str] = field(default_factory=list)
    text_pairs: bool = False
    several_labels: bool = False
    writes: bool = False
    base_model: str | None = None
    example: ExampleFacts | None = None
    onnx: OnnxFacts | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CardFacts:
        """Read facts from a mapping of the fields, as in a YAML file.

        Raises:
            ValueError: If a field is unknown or a required one is missing.
        """
        facts: CardFacts = as_hint(values, cls, "A model card")
        return facts


def render_card(facts: CardFacts) -> str:
    """The card as Markdown with its YAML header.

    Raises:
        ValueError: If a citation is unknown, or the speed record is invalid.
    """
    name = facts.student.hub_id or facts.student.name
    language = facts.language[0] if facts.language else "en"
    if "speedup" in facts.speed:
        as_hint(facts.speed["speedup"], float, "Facts of a model card, speed, speedup")
        missing = [name for name in _SPEED_FIELDS if name not in facts.speed]
        if missing:
            raise ValueError(f"Facts of a model card, speed: {missing} are missing beside the speed-up.")
    shown: dict[str, Any] = {"pairs": facts.text_pairs, "inputs": facts.example.inputs if facts.example else None}
    code = usage(
        name,
        facts.pipeline_tag,
        language=language,
        several=facts.several_labels,
        writes=facts.writes,
        **shown,
    )
    whole = parts(name, facts.pipeline_tag, writes=facts.writes)
    if facts.student.adapter_of is not None:
        code, whole = None, adapter_parts(name, facts.student.adapter_of, facts.pipeline_tag, facts.labels)
    # The code on the card runs in a copy of the folder, which contains the tokenizer too.
    onnx = facts.onnx and onnx_usage(".", facts.onnx.folder, language, facts.onnx.bytes, facts.pipeline_tag, **shown)
    text = render_template(
        TEMPLATE,
        {
            "cell": _cell,
            "code": _code,
            "number": _number,
            "millions": _millions,
            "linked": lambda model: linked(model.name, model.hub_id),
        },
        facts=facts,
        usage=code,
        parts=whole,
        onnx_usage=onnx,
        onnx_alone=facts.onnx is not None and not facts.onnx.folder,
        max_labels=MAX_LABELS,
        score_columns=[key for key in _SCORE_COLUMNS if _is_known(facts.scores, key)],
        score_origin=[key for key in _SCORE_ORIGIN if _is_known(facts.scores, key)],
        compared=_is_known(facts.scores, "teacher"),
        no_better=[score for score in facts.scores if score.is_no_better],
        curve_names=list(facts.curves),
        curve_rows=downsample_curves(facts.curves),
        citations=resolve_citations(facts.citations),
    )
    return f"---\n{card_metadata(facts).to_yaml()}\n---\n\n{text}\n"


def card_metadata(facts: CardFacts) -> ModelCardData:
    """The YAML header: language, licence, lineage, data sets, metrics and the model index of the student's scores."""
    results = [
        EvalResult(
            task_type=score.task_type or facts.pipeline_tag or "text-classification",
            dataset_type=score.hub_dataset or score.task,
            dataset_name=score.task,
            dataset_config=score.hub_config,
            dataset_split=score.split,
            metric_type=score.metric,
            metric_name=score.metric,
            metric_value=score.student,
        )
        for score in facts.scores
        if score.student is not None
    ]
    datasets = [score.hub_dataset for score in facts.scores] + [facts.corpus.hub_id if facts.corpus else None]
    distilled = ["knowledge-distillation"] if facts.teacher or facts.objectives else []
    theirs = _TAGS.get(facts.pipeline_tag or "", ())
    tags = [*theirs, "hf_distill", *distilled, *(item.name for item in facts.objectives), *facts.tags]
    return ModelCardData(
        language=_distinct(facts.language) or None,
        license=facts.licence,
        library_name=_library(facts),
        base_model=_distinct([*(teacher.hub_id for teacher in facts.teacher), facts.base_model]) or None,
        tags=_distinct(tags),
        datasets=_distinct(datasets) or None,
        metrics=_distinct(score.metric for score in facts.scores) or None,
        pipeline_tag=facts.pipeline_tag,
        widget=_widget(facts),
        model_name=facts.model_name if results else None,
        eval_results=results or None,
    )


def _library(facts: CardFacts) -> str:
    """The package that loads the student, by its name on the Hub."""
    if facts.student.adapter_of is not None:
        return "peft"
    return "sentence-transformers" if facts.pipeline_tag in _TAGS else "transformers"


def _widget(facts: CardFacts) -> list[dict[str, Any]] | None:
    """The example for the Hub's widget, which takes one text or named texts, but no pairs."""
    if facts.example is None or facts.text_pairs:
        return None
    output = {"output": facts.example.output} if facts.example.output else {}
    return [{**facts.example.inputs, "example_title": "An example", **output}]


def limits_of(facts: CardFacts) -> list[str]:
    """The limits that follow from the facts: seeds and rows of the scores, labels, texts, missing scores."""
    limits = []
    seeds = {score.seed for score in facts.scores if score.seed is not None}
    if facts.scores and len(seeds) <= 1:
        limits.append("One seed: differences of about a point are within what another seed gives.")
    few = [score for score in facts.scores if score.rows is not None and score.rows < FEW_ROWS]
    limits += [
        f"Scored on {score.rows} rows of {score.task} ({score.split}): a row is {100 / score.rows:.2g} points."
        for score in few[:1]
        if score.rows
    ]
    if not facts.scores:
        limits.append("Not scored on any task: measure its quality on your own task first.")
    if facts.labels and facts.several_labels:
        limits.append(f"It knows its {len(facts.labels)} labels and no others.")
    elif facts.labels:
        limits.append(f"It answers with one of its {len(facts.labels)} labels, also where none of them fits.")
    if facts.scores:
        tasks = ", ".join(dict.fromkeys(score.task for score in facts.scores))
        limits.append(f"Made for texts like those of {tasks}; other texts and other languages were not tried.")
    return limits


def shown_name(path: str) -> str:
    """Return the name of a model for readers: its Hub id or the name of its folder, never a path.

    If a folder's name is meaningless (`model`, `checkpoint-500`), the name of its parent folder is used.
    """
    stored = re.search(r"models--([^/\\]+)[/\\]snapshots[/\\]", path)
    if stored:
        return stored[1].replace("--", "/")
    parts_of_path = [part for part in re.split(r"[/\\]", path) if part not in ("", ".", "..")]
    named = [part for part in parts_of_path if not _SAYS_NOTHING.fullmatch(part)]
    if not named:
        return parts_of_path[-1] if parts_of_path else "a model"
    last = parts_of_path[-1]
    return f"{named[-1]} ({last})" if last.startswith("checkpoint-") else named[-1]


def hub_id_of(model: str) -> str | None:
    """The Hub id of a model; `None` for a local folder."""
    return None if Path(model).expanduser().exists() else model


def linked(name: str, hub_id: str | None) -> str:
    """The name of a model, with a link to its page on the Hub if it has one."""
    return f"[{name}](https://huggingface.co/{hub_id})" if hub_id else name


def write_model_card(folder: str | os.PathLike[str], facts: CardFacts) -> Path:
    """Write the card (`README.md`) and its facts (`distillation.json`) into a model folder.

    Neither contains a secret or a local folder, whatever the facts say.

    Returns:
        Path of the card.
    """
    target = Path(folder)
    facts = CardFacts.from_dict(public(facts))
    text = render_card(facts)
    write_json(target / FACTS_FILE, dataclasses.asdict(facts), default=str)
    return write_card_text(target / CARD_FILE, text)


def read_facts(folder: str | os.PathLike[str]) -> CardFacts:
    """Read the facts beside a card.

    Raises:
        FileNotFoundError: If the folder has no facts.
        ValueError: If they have unknown fields.
    """
    return CardFacts.from_dict(read_json(Path(folder) / FACTS_FILE))


def curves_from_log(log_history: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """The loss and its terms from a trainer's `state.log_history`; evaluations and totals are left out."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for entry in log_history:
        for name, value in entry.items():
            if (name == "loss" or name.startswith("loss/")) and "step" in entry:
                curves.setdefault(name, []).append((int(entry["step"]), float(value)))
    return curves


def downsample_curves(
    curves: Mapping[str, Sequence[tuple[int, float]]], num_rows: int = 10
) -> list[tuple[int, list[float | None]]]:
    """At most `num_rows` logged steps, evenly spaced, including the first and the last.

    Returns:
        Rows (step, value of each curve), with `None` for a curve without a value at that step.
    """
    steps = sorted({step for points in curves.values() for step, _ in points})
    if len(steps) > num_rows:
        last = len(steps) - 1
        steps = [steps[round(row * last / (num_rows - 1))] for row in range(num_rows)]
    values = {name: dict(points) for name, points in curves.items()}
    return [(step, [values[name].get(step) for name in curves]) for step in steps]


def _distinct(items: Iterable[str | None]) -> list[str]:
    """Items in order, without `None` and duplicates."""
    return list(dict.fromkeys(item for item in items if item))


def _is_known(scores: Iterable[ScoreFacts], name: str) -> bool:
    """Whether any score has a value for that field."""
    return any(getattr(score, name) is not None for score in scores)


def _cell(value: Any) -> str:
    """Format a value as a table cell: bars would end the cell, line breaks the row."""
    text = _number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
    return " ".join(text.split()).replace("|", "\\|")


def _code(value: Any) -> str:
    """Format a value as inline code on one line; a backtick in it does not end the code."""
    text = " ".join(str(value).split())
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _number(value: Any) -> str:
    """Integers with separators, other numbers with four significant digits; a dash for a missing number."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return f"{value:.4g}"


def _millions(value: int | None) -> str:
    if value is None:
        return "–"
    return f"{value / 1e6:.1f} M" if value >= 100_000 else f"{value:,}"
