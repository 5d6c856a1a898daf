"""The facts for a model card that a trainer, or a model alone, has."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedModel

from ...capture.architectures import shows_its_signals, without_adapters
from ...hub.model_card import (
    RERANKING,
    SENTENCES,
    CardFacts,
    ModelFacts,
    ObjectiveFacts,
    ScoreFacts,
    curves_from_log,
    linked,
    shown_name,
)
from ...hub.selection import RESULTS_FILE
from ...settings import DistillationArguments
from ...settings.parsing import arguments_to_dict
from ...settings.values import FILLED_IN, SILENT, default_of
from ...storage.files import read_json
from ...students.first_weights import first_weights_of
from ...students.sentence import SentenceHead
from ...students.shapes import shape_of
from ...students.sizes import count_parameters
from ...tasks.label_names import names_of_head
from ...tasks.vectors import Pairs, Reranking, Retrieval
from ...teachers.base import TeacherSource
from ..checkpoints import name_of_base

PIPELINE_TAGS = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMultipleChoice": "multiple-choice",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
}
# Settings that say nothing about the student.
SILENT_SETTINGS = SILENT | {
    *("eval_agreement", "eval_task", "eval_task_dir", "eval_task_samples", "objectives", "teacher_models"),
    *("dataloader_num_workers", "use_cpu", "seed"),
}
# Heads whose outputs have names.
_NAMED_HEADS = frozenset({"text-classification", "token-classification"})
_NOTHING: tuple[Any, ...] = (None, False, "", [], {})


_TASK_TYPES = {Pairs: SENTENCES, Retrieval: "information-retrieval", Reranking: RERANKING}


def model_facts(model: Any, name: str, **more: Any) -> ModelFacts:
    """Return the facts about one model for a card."""
    plain = without_adapters(model)
    count = count_parameters(plain)
    # A student without attention has neither heads nor a feed-forward width.
    shape = plain.config if shows_its_signals(plain) else shape_of(plain)
    return ModelFacts(
        name=name,
        architecture=type(plain).__name__,
        num_layers=plain.config.num_hidden_layers,
        hidden_size=shape.hidden_size,
        num_heads=getattr(shape, "num_heads", None),
        intermediate_size=getattr(shape, "intermediate_size", None),
        vocab_size=plain.config.vocab_size,
        parameters=count.total,
        embedding_parameters=count.embeddings,
        **more,
    )


def pipeline_tag(model: PreTrainedModel) -> str:
    """The Hub's name for what the model's head does."""
    name = type(model).__name__
    return next((tag for ending, tag in PIPELINE_TAGS.items() if name.endswith(ending)), "feature-extraction")


def labels_of(model: PreTrainedModel) -> list[str]:
    """Names of the classes that a model's head tells apart, in their order; none for a number or a bare encoder."""
    if pipeline_tag(model) not in _NAMED_HEADS or (model.config.num_labels or 0) < 2:
        return []
    return names_of_head(model.config)


def card_facts(trainer: Any, model_name: str) -> CardFacts:
    """Everything a trainer knows about its student: models, objectives, settings, curves, versions.

    Args:
        trainer: A trainer that distils.
        model_name: Title of the card.
    """
    objectives, args = trainer.model.objectives, trainer.args
    described = {name: objective.describe() for name, objective in objectives.items()}
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    taken = first_weights_of(trainer.student)
    base, base_id = _base_of(trainer.student)
    return CardFacts(
        model_name=model_name,
        initialisation=None if taken is None else f"cut out of the teacher: {taken}",
        teacher=[facts for teacher in trainer.teachers if (facts := _teacher_facts(teacher)) is not None],
        student=model_facts(
            trainer.student,
            # Its code loads the folder, whatever the title is.
            Path(args.output_dir).absolute().name,
            hub_id=trainer.hub_model_id or args.hub_model_id,
            vector=_vector_of(trainer.model.sentence_head, trainer.student.config),
            adapter_of=base,
        ),
        base_model=base_id,
        objectives=[
            ObjectiveFacts(name, trainer.model.weights[name], settings=_given(settings))
            for name, settings in described.items()
        ],
        layer_map="; ".join(_layers(name, settings) for name, settings in described.items() if "layers" in settings)
        or None,
        updates=trainer.state.global_step or None,
        rows_per_update=None if args.max_tokens_per_batch else rows,
        seed=args.seed,
        settings=_settings(args),
        curves=curves_from_log(trainer.state.log_history),
        versions={
            "transformers": transformers.__version__,
            "torch": transformers.utils.import_utils.get_torch_version(),
        },
        citations=[objective.citation for objective in objectives.values() if objective.citation],
        pipeline_tag=_tag_of(trainer),
        labels=labels_of(trainer.student),
        several_labels=getattr(trainer.student.config, "problem_type", None) == "multi_label_classification",
        scores=_vector_scores(trainer),
    )


def _base_of(student: Any) -> tuple[str | None, str | None]:
    """What the base model of an adapter is called, and its id where it came from the Hub."""
    found = name_of_base(student)
    if not found:
        return None, None
    # Only what came from the Hub has a commit; a path says nothing to a stranger.
    if getattr(without_adapters(student).config, "_commit_hash", None) is not None:
        return found, found
    return shown_name(found), None


def _tag_of(trainer: Any) -> str:
    """The Hub's name for what a student does, by its modules, by what it learnt, or by its head."""
    if trainer.model.sentence_head is not None:
        return SENTENCES
    reranks = any(objective.reads_candidates for objective in trainer.model.objectives.values())
    return RERANKING if reranks else pipeline_tag(trainer.student)


def _vector_scores(trainer: Any) -> list[ScoreFacts]:
    """The scores of a sentence encoder or a reranker in its last evaluation, beside its teacher's where known."""
    found = trainer.evaluation.vectors
    if found is None:
        return []
    return [
        ScoreFacts(
            found.task.name,
            metric,
            found.task.split,
            student=value,
            teacher=found.teacher.get(metric),
            complete=trainer.args.eval_task_samples is None,
            rows=found.task.rows,
            seed=trainer.args.seed,
            task_type=_TASK_TYPES[type(found.task)],
        )
        for metric, value in found.last.items()
    ]


def _teacher_facts(teacher: TeacherSource) -> ModelFacts | None:
    """Facts about a teacher; `None` for a source that is no model."""
    model = teacher.skeleton()
    if model is None:
        return None
    lineage = lineage_of(getattr(model.config, "name_or_path", ""))
    return model_facts(model, **teacher.source(), lineage=lineage, vector=_vector_of(teacher.head, model.config))


def _vector_of(head: SentenceHead | None, config: Any) -> str | None:
    """Say how a sentence encoder makes one vector of a text: `mean, normalize: 384 numbers`."""
    return None if head is None else f"{head.describe()}: {head.width(config.hidden_size)} numbers"


def lineage_of(folder: str) -> str | None:
    """Say in words how the model of a folder was made, where the results of its training lie beside it."""
    try:
        results = read_json(Path(folder) / RESULTS_FILE) if folder else None
    except (OSError, ValueError):
        return None
    if not isinstance(results, dict) or not results.get("base_model"):
        return None
    # The results are written for others, with the last part of a path only.
    base = linked(str(results.get("base_name") or shown_name(str(results["base_model"]))), results.get("base_id"))
    tasks = results.get("tasks") or [results.get("task")]
    on = ", ".join(str(task) for task in tasks if task)
    return f"fine-tuned on {on}, from {base}" if on else None


def _layers(name: str, settings: dict[str, Any]) -> str:
    from ...objectives.layer_map import format_layer_map

    return f"{name}: {format_layer_map(tuple((s, t) for s, t in settings['layers']))}"


def chosen_settings(arguments: Any) -> dict[str, Any]:
    """Fields of a dataclass of arguments that differ from their defaults because somebody chose them."""
    defaults = {field.name: default_of(field) for field in dataclasses.fields(arguments)}
    return {
        name: value
        for name, value in arguments_to_dict(arguments).items()
        if name in defaults and name not in FILLED_IN and value is not None and value != defaults[name]
        # An empty value in place of another one was nobody's choice.
        if not (_is_nothing(value) and _is_nothing(defaults[name]))
    }


def _settings(args: DistillationArguments) -> dict[str, Any]:
    """Settings that say something about the student."""
    return {name: value for name, value in chosen_settings(args).items() if name not in SILENT_SETTINGS}


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings that have a value."""
    return {name: value for name, value in settings.items() if value is not None}


def _is_nothing(value: Any) -> bool:
    """Whether a setting says "not given"; a zero is a number."""
    return any(value == nothing and type(value) is type(nothing) for nothing in _NOTHING)
