"""Models with a task's head: loaded, or made with random weights; labels by name; LoRA on and off."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from hf_distill._optional import require
from hf_distill.arguments import TeacherArguments
from hf_distill.loading import UNREADABLE, load_error
from hf_distill.tasks.labels import is_generic, match_label_order, names_of
from hf_distill.tasks.spec import TaskSpec
from hf_distill.trainers.heads import head_of

logger = logging.get_logger(__name__)

# Their first usable position is the one after the padding token's.
OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "xmod", "longformer"})

_PEFT_TASKS = {
    "text_classification": "SEQ_CLS",
    "token_classification": "TOKEN_CLS",
    "question_answering": "QUESTION_ANS",
    # peft has no kind for it; its head trains in full all the same.
    "multiple_choice": "SEQ_CLS",
}


def load_task_model(model: str, spec: TaskSpec, *, flag: str, revision: str | None = None) -> PreTrainedModel:
    """Load a model with the head of a task, in float32; a head that does not fit is made anew.

    Args:
        model: Hub id or folder of an encoder, with or without a head.
        spec: The task.
        flag: The argument that carried `model`, for the error.
        revision: Branch, tag or commit.

    Raises:
        OSError: If there is no such model.
    """
    stored = _load_config(model, flag, revision)
    config = task_config(stored, spec)
    head = head_of(spec)
    has_head = any(name.endswith(head.suffix) for name in stored.architectures or [])
    found, wanted = _label_names(stored), list(spec.id2label.values())
    if has_head and found != wanted and sorted(found) == sorted(wanted):
        logger.warning(
            f"The head of {model!r} has its labels in another order than the task; it will learn the task's."
        )
    try:
        return head.auto_class.from_pretrained(
            model, config=config, revision=revision, dtype=torch.float32, ignore_mismatched_sizes=True
        )
    except UNREADABLE as error:
        raise load_error(model, error, flag=flag) from error


def random_task_model(model: str, spec: TaskSpec, *, flag: str, revision: str | None = None) -> PreTrainedModel:
    """The same architecture and head with random weights: the student that had no teacher.

    Seed torch before (`transformers.set_seed`).

    Raises:
        OSError: If there is no such model.
    """
    config = task_config(_load_config(model, flag, revision), spec)
    return head_of(spec).auto_class.from_config(config, dtype=torch.float32)


def task_config(config: PreTrainedConfig, spec: TaskSpec) -> PreTrainedConfig:
    """A copy of a configuration with the task's labels, by name."""
    values = config.to_dict() | {
        "id2label": spec.id2label,
        "label2id": spec.label2id,
        "problem_type": spec.problem_type,
    }
    return type(config).from_dict(values)


def label_order(config: PreTrainedConfig, spec: TaskSpec, *, where: str) -> list[int]:
    """For every label of the task its index among the model's outputs.

    Args:
        config: Configuration of a model with the task's kind of head.
        spec: The task.
        where: Name of the model, for messages.

    Raises:
        ValueError: If the labels do not fit.
    """
    if spec.is_span:
        return [0, 1]
    if spec.kind == "multiple_choice":
        return list(range(spec.num_labels))
    if spec.label_names is None:
        if config.num_labels != 1:
            raise ValueError(f"{where} has {config.num_labels} outputs; the regression task {spec.name!r} needs one.")
        return [0]
    found = _label_names(config)
    if is_generic(found) and not is_generic(spec.label_names) and len(found) == len(spec.label_names):
        logger.warning_once(
            f"The labels of {where} have no names ({found}); they are taken to be {list(spec.label_names)} in this "
            "order. Set `id2label` in its configuration to have them checked."
        )
    return match_label_order(found, spec.label_names, where=where)


def _label_names(config: PreTrainedConfig) -> list[str]:
    """Names of a model's outputs in their order."""
    return names_of({str(name): int(index) for index, name in (config.id2label or {}).items()})


def check_positions(config: PreTrainedConfig, max_length: int) -> None:
    """Check that the model has a position for every token of a row.

    Raises:
        ValueError: If it has fewer.
    """
    positions = num_positions(config)
    if positions is not None and max_length > positions:
        raise ValueError(f"`--max_length` is {max_length}, but the model has {positions} positions.")


def num_positions(config: PreTrainedConfig) -> int | None:
    """The longest row that a model can read in tokens; `None` where its configuration sets no bound."""
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return None
    offset = (getattr(config, "pad_token_id", None) or 0) + 1 if config.model_type in OFFSET_POSITIONS else 0
    return positions - offset


def lora_alpha(arguments: TeacherArguments) -> float | None:
    """The alpha of LoRA, twice the rank unless given; `None` without LoRA."""
    if arguments.lora_r is None:
        return None
    return 2.0 * arguments.lora_r if arguments.lora_alpha is None else arguments.lora_alpha


def add_lora(model: PreTrainedModel, arguments: TeacherArguments, spec: TaskSpec) -> Any:
    """Wrap a classifier in LoRA where a rank was given; the head trains in full.

    Raises:
        ImportError: If peft is not installed.
        ValueError: If peft knows no target modules for the architecture and none were given.
    """
    return wrap_in_lora(model, arguments, _PEFT_TASKS[spec.kind])


def wrap_in_lora(model: PreTrainedModel, arguments: TeacherArguments, task_type: str) -> Any:
    """Wrap any model in LoRA where a rank was given.

    Args:
        model: The model.
        arguments: Rank, alpha, dropout and layers.
        task_type: What the model is to peft, which trains the heads of known kinds in full.

    Raises:
        ImportError: If peft is not installed.
        ValueError: If peft knows no target modules for the architecture and none were given.
    """
    if arguments.lora_r is None:
        return model
    peft = require("peft", extra="peft", needed_by="`--lora_r`")
    targets = arguments.lora_target_modules
    config = peft.LoraConfig(
        task_type=task_type,
        r=arguments.lora_r,
        lora_alpha=lora_alpha(arguments),
        lora_dropout=arguments.lora_dropout,
        target_modules="all-linear" if targets == ["all-linear"] else targets,
    )
    try:
        return peft.get_peft_model(model, config)
    except ValueError as error:
        raise ValueError(f"LoRA: {error} Name layers with `--lora_target_modules`, or give all-linear.") from error


def merge_lora(model: Any) -> PreTrainedModel:
    """The plain model: LoRA's matrices added to the weights; a model without LoRA as it is."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def _load_config(model: str, flag: str, revision: str | None) -> PreTrainedConfig:
    """The stored configuration of a model."""
    try:
        return AutoConfig.from_pretrained(model, revision=revision)
    except UNREADABLE as error:
        raise load_error(model, error, flag=flag) from error
