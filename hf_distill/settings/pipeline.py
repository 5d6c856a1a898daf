"""Settings of the whole job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .values import json_mapping, setting


@dataclass
class PipelineArguments:
    """The whole job: where it writes, and what its training stages do."""

    output_dir: str = setting("outputs/pipeline", "Folder of all stages and of report.json.")
    seed: int = setting(42, "Seed of every stage.")
    use_cpu: bool = setting(False, "Use the CPU even if there is a GPU.")
    bf16: bool = setting(False, "Train in bfloat16 autocast.")
    max_textbook_rows: int | None = setting(
        None, "Number of rows of the corpus to distil on, the most relevant ones. Default: all."
    )
    textbook_eval_rows: int = setting(
        0, "Number of random rows of the distillation's text that are held out for evaluation."
    )
    preset: str | None = setting(
        None, "Settings of a paper for the distillation, which --distill overrides (see `hf-distill info presets`)."
    )
    textbook_source: str | None = setting(
        None,
        "What the student learns on: cc (rows of --corpus that the task's sentences retrieve), taskda "
        "(the task's rows with words replaced, see --augment), general (--corpus as it is), task (the "
        "task's own text), or one after the other: cc+taskda. Default: cc if there is a --corpus, else "
        "task.",
    )
    with_task_text: bool = setting(
        False, "Distil on the text of the task's own training rows too, in addition to the corpus."
    )
    with_labels: bool = setting(
        False, "Give the labels of the task's rows to objectives that need them; not together with a corpus."
    )
    finetune_teacher: bool = setting(
        True,
        "Fine-tune the teacher on the task first, unless it already has a head with the task's labels "
        "and --teach is not given; --no_finetune_teacher always takes it as it is.",
    )
    adapt_student: bool = setting(
        True,
        "Fine-tune the distilled student on the task's labels; if its head was distilled, keep the "
        "better student, before or after. --no_adapt_student scores the student without fine-tuning.",
    )
    export: bool = setting(
        True,
        "Export the student to ONNX at the end, in fp32 and int8, and score both files; --no_export "
        "leaves this out. Without the extra onnx it is left out with a message.",
    )
    teach: str | None = setting(
        None,
        "Settings of the teacher's fine-tuning, as a mapping in YAML or JSON (num_train_epochs …). As "
        "a flag it changes only the settings that it names and keeps the others of the file; null "
        "removes a setting.",
    )
    distill: str | None = setting(None, "Settings of the distillation, in the same form (objectives, max_steps …).")
    distill_next: str | None = setting(
        None, "Settings of the later stages of --textbook_source that differ from --distill, in the same form."
    )
    augment: str | None = setting(
        None, "Settings of the augmentation for --textbook_source taskda, in the same form (masked_lm …)."
    )
    adapt: str | None = setting(
        None,
        "Settings of the fine-tuning of student and baseline, in the same form. Default: the task's "
        "epochs; if the head was distilled one epoch, and for the baseline as many rows as the student "
        "saw.",
    )

    def settings(self, stage: Literal["teach", "augment", "distill", "distill_next", "adapt"]) -> dict[str, Any]:
        """The settings of one stage: a mapping from YAML, or from the text of a flag.

        Raises:
            ValueError: If they are no mapping.
        """
        return json_mapping(getattr(self, stage), f"--{stage}")
