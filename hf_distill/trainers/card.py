"""Facts for the model card, from a trainer."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import transformers
from transformers import PreTrainedModel

from ..arguments import DistillationArguments
from ..hub.model_card import CardFacts, ModelFacts, ObjectiveFacts, curves_from_log, settings_that_differ
from ..output_capture import shows_its_signals
from ..shapes import shape_of
from ..stored.teacher import StoredTeacher
from ..students import count_parameters
from ..teachers_adapters import AdapterTeacher

if TYPE_CHECKING:
    from .distillation import DistillationTrainer

PIPELINE_TAGS = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
}
# Say nothing about the student: where files lie, how progress is shown, what the Hub is told.
SILENT_SETTINGS = {
    "output_dir",
    "run_name",
    "disable_tqdm",
    "report_to",
    "logging_steps",
    "logging_first_step",
    "eval_agreement",
    "eval_task",
    "eval_task_dir",
    "eval_task_samples",
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "push_to_hub",
    "hub_model_id",
    "hub_strategy",
    "hub_private_repo",
    "hub_revision",
    "hub_always_push",
    "hub_token",
    "objectives",
    "resume_from_checkpoint",
    "teacher_models",
    "dataloader_pin_memory",
}


def model_facts(model: Any, name: str, **more: Any) -> ModelFacts:
    """What a card says of one model."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
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


def card_facts(trainer: DistillationTrainer, model_name: str) -> CardFacts:
    """Everything a trainer knows about its student: models, objectives, settings, curves, versions.

    Args:
        trainer: A trainer that distils.
        model_name: Title of the card.
    """
    objectives = trainer.model.objectives
    described = {name: objective.describe() for name, objective in objectives.items()}
    return CardFacts(
        model_name=model_name,
        teacher=[_teacher_facts(teacher) for teacher in trainer.teachers if hasattr(teacher, "source")],
        student=model_facts(trainer.student, model_name, hub_id=trainer.hub_model_id or trainer.args.hub_model_id),
        objectives=[
            ObjectiveFacts(name, trainer.model.weights[name], settings=settings)
            for name, settings in described.items()
        ],
        layer_map="; ".join(_layers(name, settings) for name, settings in described.items() if "layers" in settings)
        or None,
        settings=_settings(trainer.args),
        curves=curves_from_log(trainer.state.log_history),
        versions={
            "transformers": transformers.__version__,
            "torch": transformers.utils.import_utils.get_torch_version(),
        },
        citations=[objective.citation for objective in objectives.values() if objective.citation],
        pipeline_tag=pipeline_tag(trainer.student),
    )


def _teacher_facts(teacher: Any) -> ModelFacts:
    model = teacher.skeleton() if isinstance(teacher, StoredTeacher) else teacher.model
    source = teacher.source()
    if isinstance(teacher, AdapterTeacher):
        source["name"] += f", adapter {teacher.adapter}"
    return model_facts(model, **source)


def _layers(name: str, settings: dict[str, Any]) -> str:
    from ..layer_map import format_layer_map

    return f"{name}: {format_layer_map(tuple((s, t) for s, t in settings['layers']))}"


def _settings(args: DistillationArguments) -> dict[str, Any]:
    """Settings that differ from those of `DistillationArguments` without any flag."""
    fields = {field.name: field for field in dataclasses.fields(args)}
    defaults = {
        name: field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        for name, field in fields.items()
    }
    values = {name: value for name, value in args.to_dict().items() if name in fields and value is not None}
    # These are filled in by the base class from the machine, not by the user.
    filled = {"ddp_find_unused_parameters", "accelerator_config", "lr_scheduler_kwargs", "optim_args", "logging_dir"}
    return settings_that_differ(values, defaults, SILENT_SETTINGS | filled)
