"""Settings of a distillation: student, text, objectives and training, with one teacher or several."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar, get_args

from transformers import TrainingArguments
from transformers.utils import logging

from ..storage.plain_values import check_range
from .task import ColumnArguments
from .values import check_least, default_of, setting

logger = logging.get_logger(__name__)

MatmulMode = Literal["auto", "strict", "fast"]
TeacherDtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]
CombinationRule = Literal["mean_logits", "mean_probabilities", "confidence", "route"]
PoolingMode = Literal["mean", "cls", "lasttoken", "weightedmean", "max", "mean_sqrt_len_tokens"]
RULES: tuple[str, ...] = get_args(CombinationRule)
# The name of a task's main score in `metric_for_best_model`.
HEADLINE = "headline"

# Settings of ours that a training without objectives has a use for.
USED_WITHOUT_OBJECTIVES = {
    *("early_stopping_patience", "early_stopping_threshold", "fp32_matmul", "gradual_unfreezing", "mlm_probability"),
    *("max_length", "text_column", "objectives"),
}


@dataclass
class StudentArguments:
    """The student: a shape cut from the teacher's configuration, or a model that exists."""

    student_shape: str = setting(
        "4x312",
        "Shape of the student as layers x width, e.g. 6x384, 4x312, 6x768:12h:3072 (see `hf-distill info shapes`).",
    )
    student_init: Literal["teacher", "teacher_layers", "svd_embeddings", "random"] | None = setting(
        None,
        "First weights of the student: teacher (cut out of the teacher by importance, and refitted on "
        "text), teacher_layers (copied layers, equal widths only), svd_embeddings (the teacher's word "
        "embeddings compressed, the rest random) or random. Default: teacher, if the student is not "
        "larger than the teacher and the teacher has weights.",
    )
    student_init_model: str | None = setting(
        None,
        "Hub id or folder of the model from which --student_init takes weights, if the teacher has "
        "none, as a stored teacher; its tokenizer must be the teacher's. Default: the teacher.",
    )
    student_layers: list[int] | None = setting(
        None, "Teacher layers with which the student's layers begin, counted from 1. Default: spread evenly."
    )
    student_embedding_size: int | None = setting(
        None,
        "Width of the word embeddings, if it is not the student's width; a matrix leads from them to "
        "the first layer. Such a student is an ELECTRA, unless the teacher's class has such "
        "embeddings.",
    )
    student_vocabulary: int | None = setting(
        None,
        "Trim the student's vocabulary to this many pieces, the most frequent ones in the textbook; 0 "
        "keeps all that occur in it. Default: the teacher's vocabulary.",
    )
    calibration_text: str | None = setting(
        None,
        "Text on which first weights from the teacher are refitted: files, a folder or a Hub id, as "
        "for --textbook. Default: the first rows of the textbook, or of a stored teacher.",
    )
    calibration_tokens: int = setting(
        40_000,
        "Largest number of tokens of --calibration_text that are read; with 0 nothing is refitted. "
        "Time and memory grow with it.",
    )
    student_model: str | None = setting(
        None, "Hub id or folder of an existing student to train further; --student_shape is then not used."
    )

    def __post_init__(self) -> None:
        """Check the size of the vocabulary, and that a student that exists is not to be made."""
        check_least(self, 0, "student_vocabulary")
        if self.student_init_model is not None and self.student_model is not None:
            raise ValueError(
                f"`--student_init_model {self.student_init_model}` gives first weights to a student that is made, but "
                f"`--student_model {self.student_model}` has weights: leave one of them out."
            )
        if self.student_vocabulary is not None and self.student_model is not None:
            raise ValueError(
                "`--student_vocabulary` is for a student that is made; trim `--student_model` with `hf-distill "
                "vocabulary`."
            )


@dataclass
class FamilyArguments(StudentArguments):
    """The student: shapes cut from the teacher's configuration, or a model that exists."""

    student_shape: list[str] = setting(  # type: ignore[assignment]
        ["4x312"],
        "Shape of the student as layers x width, e.g. 6x384, 4x312, 6x768:12h:3072 (see `hf-distill "
        "info shapes`). Several shapes are a family, which is trained in one pass of the teacher, each "
        "student in its own folder in --output_dir. A student with settings of its own is a mapping "
        "(in YAML, or JSON) with shape (or student_model), name, and objectives, learning_rate ...",
    )

    def __post_init__(self) -> None:
        """Check the size of the vocabulary; a single shape may be given as a string."""
        super().__post_init__()
        if not isinstance(self.student_shape, list):
            self.student_shape = [self.student_shape]


@dataclass
class TextbookArguments(ColumnArguments):
    """The text that the student learns from; a contextualized corpus, or any other."""

    textbook: list[str] | None = setting(
        None,
        "Text to distil on: a corpus built by `hf-distill corpus`, a file, a folder, a Hub id, or the "
        "name of a task for the text of its training rows. Several are joined. A stored teacher has "
        "its own rows. With --with_labels, or a flag of columns, your own file or folder is read as a "
        "task, as by --task; these flags hold for --eval_task as well.",
    )
    data_dir: str | None = setting(
        None, "Local files of a task named by --textbook, or a parent folder with a folder of its name."
    )
    max_textbook_rows: int | None = setting(
        None,
        "Number of rows of each text to distil on, the first ones (of a built corpus: the most "
        "relevant). Default: all.",
    )
    with_labels: bool = setting(
        False,
        "Give the labels of the tasks that --textbook names to objectives that need them (labels, "
        "annealed, pkd, ...). Token classification and question answering always have their labels.",
    )
    textbook_eval_rows: int = setting(
        0, "Number of random rows that are held out; the loss on them is reported at the end."
    )

    def __post_init__(self) -> None:
        """Check the numbers; a single text may be given as a string."""
        if isinstance(self.textbook, str):
            self.textbook = [self.textbook]
        check_least(self, 1, "max_textbook_rows")
        check_least(self, 0, "textbook_eval_rows")


@dataclass
class RunArguments:
    """Settings of a run itself: how far the job goes."""

    dry_run: bool = setting(
        False,
        "Show the student, the compared layers, signals, memory and the loss terms of the first batch, "
        "then stop: nothing is trained or written.",
    )


class Unset:
    """Marks a value that nobody chose: it counts where something is distilled, `stock` everywhere else.

    The value itself is an ordinary number or text, so that whoever reads the arguments sees it.

    Attributes:
        plain: The value without the mark.
        stock: That of `TrainingArguments`.
    """

    plain: Any
    stock: Any


class UnsetFloat(Unset, float):
    """A number that nobody chose."""


class UnsetInt(Unset, int):
    """A whole number that nobody chose."""


class UnsetText(Unset, str):
    """A text that nobody chose."""

    def __str__(self) -> str:
        """Itself: a parser that makes text of a default does not take it for a choice."""
        return self


# The usual learning rate is for weights that mean nothing yet; it spoils those that were cut out of the teacher.
RATE_OF_CUT_STUDENTS = 1e-4
KINDS: dict[type, type] = {float: UnsetFloat, int: UnsetInt, str: UnsetText}


def _ours(name: str, value: float | str, text: str) -> Any:
    """A field of `TrainingArguments` with another default where something is distilled."""
    marked = KINDS[type(value)](value)
    marked.plain = value
    marked.stock = next(item.default for item in dataclasses.fields(TrainingArguments) if item.name == name)
    return setting(marked, text)


def lower_is_better(metric: str, evaluation_sets: Iterable[str] = ()) -> bool:
    """Whether smaller values of what an evaluation measures are better.

    Losses, their terms and divergences fall, agreement rises; of any other name `Trainer` knows a loss by its end.

    Args:
        metric: A name such as `metric_for_best_model`, with or without `eval_`.
        evaluation_sets: Names of the evaluation sets, if there are several; a metric begins with that of its set.
    """
    name = without_set(metric, evaluation_sets)
    family = name.partition("/")[0]
    return family in ("loss", "kl") or (family != "agreement" and name.endswith("loss"))


def without_set(metric: str, evaluation_sets: Iterable[str] = ()) -> str:
    """The name of a metric without `eval_` and the name of its evaluation set."""
    name = metric.removeprefix("eval_")
    found = [one for one in evaluation_sets if name.startswith(f"{one}_")]
    return name[len(max(found, key=len)) + 1 :] if found else name


Kind = TypeVar("Kind", bound=TrainingArguments)


def filled_up(kind: type[Kind], args: TrainingArguments) -> Kind:
    """Arguments of another kind that say what `args` say; what `args` do not have, has its default.

    What `args` say counts as chosen, their learning rate too.
    """
    filled = kind.__new__(kind)
    for item in dataclasses.fields(kind):
        setattr(filled, item.name, default_of(item))
    filled.__dict__ |= vars(args)
    return filled


@dataclass
class CheckedTrainingArguments(TrainingArguments):
    """`TrainingArguments` of every training of this package: its numbers are finite, its products are in fp32."""

    fp32_matmul: MatmulMode = setting(
        "auto",
        "fp32 matrix products on the CPU: fast (oneDNN, may round to bf16), strict (PyTorch), or auto "
        "(fast if a check at start-up shows true fp32 accuracy).",
    )

    def __post_init__(self) -> None:
        """Check the numbers; only the norm at which gradients are cut may be infinite.

        Raises:
            ValueError: If a number is not finite; the message names the flag.
        """
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            for number in value if isinstance(value, list) else [value]:
                is_uncut = item.name == "max_grad_norm" and number == math.inf
                if isinstance(number, float) and not math.isfinite(number) and not is_uncut:
                    raise ValueError(f"`--{item.name}` is {value}; it must be a finite number.")
        super().__post_init__()
        if self.device.type == "cpu":
            # There is no device to copy to, and torch warns.
            self.dataloader_pin_memory = False


@dataclass
class DistillationArguments(CheckedTrainingArguments):
    """`TrainingArguments` plus what decides a distillation.

    The defaults of the inherited fields that differ are those of MiniLMv2 (see `docs/defaults.md`). They count where
    something is distilled; a training without objectives has those of `TrainingArguments` (`for_training`).
    """

    learning_rate: float = _ours(
        "learning_rate",
        6e-4,
        "Peak learning rate. Default: 6e-4 (MiniLMv2), or 1e-4 for a student that was just cut out of its teacher.",
    )
    weight_decay: float = _ours("weight_decay", 0.01, "Weight decay (MiniLMv2: 0.01).")
    adam_epsilon: float = _ours("adam_epsilon", 1e-6, "Epsilon of Adam (MiniLMv2: 1e-6).")
    warmup_steps: float = _ours(
        "warmup_steps", 0.01, "Linear warm-up: a number of steps, or a share of all steps if below 1."
    )
    logging_steps: float = _ours("logging_steps", 10, "Number of steps between two logs of the loss and its terms.")
    train_sampling_strategy: str = _ours(
        "train_sampling_strategy",
        "group_by_length",
        "How rows are batched: group_by_length (little padding), random or sequential.",
    )
    dataloader_num_workers: int = _ours(
        "dataloader_num_workers",
        0,
        "Number of processes that make the training batches. Default: on a GPU up to 8 if the rows are "
        "in Arrow files, else 0.",
    )
    max_tokens_per_batch: int | None = setting(
        None,
        "Largest number of tokens in a training batch, padding included, on one device. Batches then "
        "have as many rows of similar length as fit, and --per_device_train_batch_size is not used. "
        "Default: batches of --per_device_train_batch_size rows.",
    )
    pack_rows: bool = setting(
        False,
        "Compute embeddings, linear layers and norms without padding; for objectives that need no "
        "logits. The student must be a BERT, ELECTRA, ERNIE, RoBERTa, XLM-R, CamemBERT, ModernBERT or "
        "NomicBERT; a teacher of another family keeps its padding.",
    )
    objectives: list[str] | None = setting(
        None,
        "Losses of the student, each as name or name:weight, or as a mapping (in YAML, or JSON) with "
        "objective, name, weight, schedule and the objective's own settings (see `hf-distill info "
        "objectives`). Default: relation, if there is a teacher.",
    )
    projection_learning_rate: float | None = setting(
        None,
        "Peak learning rate of projections from the student's width to the teacher's. Default: that of the student.",
    )
    projection_weight_decay: float | None = setting(None, "Weight decay of projections. Default: that of the student.")
    student_dropout: float | None = setting(
        None,
        "Dropout probability of the student while it is distilled; the saved configuration keeps its "
        "own. Default: that of the student's configuration.",
    )
    max_length: int = setting(
        128, "Largest number of tokens in a row, if the trainer tokenizes text; the rest is truncated."
    )
    text_column: str = setting("text", "Column to tokenize when the data set has no `input_ids`.")
    mlm_probability: float | None = setting(
        None,
        "Mask this share of the tokens as in masked language modelling (BERT: 0.15), and give the "
        "masked tokens as labels; for models with a masked-LM head. Default: no masks.",
    )
    gradual_unfreezing: list[float] | None = setting(
        None,
        "Two shares of the steps (0 0.5): at the first, all of the student but its head is frozen; "
        "from there to the second its layers are unfrozen from the top down. Default: nothing is "
        "frozen.",
    )
    align_tokenizers: bool = setting(
        False,
        "Let the teacher read the text with its own tokenizer: logits of rows are compared as they "
        "are, hidden states and relations over the pieces of text that both tokenizers keep apart.",
    )
    temperature: float = setting(
        1.0, "Divides the logits of student and teacher in objectives on logits without a temperature of their own."
    )
    teacher_text_column: str | None = setting(
        None,
        "Let the teacher read another column than the student, such as a translation; for objectives "
        "on vectors of texts and logits of rows.",
    )
    teacher_prompt: str | None = setting(
        None, "Put this before every text that the teacher reads, such as 'query: '. Default: no prompt."
    )
    student_pooling: PoolingMode | None = setting(
        None,
        "Sentence encoders: pooling of the student (mean, cls, lasttoken, weightedmean, max, "
        "mean_sqrt_len_tokens). Default: as its own folder says, else the teacher's.",
    )
    student_dense_width: int | None = setting(
        None,
        "Sentence encoders: give the student's vectors this width by a dense layer, which is trained "
        "and saved with it. Default: no dense layer; vectors of different widths are compared through "
        "a projection, which is not saved with the student.",
    )
    teacher_dtype: TeacherDtype = setting(
        "auto",
        "dtype of the teacher's forward pass; int8: linear layers in int8, on the CPU; auto: that of "
        "the training (--bf16, --fp16).",
    )
    teacher_device: str | None = setting(
        None, "Device of the teacher, such as cpu or cuda:1. Default: the student's device."
    )
    eval_agreement: bool = setting(
        False,
        "Measure the agreement of student and teacher on the held-out rows: share of equal predictions "
        "and KL divergence for objectives on logits, linear CKA of the compared layers for the others.",
    )
    eval_task: str | None = setting(
        None,
        "Also score the student on this task in every evaluation: a registered task (glue/sst2), or "
        "your own file or folder, whose columns the flags of --textbook name. The student's head is "
        "scored if it is trained, otherwise a linear probe. A sentence encoder is scored on pairs of "
        "texts by their cosines, or on retrieval (a folder in BEIR's layout).",
    )
    eval_task_dir: str | None = setting(
        None, "Local files of --eval_task, or a parent folder with a folder of its name. Default: the Hub."
    )
    eval_task_samples: int | None = setting(
        1000,
        "Number of rows of --eval_task that are scored, drawn with the seed; a linear probe is fitted on as many.",
    )
    early_stopping_patience: int | None = setting(
        None,
        "Stop after this many consecutive evaluations without a better --metric_for_best_model (loss, "
        "agreement, headline for the main score of --eval_task, or any other name in the log without "
        "eval_). Default: never.",
    )
    early_stopping_threshold: float = setting(0.0, "Smallest improvement that counts for --early_stopping_patience.")

    def _check_budget(self) -> None:
        """Refuse what contradicts batches that are made by their tokens."""
        if self.max_tokens_per_batch is None:
            return
        check_range(self.max_tokens_per_batch, "`--max_tokens_per_batch`", least=1)
        if self.train_sampling_strategy != "group_by_length":
            raise ValueError(
                f"`--max_tokens_per_batch` {self.max_tokens_per_batch} puts rows of like length together, but "
                f"`--train_sampling_strategy` is {str(self.train_sampling_strategy)!r}: leave one of them out."
            )
        if self.auto_find_batch_size:
            raise ValueError(
                "`--auto_find_batch_size` tries fewer rows, but `--max_tokens_per_batch` says how large batches are: "
                "leave one of them out."
            )

    def __post_init__(self) -> None:
        """Check what can be checked without the models."""
        # Here and not by `check_least`, so that constructing a trainer is read in few files.
        least = {"max_length": 2, "student_dense_width": 1, "early_stopping_patience": 1, "eval_task_samples": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) and (value is not None or name == "max_length"):
                raise ValueError(f"`--{name}` is {value!r}; it must be a whole number.")
            if value is not None and value < bound:
                raise ValueError(f"`--{name}` is {value}; it must be at least {bound}.")
        if self.student_dropout is not None and not 0 <= self.student_dropout < 1:
            raise ValueError(f"`--student_dropout` is {self.student_dropout}; it must be from 0 to below 1.")
        if self.mlm_probability is not None and not 0 < self.mlm_probability < 1:
            raise ValueError(f"`--mlm_probability` is {self.mlm_probability}; it must be within 0 and 1.")
        self._check_budget()
        self._choose_metric()
        logs, evaluations = self.logging_steps, self.eval_steps
        super().__post_init__()
        if isinstance(logs, Unset):
            # The base class makes a plain number of it, and takes it for the evaluations too.
            self.logging_steps = logs
            if not evaluations and self.eval_steps == logs:
                self.eval_steps = logs
        shares = self.gradual_unfreezing
        if shares is not None and not (len(shares) == 2 and 0 <= shares[0] < shares[1] <= 1):
            raise ValueError(
                f"`--gradual_unfreezing` is {shares}; give two rising shares of the steps, such as 0 0.5."
            )
        if self.early_stopping_patience is not None and self.eval_strategy == "no":
            raise ValueError("`--early_stopping_patience` counts evaluations: give `--eval_strategy steps` or epoch.")

    def _choose_metric(self) -> None:
        """Check what decides about checkpoints and the end, and on which side its better values are."""
        if self.early_stopping_patience is not None and self.metric_for_best_model is None:
            self.metric_for_best_model = "loss"
        metric = (self.metric_for_best_model or "").removeprefix("eval_")
        if metric.split("/")[0] in ("agreement", "kl") and not self.eval_agreement:
            raise ValueError(f"`--metric_for_best_model {metric}` is measured with `--eval_agreement` only.")
        if self.greater_is_better is None and metric:
            self.greater_is_better = not lower_is_better(metric)

    def for_training(self, *, distilling: bool) -> Self:
        """A copy in which what nobody chose has the value that counts.

        Args:
            distilling: Whether something is distilled: our defaults, else those of `TrainingArguments`.
        """
        chosen = copy.copy(self)
        for name, value in vars(self).items():
            # Processes that make batches are chosen when the rows are known: the mark stays until then.
            if isinstance(value, Unset) and name != "dataloader_num_workers":
                setattr(chosen, name, value.plain if distilling else value.stock)
        if distilling and chosen.ddp_find_unused_parameters is None:
            # A relation objective reaches nothing beyond Q, K, V of its layer: later parameters get no gradient.
            chosen.ddp_find_unused_parameters = True
        return chosen

    def check_metric(self, evaluation_sets: Iterable[str] = ()) -> None:
        """Set on which side the better values of `metric_for_best_model` are, now that evaluation sets are known.

        Args:
            evaluation_sets: Their names, if there are several.

        Raises:
            ValueError: If the metric is none that is measured.
        """
        metric, evaluation_sets = self.metric_for_best_model, list(evaluation_sets)
        name = without_set(metric or "", evaluation_sets)
        family = name.partition("/")[0]
        if family in ("agreement", "kl") and not self.eval_agreement:
            raise ValueError(f"`--metric_for_best_model {metric}` is measured with `--eval_agreement` only.")
        if evaluation_sets and family in ("loss", "agreement", "kl") and name == (metric or "").removeprefix("eval_"):
            raise ValueError(
                f"`--metric_for_best_model {metric}` is measured on each of {len(evaluation_sets)} evaluation sets: "
                f"say which, such as {evaluation_sets[0]}_{name}."
            )
        # What the base class fills in where nothing is given; a user who says the opposite is believed.
        guessed = metric is not None and not metric.endswith("loss")
        if metric is not None and self.greater_is_better == guessed:
            self.greater_is_better = not lower_is_better(metric, evaluation_sets)

    @property
    def by_headline(self) -> bool:
        """Whether the best checkpoint is the one with the best main score of the task."""
        return (self.metric_for_best_model or "").removeprefix("eval_") == HEADLINE

    def objective_options(self) -> dict[str, Any]:
        """The settings that all objectives share; everything else stands in the mapping of its objective."""
        return {name: getattr(self, name) for name in ("temperature", "label_smoothing_factor")}


@dataclass
class MultiTeacherArguments(DistillationArguments):
    """`DistillationArguments` plus the teachers and how their predictions become one."""

    teacher_models: list[str] | None = setting(
        None, "Hub ids or folders of several teachers; they are counted from 0."
    )
    combine: CombinationRule = setting(
        "mean_logits",
        "How the teachers' logits are combined: mean_logits, mean_probabilities (at the temperature of "
        "the objective), confidence (weighted for each row by the teachers' losses on its label, or by "
        "their entropies without one), or route (the column teacher_id names the one teacher of each "
        "row).",
    )
    teacher_weights: list[float] | None = setting(
        None, "One weight above 0 for each teacher, in their order; they are normalised to sum to 1. Default: equal."
    )
    offload_teachers: bool = setting(
        False, "Keep the teachers in the CPU's memory and move one at a time to the device."
    )

    def __post_init__(self) -> None:
        """Check the rule and the weights."""
        if self.combine not in RULES:
            raise ValueError(f"`--combine` is {self.combine!r}; allowed are {', '.join(RULES)}.")
        if self.teacher_weights is not None:
            self.teacher_weights = [float(weight) for weight in self.teacher_weights]
            if not all(weight > 0 and math.isfinite(weight) for weight in self.teacher_weights):
                raise ValueError(f"`--teacher_weights` is {self.teacher_weights}; every weight must be above 0.")
            if self.combine == "route":
                raise ValueError(
                    "`--teacher_weights` has no meaning with `--combine route`: every row has one teacher."
                )
        if self.offload_teachers and self.teacher_device is not None:
            raise ValueError(
                f"`--teacher_device {self.teacher_device}` is where the teachers stay, but `--offload_teachers` moves "
                "each to the student's device while it runs: leave one of them out."
            )
        super().__post_init__()


def settled(args: TrainingArguments | None, kind: type[DistillationArguments], *, distilling: bool) -> Any:
    """The arguments that count in one training; what was given stays as it is.

    Args:
        args: What was given.
        kind: The arguments that a distillation needs; plain ones are filled up with its defaults.
        distilling: Whether something is distilled. If not, what nobody chose is as in `TrainingArguments`, and plain
            arguments are taken as they are.

    Raises:
        TypeError: If they are those of a fine-tuning.
    """
    if isinstance(args, CheckedTrainingArguments) and not isinstance(args, DistillationArguments):
        raise TypeError(
            f"`args` are {type(args).__name__}, whose unset values come from a task; a distillation has none: give "
            "`DistillationArguments` or `TrainingArguments`."
        )
    if args is None:
        args = kind("tmp_trainer") if distilling else TrainingArguments("tmp_trainer")
    if distilling and not isinstance(args, kind):
        args = filled_up(kind, args)
    if not isinstance(args, DistillationArguments):
        return args
    if not distilling:
        _tell_unused(args)
    return args.for_training(distilling=distilling)


def _tell_unused(args: DistillationArguments) -> None:
    """A line where settings of a distillation are given and nothing is distilled."""
    stock = {item.name for item in dataclasses.fields(TrainingArguments)}
    changed = {item.name for item in dataclasses.fields(args) if getattr(args, item.name) != default_of(item)}
    unused = sorted(changed - stock - USED_WITHOUT_OBJECTIVES)
    if unused:
        names = ", ".join(f"`--{name}`" for name in unused)
        logger.warning(f"Nothing is distilled, because there are no `--objectives`: {names} will have no effect.")
