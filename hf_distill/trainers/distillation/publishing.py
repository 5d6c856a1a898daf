"""Publishes a distillation on the Hub: the plain student with its card, and nothing else of the run."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo
from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy, SaveStrategy

from ...capture.signals import check_weights
from ...hub.failures import as_push_error
from ...hub.model_card import write_model_card
from ...hub.push import Target, kept_note, open_repository, upload
from ...hub.selection import CARD_FILE, FACTS_FILE, select_files
from ...storage.files import copy_file
from .card import card_facts

logger = logging.getLogger(__name__)
STRATEGIES = (HubStrategy.EVERY_SAVE, HubStrategy.END)


@dataclass
class Publisher:
    """Sends the student of a trainer to its repository, in the background while the training goes on.

    Attributes:
        repo: Name of the repository, once it is there.
    """

    repo: str | None = None
    _running: Future[CommitInfo] | None = None

    def open(self, args: TrainingArguments, token: str | None = None, private: bool | None = None) -> str:
        """Make repository and branch, so that what is wrong shows before the training; returns the full name.

        Raises:
            PushError: If the Hub cannot be reached or does not take the repository.
        """
        target = self._target(args, token, private)
        command = target.command(str(args.output_dir))
        note = f"Nothing was trained yet: train without `--push_to_hub`, and push afterwards with {command}"
        with as_push_error(target.repo, target.token, note):
            self.repo = open_repository(target).repo
        return self.repo

    def push(
        self,
        trainer: Any,
        title: str | None,
        blocking: bool,
        token: str | None,
        revision: str | None,
        private: bool | None,
        metadata: Mapping[str, Any],
    ) -> CommitInfo | Future[CommitInfo] | None:
        """Save the student, write its card, and upload what `hf-distill push` would upload of the output folder.

        Args:
            trainer: Whose student it is.
            title: Of the commit.
            blocking: Wait for the upload; otherwise a future is returned.
            token: In place of `args.hub_token`.
            revision: Branch in place of `args.hub_revision`; made if it is missing.
            private: In place of `args.hub_private_repo`.
            metadata: For `create_model_card`.

        Returns:
            The commit, or its future; `None` on all processes but the first.

        Raises:
            PushError: If the Hub cannot be reached or does not take it; everything is on disk then, and the message
                ends with the command that goes on.
        """
        args = trainer.args
        trainer.callback_handler.on_push_begin(args, trainer.state, trainer.control)
        # Before the first request: what the Hub refuses is on disk.
        trainer.save_model(_internal_call=True)
        if not trainer.is_world_process_zero():
            return None
        trainer.create_model_card(**metadata)
        self.wait()
        target = self._target(args, token, private, revision)
        with as_push_error(target.repo, target.token, kept_note(target, str(args.output_dir))):
            target = open_repository(target)
        trainer.hub_model_id = self.repo = target.repo
        folder = str(args.output_dir)
        return _upload(folder, target, title) if blocking else target.api.run_as_future(_upload, folder, target, title)

    def push_checkpoint(self, trainer: Any, checkpoint: str) -> None:
        """Upload the student of a checkpoint in the background, unless an upload is still running.

        Args:
            trainer: Whose student it is.
            checkpoint: Its folder, which may be deleted before the upload is done.
        """
        args = trainer.args
        if not trainer.is_world_process_zero() or args.hub_strategy == HubStrategy.END:
            return
        if self._running is not None and not self._running.done() and not args.hub_always_push:
            return
        self.wait()
        trainer.callback_handler.on_push_begin(args, trainer.state, trainer.control)
        for file in select_files(checkpoint).files:
            if file.path not in (CARD_FILE, FACTS_FILE):
                copy_file(Path(checkpoint, file.path), Path(args.output_dir, file.path))
        trainer.create_model_card()
        by_steps = args.save_strategy == SaveStrategy.STEPS
        reached = f"step {trainer.state.global_step}" if by_steps else f"epoch {int(trainer.state.epoch or 0)}"
        target = self._target(args)
        title = f"Training in progress, {reached}"
        self._running = target.api.run_as_future(_upload, str(args.output_dir), target, title)

    def wait(self) -> None:
        """Wait for the upload in the background; one that failed is a warning."""
        running, self._running = self._running, None
        if running is not None and running.exception() is not None:
            logger.warning(f"A push during the training failed: {running.exception()}")

    def _target(
        self,
        args: TrainingArguments,
        token: str | None = None,
        private: bool | None = None,
        revision: str | None = None,
    ) -> Target:
        """Return the repository that the arguments, or the values given in their place, send the student to."""
        name = self.repo or args.hub_model_id or Path(str(args.output_dir)).absolute().name
        wants_private = args.hub_private_repo if private is None else private
        return Target(name, "model", bool(wants_private), revision or args.hub_revision, token or args.hub_token)


def check_strategy(args: TrainingArguments) -> None:
    """Refuse to send more than the student.

    Raises:
        ValueError: If `hub_strategy` would upload checkpoints.
    """
    if args.hub_strategy not in STRATEGIES:
        raise ValueError(
            f"`--hub_strategy {HubStrategy(args.hub_strategy).value}` uploads checkpoints, with the "
            "projections and the state of the optimizer, which never leave this machine; allowed are "
            f"{', '.join(strategy.value for strategy in STRATEGIES)}."
        )


def _upload(folder: str, target: Target, title: str | None) -> CommitInfo:
    selection = select_files(folder)
    with as_push_error(target.repo, target.token, kept_note(target, selection.folder)):
        return upload(selection, target, title)


def write_card(trainer: Any, model_name: str | None, details: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Write the card of a trainer's student into its output folder.

    Args:
        trainer: A trainer that distils.
        model_name: Title; by default the name of the repository or folder.
        details: Fields of the card's facts that whoever trains knows and the trainer does not.
        metadata: `language`, `license` and `tags`.

    Raises:
        NotFiniteError: If a weight is not finite.
    """
    check_weights(trainer.model, "No card is written: the trained")
    folder = str(trainer.args.output_dir)
    facts = card_facts(trainer, model_name or trainer.args.hub_model_id or Path(folder).name)
    facts = dataclasses.replace(facts, **details)
    facts.language = _as_list(metadata.get("language")) or facts.language
    facts.tags, facts.licence = _as_list(metadata.get("tags")), metadata.get("license")
    write_model_card(folder, facts)


def _as_list(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])
