"""Checkpoints that are finished or absent, and what lies in them beside the student.

A checkpoint has a marker (`hf_distill.storage.steps`): before its first file it says that the checkpoint is not
finished, after its last one what every file must be. So a killed or damaged checkpoint is known before any of it is
loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import TrainingArguments
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
# What a plain `Trainer` and its strategies write; only whole sets are gone on with.
_OTHER_WEIGHTS = ("pytorch_model_fsdp*", "global_step*", "*/adapter_model.*")
_OPTIMIZERS = ("optimizer.pt", "optimizer.bin", "optimizer_*", "rank*-optimizer.pt", "global_step*")
# What decides which weights a training ends with. A run that goes on with others is told so.
_DECIDING = (
    *("seed", "data_seed", "per_device_train_batch_size", "gradient_accumulation_steps", "world_size"),
    *("learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "optim"),
    *("max_tokens_per_batch", "num_train_epochs", "max_steps", "bf16", "fp16", "label_smoothing_factor"),
    "student_dropout",
)


@dataclass
class Checkpoints:
    """The checkpoints of one trainer: which one it goes on from, and how it writes one that is finished or absent."""

    # How many checkpoints are kept, as it was given; while one is being written.
    _limits: list[int | None] = field(default_factory=list)

    # ---- Going on ----

    def chosen(
        self, asked: str | bool | None, args: TrainingArguments, settings: Mapping[str, Any], *, stock: bool
    ) -> str | None:
        """The checkpoint to load: on every process the one that the first process chose.

        Args:
            asked: Folder of a checkpoint; "last" or `True` for the last whole one of the output folder.
            args: Of the training.
            settings: What decides the training now (`deciding`).
            stock: Whether the checkpoints are those of `Trainer`, file by file.

        Raises:
            ValueError: If there is no such checkpoint, or it is not whole.
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
        if found[0] is not None and args.process_index == 0:
            _tell_differences(found[0], settings)
        return found[0]

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
        except Exception:
            if args.should_save:
                # Half of it is of no use, and makes no room.
                remove(folder)
            raise
        finally:
            args.save_total_limit = self._limits.pop()

    def finish(
        self, folder: Path, args: TrainingArguments, settings: Mapping[str, Any], accelerator: Accelerator
    ) -> None:
        """Say that a checkpoint is whole, once all processes have written their part."""
        accelerator.wait_for_everyone()
        if args.should_save:
            finish(folder, settings)

    @contextmanager
    def as_given(self, args: TrainingArguments) -> Iterator[None]:
        """The arguments as they were given, while they are saved."""
        limit = args.save_total_limit
        args.save_total_limit = self._limits[-1] if self._limits else limit
        try:
            yield
        finally:
            args.save_total_limit = limit


def deciding(args: TrainingArguments, rows: Any) -> dict[str, Any]:
    """Return what decides which weights a training on some rows ends with."""
    values = {name: getattr(args, name, None) for name in _DECIDING}
    return {
        **{name: getattr(value, "value", value) for name, value in values.items()},
        "train_rows": len(rows) if hasattr(rows, "__len__") else None,
    }


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
    """The checkpoints of a folder, whole or not, the last one first."""
    found = []
    for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        number = path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
        if path.is_dir() and number.isdigit():
            found.append((int(number), str(path)))
    return [checkpoint for _, checkpoint in sorted(found, reverse=True)]


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
