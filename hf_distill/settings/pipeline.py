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
    use_cpu: bool = setting(False, "Stay on the CPU even where there is a GPU.")
    bf16: bool = setting(False, "Train in bfloat16 autocast.")
    max_textbook_rows: int | None = setting(None, "Rows of the corpus to distil on, the most relevant ones.")
    textbook_eval_rows: int = setting(0, "Random rows of the distillation's text that are held back to evaluate on.")
    preset: str | None = setting(
        None, "Settings of a paper for the distillation, below --distill (see `hf-distill info presets`)."
    )
    textbook_source: str | None = setting(
        None,
        "What the student learns on: cc (what the task's sentences find in --corpus), taskda (the task's "
        "rows with words replaced, see --augment), general (--corpus as it is), task (the task's own text), or "
        "one stage after the other: cc+taskda. Default: cc where there is a --corpus, else task.",
    )
    with_task_text: bool = setting(
        False, "Distil on the text of the task's own training rows too, besides the corpus."
    )
    with_labels: bool = setting(
        False, "Give the labels of the task's rows to objectives that read them; not together with a corpus."
    )
    finetune_teacher: bool = setting(
        True,
        "Fine-tune the teacher on the task first, unless it has a head with the task's labels and --teach "
        "is not given; --no_finetune_teacher takes it as it is in any case.",
    )
    adapt_student: bool = setting(
        True,
        "Fine-tune the distilled student on the task's labels, and keep the better of both where its head was "
        "distilled; --no_adapt_student scores it as it is, with the head that it learnt from the teacher.",
    )
    export: bool = setting(
        True,
        "Export the student to ONNX at the end, in fp32 and int8, and score both; --no_export leaves it "
        "out, as a line does where the extra onnx is not installed.",
    )
    teach: str | None = setting(
        None,
        "Settings of the teacher's fine-tuning, as a mapping in YAML or JSON (num_train_epochs …). A flag changes the "
        "settings that it names and leaves the others of the file; null takes one away.",
    )
    distill: str | None = setting(None, "Settings of the distillation, likewise (objectives, max_steps …).")
    distill_next: str | None = setting(
        None, "Settings of the later stages of --textbook_source where they differ from --distill, likewise."
    )
    augment: str | None = setting(
        None, "Settings of the augmentation for --textbook_source taskda, likewise (masked_lm …)."
    )
    adapt: str | None = setting(
        None,
        "Settings of the fine-tuning of student and baseline, likewise. Default: the task's epochs; where the head "
        "was distilled one epoch, and for the baseline as many rows as the student saw.",
    )

    def settings(self, stage: Literal["teach", "augment", "distill", "distill_next", "adapt"]) -> dict[str, Any]:
        """The settings of one stage: a mapping from YAML, or from the text of a flag.

        Raises:
            ValueError: If they are no mapping.
        """
        return json_mapping(getattr(self, stage), f"--{stage}")
