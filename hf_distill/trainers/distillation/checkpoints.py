"""Checkpoints that are finished or absent, and what lies in them beside the student.

A checkpoint has a marker (`hf_distill.storage.steps`): before its first file it says that the checkpoint is not
finished, after its last one what every file must be. So a killed or damaged checkpoint is known before any of it is
loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints
from transformers.utils import logging

from ...storage.files import (
    WEIGHTS,
    PathLike,
    disk_space,
    model_files,
    new_file,
    read_json,
    read_mapping,
    remove,
    write_json,
)
from ...storage.folders import check_apart, writing_to
from ...storage.steps import MARKER, begin, damage_of_file, damage_of_step, differences, finish, read_marker

logger = logging.get_logger(__name__)

# Stands for the last whole checkpoint of the output folder, which is not there when a job is started for the first
# time.
LAST_CHECKPOINT = "last"
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
    *("num_train_epochs", "max_steps", "bf16", "fp16", "label_smoothing_factor"),
)


class CheckpointedTrainer(Trainer):
    """A `Trainer` that goes on from whole checkpoints only, and leaves whole files only.

    `train(resume_from_checkpoint="last")`, and `True`, stand for the last whole checkpoint of the output folder; one
    that is not whole is stepped over with a line. Checkpoints that a plain `Trainer` wrote are taken if their files
    can be read. While it trains, no other process can write to the output folder.
    """

    args: Any
    model: Any
    train_dataset: Any

    @property
    def marks_checkpoints(self) -> bool:
        """Whether checkpoints have a marker; otherwise they are those of `Trainer`, file by file."""
        return True

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """As `Trainer.train`.

        Args:
            resume_from_checkpoint: Folder of a checkpoint; "last" or `True` for the last whole one of the output
                folder. Where there is none, "last" begins anew, and `True` is an error.
            trial: Of a search of hyperparameters.
            ignore_keys_for_eval: Outputs that an evaluation does not gather.

        Raises:
            ValueError: If there is no such checkpoint, it is not whole, or it is of another run; the message names
                the file or the settings.
            FolderInUseError: If another process writes to the output folder.
            DiskFullError: If the disk is full; checkpoints that were whole are so still.
        """
        folder = str(self.args.output_dir)
        check_apart(folder, self.input_folders())
        with writing_to(folder):
            checkpoint = self._agreed_checkpoint(resume_from_checkpoint)
            return super().train(checkpoint, trial=trial, ignore_keys_for_eval=ignore_keys_for_eval)

    def input_folders(self) -> dict[str, Any]:
        """Argument -> folders that are read, and so never written to."""
        return {}

    # ---- Going on ----

    def _agreed_checkpoint(self, asked: str | bool | None) -> str | None:
        """The checkpoint to load: on every process the one that the first process chose."""
        chosen: list[Any] = [None, None]
        if self.args.process_index == 0:
            try:
                chosen[0] = self._checkpoint_to_load(asked)
            except ValueError as error:
                chosen[1] = error
        if self.args.world_size > 1:
            broadcast_object_list(chosen)
        if chosen[1] is not None:
            raise chosen[1]
        return chosen[0]

    def _checkpoint_to_load(self, asked: str | bool | None) -> str | None:
        folder = str(self.args.output_dir)
        if not asked or asked in ("False", "false"):
            return None
        if asked is not True and asked not in (LAST_CHECKPOINT, "True", "true"):
            found = str(asked)
            # Of a folder that is not there a plain training says what `Trainer` says.
            looked_at = self.marks_checkpoints or Path(found).is_dir()
            reason = damage_of_checkpoint(found) if looked_at else None
            if reason is not None:
                raise ValueError(f"`--resume_from_checkpoint` {found!r} cannot be gone on with: {reason}.")
            self._tell_differences(found)
            return found
        whole = last_checkpoint(folder)
        if whole is not None:
            self._tell_differences(whole)
        elif asked == LAST_CHECKPOINT:
            logger.warning(f"There is no checkpoint in {folder!r} yet: training starts from the beginning.")
        else:
            raise ValueError(f"No valid checkpoint found in output directory ({folder})")
        return whole

    def _run_epoch(self, *args: Any, **kwargs: Any) -> Any:
        if self.marks_checkpoints and self.state.global_step >= self.state.max_steps:
            # `Trainer` would go one step beyond a last step that lies in the middle of an epoch.
            self.control.should_training_stop = True
            return None
        return super()._run_epoch(*args, **kwargs)

    def _tell_differences(self, checkpoint: str) -> None:
        """A line where the run goes on with other settings than those that it was begun with."""
        before = (read_marker(checkpoint) or {}).get("settings")
        different = differences(before, self._deciding(), "in the checkpoint") if before else ""
        if different:
            logger.warning(
                f"The checkpoint {checkpoint!r} was made with other settings ({different}): the run goes on with "
                "those of now, and its result is that of neither."
            )

    def _deciding(self) -> dict[str, Any]:
        values = {name: getattr(self.args, name, None) for name in _DECIDING}
        rows = self.train_dataset
        return {
            **{name: getattr(value, "value", value) for name, value in values.items()},
            "train_rows": len(rows) if hasattr(rows, "__len__") else None,
        }

    def _load_best_model(self) -> None:
        self._check_best()
        super()._load_best_model()

    def _check_best(self) -> None:
        """Refuse a best checkpoint that is not what was written."""
        best = self.state.best_model_checkpoint
        if best is not None and Path(best, MARKER).is_file():
            reason = damage_of_checkpoint(best)
            if reason is not None:
                raise ValueError(f"The best checkpoint cannot be loaded: {reason}.")

    # ---- Saving ----

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """As in `Trainer`, but older checkpoints are deleted only when this one is whole."""
        run = self._get_output_dir(trial)
        folder = Path(run, f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        if not self.marks_checkpoints:
            if self.args.should_save:
                # The state is written last: that of an earlier run would make half of a checkpoint look whole.
                remove(folder)
            return super()._save_checkpoint(model, trial)
        if self.args.should_save:
            begin(folder)
        self.accelerator.wait_for_everyone()
        try:
            with disk_space(folder, "a checkpoint"), self._keeping_checkpoints():
                if self.args.should_save:
                    self._write_beside(folder)
                super()._save_checkpoint(model, trial)
                self._finish_checkpoint(folder)
        except Exception:
            if self.args.should_save:
                # Half of it is of no use, and makes no room.
                remove(folder)
            raise
        if self.args.should_save:
            rotate_checkpoints(
                output_dir=run,
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )
        return None

    def _write_beside(self, folder: Path) -> None:
        """Write what a checkpoint holds beside what `Trainer` writes."""

    def _finish_checkpoint(self, folder: Path) -> None:
        self.accelerator.wait_for_everyone()
        if self.args.should_save and self.marks_checkpoints:
            finish(folder, self._deciding())

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        # What is pushed is a whole checkpoint.
        if self.marks_checkpoints:
            self._finish_checkpoint(Path(checkpoint_folder))
        super()._push_from_checkpoint(checkpoint_folder)

    @contextmanager
    def _keeping_checkpoints(self) -> Iterator[None]:
        """`Trainer` would delete older checkpoints before this one is finished."""
        self._limit = self.args.save_total_limit
        self.args.save_total_limit = None
        try:
            yield
        finally:
            self.args.save_total_limit = self._limit
            del self._limit

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Write the model; each of its files is whole or not there."""
        if not self.args.should_save or not self.marks_checkpoints:
            return super()._save(output_dir, state_dict)
        limit = self.args.save_total_limit
        # The arguments are saved too: as they were given.
        self.args.save_total_limit = getattr(self, "_limit", limit)
        try:
            with model_files(output_dir or str(self.args.output_dir)) as part:
                super()._save(str(part), state_dict)
        finally:
            self.args.save_total_limit = limit
        return None


def last_checkpoint(folder: PathLike) -> str | None:
    """The last whole checkpoint of a folder, `None` if there is none; those behind it are named in a line each."""
    found = []
    for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        number = path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
        if path.is_dir() and number.isdigit():
            found.append((int(number), str(path)))
    for _, checkpoint in sorted(found, reverse=True):
        reason = damage_of_checkpoint(checkpoint)
        if reason is None:
            return checkpoint
        logger.warning(f"The checkpoint {checkpoint!r} is not whole and is stepped over: {reason}.")
    return None


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
    write_manifest(folder, manifest)
    state = objectives.state_dict()
    if state:
        with new_file(folder / OBJECTIVES_NAME) as part:
            safetensors.torch.save_file(state, part)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write what a resumed run must find unchanged into the folder of a checkpoint."""
    write_json(folder / MANIFEST_NAME, manifest)


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
