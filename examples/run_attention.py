"""Draw the attention of a teacher and its students on a sentence.

    python examples/run_attention.py --models bert-base-uncased outputs/student --text "The cat sat on the mat." \
        --output outputs/attention.png

Each model is a row: the mean over the heads of its last layer (`--layers` for others), then the heads of `--heads`.
Flags, or one YAML file with flags after it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hf_distill.commands.attention import draw_attention_of
from hf_distill.commands.ending import run_command
from hf_distill.settings import AttentionArguments
from hf_distill.settings.parsing import parse


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, draw, say where the picture is."""
    results = draw_attention_of(*parse((AttentionArguments,), argv, __doc__))
    for model in results["models"]:
        print(f"{model['name']}: layer {model['layer']}, {model['heads']} heads, {model['tokens']} tokens")
    print(f"Picture written to {results['output']}")
    return results


if __name__ == "__main__":
    sys.exit(run_command("run_attention.py", main))
