"""Stages of a job that run once: a stage that was finished with the same settings is skipped."""

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
    """Runs stages once: a stage is identified by its settings, the content of its inputs, and all stages before it.

    Attributes:
        names: All stages in order; stages that write something have the name of their folder.
        work: Stage -> how much it computes, in any common unit. Together with the seconds of the finished stages, it
            gives an estimate of the remaining time; if a later stage is missing, no estimate is shown.
        seconds: Stage -> seconds that it took, in this call or an earlier one.
        seconds_before: Seconds of the stages that ran in an earlier call.
    """

    def __init__(self, folder: Path, names: Sequence[str], task: Any = None) -> None:
        """Begin with no stage done.

        Args:
            folder: The folder of all stages.
            names: The stages in order.
            task: Identifies the task and its rows, as a JSON value; the task's files may lie around the folder.
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
        """Return the result of `job`, read from its folder if the stage was finished with these settings.

        Args:
            name: Name of the stage and of the folder that `job` writes.
            job: Function to run; its result has `seconds`.
            arguments: The dataclasses of arguments that determine the result.
            results_file: The file in its folder that keeps the result.
            more: Further values that determine the result.
        """
        folder = self.folder / name
        settings = arguments_to_dict(*arguments) | more
        # The location of finished steps does not change a result.
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
            # From here on the folder holds neither the old result nor the new one.
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
        """Report that a stage begins: its number, the time so far, and an estimate of the remaining time if known."""
        minutes = round((time.monotonic() - self.started) / 60)
        left = self.seconds_left(name)
        told = "" if left is None or left < 60 else f", about {left / 60:.0f} left"
        so_far = "1 minute" if minutes == 1 else f"{minutes} minutes"
        number = self.names.index(name) + 1
        logger.warning(f"[{name}] starts: stage {number} of {len(self.names)}, {so_far} so far{told}")

    def seconds_left(self, name: str) -> float | None:
        """Seconds from the start of a stage to the end of the last, estimated from the speed of the finished stages.

        Returns:
            `None` if no stage of known work has run, or the work of a later stage is unknown.
        """
        done = [stage for stage, seconds in self.seconds.items() if self.work.get(stage) and seconds > 0]
        to_come = self.names[self.names.index(name) :]
        if not done or any(stage not in self.work for stage in to_come):
            return None
        speed = sum(self.work[stage] for stage in done) / sum(self.seconds[stage] for stage in done)
        return sum(self.work[stage] for stage in to_come) / speed
