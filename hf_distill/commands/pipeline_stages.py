"""Stages of a job that run once: what was finished with the same settings is not run again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import xxhash
from transformers.utils import logging

from hf_distill.commands.results import RESULTS_FILE, write_results
from hf_distill.settings.parsing import arguments_to_dict
from hf_distill.storage.files import read_json
from hf_distill.storage.steps import mark, read_marker

logger = logging.get_logger(__name__)


class Stages:
    """Runs stages once: a stage is known by its settings and by everything before it."""

    def __init__(self, folder: Path, total: int, inputs: Sequence[str] = ()) -> None:
        """Begin with none of the stages done.

        Args:
            folder: That of all stages.
            total: How many stages there are.
            inputs: Files that every stage depends on though no argument of theirs names them.
        """
        self.folder, self.total, self.number = folder, total, 0
        self.key = json.dumps(self._files({"inputs": list(inputs)}))
        self.seconds_before = 0.0
        self.started = time.monotonic()

    def run(self, name: str, job: Callable[[], dict[str, Any]], *arguments: Any, **more: Any) -> dict[str, Any]:
        """The result of `job`, from its folder if the stage was finished with these settings.

        Args:
            name: Of the stage and of its folder, which `job` writes.
            job: What to run; its result has `seconds`.
            arguments: The dataclasses of arguments that decide what `job` does.
            more: What else decides it.
        """
        self.number += 1
        folder = self.folder / name
        settings = arguments_to_dict(*arguments) | more
        described = json.dumps([self.key, settings, self._files(settings)], sort_keys=True)
        self.key = xxhash.xxh3_128(described.encode()).hexdigest()
        key, results = {"stage": self.key}, folder / RESULTS_FILE
        marker = read_marker(folder) or {"finished": False}
        if marker["finished"] and marker["settings"] == key and results.is_file():
            logger.warning(f"[{name}] finished before with the same settings: {folder}")
            result = read_json(results)
            self.seconds_before += result["seconds"]
            return result
        # From here on the folder is neither the old result nor the new one.
        mark(folder, key)
        minutes = (time.monotonic() - self.started) / 60
        logger.warning(f"[{name}] starts: stage {self.number} of {self.total}, {minutes:.0f} minutes so far")
        result = job()
        write_results(folder, result)
        mark(folder, key, finished=True)
        logger.warning(f"[{name}] done in {result['seconds']:.0f} s")
        return result

    def _files(self, settings: dict[str, Any]) -> list[tuple[str, int, int]]:
        """Path, size and time of every file that the settings name: other data under an old name is other data.

        What lies in the pipeline's own folder is known by the stages that wrote it.
        """
        own = self.folder.resolve()
        found = []
        values = (item for value in settings.values() for item in (value if isinstance(value, list) else [value]))
        for value in values:
            path = Path(value) if isinstance(value, str) and value else None
            if path is None or not path.exists() or path.resolve().is_relative_to(own):
                continue
            if own.is_relative_to(path.resolve()):
                continue  # a folder around the output, such as the working directory, changes with every run
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    found.append((str(file), file.stat().st_size, file.stat().st_mtime_ns))
        return found
