"""Converts the configuration of another library into one for `hf-distill distill`."""

from __future__ import annotations

import logging
import shlex
from typing import Any

from hf_distill.settings.convert import ConversionArguments, convert_file
from hf_distill.storage.files import write_text
from hf_distill.storage.folders import check_apart

logger = logging.getLogger(__name__)


def run(arguments: ConversionArguments) -> dict[str, Any]:
    """Convert a configuration; differences in behaviour become warnings.

    Args:
        arguments: The configuration, and the file to write, if any.

    Returns:
        `yaml`, the number of `objectives`, `warnings`, and `output`.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it has a setting without a counterpart here.
    """
    done = convert_file(arguments.config)
    for warning in done.warnings:
        logger.warning(warning)
    if arguments.output is not None:
        check_apart(arguments.output, {"the configuration": arguments.config}, flag="--output")
        write_text(arguments.output, done.as_yaml())
    return {
        "job": "convert",
        "yaml": done.as_yaml(),
        "objectives": len(done.arguments["objectives"]),
        "warnings": done.warnings,
        "output": arguments.output,
    }


def summary(results: dict[str, Any]) -> str:
    """Return the new configuration, or where it was written."""
    if results["output"] is None:
        return str(results["yaml"]).rstrip()
    then = f"hf-distill distill {shlex.quote(results['output'])} --teacher_model TEACHER --textbook TEXTS"
    return f"{results['objectives']} objectives written to {results['output']}\ngo on with: {then}"
