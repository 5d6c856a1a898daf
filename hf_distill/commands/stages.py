"""Stages of a job that run once: what was finished with the same settings is not run again."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import xxhash

from hf_distill.commands.folders import BY_CONTENT, SHARED, by_content, wherever
from hf_distill.commands.results import write_results
from hf_distill.hub.selection import RESULTS_FILE
from hf_distill.settings.parsing import arguments_to_dict
from hf_distill.storage.files import read_json, remove
from hf_distill.storage.steps import mark, read_marker

logger = logging.getLogger(__name__)


class Stages:
    """Runs stages once: a stage is known by its settings, by the content of what it reads, and by all before it.

    Attributes:
        names: All stages in their order; those that write something are called as their folders.
        work: Stage -> how much it computes, in any unit that the stages have in common. From it and the seconds of
            the stages that ran follows how long the others take; where a stage to come is missing, nothing is said.
        seconds: Stage -> seconds that it took, in this call or an earlier one.
        seconds_before: Seconds of those that ran in an earlier call.
    """

    def __init__(self, folder: Path, names: Sequence[str], task: Any = None) -> None:
        """Begin with none of the stages done.

        Args:
            folder: That of all stages.
            names: The stages in their order.
            task: Identifies the task and its rows, JSON-able; they may lie around the folder.
        """
        self.folder, self.names = folder, list(names)
        self.key = json.dumps(task, sort_keys=True)
        self.work: dict[str, float] = {}
        self.seconds: dict[str, float] = {}
        self.seconds_before = 0.0
        self.started = time.monotonic()

    def run(
        self,
        name: str,
        job: Callable[[], dict[str, Any]],
        *arguments: Any,
        results_file: str = RESULTS_FILE,
        **more: Any,
    ) -> dict[str, Any]:
        """The result of `job`, from its folder if the stage was finished with these settings.

        Args:
            name: Of the stage and of its folder, which `job` writes.
            job: What to run; its result has `seconds`.
            arguments: The dataclasses of arguments that decide what `job` does.
            results_file: The file of its folder that keeps the result.
            more: What else decides it.
        """
        folder = self.folder / name
        settings = arguments_to_dict(*arguments) | more
        # Where finished steps are kept decides nothing.
        deciding = {key: value for key, value in settings.items() if key not in SHARED}
        read = {key: by_content(deciding[key], self.folder) for key in BY_CONTENT if key in deciding}
        described = json.dumps([self.key, wherever(deciding | read, self.folder)], sort_keys=True)
        self.key = xxhash.xxh3_128(described.encode()).hexdigest()
        key, results = {"stage": self.key}, folder / results_file
        marker = read_marker(folder) or {"finished": False}
        if marker["finished"] and marker["settings"] == key and results.is_file():
            logger.warning(f"[{name}] finished before with the same settings: {folder}")
            result = read_json(results)
            self.seconds_before += result["seconds"]
        else:
            # From here on the folder is neither the old result nor the new one.
            if marker.get("settings") != key:
                for left in folder.glob("checkpoint-*"):
                    remove(left)
            mark(folder, key)
            self.begin(name)
            result = job()
            write_results(folder, result, name=results_file)
            mark(folder, key, finished=True)
            logger.warning(f"[{name}] done in {result['seconds']:.0f} s")
        self.seconds[name] = result["seconds"]
        return result

    def begin(self, name: str) -> None:
        """Say that a stage begins: its number, how long the job has run, and how long the rest takes where known."""
        minutes = round((time.monotonic() - self.started) / 60)
        left = self.seconds_left(name)
        told = "" if left is None or left < 60 else f", about {left / 60:.0f} left"
        so_far = "1 minute" if minutes == 1 else f"{minutes} minutes"
        number = self.names.index(name) + 1
        logger.warning(f"[{name}] starts: stage {number} of {len(self.names)}, {so_far} so far{told}")

    def seconds_left(self, name: str) -> float | None:
        """Seconds from the start of a stage to the end of the last, at the speed of the stages that ran.

        Returns:
            `None` where no stage of known work ran, or the work of one to come is not known.
        """
        done = [stage for stage, seconds in self.seconds.items() if self.work.get(stage) and seconds > 0]
        to_come = self.names[self.names.index(name) :]
        if not done or any(stage not in self.work for stage in to_come):
            return None
        speed = sum(self.work[stage] for stage in done) / sum(self.seconds[stage] for stage in done)
        return sum(self.work[stage] for stage in to_come) / speed
