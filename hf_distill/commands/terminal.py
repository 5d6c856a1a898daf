"""What a person sees of a verb: a line for each training and long step, what was found, and what came of it.

Reports of other packages and a line for every log are for those who ask for them with `--verbose`.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

# Seconds that a step takes before it shows its progress: reading weights and small files is not worth a line.
SHORT = "2"
# Seconds between two states of a bar that goes to a file, where each is a line.
BETWEEN_LINES = "30"


def begin_quietly() -> None:
    """Settings of a whole program: no progress of steps that end at once, few lines in a file, no warnings.

    Those of progress take effect where tqdm is not loaded yet.
    """
    os.environ.setdefault("TQDM_DELAY", SHORT)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", BETWEEN_LINES)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what transformers, datasets and their like say while they work, and the lines of logs.

    Only what is loaded already is told so: a verb that needs no torch is to start without it.
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
    """Show errors of transformers only; its level stays, since progress bars depend on it."""
    from transformers.utils.logging import get_logger

    get_logger()  # Makes the handler.
    handlers = list(logging.getLogger("transformers").handlers)
    for handler in handlers:
        handler.addFilter(_counts)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_counts)


def _counts(record: logging.LogRecord) -> bool:
    # Our own lines may go through the same handler.
    return record.levelno >= logging.ERROR or record.name.split(".")[0] != "transformers"
