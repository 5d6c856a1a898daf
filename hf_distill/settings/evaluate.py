"""Settings for scoring a model on a task."""

from __future__ import annotations

from dataclasses import dataclass

from .values import check_least, setting


@dataclass
class EvaluationArguments:
    """The model that is scored as it is, and where its scores go."""

    model: str | None = setting(
        None, "Hub id or local folder of a model with the task's head; it can also be given as the first word."
    )
    revision: str | None = setting(None, "Branch, tag or commit of the model.")
    tokenizer_name: str | None = setting(None, "Hub id or local folder of the tokenizer. Default: the model's.")
    output_dir: str = setting("outputs/evaluation", "Folder of results.json.")
    eval_batch_size: int = setting(64, "Rows per batch.")
    bf16: bool = setting(False, "Compute in bfloat16 autocast.")
    use_cpu: bool = setting(False, "Use the CPU even if there is a GPU.")
    seed: int = setting(42, "Seed of the rows that --max_eval_samples draws.")

    def __post_init__(self) -> None:
        """Check the number."""
        check_least(self, 1, "eval_batch_size")
