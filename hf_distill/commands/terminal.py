"""The terminal output of a verb: a line for each training and long step, findings, and the result.

Messages of other packages and log lines are shown only with `--verbose`.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

# Seconds before a step shows its progress: reading weights and small files is not worth a line.
SHORT = "2"
# Seconds between two updates of a progress bar that is written to a file, where each update is a line.
BETWEEN_LINES = "30"


def begin_quietly() -> None:
    """Set up a quiet program: no progress bars of short steps, few lines in a log file, no warnings.

    The settings of progress bars take effect only if tqdm is not imported yet.
    """
    os.environ.setdefault("TQDM_DELAY", SHORT)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", BETWEEN_LINES)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the messages of transformers, datasets and similar packages, and log lines.

    Only packages that are already imported are changed: a verb that needs no torch must start without it.
    """
    with ExitStack() as stack:
        if "transformers" in sys.modules:
            stack.enter_context(_transformers_errors_only())
        if "hf_distill.trainers.callbacks" in sys.modules:
            from hf_distill.trainers.callbacks import one_line_trainings

            stack.enter_context(one_line_trainings())
        yield


@contextmanager
def _transformers_errors_only() -> Iterator[None]:
    """Show only errors of transformers; its log level stays, because progress bars depend on it."""
    from transformers.utils.logging import get_logger

    get_logger()  # Creates the handler.
    handlers = list(logging.getLogger("transformers").handlers)
    for handler in handlers:
        handler.addFilter(_counts)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_counts)


def _counts(record: logging.LogRecord) -> bool:
    # Our own records may pass through the same handler.
    return record.levelno >= logging.ERROR or record.name.split(".")[0] != "transformers"
