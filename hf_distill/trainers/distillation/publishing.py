"""Publishes a distillation on the Hub: the plain student with its card, and nothing else of the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from types import MappingProxyType
from typing import Any

from huggingface_hub import CommitInfo
from transformers.trainer_utils import HubStrategy, SaveStrategy
from transformers.utils import PushInProgress, logging

from ...hub.failures import explained
from ...hub.model_card import FACTS_FILE, write_model_card
from ...hub.push import Target, kept_note, open_repository, upload
from ...hub.selection import CARD_FILE, select_files
from ...storage.files import copy_file
from ...storage.finite import check_weights
from ..finite import FiniteTrainer
from .card import card_facts

logger = logging.get_logger(__name__)
STRATEGIES = (HubStrategy.EVERY_SAVE, HubStrategy.END)


class PublishingTrainer(FiniteTrainer):
    """A `Trainer` whose pushes are those of `hf_distill.hub.push`, as long as it distils.

    A push that fails during the training is a warning, and the training goes on; one at its end is a `PushError`,
    raised when student and card are on disk.
    """

    args: Any
    model: Any
    distilling: bool
    hub_model_id: Any
    push_in_progress: Any
    # Fields of the card's facts that whoever trains knows and the trainer does not, such as the name of the corpus.
    card_details: Mapping[str, Any] = MappingProxyType({})

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Make repository and branch before the training, so that what is wrong shows before it.

        Raises:
            ValueError: If `hub_strategy` would upload checkpoints.
            PushError: If the Hub cannot be reached or does not take the repository.
        """
        if not self.distilling:
            return super().init_hf_repo(token=token, private=private)
        if self.args.hub_strategy not in STRATEGIES:
            raise ValueError(
                f"`--hub_strategy {HubStrategy(self.args.hub_strategy).value}` uploads checkpoints, with the "
                "projections and the state of the optimizer, which never leave this machine; allowed are "
                f"{', '.join(strategy.value for strategy in STRATEGIES)}."
            )
        self.push_in_progress = None
        if self.is_world_process_zero():
            target = self._target(token, private)
            command = target.command(str(self.args.output_dir))
            note = f"Nothing was trained yet: train without `--push_to_hub`, and push afterwards with {command}"
            with explained(target.repo, target.token, note):
                self.hub_model_id = open_repository(target).repo
        return None

    def push_to_hub(  # type: ignore[override]
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> CommitInfo | Future[CommitInfo] | None:
        """Save the student, write its card, and upload what `hf-distill push` would upload of `output_dir`.

        Args:
            commit_message: Title of the commit.
            blocking: Wait for the upload; otherwise a future is returned.
            token: In place of `args.hub_token`.
            revision: Branch in place of `args.hub_revision`; made if it is missing.
            private: In place of `args.hub_private_repo`.
            kwargs: Passed on to `create_model_card`.

        Returns:
            The commit, or its future; `None` on all processes but the first.

        Raises:
            PushError: If the Hub cannot be reached or does not take it; everything is on disk then, and the message
                ends with the command that goes on.
        """
        if not self.distilling:
            return super().push_to_hub(commit_message, blocking, token, revision, private, **kwargs)
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        # Before the first request: what the Hub refuses is on disk.
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**kwargs)
        if self.hub_model_id is not None:
            self._finish_current_push()
        target = self._target(token, private, revision)
        with explained(target.repo, target.token, kept_note(target, str(self.args.output_dir))):
            target = open_repository(target)
        self.hub_model_id = target.repo
        if blocking:
            return self._upload(target, commit_message)
        return target.api.run_as_future(self._upload, target, commit_message)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Upload the student of a checkpoint in the background, while the training goes on."""
        if not self.distilling:
            return super()._push_from_checkpoint(checkpoint_folder)
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return None
        running = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if running and not self.args.hub_always_push:
            return None
        self._finish_current_push()
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        # Out of the checkpoint, which may be deleted before the upload is done.
        for file in select_files(checkpoint_folder).files:
            if file.path not in (CARD_FILE, FACTS_FILE):
                copy_file(Path(checkpoint_folder, file.path), Path(self.args.output_dir, file.path))
        self.create_model_card()
        by_steps = self.args.save_strategy == SaveStrategy.STEPS
        reached = f"step {self.state.global_step}" if by_steps else f"epoch {int(self.state.epoch or 0)}"
        target = self._target()
        job = target.api.run_as_future(self._upload, target, f"Training in progress, {reached}")
        self.push_in_progress = PushInProgress([job])  # type: ignore[arg-type]
        return None

    def _finish_current_push(self) -> None:
        """Wait for the upload in the background; one that failed is a warning."""
        super()._finish_current_push()
        if not self.distilling or getattr(self, "push_in_progress", None) is None:
            return
        for job in self.push_in_progress.jobs:
            if job.exception() is not None:
                logger.warning(f"A push during the training failed: {job.exception()}")
        self.push_in_progress = None

    def _target(self, token: str | None = None, private: bool | None = None, revision: str | None = None) -> Target:
        """Return the repository that the arguments, or the values given in their place, send the student to."""
        args = self.args
        name = self.hub_model_id or args.hub_model_id or Path(str(args.output_dir)).absolute().name
        wants_private = args.hub_private_repo if private is None else private
        return Target(name, "model", bool(wants_private), revision or args.hub_revision, token or args.hub_token)

    def _upload(self, target: Target, commit_message: str | None) -> CommitInfo:
        selection = select_files(str(self.args.output_dir))
        with explained(target.repo, target.token, kept_note(target, selection.folder)):
            return upload(selection, target, commit_message)

    def create_model_card(self, model_name: str | None = None, **metadata: Any) -> None:  # type: ignore[override]
        """Write `README.md`: teacher, student, objectives, settings that differ from defaults, curves of the terms.

        Args:
            model_name: Title; by default the name of the repository or folder.
            metadata: `language`, `license` (an id of the Hub) and `tags`; what the stock card takes besides is about
                data sets, which a distillation has no labels of.
        """
        if not self.distilling:
            return super().create_model_card(model_name=model_name, **metadata)
        if not self.is_world_process_zero():
            return None
        check_weights(self.model, "No card is written: the trained")
        trainer: Any = self
        name = model_name or self.args.hub_model_id or Path(str(self.args.output_dir)).name
        facts = dataclasses.replace(card_facts(trainer, name), **self.card_details)
        facts.language = _as_list(metadata.get("language")) or facts.language
        facts.tags, facts.licence = _as_list(metadata.get("tags")), metadata.get("license")
        write_model_card(str(self.args.output_dir), facts)
        return None


def _as_list(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])
