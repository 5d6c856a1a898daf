"""Models with a task's head: loaded, or made with random weights; labels by name; LoRA on and off."""

from __future__ import annotations

import re
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from hf_distill._optional import require
from hf_distill.capture.architectures import num_positions, without_adapters
from hf_distill.hub.loading import UNREADABLE, load_error, named_architectures
from hf_distill.settings import TeacherArguments
from hf_distill.tasks.label_names import is_generic, match_label_order, names_of_head, order_by_name, order_by_number
from hf_distill.tasks.spec import TaskSpec
from hf_distill.trainers.fine_tuning.heads import head_of

logger = logging.get_logger(__name__)

# What adapters put into the names of the layers that they copy or add to.
_ADAPTED = re.compile(r"\.(original_module|modules_to_save\.[^.]+|base_layer|lora_[AB]\.[^.]+)(?=\.|$)")

_NUMBERED = (
    "The labels of {where} have no names to compare ({found} against {wanted}); they are taken to count them in this "
    "order. Set `id2label` in its configuration to have them checked."
)

_PEFT_TASKS = {
    "text_classification": "SEQ_CLS",
    "token_classification": "TOKEN_CLS",
    "question_answering": "QUESTION_ANS",
    # peft has no kind for it; its head trains in full all the same.
    "multiple_choice": "SEQ_CLS",
}


def load_task_model(model: str, spec: TaskSpec, *, flag: str, revision: str | None = None) -> PreTrainedModel:
    """Load a model with the head of a task, in float32.

    A head that the model has for the task's labels comes along, in the task's order (see `fit_head`); one that does
    not fit is made anew.

    Args:
        model: Hub id or folder of an encoder, with or without a head.
        spec: The task.
        flag: The argument that carried `model`, for the error.
        revision: Branch, tag or commit.

    Raises:
        OSError: If there is no such model.
    """
    stored, head = _load_config(model, flag, revision), head_of(spec)
    try:
        loaded, report = head.auto_class.from_pretrained(
            model,
            config=task_config(stored, spec),
            revision=revision,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except UNREADABLE as error:
        raise load_error(model, error, flag=flag) from error
    others = [str(key) for key, *_ in report["mismatched_keys"]]
    # A head may be another; what transformers makes anew of an encoder would be random.
    wrong = [key for key in others if loaded.base_model_prefix and key.startswith(f"{loaded.base_model_prefix}.")]
    if wrong:
        shapes = ValueError(f"its weights have other shapes than its config.json says ({wrong[0]})")
        raise load_error(model, shapes, flag=flag)
    new = {*report["missing_keys"], *others}
    outputs = {f"{name}.weight" for name, _ in output_layers(loaded)}
    if outputs & new:
        return loaded
    kinds = stored.architectures or []
    if kinds and not any(name.endswith(head.suffix) for name in kinds):
        # Rows of another kind of head may have the same name and shape.
        logger.warning(
            f"The head of `{flag}` {model!r} ({kinds[0]}) does not fit {spec.name!r}: a new one is trained."
        )
        _renew_outputs(loaded)
    else:
        fit_head(loaded, names_of_head(stored), spec, where=f"`{flag}` {model!r}")
    return loaded


def fit_head(model: Any, found: list[str], spec: TaskSpec, *, where: str) -> None:
    """Bring the outputs of a trained head into the order of a task's labels.

    Its rows are permuted where the names are the same in another order. Where one side has numbers for names, these
    count the names of the other, and a line says so. Where the names are others, or the task's are unverified
    numbers, the output layer begins anew, and a line says so.

    Args:
        model: A model, possibly with adapters, whose head has as many outputs as the task has labels.
        found: What its outputs mean, in their order.
        spec: The task.
        where: What the model is, for messages.

    Raises:
        ValueError: If the rows cannot be permuted.
    """
    wanted = list(spec.label_names or ())
    if not wanted or spec.kind == "multiple_choice" or found == wanted:
        return
    order = order_by_name(found, wanted, spec.label_aliases)
    if order is None and not _is_unknown(found, spec):
        order = order_by_number(found, wanted)
        if order is not None:
            logger.warning_once(_NUMBERED.format(where=where, found=found, wanted=wanted))
    if order is None:
        logger.warning(
            f"The head of {where} has the labels {found}, the task {spec.name!r} has {wanted}: its output layer is "
            "not used, a new one is trained."
        )
        _renew_outputs(model)
    elif order != list(range(len(order))):
        _permute_outputs(model, order, where)


def output_layers(model: Any) -> list[tuple[str, Any]]:
    """The layer that gives a classifier's logits, by its name in the model.

    One layer in a plain model. Adapters keep several copies or parts of it (`modules_to_save`, LoRA), whose rows are
    the same outputs.
    """
    plain = without_adapters(model)
    encoder = getattr(plain, plain.base_model_prefix, None) if plain.base_model_prefix else None
    inside = set() if encoder is None else {id(module) for module in encoder.modules()}
    candidates = [
        (name, module)
        for name, module in plain.named_modules()
        if id(module) not in inside
        and getattr(getattr(module, "weight", None), "ndim", 0) == 2
        and module.weight.shape[0] == plain.config.num_labels
    ]
    if not candidates:
        return []
    last = _ADAPTED.sub("", candidates[-1][0])
    return [(name, module) for name, module in candidates if _ADAPTED.sub("", name) == last]


@torch.no_grad()
def _permute_outputs(model: Any, order: list[int], where: str) -> None:
    """Put the rows of the output layer into another order."""
    layers = output_layers(model)
    if not layers:
        raise ValueError(
            f"The head of {where} has its labels in another order than the task, but its output layer, which would be "
            "reordered, is not found: give the task the head's order (`label_names` in a task.yaml)."
        )
    index = torch.tensor(order)
    for name, module in layers:
        # Down to the rank, rows of the second matrix of LoRA are outputs; those of the first one are none.
        if ".lora_A" not in name:
            for values in _own_rows(module, len(order)):
                values.copy_(values[index.to(values.device)].clone())


@torch.no_grad()
def _renew_outputs(model: Any) -> None:
    """Random weights for the output layer, as a new model would have."""
    std = getattr(model.config, "initializer_range", None) or 0.02
    for name, module in output_layers(model):
        if ".lora_" not in name:
            for values in _own_rows(module, module.weight.shape[0]):
                values.normal_(0.0, std) if values.ndim == 2 else values.zero_()


def _own_rows(module: Any, count: int) -> list[torch.Tensor]:
    """Weight and bias of a layer, one row an output."""
    return [values for values in module.parameters(recurse=False) if values.shape[:1] == (count,)]


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
    # Thresholds are those of the labels before; with attention maps a model could not be saved, as `load_model` says.
    left_out = ("label_thresholds", "output_attentions")
    values = {name: value for name, value in config.to_dict().items() if name not in left_out} | {
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
    found, wanted = names_of_head(config), list(spec.label_names)
    order = order_by_name(found, wanted, spec.label_aliases)
    if order is None and _is_unknown(found, spec):
        raise ValueError(
            f"{where} has the labels {found}, but those of task {spec.name!r} are numbers without names: which number "
            "is which label is unknown. Name them in the order of the numbers with `--class_names`."
        )
    if order is None and order_by_number(found, wanted) is not None and not (is_generic(found) and is_generic(wanted)):
        logger.warning_once(_NUMBERED.format(where=where, found=found, wanted=wanted))
    return match_label_order(found, wanted, where=where, aliases=spec.label_aliases)


def _is_unknown(found: list[str], spec: TaskSpec) -> bool:
    """Whether a model's labels have names, and those of the task numbers that nobody has verified."""
    return spec.names_unverified and not is_generic(found)


def check_positions(config: PreTrainedConfig, max_length: int) -> None:
    """Check that the model has a position for every token of a row.

    Raises:
        ValueError: If it has fewer.
    """
    positions = num_positions(config)
    if positions is not None and max_length > positions:
        raise ValueError(f"`--max_length` is {max_length}, but the model has {positions} positions: give no more.")


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
        config = AutoConfig.from_pretrained(model, revision=revision)
        named_architectures(config)
        return config
    except UNREADABLE as error:
        raise load_error(model, error, flag=flag) from error
