"""Arguments of every job: flat dataclasses for `HfArgumentParser`, flags or YAML.

The help text of a field is its only documentation; errors name the flag.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import TrainingArguments

MatmulMode = Literal["auto", "strict", "fast"]


@dataclass
class DistillationArguments(TrainingArguments):
    """`TrainingArguments` plus what decides a distillation.

    The defaults of the inherited fields that differ are those of MiniLMv2 (see `docs/defaults.md`).
    """

    learning_rate: float = field(default=6e-4, metadata={"help": "Peak learning rate (MiniLMv2: 6e-4)."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay (MiniLMv2: 0.01)."})
    adam_epsilon: float = field(default=1e-6, metadata={"help": "Epsilon of Adam (MiniLMv2: 1e-6)."})
    warmup_steps: float = field(
        default=0.01, metadata={"help": "Linear warm-up: a number of steps, or below 1 a share of them."}
    )
    logging_steps: float = field(default=10, metadata={"help": "Log the loss and its terms every so many steps."})
    train_sampling_strategy: str = field(
        default="group_by_length",
        metadata={"help": "How rows are batched: group_by_length (little padding), random or sequential."},
    )
    objectives: list[str] | None = field(
        default=None,
        metadata={
            "help": "What the student learns from, as name or name:weight (see `hf-distill info objectives`). "
            "Default: relation, if there is a teacher."
        },
    )
    max_length: int = field(default=128, metadata={"help": "Longest row in tokens, where the trainer tokenizes text."})
    text_column: str = field(
        default="text", metadata={"help": "Column to tokenize when the data set has no `input_ids`."}
    )
    relations: list[str] = field(
        default_factory=lambda: ["qq", "kk", "vv"],
        metadata={"help": "Objective relation: pairs of q, k, v, each optionally with a weight (qk:0.5)."},
    )
    relation_heads: str = field(
        default="auto",
        metadata={
            "help": "Objective relation: heads both sides are split into; a number that divides both widths, or "
            "auto: the largest legal one up to 48 (64 for teachers at least 1024 wide)."
        },
    )
    student_layer: int = field(
        default=-1, metadata={"help": "Student layer of the relation: 1-based, negative from the end."}
    )
    teacher_layer: str = field(
        default="auto",
        metadata={"help": "Teacher layer of the relation, or auto: the last; 19 or 21 of 24 (MiniLMv2)."},
    )
    layer_map: str | None = field(
        default=None,
        metadata={
            "help": "Several pairs of layers instead of one: last, last2, first_last, uniform, or pairs "
            "student:teacher such as 1:4,2:8,-1:-1."
        },
    )
    logits_loss: Literal["ce", "kl", "mse"] = field(
        default="ce", metadata={"help": "Objective logits: soft cross-entropy, KL divergence or squared error."}
    )
    temperature: float = field(default=1.0, metadata={"help": "Objective logits: divides the logits of both sides."})
    scale_by_squared_temperature: bool = field(
        default=True, metadata={"help": "Objective logits: multiply by the temperature's square (Hinton et al.)."}
    )
    teacher_dtype: Literal["auto", "float32", "bfloat16", "float16"] = field(
        default="auto",
        metadata={"help": "Arithmetic of the teacher's forward pass; auto: that of training (--bf16, --fp16)."},
    )
    fp32_matmul: MatmulMode = field(
        default="auto",
        metadata={
            "help": "fp32 products on the CPU: fast (oneDNN, may round to bf16), strict, or auto: fast if a check "
            "at start-up shows true fp32 accuracy."
        },
    )

    def __post_init__(self) -> None:
        """Check what can be checked without the models."""
        self.relation_heads = str(self.relation_heads)
        self.teacher_layer = str(self.teacher_layer)
        if self.max_length < 2:
            raise ValueError(f"`--max_length` is {self.max_length}; it must be at least 2.")
        if self.ddp_find_unused_parameters is None:
            # A relation objective reaches nothing beyond Q, K, V of its layer: later parameters get no gradient.
            self.ddp_find_unused_parameters = True
        super().__post_init__()

    def objective_options(self) -> dict[str, Any]:
        """The settings that constructors of objectives know by these names."""
        names = (
            "relations relation_heads student_layer teacher_layer layer_map "
            "logits_loss temperature scale_by_squared_temperature"
        )
        return {name: getattr(self, name) for name in names.split()}
