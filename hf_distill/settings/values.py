"""The fields of settings classes, the ranges of their numbers, and mappings that a flag gives as JSON."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from ..storage.plain_values import as_mapping, check_range, load_json, shown


def setting(default: Any, text: str) -> Any:
    """A field of a settings class: its default, and the help text, which is its only documentation.

    Of a list every object gets a copy.
    """
    metadata = {"help": text}
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def default_of(item: dataclasses.Field[Any]) -> Any:
    """The default of a field of a settings class; `dataclasses.MISSING` where it has none."""
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()


def check_least(arguments: Any, least: float, *names: str) -> None:
    """Refuse settings that are below a bound, or not finite; `None` stands for "not given" and passes.

    Raises:
        ValueError: If there is one; the message names the flag.
    """
    for name in names:
        check_range(getattr(arguments, name), f"`--{name}`", least=least)


def check_choices(arguments: Any, *names: str) -> None:
    """Refuse settings that are none of the values of their `Literal`.

    Raises:
        ValueError: If there is one; the message names the flag.
    """
    hints = get_type_hints(type(arguments))
    for name in names:
        value, allowed = getattr(arguments, name), get_args(hints[name])
        if value not in allowed:
            raise ValueError(f"`--{name}` is {value!r}; allowed are {', '.join(allowed)}.")


# Name -> smallest value.
LEAST = {
    **dict.fromkeys(
        (
            *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
            *("eval_accumulation_steps", "save_total_limit", "textbook_eval_batch_size", "num_proc", "top_k"),
            "max_tokens_per_batch",
            *("max_textbook_rows", "num_shards", "shard_workers", "lora_r", "doc_stride_windows"),
        ),
        1,
    ),
    **dict.fromkeys(
        (
            *("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm"),
            *("num_train_epochs", "warmup_steps", "logging_steps", "eval_steps", "save_steps", "eval_delay"),
            *("dataloader_num_workers", "seed", "data_seed", "fraction_seed", "label_smoothing_factor"),
            *("neftune_noise_alpha", "projection_learning_rate", "projection_weight_decay", "textbook_eval_rows"),
            *("early_stopping_threshold", "lora_dropout", "doc_stride", "min_words", "max_chars"),
            "calibration_tokens",
        ),
        0,
    ),
}
# Name -> what a value must be above.
ABOVE = dict.fromkeys(("temperature", "tolerance", "lora_alpha"), 0)
MOST = {
    **dict.fromkeys(("adam_beta1", "adam_beta2", "label_smoothing_factor", "lora_dropout"), 1),
    # NumPy's generators take no larger ones.
    **dict.fromkeys(("seed", "data_seed", "fraction_seed"), 2**32 - 1),
}

# Settings of places, progress and the Hub, which change no result: cards and reports leave them out.
SILENT = frozenset(
    (
        *("output_dir", "run_name", "project", "logging_dir", "disable_tqdm", "report_to", "logging_steps"),
        *("logging_first_step", "logging_nan_inf_filter", "save_strategy", "save_steps", "save_total_limit"),
        *("resume_from_checkpoint", "dataloader_pin_memory", "push_to_hub", "hub_model_id", "hub_strategy"),
        *("hub_private_repo", "hub_revision", "hub_always_push", "hub_token"),
    )
)
# Those that the base class of all training arguments fills in, from the machine too.
FILLED_IN = frozenset(
    (
        *("accelerator_config", "ddp_find_unused_parameters", "lr_scheduler_kwargs", "optim_args", "logging_dir"),
        "local_rank",
    )
)

_LARGEST = 2**63 - 1


def check_limits(arguments: Any) -> None:
    """Refuse numbers that are out of their range or not finite.

    Args:
        arguments: A dataclass of arguments.

    Raises:
        ValueError: If there is one; the message names the flag.
    """
    for item in dataclasses.fields(arguments):
        value = getattr(arguments, item.name, None)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                continue
            if isinstance(number, int) and abs(number) > _LARGEST:
                raise ValueError(f"`--{item.name}` is {str(number)[:40]}; no number may need more than 64 bits.")
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"`--{item.name}` is {number}, which is not finite.")
            if not isinstance(value, list):
                name = item.name
                check_range(number, f"`--{name}`", least=LEAST.get(name), most=MOST.get(name), above=ABOVE.get(name))
    _refuse_blank(arguments)
    steps = getattr(arguments, "max_steps", -1)
    if steps < 1 and steps != -1:
        raise ValueError(f"`--max_steps` is {steps}; it must be at least 1, or absent to count epochs.")
    if getattr(arguments, "lr_scheduler_kwargs", None):
        _check_scheduler(arguments.lr_scheduler_type, arguments.lr_scheduler_kwargs)


def _refuse_blank(arguments: Any) -> None:
    """Refuse empty texts, as of a variable of the shell that is not set: as a path they are the working folder.

    Settings of the base class of all training arguments stay as they are, but for the folder; and prompts.
    """
    # By its name, because not every verb imports it.
    theirs = [kind for kind in type(arguments).__mro__ if kind.__name__ == "TrainingArguments"]
    left = {item.name for kind in theirs for item in dataclasses.fields(kind)} - {"output_dir"}
    for item in dataclasses.fields(arguments):
        value = getattr(arguments, item.name, None)
        is_blank = value == "" or (isinstance(value, list) and "" in value)
        if is_blank and item.name not in left and default_of(item) != "" and not item.name.endswith("prompt"):
            shown = "empty" if value == "" else f"{value}, of which one is empty"
            raise ValueError(f"`--{item.name}` is {shown}; give a value, or leave the flag out for its default.")


def _check_scheduler(kind: Any, settings: Any) -> None:
    """Refuse settings that a schedule of the learning rate does not have; the trainer would find out at its start."""
    from transformers import SchedulerType
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

    if not isinstance(settings, Mapping):
        raise ValueError(f"`--lr_scheduler_kwargs` is {settings!r}; it must be a mapping.")
    schedule: Any = TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(kind)]
    known = list(inspect.signature(schedule).parameters)[1:]
    unknown = sorted(map(str, set(settings) - set(known)))
    if unknown and "kwargs" not in known:
        raise ValueError(
            f"`--lr_scheduler_kwargs` has {unknown}, which {str(kind)!r} does not know; known are {known}."
        )


def json_mapping(value: Any, flag: str) -> dict[str, Any]:
    """Settings that are a mapping in YAML, or the text of a flag in JSON.

    Raises:
        ValueError: If they are no mapping.
    """
    if isinstance(value, str):
        value = load_json(value, f"`{flag}` must be JSON such as '{{\"max_steps\": 100}}'; {shown(value)}")
    return {} if value is None else as_mapping(value, f"`{flag}`")
