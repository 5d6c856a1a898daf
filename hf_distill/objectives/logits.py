"""Knowledge distillation on the head's outputs, and the task's own labels.

Shape legend: B rows, T padded length, C classes. A head gives (B, C) for sequences, (B, T, C) for tokens, and start
and end scores (B, T) for spans.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ..capture.batch import shown_places
from ..capture.signals import SignalRequest, Signals
from .base import Objective, Unit, register_objective
from .temperature import Temperature, TemperatureSpec

LogitsLoss = Literal["ce", "kl", "mse"]
Positions = Literal["tokens", "labels"]
ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]
SpanReduction = Literal["mean", "sum"]
SPAN_LABELS = {"start_logits": "start_positions", "end_logits": "end_positions"}
IGNORED = -100


def soft_loss(student: Tensor, teacher: Tensor, loss: LogitsLoss, temperature: float | Tensor) -> Tensor:
    """Loss of every distribution between two sets of logits (..., C), in fp32; returns (...).

    `ce`: `-sum_c p_t log p_s`; `kl`: `sum_c p_t (log p_t - log p_s)`, both with logits divided by the temperature
    (Hinton et al. 2015), a number or one of every distribution (...); `mse`: mean squared difference of the raw
    logits.
    """
    student, teacher = student.float(), teacher.float()
    temperature = _over_classes(temperature)
    if loss == "mse":
        return (student - teacher).square().mean(-1)
    log_student = (student / temperature).log_softmax(-1)
    log_teacher = (teacher / temperature).log_softmax(-1)
    target = log_teacher.exp()
    if loss == "ce":
        return -(target * log_student).masked_fill(target == 0, 0.0).sum(-1)
    return (target * (log_teacher - log_student)).masked_fill(target == 0, 0.0).sum(-1)


def soft_binary_loss(
    student: Tensor, teacher: Tensor, loss: LogitsLoss, temperature: float | Tensor, weights: Tensor | None = None
) -> Tensor:
    """As `soft_loss`, with every class its own yes-or-no question (multi-label); mean over the classes.

    `weights` (C,) multiply the losses of the classes.
    """
    if loss == "mse":
        return soft_loss(student, teacher, "mse", temperature)
    pair = [torch.stack((x.float(), torch.zeros_like(x, dtype=torch.float32)), -1) for x in (student, teacher)]
    each = soft_loss(pair[0], pair[1], loss, _over_classes(temperature))
    return (each if weights is None else each * weights).mean(-1)


def shift_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """Swap the largest logit with that of the gold label, so that no target prefers a wrong class (TextBrewer).

    Args:
        logits: The teacher's, (..., C); left as they are.
        labels: Gold classes (...); where one is hidden (below 0), nothing is swapped.

    Returns:
        Logits (..., C).
    """
    shown, gold = (labels >= 0)[..., None], labels.clamp(min=0)[..., None]
    highest, place = logits.max(-1, keepdim=True)
    swapped = logits.scatter(-1, place, logits.gather(-1, gold)).scatter(-1, gold, highest)
    return torch.where(shown, swapped, logits)


def gold_labels(
    name: str,
    logits: Tensor,
    labels: Mapping[str, Tensor] | None,
    objective: str,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """The label column that belongs to an output of the head; answers outside of their row become -100.

    Args:
        name: Name of the output.
        logits: The output itself.
        labels: The label columns of the batch.
        objective: Who asks, for the error.
        attention_mask: (B, T); given, an answer on padding is outside of its row too.

    Raises:
        ValueError: If the batch lacks the column.
    """
    column = SPAN_LABELS.get(name, "labels")
    if labels is None or column not in labels:
        raise ValueError(
            f"The objective `{objective}` needs the column {column!r}, which the batch lacks; "
            f"add it to the data set or leave `{objective}` out of `--objectives`."
        )
    gold = labels[column]
    if name not in SPAN_LABELS:
        return gold
    # An answer that was truncated away is marked by a position outside of the row.
    outside = (gold < 0) | (gold >= logits.shape[-1])
    if attention_mask is not None:
        outside |= ~attention_mask.bool().gather(1, gold.masked_fill(outside, 0)[:, None])[:, 0]
    return gold.masked_fill(outside, IGNORED)


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of `values` where `mask` is true; 0 where it never is."""
    if mask is None:
        return values.sum() / max(1, values.numel())
    mask = mask.to(values.dtype)
    return (values * mask).sum() / mask.sum().clamp(min=1)


@register_objective("logits")
class LogitsObjective(Objective):
    """The teacher's predictions as soft targets: sequence, token and span heads, regression and multi-label."""

    citation = "hinton2015"
    formula = (
        "t^2 x mean over rows (or tokens) of -sum_c softmax(z_T / t)_c log softmax(z_S / t)_c [ce], or less the "
        "teacher's entropy [kl]; mean of (z_S - z_T)^2 [mse]"
    )
    title: ClassVar[str] = "logits"

    def __init__(
        self,
        logits_loss: LogitsLoss = "ce",
        temperature: float = 1.0,
        scale_by_squared_temperature: bool = True,
        problem_type: ProblemType | None = None,
        temperature_schedule: TemperatureSpec | None = None,
        probability_shift: bool = False,
        positions: Positions = "tokens",
        span_reduction: SpanReduction = "mean",
        label_temperatures: Sequence[float] | None = None,
        shared_ids: int | None = None,
    ) -> None:
        """Create the objective.

        Args:
            logits_loss: Soft cross-entropy, KL divergence, or squared error of the logits.
            temperature: Divides the logits on both sides (not for `mse` and regression).
            scale_by_squared_temperature: Multiply by the square of the temperature, so that the gradient keeps its
                size when the temperature changes (Hinton et al. 2015, section 2.1). Where every row has a temperature
                of its own, its loss is multiplied by the square of just that one, before the mean.
            problem_type: `config.problem_type`; by default one label, or regression if there is one output only.
            temperature_schedule: How the temperature changes (see `Temperature`).
            probability_shift: Swap the teacher's largest logit with that of the gold label (see `shift_probability`);
                needs labels.
            positions: Which outputs of a token head count: those of all real `tokens`, or only those with `labels`
                (not negative), such as the masked tokens of masked language modelling. With `labels`, rows without a
                label do not count in other heads either.
            span_reduction: The loss of a span head is the `mean` of the losses of start and end, as the loss on the
                labels in transformers, or their `sum`, as in TextBrewer.
            label_temperatures: Several labels a row: one temperature for each label, by which its logits are divided
                in addition to `temperature`.
            shared_ids: Number of token ids that student and teacher have in common. Heads over a vocabulary may have
                different numbers of padded rows: they are compared on the common ids.

        Raises:
            ValueError: If a setting is unknown, or two of them do not go together.
        """
        super().__init__()
        if logits_loss not in ("ce", "kl", "mse"):
            raise ValueError(f"`logits_loss` is {logits_loss!r}; allowed are 'ce', 'kl' and 'mse'.")
        if positions not in ("tokens", "labels"):
            raise ValueError(f"`positions` of `logits` is {positions!r}; allowed are 'tokens' and 'labels'.")
        if span_reduction not in ("mean", "sum"):
            raise ValueError(f"`span_reduction` of `logits` is {span_reduction!r}; allowed are 'mean' and 'sum'.")
        self.label_temperatures = _label_temperatures(label_temperatures, problem_type)
        if problem_type in ("regression", "multi_label_classification"):
            if probability_shift:
                raise ValueError(f"`probability_shift` needs one right class a row; {problem_type} has none.")
            if positions == "labels":
                raise ValueError(
                    f"`positions=labels` chooses rows that have a class as label; {problem_type} has none."
                )
        self.logits_loss = logits_loss
        self._temperatures = Temperature(temperature, temperature_schedule)
        if logits_loss == "mse" and self._temperatures.name != "constant":
            raise ValueError("`temperature_schedule` has no effect on `logits_loss` mse, which has no temperature.")
        if self._temperatures.name == "cwsm" and problem_type == "multi_label_classification":
            raise ValueError(
                "`temperature_schedule` cwsm asks how sure the student is of one class; multi-label heads have "
                "many. Use 'flsw'."
            )
        self.scale_by_squared_temperature = scale_by_squared_temperature
        self.problem_type = problem_type
        self.probability_shift = probability_shift
        self.positions = positions
        self.span_reduction = span_reduction
        self.shared_ids = shared_ids
        self.needs_labels = type(self).needs_labels or probability_shift or positions == "labels"

    @property
    def student_request(self) -> SignalRequest:
        """The head's outputs."""
        return SignalRequest(logits=True)

    @property
    def teacher_request(self) -> SignalRequest:
        """The head's outputs."""
        return SignalRequest(logits=True)

    @property
    def temperature(self) -> float:
        """The base temperature; a callback may set another in the middle of a training."""
        return self._temperatures.base

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._temperatures.set_base(value)

    @property
    def current_temperature(self) -> float:
        """The temperature now; where every row has its own, what they vary around."""
        return self._temperatures.current

    @property
    def scheduled(self) -> dict[str, float]:
        """The temperature, where it follows a schedule; rows with temperatures of their own have no one number."""
        moves = self._temperatures.name != "constant" and not self._temperatures.is_per_row
        return {"temperature": self._temperatures.current} if moves else {}

    def check(self, student: Signals, teacher: Signals | None) -> None:
        """Both sides must have the same kind of head."""
        shapes = [{k: (v.dim(), v.shape[-1]) for k, v in side.logits.items()} for side in (student, teacher) if side]
        if not shapes[0]:
            raise ValueError(
                f"The objective `{self.title}` needs a student with a head; this one gives hidden states only. "
                "Create it from a teacher with a head, or with `model_class=AutoModelForSequenceClassification`."
            )
        classes = {size for shape in shapes for _, size in shape.values()}
        if self.label_temperatures is not None and classes != {len(self.label_temperatures)}:
            raise ValueError(
                f"`label_temperatures` of `{self.title}` has {len(self.label_temperatures)} numbers, but the heads "
                f"have {sorted(classes)} labels; give one for each."
            )
        if len(shapes) < 2 or (shapes[0] != shapes[1] and not self._are_padded(*shapes)):
            sizes = [{k: tuple(v.shape[1:]) for k, v in side.logits.items()} for side in (student, teacher) if side]
            raise ValueError(
                f"The objective `{self.title}` needs the same head on both sides, but the student gives "
                f"{sizes[0]} and the teacher {sizes[1] if len(sizes) > 1 else 'nothing'}."
            )
        if self.positions == "labels" and SPAN_LABELS.keys() & student.logits.keys():
            raise ValueError("`positions=labels` chooses rows or tokens with labels; a head for spans has neither.")
        if self.probability_shift and any(logits.shape[-1] == 1 for logits in student.logits.values()):
            raise ValueError("`probability_shift` needs several classes; this head has one output only.")
        self.unit = "labels" if self.positions == "labels" else _unit(student)

    def _are_padded(self, *shapes: Mapping[str, tuple[int, int]]) -> bool:
        """Whether heads over the vocabulary of one tokenizer differ in rows that no id stands for."""
        found = [shape.get("logits", (0, 0)) for shape in shapes]
        return self.shared_ids is not None and all(dim == 3 and size >= self.shared_ids for dim, size in found)

    def set_progress(self, progress: float) -> None:
        """Move the temperature along its schedule."""
        self._temperatures.set_progress(progress)

    def forward(
        self, student: Signals, teacher: Signals | None, labels: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """One term, `soft`; for spans the mean or the sum over start and end.

        Of rows with candidates the scores are a distribution, or, for `mse` and regression, numbers that are compared
        one by one; in the mean over the rows every row counts once.
        """
        if teacher is None:
            raise ValueError(f"The objective `{self.title}` compares with a teacher: give `--teacher_model`.")
        if student.candidates is not None:
            return {
                "soft": self._of_candidates(student.logits["logits"], teacher.logits["logits"], student.candidates)
            }
        losses = [
            self._one_head(name, logits, teacher.logits[name], student.attention_mask, labels)
            for name, logits in student.logits.items()
        ]
        joined = torch.stack(losses)
        return {"soft": joined.sum() if self.span_reduction == "sum" else joined.mean()}

    def _of_candidates(self, student: Tensor, teacher: Tensor, candidates: Tensor) -> Tensor:
        """The loss of the scores (B, C) of candidates, which are where `candidates` (B, C) is true."""
        if type(self).needs_labels or self.probability_shift or self.positions == "labels":
            raise ValueError(
                f"The objective `{self.title}` goes by the class of a row (`annealed`, `positions=labels`, "
                "`probability_shift`), but rows with candidates have none: `labels` learns from their labels."
            )
        if self.logits_loss == "mse" or self.problem_type == "regression":
            return _row_mean((student.float() - teacher.float()).square(), candidates)
        if self.problem_type == "multi_label_classification":
            raise ValueError(
                f"The objective `{self.title}` compares the candidates of a query, of which one is chosen, but "
                "`config.problem_type` of the student is 'multi_label_classification': set it to None or 'regression'."
            )
        student, teacher = (only_real_positions(side, candidates) for side in (student, teacher))
        temperature = self._temperatures(student, teacher)
        values = soft_loss(student, teacher, self.logits_loss, temperature)
        return (values * temperature**2 if self.scale_by_squared_temperature else values).mean()

    def _one_head(
        self,
        name: str,
        student: Tensor,
        teacher: Tensor,
        attention_mask: Tensor,
        labels: Mapping[str, Tensor] | None,
    ) -> Tensor:
        is_span = name in SPAN_LABELS
        if student.shape[-1] != teacher.shape[-1]:
            student, teacher = student[..., : self.shared_ids], teacher[..., : self.shared_ids]
        mask = token_mask(student, attention_mask)
        if is_span:
            student, teacher = (only_real_positions(x, attention_mask) for x in (student, teacher))
        if self.probability_shift:
            teacher = shift_probability(teacher, gold_labels(name, teacher, labels, self.title, attention_mask))
        if self.positions == "labels":
            # Chosen before the softmax: a masked-LM head has the whole vocabulary at every position.
            places = shown_places(gold_labels(name, student, labels, self.title))
            student, teacher = (x.flatten(0, -2).index_select(0, places) for x in (student, teacher))
            mask = None
        if is_span and self.logits_loss == "mse":
            return _row_mean((student - teacher).square(), attention_mask)
        if not is_span and (self.problem_type == "regression" or student.shape[-1] == 1):
            return masked_mean(soft_loss(student, teacher, "mse", 1.0), mask)
        per_item = soft_binary_loss if self.problem_type == "multi_label_classification" else soft_loss
        temperature = self._temperatures(student, teacher, mask)
        weights: Tensor | None = None
        if self.label_temperatures is not None:
            own = torch.tensor(self.label_temperatures, device=student.device)
            student, teacher = student.float() / own, teacher.float() / own
            weights = own.square() if self.scale_by_squared_temperature and self.logits_loss != "mse" else None
        if weights is not None:
            values = soft_binary_loss(student, teacher, self.logits_loss, temperature, weights)
        else:
            values = per_item(student, teacher, self.logits_loss, temperature)
        if self.scale_by_squared_temperature and self.logits_loss != "mse":
            values = values * temperature**2
        return masked_mean(values, mask)

    def describe(self) -> dict[str, Any]:
        """Loss, temperature and whether its square scales the loss; the rest where it is not the default."""
        described: dict[str, Any] = {
            "logits_loss": self.logits_loss,
            "temperature": self.temperature,
            "scale_by_squared_temperature": self.scale_by_squared_temperature,
            "problem_type": self.problem_type,
        }
        if self._temperatures.name != "constant":
            described["temperature_schedule"] = self._temperatures.describe()
        if self.probability_shift:
            described["probability_shift"] = True
        if self.positions != "tokens":
            described["positions"] = self.positions
        if self.span_reduction != "mean":
            described["span_reduction"] = self.span_reduction
        if self.label_temperatures is not None:
            described["label_temperatures"] = self.label_temperatures
        return described


@register_objective("labels")
class LabelsObjective(Objective):
    """The task's own loss on the gold labels, to be combined with objectives on the teacher.

    It is the loss that a model of transformers computes for the same batch, except in question answering: there
    padding is left out of the softmax over positions. The models themselves, BERT's code for SQuAD and TextBrewer
    include it, so that their loss of a row depends on the other rows of the batch. This loss is the mean of the
    model's own losses for each row alone. Without padding the two are equal.
    """

    needs_teacher = False
    needs_labels = True
    formula = (
        "mean over labels of -log softmax(z_S)_y; regression: (z_S - y)^2; candidates of a query: "
        "-sum_j y_j / (sum_k y_k) log softmax_j(z_S)"
    )

    def __init__(self, problem_type: ProblemType | None = None, label_smoothing_factor: float = 0.0) -> None:
        """Create the objective.

        Args:
            problem_type: As for `LogitsObjective`.
            label_smoothing_factor: Share of the target that is spread over all classes, as in `Trainer`.

        Raises:
            ValueError: If labels without classes are to be smoothed.
        """
        super().__init__()
        if label_smoothing_factor and problem_type in ("regression", "multi_label_classification"):
            raise ValueError(
                f"`--label_smoothing_factor` {label_smoothing_factor} needs one right class a row; {problem_type} has "
                "none."
            )
        self.problem_type = problem_type
        self.label_smoothing = float(label_smoothing_factor)

    @property
    def student_request(self) -> SignalRequest:
        """The head's outputs."""
        return SignalRequest(logits=True)

    def check(self, student: Signals, teacher: Signals | None) -> None:
        """The student needs a head."""
        if not student.logits:
            raise ValueError("The objective `labels` needs a student with a head; this one gives hidden states only.")
        spans = SPAN_LABELS.keys() & student.logits.keys()
        one_number = not spans and next(iter(student.logits.values())).shape[-1] == 1
        if self.label_smoothing and (spans or one_number):
            raise ValueError(
                f"`--label_smoothing_factor` {self.label_smoothing} needs classes; a head for answer spans or for one "
                "number has none."
            )
        # Values may be negative: only classes are hidden by such a number.
        of_rows = spans or one_number or self.problem_type in ("regression", "multi_label_classification")
        self.unit = "rows" if of_rows else "labels"

    def forward(
        self, student: Signals, teacher: Signals | None, labels: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """One term, `hard`: cross-entropy, squared error (regression) or binary cross-entropy (multi-label).

        Of rows with candidates the cross-entropy is that of a list; rows in which no candidate is relevant count 0.
        """
        if student.candidates is not None and "logits" in student.logits:
            scores = student.logits["logits"].float()
            gold = gold_labels("logits", scores, labels, "labels").float()
            target = gold / gold.sum(-1, keepdim=True).clamp(min=1e-9)
            return {"hard": -(target * scores.log_softmax(-1)).sum(-1).mean()}
        losses = [
            self._one_head(name, self._where_answers_are(name, logits, student), labels)
            for name, logits in student.logits.items()
        ]
        return {"hard": torch.stack(losses).mean()}

    @staticmethod
    def _where_answers_are(name: str, logits: Tensor, student: Signals) -> Tensor:
        return only_real_positions(logits, student.attention_mask) if name in SPAN_LABELS else logits

    def _one_head(self, name: str, logits: Tensor, labels: Mapping[str, Tensor] | None) -> Tensor:
        logits, gold = logits.float(), gold_labels(name, logits, labels, "labels")
        if self.problem_type == "multi_label_classification":
            return F.binary_cross_entropy_with_logits(logits, gold.float())
        if self.problem_type == "regression" or (logits.shape[-1] == 1 and name not in SPAN_LABELS):
            return F.mse_loss(logits.squeeze(-1), gold.float())
        if name in SPAN_LABELS:
            # A hidden answer counts as a row of loss 0.
            return F.cross_entropy(logits, gold, ignore_index=IGNORED, reduction="sum") / len(gold)
        # Besides -100, data sets mark a hidden label by -1.
        shown = gold >= 0
        gold = gold.masked_fill(~shown, IGNORED)
        total = F.cross_entropy(
            logits.flatten(0, -2),
            gold.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        return total / shown.sum().clamp(min=1)

    def describe(self) -> dict[str, Any]:
        """The kind of labels, and how far they are smoothed."""
        smoothed = {"label_smoothing": self.label_smoothing} if self.label_smoothing else {}
        return {"problem_type": self.problem_type, **smoothed}


def _label_temperatures(given: Sequence[float] | None, problem_type: ProblemType | None) -> list[float] | None:
    """The temperatures of the labels, checked."""
    if given is None:
        return None
    if problem_type != "multi_label_classification":
        raise ValueError("`label_temperatures` of `logits` is for heads with several labels a row.")
    if not all(0 < value < math.inf for value in given):
        raise ValueError(f"`label_temperatures` of `logits` is {list(given)}; all must be above 0.")
    return list(given)


def _over_classes(temperature: float | Tensor) -> float | Tensor:
    """A temperature of every distribution (...), as (..., 1); a number as it is."""
    return temperature[..., None] if isinstance(temperature, Tensor) and temperature.dim() else temperature


def only_real_positions(logits: Tensor, attention_mask: Tensor) -> Tensor:
    """Padding is no position an answer could have: (B, T) scores with padding at the lowest finite value."""
    return logits.float().masked_fill(~attention_mask.bool(), torch.finfo(torch.float32).min)


def _row_mean(values: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean over the real positions of every row of (B, T) values, then over the rows."""
    mask = attention_mask.to(values.dtype)
    return ((values * mask).sum(1) / mask.sum(1).clamp(min=1)).mean()


def token_mask(logits: Tensor, attention_mask: Tensor) -> Tensor | None:
    """(B, T) for heads that speak about tokens, `None` for those that speak about rows."""
    return attention_mask if logits.dim() == 3 else None


def _unit(student: Signals) -> Unit:
    return "tokens" if any(logits.dim() == 3 for logits in student.logits.values()) else "rows"
