"""Settings of teachers, of students, and of the job around them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ..storage import plain_values
from ..storage.plain_values import load_json, shown

TeacherDtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]


@dataclass
class TeacherArguments:
    """The teacher and, for its fine-tuning, LoRA."""

    teacher_model: str | None = field(default=None, metadata={"help": "Hub id or local folder of the teacher."})
    teacher_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the teacher."})
    lora_r: int | None = field(
        default=None,
        metadata={"help": "Train low-rank matrices of this rank instead of all weights (LoRA), merged at the end."},
    )
    lora_alpha: float | None = field(
        default=None, metadata={"help": "LoRA: the update is scaled by alpha / r. Default: twice the rank."}
    )
    lora_dropout: float = field(default=0.0, metadata={"help": "LoRA: dropout before the low-rank matrices."})
    lora_target_modules: list[str] | None = field(
        default=None,
        metadata={"help": "LoRA: names of the linear layers to adapt, or all-linear. Default: peft's choice."},
    )

    def __post_init__(self) -> None:
        """Check that LoRA settings come with a rank."""
        if self.lora_r is not None and self.lora_r < 1:
            raise ValueError(f"`--lora_r` is {self.lora_r}; it must be at least 1, or absent for full fine-tuning.")
        if self.lora_r is None and (self.lora_alpha is not None or self.lora_target_modules is not None):
            raise ValueError("`--lora_alpha` and `--lora_target_modules` need `--lora_r`.")


@dataclass
class StudentArguments:
    """The student: a shape cut from the teacher's configuration, or a model that exists."""

    student_shape: str = field(
        default="4x312",
        metadata={"help": "Layers x width, e.g. 6x384, 4x312, 6x768:12h:3072 (see `hf-distill info shapes`)."},
    )
    student_init: Literal["teacher", "teacher_layers", "svd_embeddings", "random"] | None = field(
        default=None,
        metadata={
            "help": "First weights: teacher (cut out of the teacher by importance, and refitted on text), "
            "teacher_layers (copied, equal widths only), svd_embeddings (the teacher's word embeddings compressed, "
            "the rest random) or random. Default: teacher, where the student is no larger and the teacher has weights."
        },
    )
    student_layers: list[int] | None = field(
        default=None,
        metadata={"help": "The teacher's layers that the student's begin with. Default: spread evenly."},
    )
    student_embedding_size: int | None = field(
        default=None,
        metadata={
            "help": "Width of the word embeddings where it is not the student's; a matrix leads from them to its "
            "first layer. Such a student is an ELECTRA."
        },
    )
    calibration_text: str | None = field(
        default=None,
        metadata={
            "help": "Text that first weights from the teacher are refitted on: files, a folder or an id, as for "
            "--textbook. Default: the head of the textbook."
        },
    )
    calibration_tokens: int = field(
        default=40_000,
        metadata={"help": "How many tokens of it are read: 0 refits nothing; minutes and memory grow with them."},
    )
    student_model: str | None = field(
        default=None, metadata={"help": "Hub id or folder of a student to train on; the shape is then not used."}
    )


@dataclass
class RunArguments:
    """Settings of a run itself: how far the job goes."""

    dry_run: bool = field(
        default=False,
        metadata={
            "help": "Show student, layers, signals, memory and the terms of the first batch, then stop: nothing is "
            "trained or written."
        },
    )


@dataclass
class EvaluationArguments:
    """The student to adapt and evaluate, and what it is compared with."""

    student_model: str = field(metadata={"help": "Hub id or local folder of the student."})
    student_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the student."})
    tokenizer_name: str | None = field(
        default=None, metadata={"help": "Hub id or local folder of the tokenizer. Default: the student's."}
    )
    adapt: bool = field(
        default=True, metadata={"help": "Fine-tune the student on the task's labels first; --no_adapt only evaluates."}
    )
    from_scratch: bool = field(
        default=False,
        metadata={"help": "Also fine-tune the same student with random weights: the baseline without a teacher."},
    )


@dataclass
class PipelineArguments:
    """The whole job: where it writes, and what its training stages do."""

    output_dir: str = field(default="outputs/pipeline", metadata={"help": "Folder of all stages and of report.json."})
    seed: int = field(default=42, metadata={"help": "Seed of every stage."})
    use_cpu: bool = field(default=False, metadata={"help": "Stay on the CPU even where there is a GPU."})
    bf16: bool = field(default=False, metadata={"help": "Train in bfloat16 autocast."})
    max_textbook_rows: int | None = field(
        default=None, metadata={"help": "Distil on the first so many rows of the corpus, the most relevant."}
    )
    textbook_eval_rows: int = field(
        default=0,
        metadata={"help": "Hold back so many random rows of the distillation's text, and evaluate on them."},
    )
    preset: str | None = field(
        default=None,
        metadata={
            "help": "Settings of a paper for the distillation, below --distill (see `hf-distill info presets`)."
        },
    )
    textbook_source: str | None = field(
        default=None,
        metadata={
            "help": "What the student learns on: cc (what the task's sentences find in --corpus), taskda (the task's "
            "rows with words replaced, see --augment), general (--corpus as it is), task (the task's own text), or "
            "one stage after the other: cc+taskda. Default: cc where there is a --corpus."
        },
    )
    with_task_text: bool = field(
        default=False,
        metadata={
            "help": "Distil on the text of the task's own training rows too, besides the corpus; without --corpus on "
            "it alone."
        },
    )
    with_labels: bool = field(
        default=False,
        metadata={
            "help": "Give the labels of the task's rows to objectives that read them; not together with a corpus."
        },
    )
    finetune_teacher: bool = field(
        default=True,
        metadata={
            "help": "Fine-tune the teacher on the task first; --no_finetune_teacher takes it as it is, with its head."
        },
    )
    adapt_student: bool = field(
        default=True,
        metadata={
            "help": "Fine-tune the distilled student on the task's labels; --no_adapt_student scores it as it is, "
            "with the head that it learnt from the teacher."
        },
    )
    teach: str | None = field(
        default=None,
        metadata={"help": "Settings of the teacher's fine-tuning, as a mapping in YAML or JSON (num_train_epochs …)."},
    )
    distill: str | None = field(
        default=None, metadata={"help": "Settings of the distillation, likewise (objectives, max_steps …)."}
    )
    distill_next: str | None = field(
        default=None,
        metadata={
            "help": "Settings of the later stages of --textbook_source where they differ from --distill, likewise."
        },
    )
    augment: str | None = field(
        default=None,
        metadata={"help": "Settings of the augmentation for --textbook_source taskda, likewise (masked_lm …)."},
    )
    adapt: str | None = field(
        default=None, metadata={"help": "Settings of the fine-tuning of student and baseline, likewise."}
    )

    def settings(self, stage: Literal["teach", "augment", "distill", "distill_next", "adapt"]) -> dict[str, Any]:
        """The settings of one stage: a mapping from YAML, or from the text of a flag.

        Raises:
            ValueError: If they are no mapping.
        """
        return as_mapping(getattr(self, stage), f"--{stage}")


def as_mapping(value: Any, flag: str) -> dict[str, Any]:
    """Settings that are a mapping in YAML, or the text of a flag in JSON.

    Raises:
        ValueError: If they are no mapping.
    """
    if isinstance(value, str):
        value = load_json(value, f"`{flag}` must be JSON such as '{{\"max_steps\": 100}}'; {shown(value)}")
    return {} if value is None else plain_values.as_mapping(value, f"`{flag}`")
