"""Push a student or a corpus to the Hub: weights, tokenizer, card and results, or shards, card and statistics.

    python examples/run_push.py --folder outputs/student --repo my-student --dry_run

    python examples/run_push.py --folder outputs/student --repo me/my-student --private

    python examples/run_push.py --folder outputs/corpus --repo me/my-corpus --revision v2

Flags, or one YAML file with flags after it. A push that was broken off is continued by the same command.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hf_distill.commands.ending import run_command
from hf_distill.commands.push import format_push, push
from hf_distill.settings import PushArguments
from hf_distill.settings.parsing import parse


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, push, say what was uploaded and what was not."""
    results = push(*parse((PushArguments,), argv, __doc__))
    print(format_push(results))
    if not results["dry_run"]:
        print(f"It is at {results['url']}")
    return results


if __name__ == "__main__":
    sys.exit(run_command("run_push.py", main))
