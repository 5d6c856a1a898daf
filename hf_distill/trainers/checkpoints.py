"""What lies in a checkpoint beside the student: what was distilled, and the parameters of the objectives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn
from transformers import TrainingArguments
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

from hf_distill.storage.files import new_file, read_json, write_json

logger = logging.get_logger(__name__)

# Stands for the last checkpoint of the output folder, which is not there when a job is started for the first time.
LAST_CHECKPOINT = "last"
# The leading underscore keeps both files out of every push to the Hub.
MANIFEST_NAME = "_distillation.json"
OBJECTIVES_NAME = "_objectives.safetensors"


def checkpoint_to_resume(args: TrainingArguments) -> str | None:
    """The folder to resume from; with `--resume_from_checkpoint last` none where there is no checkpoint yet."""
    if args.resume_from_checkpoint != LAST_CHECKPOINT:
        return args.resume_from_checkpoint
    folder = str(args.output_dir)
    found = get_last_checkpoint(folder) if Path(folder).is_dir() else None
    if found is None:
        logger.warning(f"There is no checkpoint in {folder!r} yet: training starts from the beginning.")
    return found


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write what a resumed run must find unchanged into the folder of a checkpoint."""
    write_json(folder / MANIFEST_NAME, manifest)


def write_beside_student(folder: Path, manifest: Mapping[str, Any], objectives: nn.Module) -> None:
    """Write the manifest and, if there are any, the parameters of the objectives."""
    write_manifest(folder, manifest)
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
    if (folder / OBJECTIVES_NAME).is_file():
        objectives.load_state_dict(safetensors.torch.load_file(folder / OBJECTIVES_NAME))


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
    saved = read_json(path)
    different = [key for key in sorted({*saved, *current}) if saved.get(key) != current.get(key)]
    if different:
        shown = "; ".join(f"{key}: {saved.get(key)} in the checkpoint, {current.get(key)} now" for key in different)
        raise ValueError(
            f"The checkpoint {str(folder)!r} was made in another {training} ({shown}). Resume with the same "
            f"{kept}, or start anew from its weights with `model=`."
        )
