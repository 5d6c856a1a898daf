"""Arguments of every job: flat dataclasses for `HfArgumentParser`, flags or YAML.

The help text of a field is its only documentation; errors name the flag.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import TrainingArguments

from .tasks.spec import TaskSpec

MatmulMode = Literal["auto", "strict", "fast"]

# Stands for the main metric of whatever task it will be.
HEADLINE = "headline"


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
        if self.device.type == "cpu":
            # There is no device to copy to, and torch warns.
            self.dataloader_pin_memory = False

    def objective_options(self) -> dict[str, Any]:
        """The settings that constructors of objectives know by these names."""
        names = (
            "relations relation_heads student_layer teacher_layer layer_map "
            "logits_loss temperature scale_by_squared_temperature"
        )
        return {name: getattr(self, name) for name in names.split()}


@dataclass
class StudentArguments:
    """The student: a shape cut from the teacher's configuration, or a model that exists."""

    student_shape: str = field(
        default="4x312",
        metadata={"help": "Layers x width, e.g. 6x384, 4x312, 6x768:12h:3072 (see `hf-distill info shapes`)."},
    )
    student_init: Literal["random", "teacher_layers"] = field(
        default="random", metadata={"help": "First weights: random, or copied from the teacher (equal widths only)."}
    )
    student_layers: list[int] | None = field(
        default=None, metadata={"help": "With teacher_layers: the teacher's layers to copy. Default: spread evenly."}
    )
    student_model: str | None = field(
        default=None, metadata={"help": "Hub id or folder of a student to train on; the shape is then not used."}
    )


@dataclass
class TextbookArguments:
    """The text that the student learns from; a contextualized corpus, or any other."""

    textbook: str = field(
        metadata={"help": "Text to distil on: a corpus built by `hf-distill corpus`, files, a folder or a Hub id."}
    )
    max_textbook_rows: int | None = field(
        default=None, metadata={"help": "Distil on the first so many rows (of a built corpus: the most relevant)."}
    )
    textbook_eval_rows: int = field(
        default=0, metadata={"help": "Hold back so many random rows and report the loss on them at the end."}
    )

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.max_textbook_rows is not None and self.max_textbook_rows < 1:
            raise ValueError(f"`--max_textbook_rows` is {self.max_textbook_rows}; it must be at least 1.")
        if self.textbook_eval_rows < 0:
            raise ValueError(f"`--textbook_eval_rows` is {self.textbook_eval_rows}; it must be at least 0.")


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
    teach: str | None = field(
        default=None,
        metadata={"help": "Settings of the teacher's fine-tuning, as a mapping in YAML or JSON (num_train_epochs …)."},
    )
    distill: str | None = field(
        default=None, metadata={"help": "Settings of the distillation, likewise (objectives, max_steps …)."}
    )
    adapt: str | None = field(
        default=None, metadata={"help": "Settings of the fine-tuning of student and baseline, likewise."}
    )

    def settings(self, stage: Literal["teach", "distill", "adapt"]) -> dict[str, Any]:
        """The settings of one stage: a mapping from YAML, or from the text of a flag.

        Raises:
            ValueError: If they are no mapping.
        """
        value: Any = getattr(self, stage)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"`--{stage}` must be JSON such as '{{\"max_steps\": 100}}', not {value!r}: {error}."
                ) from error
        if value is not None and not isinstance(value, dict):
            raise ValueError(f"`--{stage}` must be `name: value` pairs, not {value!r}.")
        return dict(value or {})


@dataclass
class TaskArguments:
    """Which task, and where its rows are."""

    task: str = field(
        metadata={
            "help": "A registered task (glue/sst2, see `hf-distill info tasks`), or a folder of your own with "
            "train and validation files (parquet, jsonl, tsv, csv), described by its task.yaml or by the flags below."
        }
    )
    data_dir: str | None = field(
        default=None,
        metadata={
            "help": "Local files of the task: its own folder, or a parent with a folder of its name. "
            "Default: the task's data set on the Hub."
        },
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Longest row in tokens; the rest is cut off. Default: the task's (GLUE: 128)."}
    )
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Train on so many rows, drawn with the seed. Default: all."}
    )
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Evaluate on so many rows per split, drawn with the seed. Default: all."}
    )
    text_columns: list[str] | None = field(
        default=None, metadata={"help": "One column of text, or two for pairs. Default: the task's."}
    )
    label_column: str | None = field(default=None, metadata={"help": "Column of the labels. Default: the task's."})
    class_names: list[str] | None = field(
        default=None,
        metadata={
            "help": "Names of the classes in order. Default: the task's; of your own folder: those in its rows."
        },
    )
    evaluation_splits: list[str] | None = field(
        default=None, metadata={"help": "Splits to evaluate on, the main one first. Default: the task's (validation)."}
    )
    metrics: list[str] | None = field(
        default=None,
        metadata={
            "help": "Scores, the main one first: accuracy, f1, f1_macro, matthews_correlation; regression: pearson, "
            "spearman. Default: the task's."
        },
    )

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("max_length", "max_train_samples", "max_eval_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`--{name}` is {value}; it must be at least 1.")

    def spec_fields(self) -> dict[str, Any]:
        """Fields of `TaskSpec` that were given; they go to `load_task`."""
        given: dict[str, Any] = {
            "text_columns": self.text_columns,
            "label_column": self.label_column,
            # `--label_names` is taken: `TrainingArguments` means columns by it.
            "label_names": self.class_names,
            "evaluation_splits": self.evaluation_splits,
        }
        # The first metric named is the main one, whatever the task's own was.
        scores = {} if self.metrics is None else {"metrics": self.metrics, "headline_metric": self.metrics[0]}
        return {name: value for name, value in given.items() if value is not None} | scores


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
class FineTuningArguments(TrainingArguments):
    """`TrainingArguments` whose unset learning rate, epochs, batch size, warm-up and decay are the task's.

    The task's settings come from the paper named in its spec; `with_task_defaults` fills them in.
    """

    learning_rate: float | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Peak learning rate. Default: the task's (GLUE: 1e-5 or 2e-5)."}
    )
    num_train_epochs: float | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Passes over the training rows. Default: the task's (GLUE: 10)."}
    )
    per_device_train_batch_size: int | None = field(  # type: ignore[assignment]
        default=None,
        metadata={"help": "Rows per device and step. Default: the task's batch (GLUE: 16 or 32) over all devices."},
    )
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Rows per device in evaluation."})
    warmup_steps: float | None = field(  # type: ignore[assignment]
        default=None,
        metadata={
            "help": "Linear warm-up: a number of steps, or below 1 a share of them. Default: the task's (0.06)."
        },
    )
    weight_decay: float | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Weight decay of AdamW. Default: the task's (0.01)."}
    )
    logging_steps: float = field(default=10, metadata={"help": "Log the loss every so many steps."})
    save_strategy: str = field(
        default="epoch", metadata={"help": "When to write checkpoints to resume from: no, steps, epoch or best."}
    )
    save_total_limit: int | None = field(default=1, metadata={"help": "Keep so many checkpoints, the latest ones."})
    train_sampling_strategy: str = field(
        default="group_by_length",
        metadata={"help": "How rows are batched: group_by_length (little padding), random or sequential."},
    )
    fp32_matmul: MatmulMode = field(
        default="auto",
        metadata={
            "help": "fp32 products on the CPU: fast (oneDNN, may round to bf16), strict, or auto: fast if a check "
            "at start-up shows true fp32 accuracy."
        },
    )

    def __post_init__(self) -> None:
        """Let the base class check a number where the warm-up is left to the task."""
        warmup_steps = self.warmup_steps
        self.warmup_steps = 0.0 if warmup_steps is None else warmup_steps
        if self.load_best_model_at_end and self.metric_for_best_model is None:
            self.metric_for_best_model = HEADLINE
        super().__post_init__()
        self.warmup_steps = warmup_steps
        if self.device.type == "cpu":
            # There is no device to copy to, and torch warns.
            self.dataloader_pin_memory = False

    def with_task_defaults(self, spec: TaskSpec) -> FineTuningArguments:
        """A copy in which everything left unset has the task's value.

        The task's batch is that of one update: it is shared out over devices and accumulation steps.
        """
        shares = max(1, self.world_size * max(1, self.n_gpu) * self.gradient_accumulation_steps)
        values = {
            "learning_rate": spec.fine_tuning.learning_rate,
            "num_train_epochs": spec.fine_tuning.epochs,
            "per_device_train_batch_size": max(1, spec.fine_tuning.batch_size // shares),
            "warmup_steps": spec.fine_tuning.warmup,
            "weight_decay": spec.fine_tuning.weight_decay,
        }
        filled = copy.copy(self)
        for name, value in values.items():
            if getattr(filled, name) is None:
                setattr(filled, name, value)
        if filled.metric_for_best_model == HEADLINE:
            filled.metric_for_best_model = spec.headline
        return filled


@dataclass
class CorpusArguments:
    """A contextualized corpus: what a task's sentences find in general text (Contextualized Corpus, section 2)."""

    corpus: str | None = field(
        default=None,
        metadata={
            "help": "General corpus: a parquet, JSON lines, csv or text file (also compressed), a folder or a Hub id."
        },
    )
    corpus_config: str | None = field(default=None, metadata={"help": "Configuration of a general corpus on the Hub."})
    corpus_split: str = field(default="train", metadata={"help": "Split of the general corpus."})
    corpus_licence: str | None = field(
        default=None, metadata={"help": "Licence of the general corpus, for the card (cc-by-sa-3.0)."}
    )
    text_column: str = field(default="text", metadata={"help": "Column of the general corpus with the text."})
    source_column: str = field(
        default="source",
        metadata={"help": "Column of the general corpus that names where a row comes from, if it has one."},
    )
    max_corpus_rows: int | None = field(
        default=None, metadata={"help": "Take only the first rows of the general corpus."}
    )
    max_anchors: int | None = field(default=None, metadata={"help": "Take only the first anchors."})
    corpus_dir: str = field(
        default="outputs/corpus", metadata={"help": "Folder for the corpus, its card and statistics."}
    )
    work_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder for finished steps, from which a killed build continues. Default: `work` in --corpus_dir."
        },
    )
    index_dir: str | None = field(
        default=None,
        metadata={"help": "Folder for indexes, to share one between tasks; by default `index` in the work folder."},
    )
    engine: str = field(
        default="auto",
        metadata={
            "help": "BM25 engine: retriv, bm25s, or auto: retriv where it is installed and the corpus small enough."
        },
    )
    top_k: int | None = field(
        default=None,
        metadata={
            "help": "Sentences retrieved per anchor; by default the paper's for the task (its Table 1), else 100."
        },
    )
    top_share: float = field(
        default=1.0,
        metadata={"help": "Share of the hits to keep, best first: ranks below share x top_k of any anchor."},
    )
    query: Literal["rake", "content_words", "text"] = field(
        default="rake", metadata={"help": "Query of an anchor: RAKE keywords, all words but stop words, or its text."}
    )
    max_phrases: int = field(default=20, metadata={"help": "RAKE phrases per query."})
    language: str = field(
        default="english", metadata={"help": "Language of stop words and stemmer; none leaves both out."}
    )
    stem: bool = field(default=True, metadata={"help": "Stem words (Snowball) before indexing and searching."})
    bm25_k1: float = field(default=1.2, metadata={"help": "BM25: how fast repeats of a word saturate."})
    bm25_b: float = field(default=0.75, metadata={"help": "BM25: how much long rows are held back, 0 to 1."})
    max_chars: int = field(
        default=4000, metadata={"help": "Rows of the general corpus with more characters are left out and counted."}
    )
    min_words: int = field(
        default=1, metadata={"help": "Rows of the general corpus with fewer words are left out and counted."}
    )
    deduplicate: Literal["normalized", "exact", "none"] = field(
        default="normalized",
        metadata={
            "help": "Keep one of equal texts: equal without case, punctuation and spacing; exactly equal; or all."
        },
    )
    decontaminate: Literal["equal", "contains", "none"] = field(
        default="equal",
        metadata={
            "help": "Leave out rows that equal a text of the task's validation or test set, or also those that "
            "contain one of at least eight words."
        },
    )
    num_proc: int | None = field(
        default=None, metadata={"help": "Processes for keywords and search; by default one process with all cores."}
    )
    search_batch_size: int = field(default=1000, metadata={"help": "Queries searched together."})

    def __post_init__(self) -> None:
        """Check what can be checked without the data."""
        positive = "max_corpus_rows max_anchors top_k max_phrases max_chars num_proc search_batch_size"
        for name in positive.split():
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`--{name}` is {value}; it must be at least 1.")
        if not 0 < self.top_share <= 1:
            raise ValueError(f"`--top_share` is {self.top_share}; it must be above 0 and at most 1.")
        if self.bm25_k1 < 0 or not 0 <= self.bm25_b <= 1:
            raise ValueError(
                f"`--bm25_k1` ({self.bm25_k1}) must be at least 0, `--bm25_b` ({self.bm25_b}) within 0 and 1."
            )
        choices = {
            "query": ("rake", "content_words", "text"),
            "deduplicate": ("normalized", "exact", "none"),
            "decontaminate": ("equal", "contains", "none"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"`--{name}` is {getattr(self, name)!r}; allowed are {list(allowed)}.")
