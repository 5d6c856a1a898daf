"""Fit a masked-LM head on an encoder, for `run_augmentation.py` where there is no masked language model.

    python examples/run_mlm_head.py --encoder sentence-transformers/all-MiniLM-L6-v2 --textbook general.parquet \
        --textbook_eval_rows 1000 --num_train_epochs 1 --output_dir outputs/mlm

Flags, or one YAML file with flags after it. The encoder stays as it is unless `--no_freeze_encoder` is given.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hf_distill.commands.ending import run_command
from hf_distill.commands.mlm_head import fit_mlm_head
from hf_distill.commands.results import cost_of_training
from hf_distill.settings import DistillationArguments, MLMHeadArguments, TextbookArguments
from hf_distill.settings.parsing import parse


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, fit, print how many masked tokens are found."""
    results = fit_mlm_head(*parse((MLMHeadArguments, TextbookArguments, DistillationArguments), argv, __doc__))
    print(f"{cost_of_training(results)} on {results['train_rows']:,} rows")
    if results["after"] is not None:
        before, after = (100 * results[when]["masked_accuracy"] for when in ("before", "after"))
        print(f"Masked tokens found: {before:.1f} % before, {after:.1f} % after")
    print(f"Masked language model written to {results['model']}")
    return results


if __name__ == "__main__":
    sys.exit(run_command("run_mlm_head.py", main))
