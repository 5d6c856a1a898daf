"""Export a model to ONNX, in fp32 and int8, and compare both with it.

    python examples/run_export.py --model outputs/sst2

    python examples/run_export.py --model outputs/sst2 --task glue/sst2 --data_dir glue

The files go to `onnx/` in the model's folder. With a task, PyTorch, ONNX and int8 are scored on it. Flags, or one YAML
file with flags after it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hf_distill.commands.ending import run_command
from hf_distill.commands.export import export
from hf_distill.settings import ExportArguments, ScoredTaskArguments
from hf_distill.settings.parsing import parse


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, export, say what it costs."""
    results = export(*parse((ScoredTaskArguments, ExportArguments), argv, __doc__))
    print(f"Largest difference from PyTorch {results['difference']:.1e}; files written to {results['folder']}")
    for name, size in results["bytes"].items():
        score = f"{100 * results['scores'][name]:>8.1f} {results['metric']}" if "scores" in results else ""
        print(f"{name:<10} {size / 1e6:>8.1f} MB{score}")
    return results


if __name__ == "__main__":
    sys.exit(run_command("run_export.py", main))
