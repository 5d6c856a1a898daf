"""Checkpoints that are either complete or ignored, and what they contain beside the student.

A checkpoint has a marker (`hf_distill.storage.steps`). Before its first file is written, the marker says that the
checkpoint is not complete; after the last one, it has the checksums of all files. So an incomplete or damaged
checkpoint is recognised before it is loaded.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import safetensors.torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..storage.files import (
    WEIGHTS,
    PathLike,
    damage_of_file,
    disk_space,
    new_file,
    read_json,
    read_mapping,
    remove,
    write_json,
)
from ..storage.steps import MARKER, begin, damage_of_step, differences, finish, read_marker
from ..tasks.labels import LABEL_COLUMNS
from ..tasks.rows.text import checksum_of_rows

logger = logging.getLogger(__name__)

# Stands for the last whole checkpoint of the output folder, which is not there when a job is started for the first
# time.
LAST_CHECKPOINT = "last"
# How the last checkpoint, and none, is asked for.
LAST_ASKED = (LAST_CHECKPOINT, True, "True", "true")
NOT_ASKED = ("False", "false")
# The leading underscore keeps both files out of every push to the Hub.
MANIFEST_NAME = "_distillation.json"
OBJECTIVES_NAME = "_objectives.safetensors"
STATE_NAME = "trainer_state.json"
ADAPTER_NAME = "adapter_model.safetensors"
# What a plain `Trainer` and its strategies write; only whole sets are gone on with.
_OTHER_WEIGHTS = ("pytorch_model_fsdp*", "global_step*", "*/adapter_model.*")
_OPTIMIZERS = ("optimizer.pt", "optimizer.bin", "optimizer_*", "rank*-optimizer.pt", "global_step*")
# Arguments of `Trainer` that decide which weights a training ends with. A run that goes on with others is told so.
_DECIDING = (
    *("seed", "data_seed", "per_device_train_batch_size", "gradient_accumulation_steps", "world_size"),
    *("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "weight_decay", "max_grad_norm"),
    *("optim", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon", "num_train_epochs", "max_steps", "bf16"),
    *("fp16", "tf32", "label_smoothing_factor", "neftune_noise_alpha", "dataloader_drop_last"),
    *("train_sampling_strategy", "load_best_model_at_end", "metric_for_best_model"),
)
# All others that our own arguments have do so too, but for these, and for those that the manifest compares.
_SILENT = frozenset(
    {"text_column", "teacher_device", "offload_teachers", "eval_agreement", "eval_task", "eval_task_dir"}
    | {"eval_task_samples", "objectives", "teacher_models", "combine", "teacher_weights", "teacher_prompt"}
)
# So many rows, from everywhere, stand for all of them.
_ROWS_COMPARED = 4096
# Numbers of a configuration that decide which weights there are.
_SIZES = re.compile(r"model_type|(num|n)_.*|.*_(size|dim)|dim")


@dataclass
class Checkpoints:
    """The checkpoints of one trainer: chooses the one to resume from, and writes complete ones."""

    # How many checkpoints are kept, as it was given; while one is being written.
    _limits: list[int | None] = field(default_factory=list)
    # When the run began that the checkpoints are of.
    _begun: float = 0.0
    # Rows, and what identifies them.
    _rows: tuple[Any, str | None] = (None, None)

    # ---- Going on ----

    def chosen(
        self, asked: str | bool | None, args: TrainingArguments, settings: Mapping[str, Any], *, stock: bool
    ) -> str | None:
        """The checkpoint to load: on every process the one that the first process chose.

        Args:
            asked: Folder of a checkpoint; "last" or `True` for the last complete one of the output folder.
            args: Of the training.
            settings: What decides the training now (`deciding`).
            stock: Whether the checkpoints are those of `Trainer`, file by file.

        Raises:
            ValueError: If there is no such checkpoint, or it is not complete.
        """
        found: list[Any] = [None, None]
        if args.process_index == 0:
            try:
                found[0] = _checkpoint_to_load(asked, str(args.output_dir), stock=stock)
            except ValueError as error:
                found[1] = error
        if args.world_size > 1:
            broadcast_object_list(found)
        if found[1] is not None:
            raise found[1]
        self._begun = time.time()
        if found[0] is not None and args.process_index == 0:
            _tell_differences(found[0], settings)
            if not stock and not any(any(Path(found[0]).glob(pattern)) for pattern in _OPTIMIZERS):
                logger.warning(
                    f"The checkpoint {found[0]!r} has no state of the optimizer (`--save_only_model`): averages of "
                    "gradients and the learning rate begin anew, so that the run does not end as one that was never "
                    "interrupted."
                )
            newest = next(iter(_checkpoints_in(str(args.output_dir))), None)
            # From any other one begins a run of its own, whose checkpoints come behind those that are there.
            if asked in LAST_ASKED or (newest is not None and os.path.samefile(found[0], newest)):
                self._begun = _begun_at(found[0])
        return found[0]

    def deciding(self, args: TrainingArguments, rows: Any) -> dict[str, Any]:
        """Return the settings that change the resulting weights of a training on some rows."""
        if self._rows[0] is not rows:
            self._rows = (rows, _content_of(rows))
        stock = {item.name for item in dataclasses.fields(TrainingArguments)}
        own = [item.name for item in dataclasses.fields(args) if item.name not in stock | _SILENT]
        values = {name: getattr(args, name, None) for name in (*_DECIDING, *own)}
        return {
            **{name: getattr(value, "value", value) for name, value in values.items()},
            "train_rows": len(rows) if hasattr(rows, "__len__") else None,
            "content_of_train_rows": self._rows[1],
        }

    def check_best(self, best: str | None) -> None:
        """Refuse a best checkpoint that is not what was written.

        Raises:
            ValueError: If it is damaged.
        """
        if best is not None and Path(best, MARKER).is_file():
            reason = damage_of_checkpoint(best)
            if reason is not None:
                raise ValueError(f"The best checkpoint cannot be loaded: {reason}.")

    # ---- Saving ----

    @contextmanager
    def writing(self, folder: Path, args: TrainingArguments, accelerator: Accelerator) -> Iterator[None]:
        """Write a checkpoint in the block, and `finish` it there; half of one is removed.

        `Trainer` would delete older checkpoints before this one is finished, so in the block it keeps all.

        Args:
            folder: Of the checkpoint.
            args: Of the training.
            accelerator: Knows the processes.

        Raises:
            DiskFullError: If the disk is full.
        """
        if args.should_save:
            begin(folder)
        accelerator.wait_for_everyone()
        self._limits.append(args.save_total_limit)
        args.save_total_limit = None
        try:
            with disk_space(folder, "a checkpoint"):
                yield
        except BaseException:
            if args.should_save:
                # Half of it is of no use, and makes no room.
                remove(folder)
            raise
        finally:
            args.save_total_limit = self._limits.pop()

    def finish(
        self, folder: Path, args: TrainingArguments, settings: Mapping[str, Any], accelerator: Accelerator
    ) -> None:
        """Mark a checkpoint as complete, once all processes have written their part."""
        accelerator.wait_for_everyone()
        if args.should_save:
            finish(folder, settings, {"begun": self._begun})

    def rotate(self, folder: PathLike, limit: int | None, best: str | None) -> None:
        """Delete checkpoints above a limit: those that are not complete first, then the oldest.

        Args:
            folder: The folder of the checkpoints.
            limit: How many are kept, at least the last one and the best one; `None` and 0 keep all.
            best: The best one.
        """
        found = _checkpoints_in(folder) if limit and limit > 0 else []
        whole = [checkpoint for checkpoint in found if _begun_at(checkpoint) < math.inf]
        kept = {os.path.realpath(checkpoint) for checkpoint in (*whole[:1], *([best] if best else []))}
        beyond = len(found) - max(limit or 0, len(kept))
        halves = [checkpoint for checkpoint in found if checkpoint not in whole]
        left_over = [one for one in (*halves, *reversed(whole)) if os.path.realpath(one) not in kept]
        for checkpoint in left_over[: max(0, beyond)]:
            remove(checkpoint)

    @contextmanager
    def as_given(self, args: TrainingArguments) -> Iterator[None]:
        """The arguments as they were given, while they are saved."""
        limit = args.save_total_limit
        args.save_total_limit = self._limits[-1] if self._limits else limit
        try:
            yield
        finally:
            args.save_total_limit = limit


def _content_of(rows: Any) -> str | None:
    """Return a checksum of rows from everywhere in a data set, by their tokens and labels; `None` of other rows."""
    found = []
    for part in getattr(rows, "parts", [rows]):
        if not isinstance(part, datasets.Dataset):
            return None
        names = [name for name in ("input_ids", *LABEL_COLUMNS) if name in part.column_names] or part.column_names
        places = np.linspace(0, len(part) - 1, min(len(part), _ROWS_COMPARED)).astype(np.int64)
        found.append(checksum_of_rows(part.select_columns(names).select(places)))
    return " ".join(found)


# ---- What goes on ----


def go_on(state: TrainerState, checkpoint: str, callbacks: Iterable[TrainerCallback]) -> bool:
    """Complete what `Trainer` reads of a checkpoint that a training goes on from.

    The best checkpoint is looked for beside it, since folders are moved and copied. Callbacks that have joined since
    get an entry, without which the next checkpoint could not be written. Early stopping goes on counting.

    Args:
        state: Of the training, read from the checkpoint.
        checkpoint: Its folder.
        callbacks: Of the trainer.

    Returns:
        Whether early stopping had ended the training.
    """
    best = TrainerState.load_from_json(os.path.join(checkpoint, STATE_NAME)).best_model_checkpoint
    beside = None if best is None else Path(checkpoint).parent / Path(best).name
    if beside is not None and beside.is_dir():
        state.best_model_checkpoint = str(beside)
    elif best is not None and state.best_model_checkpoint is None:
        state.best_metric = state.best_global_step = None
        logger.warning(f"The best checkpoint {best!r} is gone: the best is chosen among those from here on.")
    entries, has_ended = cast("dict[str, Any]", state.stateful_callbacks), False
    for callback in callbacks:
        if isinstance(callback, ExportableState):
            found = entries.setdefault(type(callback).__name__, callback.state())
            if isinstance(callback, EarlyStoppingCallback) and isinstance(found, dict):
                counted = found["attributes"]["early_stopping_patience_counter"]
                callback.early_stopping_patience_counter = counted
                has_ended = has_ended or counted >= callback.early_stopping_patience
    return has_ended


def check_sizes(checkpoint: str, config: Any) -> None:
    """Refuse a checkpoint of a model of another shape: `Trainer` would load what fits, and leave the rest.

    Args:
        checkpoint: Its folder; without a configuration nothing is compared.
        config: Configuration of the model.

    Raises:
        ValueError: If a size differs; the message names it with both values.
    """
    file = Path(checkpoint, "config.json")
    if not file.is_file() or not hasattr(config, "to_dict"):
        return
    before, now = read_mapping(file), config.to_dict()
    sizes = [
        name
        for name in before.keys() & now.keys()
        if _SIZES.fullmatch(name) and all(isinstance(found[name], (int, str)) for found in (before, now))
    ]
    kept = ({name: found[name] for name in sizes} for found in (before, now))
    different = differences(next(kept), next(kept), "in the checkpoint")
    if different:
        raise ValueError(
            f"The checkpoint {checkpoint!r} is of a model of another shape ({different}): resume with the same one, "
            "or begin in another `--output_dir`."
        )


# ---- Which ones there are ----


def resumes(asked: str | bool | None, folder: str) -> bool:
    """Whether a training that is asked to resume so will find a whole checkpoint."""
    if not asked or asked in NOT_ASKED:
        return False
    places = _checkpoints_in(folder) if asked in LAST_ASKED else [str(asked)]
    return any(damage_of_checkpoint(place) is None for place in places)


def _checkpoint_to_load(asked: str | bool | None, folder: str, *, stock: bool) -> str | None:
    if not asked or asked in NOT_ASKED:
        return None
    if asked not in LAST_ASKED:
        found = str(asked)
        # Of a folder that is not there a plain training says what `Trainer` says.
        reason = damage_of_checkpoint(found) if not stock or Path(found).is_dir() else None
        if reason is not None:
            raise ValueError(f"`--resume_from_checkpoint` {found!r} cannot be resumed: {reason}.")
        return found
    whole = last_checkpoint(folder)
    if whole is None and asked != LAST_CHECKPOINT:
        raise ValueError(f"No valid checkpoint found in output directory ({folder})")
    if whole is None:
        logger.warning(f"There is no checkpoint in {folder!r} yet: training starts from the beginning.")
    return whole


def _tell_differences(checkpoint: str, settings: Mapping[str, Any]) -> None:
    """A line where the run goes on with other settings than those that it was begun with."""
    before = (read_marker(checkpoint) or {}).get("settings")
    different = differences(before, settings, "in the checkpoint") if before else ""
    if different:
        logger.warning(
            f"The checkpoint {checkpoint!r} was made with other settings ({different}): the run continues with the "
            "new ones, so its result is not that of a run with either from the start."
        )


def last_checkpoint(folder: PathLike) -> str | None:
    """The last whole checkpoint of a folder, `None` if there is none; those behind it are named in a line each."""
    for checkpoint in _checkpoints_in(folder):
        reason = damage_of_checkpoint(checkpoint)
        if reason is None:
            return checkpoint
        logger.warning(f"The checkpoint {checkpoint!r} is incomplete and is skipped: {reason}.")
    return None


def _checkpoints_in(folder: PathLike) -> list[str]:
    """The checkpoints of a folder, whole or not; first those of the run that began last, and of each the last one."""
    found = []
    for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        number = path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
        if path.is_dir() and number.isdigit():
            found.append((_begun_at(path), int(number), str(path)))
    return [checkpoint for *_, checkpoint in sorted(found, reverse=True)]


def _begun_at(checkpoint: PathLike) -> float:
    """When the run of a checkpoint began: 0 where it does not tell, infinity of one that was not finished."""
    try:
        marker = read_marker(checkpoint)
    except ValueError:
        return math.inf
    if marker is None:
        return 0.0 if Path(checkpoint, STATE_NAME).is_file() else math.inf
    return float(marker["facts"].get("begun", 0.0)) if marker["finished"] else math.inf


def damage_of_checkpoint(folder: PathLike) -> str | None:
    """Say what is wrong with a checkpoint, naming the file; `None` if it is whole.

    One that was written here has the checksums of all its files. Of one that a plain `Trainer` wrote, every file that
    is needed must be there and be readable.
    """
    path = Path(folder)
    if not path.is_dir():
        return f"there is no folder {str(path)!r}"
    if not (path / MARKER).is_file():
        return _damage_of_foreign(path)
    return damage_of_step(path, besides=_weights_saved_anew(path))


def _weights_saved_anew(path: Path) -> set[str]:
    """Names of weights that are gone because somebody saved the same weights in other files."""
    try:
        noted = (read_marker(path) or {}).get("files", {})
    except ValueError:
        return set()
    there = {file.name for file in path.iterdir() if WEIGHTS.fullmatch(file.name)}
    gone = {name for name in noted if WEIGHTS.fullmatch(name) and name not in there}
    whole = all(damage_of_file(path / name) is None for name in there)
    return gone if whole and there - set(noted) else set()


def _damage_of_foreign(path: Path) -> str | None:
    state = path / STATE_NAME
    if not state.is_file():
        return f"{str(state)!r} is missing"
    for file in sorted(path.iterdir()):
        reason = damage_of_file(file) if file.is_file() else None
        if reason is not None:
            return reason
    try:
        step = read_mapping(state).get("global_step")
    except ValueError as error:
        return str(error)
    number = path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
    if not isinstance(step, int) or (number.isdigit() and int(number) != step):
        return f"{str(state)!r} is of step {step}"
    return _missing_file(path)


def _missing_file(path: Path) -> str | None:
    """Name a file that a checkpoint lacks though its other files need it; `None` if none is missing."""
    weights = [file for file in path.iterdir() if WEIGHTS.fullmatch(file.name)]
    if not weights and not any(any(path.glob(pattern)) for pattern in _OTHER_WEIGHTS):
        return f"{str(path)!r} has no weights"
    for index in weights:
        if index.name.endswith(".index.json"):
            for name in sorted(set(read_json(index).get("weight_map", {}).values())):
                if not (path / name).is_file():
                    return f"{str(path / name)!r} is missing"
    has_optimizer = any(any(path.glob(pattern)) for pattern in _OPTIMIZERS)
    has_scheduler = (path / "scheduler.pt").is_file()
    if has_scheduler and not has_optimizer:
        return f"{str(path / 'optimizer.pt')!r} is missing"
    if has_optimizer and not has_scheduler and not any(path.glob("global_step*")):
        return f"{str(path / 'scheduler.pt')!r} is missing"
    return None


def write_beside_student(folder: Path, manifest: Mapping[str, Any], objectives: nn.Module) -> None:
    """Write the manifest and, if there are any, the parameters of the objectives."""
    write_json(folder / MANIFEST_NAME, manifest)
    state = objectives.state_dict()
    if state:
        with new_file(folder / OBJECTIVES_NAME) as part:
            safetensors.torch.save_file(state, part)


def read_beside_student(folder: Path, current: Mapping[str, Any], objectives: nn.Module) -> None:
    """Compare a checkpoint's manifest with the current one, and load the parameters of the objectives.

    Raises:
        ValueError: If the checkpoint is of no distillation, or of another one; the message says what differs.
    """
    check_manifest(folder, current)
    path = folder / OBJECTIVES_NAME
    if not objectives.state_dict():
        return
    if not path.is_file():
        raise ValueError(f"The checkpoint lacks {str(path)!r}, the parameters of its objectives.")
    try:
        objectives.load_state_dict(safetensors.torch.load_file(path))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise ValueError(f"{str(path)!r} does not fit the objectives: {' '.join(str(error).split())}") from error


def read_adapter(model: nn.Module, folder: Path) -> None:
    """Load the adapter that `model.add_adapter` of transformers gave a model, which is all that its checkpoints hold.

    `Trainer` knows the adapters of peft's own models alone.

    Raises:
        ValueError: If the checkpoint holds no adapter, or one that does not fit.
    """
    from peft import set_peft_model_state_dict

    path = folder / ADAPTER_NAME
    if not path.is_file():
        raise ValueError(f"The checkpoint lacks {str(path)!r}, but the model has an adapter (`add_adapter`).")
    found = safetensors.torch.load_file(path)
    # The names of peft's own models.
    found = {name.removeprefix("base_model.model."): values for name, values in found.items()}
    adapter, expected = cast(Any, model).active_adapters()[0], cast(Any, model).get_adapter_state_dict()
    shapes = [{name: tuple(values.shape) for name, values in one.items()} for one in (found, expected)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{str(path)!r} does not fit the model's adapter {adapter!r}: {differences(shapes[0], shapes[1])}."
        )
    set_peft_model_state_dict(model, found, adapter_name=adapter)


def check_adapter(model: nn.Module) -> None:
    """Warn of weights that train beside an adapter of `model.add_adapter`: what is saved holds the adapter alone."""
    if not has_own_adapter(model):
        return
    adapter = cast(Any, model).active_adapters()[0]
    beside = [n for n, values in model.named_parameters() if values.requires_grad and adapter not in n.split(".")]
    if beside:
        logger.warning(
            f"{len(beside)} parameters such as {beside[0]!r} are trained, but of a model with `add_adapter` its "
            f"adapter {adapter!r} alone is saved: name their modules in `modules_to_save` of the adapter's "
            "configuration, or freeze them."
        )


def check_base_has_name(student: nn.Module) -> None:
    """Warn where an adapter will be saved that does not say which model it belongs to."""
    if name_of_base(student) == "":
        logger.warning(
            "The student was made in memory, so that the adapter that will be saved cannot say which model it belongs "
            "to, and the weights under it are lost: save the student before (`save_pretrained`) and give what "
            "`from_pretrained` loads, or merge the adapter after the training (`trainer.student.merge_and_unload()`)."
        )


def name_of_base(student: nn.Module) -> str | None:
    """What the base model of an adapter was loaded by, "" if it was made in memory; `None` without an adapter."""
    settings = getattr(student, "peft_config", None)
    if not settings:
        return None
    return next(iter(settings.values())).base_model_name_or_path or ""


def has_own_adapter(model: Any) -> bool:
    """Whether a model got an adapter by `add_adapter` or `load_adapter` of transformers."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


def check_manifest(
    folder: Path,
    current: Mapping[str, Any],
    training: str = "distillation",
    kept: str = "teacher, tokenizer and objectives",
) -> None:
    """Compare a checkpoint's manifest with the current one.

    Args:
        folder: The checkpoint.
        current: What the run at hand would write.
        training: What both should be, for the message.
        kept: What both should have in common, for the message.

    Raises:
        ValueError: If the checkpoint is of no such training, or of another one; the message says what differs.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise ValueError(f"{str(folder)!r} is no checkpoint of a {training}: it has no {MANIFEST_NAME}.")
    different = differences(read_mapping(path), current, "in the checkpoint")
    if different:
        raise ValueError(
            f"The checkpoint {str(folder)!r} was made in another {training} ({different}). Resume with the same "
            f"{kept}, or start anew from its weights with `model=`."
        )
