"""The measures of an evaluation: exact means of loss terms, agreement with the teacher, and the score of a task.

All measures are in the metrics that `evaluate` returns, so that `metric_for_best_model` and early stopping can use
them. An evaluation uses no random numbers, so a run with evaluations ends with the same weights as one without.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers.trainer_pt_utils import find_batch_size
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from ...settings import DistillationArguments
from ...storage.plain_values import NotFiniteError, listed
from ...tasks.loading import LoadedTask
from ...tasks.vectors import Reranking
from ...teachers.routing import take_inputs
from .agreement import AGREEMENT, AgreementMeter, Reduce, headline
from .model import DistillationModel, count_items
from .task_scores import RankingEvaluation, TaskEvaluation, VectorEvaluation, task_to_evaluate

logger = logging.get_logger(__name__)


@dataclass
class ExactMeans:
    """Means by name over all items of all batches and processes, whatever the sizes of the batches.

    They are kept on the device until they are read.
    """

    _sums: dict[str, Tensor] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether anything was added since the last `take`."""
        return bool(self._sums)

    @property
    def names(self) -> list[str]:
        """The names of everything that was added since the last `take`."""
        return sorted(self._sums)

    def add(self, name: str, mean: Tensor, items: Tensor) -> None:
        """Add the mean of one batch and the number of items that it is a mean over."""
        pair = torch.stack((mean * items, items))
        self._sums[name] = self._sums[name] + pair if name in self._sums else pair

    def take(self, reduce: Reduce) -> dict[str, float]:
        """The means of everything that has items, and a new beginning.

        Args:
            reduce: Sums a tensor over the processes.
        """
        names = sorted(self._sums)
        sums = reduce(torch.stack([self._sums[name] for name in names]), "sum")
        self._sums = {}
        pairs = zip(names, sums.tolist(), strict=True)
        return {name: total / items for name, (total, items) in pairs if items > 0}


def rows_that_count(inputs: Mapping[str, Any], accelerator: Accelerator) -> tuple[int, int]:
    """Rows of a batch, and how many of them count: the last batches of several processes repeat first rows.

    Args:
        inputs: The batch of this process.
        accelerator: Knows the processes, and how far the loader is.
    """
    count, state = find_batch_size(inputs) or 0, accelerator.gradient_state
    if accelerator.num_processes == 1 or not state.end_of_dataloader or state.remainder <= 0:
        return count, count
    return count, min(max(state.remainder - accelerator.process_index * count, 0), count)


@dataclass
class Evaluation:
    """What a trainer measures on held-out rows.

    Attributes:
        task: The task that the student is scored on, if there is one.
        asked: What a pass over the rows of a task asks of the student; `None` in any other pass.
        predicting: Whether the pass is one of `predict`, whose rows need nothing of a teacher.
    """

    task: TaskEvaluation | VectorEvaluation | None = None
    asked: Literal["logits", "features", "vectors"] | None = None
    predicting: bool = False
    _means: ExactMeans = field(default_factory=ExactMeans)
    _agreement: AgreementMeter = field(default_factory=AgreementMeter)

    def plan(
        self, args: DistillationArguments, task: LoadedTask | None, rows: Any, tokenizer: Any, teachers: Sequence[Any]
    ) -> Any:
        """Read the task that the student is to be scored on, and return the held-out rows: by default its text.

        Args:
            args: Of the training.
            task: The task; `None` for that of `args.eval_task`.
            rows: Held-out rows that were given.
            tokenizer: The student's.
            teachers: They must be able to read the text.

        Raises:
            ValueError: If the task is unknown, or cannot be read.
        """
        found = task_to_evaluate(task, args, teachers)
        if isinstance(found, LoadedTask):
            self.task = TaskEvaluation(found, tokenizer, args)
        elif isinstance(found, Reranking):
            self.task = RankingEvaluation(found, tokenizer, args.max_length, args.text_column)
        else:
            self.task = VectorEvaluation(found, tokenizer, args.max_length)
        return self.task.text_rows(teachers) if rows is None else rows

    def settle(self, model: DistillationModel, args: DistillationArguments, sets: Any) -> None:
        """Decide how the task is scored on this student, now that it is known.

        Args:
            model: The student with its objectives.
            args: Their `metric_for_best_model` becomes the name of the task's main score where it asks for that.
            sets: The evaluation rows, or a dict of several.

        Raises:
            ValueError: If the student cannot be scored on the task.
        """
        if self.task is not None:
            self.task.choose(model)
            if args.by_headline:
                of_set = self.scored_set(sets).removeprefix("eval").removeprefix("_")
                args.metric_for_best_model = f"{of_set}_" * bool(of_set) + self.task.headline

    def scored_set(self, sets: Any) -> str:
        """Prefix of the evaluation that scores the task: the only one, or that of the first of several data sets."""
        return f"eval_{next(iter(sets))}" if isinstance(sets, dict) else "eval"

    @property
    def vectors(self) -> VectorEvaluation | None:
        """The evaluation of the student's vectors of texts, or of a reranker's scores, if there is one."""
        return self.task if isinstance(self.task, VectorEvaluation) else getattr(self.task, "vectors", None)

    def run(self, trainer: Any, loop: Callable[..., EvalLoopOutput], *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """A pass over held-out rows, and the measures of all of them.

        Args:
            trainer: Whose student is evaluated.
            loop: `Trainer.evaluation_loop`, bound to the trainer.
            args: Of the loop.
            kwargs: Of the loop.
        """
        self.predicting, self._means = kwargs.get("description") == "Prediction", ExactMeans()
        prefix = kwargs.get("metric_key_prefix", "eval")
        output = loop(*args, **kwargs)
        if output.metrics is not None:
            found = self._measured(trainer.model, trainer.accelerator, trainer.state.global_step)
            if prefix == self.scored_set(trainer.eval_dataset):
                found |= self._score_task(trainer, loop)
            output.metrics.update({f"{prefix}_{name}": value for name, value in found.items()})
        if trainer.compute_metrics is not None and output.label_ids is None and not self.predicting:
            logger.warning_once("`compute_metrics` is not called: the evaluation rows have no labels.")
        return output

    @torch.no_grad()
    def step(
        self, trainer: Any, model: nn.Module, inputs: dict[str, Any], *, with_outputs: bool, ignored: Sequence[str]
    ) -> tuple[Any, Any, Any]:
        """Loss, outputs and labels of a batch, as `Trainer.prediction_step` gives them; `None` where there is none.

        Args:
            trainer: Whose student is evaluated.
            model: Its model as it is called: perhaps compiled, or spread over processes.
            inputs: The batch, on the device.
            with_outputs: Whether the student's outputs and the labels are asked for.
            ignored: Outputs that nobody asks for.
        """
        with trainer.compute_loss_context_manager():
            if self.asked is not None:
                return self._ask(model, inputs)
            given, count, counts = self._rows_seen(inputs, trainer.accelerator)
            seen = trainer.model.as_read(given)
            outputs = model(
                teacher_signals=self._signals_to_compare(trainer, seen),
                return_logits=with_outputs,
                return_agreement=trainer.args.eval_agreement,
                **seen,
            )
            own_loss = self._own_loss(trainer, model, given)
        self._add(outputs, seen, trainer.model, counts=counts, own_loss=own_loss)
        loss = torch.as_tensor(outputs["loss"]).detach() if outputs["terms"] and own_loss is None else own_loss
        if not with_outputs:
            return loss, None, None
        left_out = {"loss", "terms", "agreement", *ignored}
        logits = tuple(as_rows(value.detach(), count) for name, value in outputs.items() if name not in left_out)
        labels = tuple(inputs[name] for name in trainer.label_names if inputs.get(name) is not None)
        return loss, unpacked(logits), unpacked(labels)

    def _own_loss(self, trainer: Any, model: nn.Module, inputs: Mapping[str, Any]) -> Tensor | None:
        """The loss of a batch by a `compute_loss` of the user's, where the rows have what it reads."""
        lacks_labels = any(inputs.get(name) is None for name in trainer.label_names)
        if not trainer.has_own_loss or (self.predicting and lacks_labels):
            return None
        return trainer.compute_loss(model, dict(inputs)).detach()

    def _signals_to_compare(self, trainer: Any, inputs: Mapping[str, Any]) -> Any:
        """The teacher's signals; `None` where only the student can read the rows that it is to predict."""
        needed = trainer.teacher.required_columns if self.predicting and trainer.teacher is not None else ()
        return trainer.teacher_signals(inputs) if all(name in inputs for name in needed) else None

    def _rows_seen(self, inputs: dict[str, Any], accelerator: Accelerator) -> tuple[dict[str, Any], int, bool]:
        """The rows of a batch that count, how many rows it has in all, and whether any counts.

        A batch of repeated rows alone is run all the same, with one of them, as the other processes wait for its
        outputs.
        """
        count, real = rows_that_count(inputs, accelerator)
        if real == count:
            return inputs, count, True
        return take_inputs(inputs, torch.arange(max(1, real), device=accelerator.device)), count, real > 0

    def _ask(self, model: Any, inputs: dict[str, Any]) -> tuple[None, Any, Any]:
        """What `prediction_step` returns in a pass over the rows of a task."""
        labels = inputs.pop("labels")
        return None, unpacked(tuple(model(only=self.asked, **inputs).values())), labels

    def _score_task(self, trainer: Any, loop: Callable[..., EvalLoopOutput]) -> dict[str, float]:
        """The scores of the task, by one or several more passes of the stock loop.

        Args:
            trainer: Whose student is scored.
            loop: `Trainer.evaluation_loop`, bound to the trainer.
        """

        def run(rows: Any, asked: Any, collator: Any, kept: Any) -> tuple[Any, Any]:
            """Outputs or features of the student, and the labels, for all rows."""
            own = trainer.data_collator, trainer.compute_metrics, trainer.preprocess_logits_for_metrics
            trainer.data_collator, trainer.compute_metrics = collator, None
            trainer.preprocess_logits_for_metrics = None if kept is None else lambda logits, labels: kept(logits)
            self.asked = asked
            try:
                output = loop(trainer.get_test_dataloader(rows), description="Task", prediction_loss_only=False)
            finally:
                self.asked = None
                trainer.data_collator, trainer.compute_metrics, trainer.preprocess_logits_for_metrics = own
            return output.predictions, output.label_ids

        if self.task is None:
            return {}
        return self.task.score(run, 8 if trainer.args.device.type == "cuda" else None)

    def _add(
        self,
        outputs: Mapping[str, Any],
        inputs: Mapping[str, Any],
        model: Any,
        *,
        counts: bool,
        own_loss: Tensor | None = None,
    ) -> None:
        """Add what the model gave for a batch.

        Args:
            outputs: Of a `DistillationModel`.
            inputs: The batch.
            model: The model, which knows what its terms are means over.
            counts: Whether the rows count.
            own_loss: The mean over the rows by a `compute_loss` of the user's, which stands for the sum of the terms.
        """
        items = count_items(inputs)
        if own_loss is not None:
            self._means.add("loss", own_loss, items["rows"] * counts)
        for name, value in outputs["terms"].items():
            number = items[model.counted_in(name.partition("/")[0])]
            self._means.add(
                name, *((value, number) if counts else (torch.zeros_like(value), torch.zeros_like(number)))
            )
        sums = outputs.get("agreement", {})
        self._agreement.add(sums if counts else {key: torch.zeros_like(value) for key, value in sums.items()})

    def _measured(self, model: DistillationModel, accelerator: Accelerator, step: int) -> dict[str, float]:
        """The loss, its terms and the agreement of all rows since the pass began, of all processes.

        Args:
            model: Knows weights and objectives.
            accelerator: Knows the processes.
            step: Updates that were made, for the message.

        Raises:
            NotFiniteError: If the loss or a term is not finite.
        """
        if accelerator.num_processes > 1:
            # Rows of one process may have labels where those of another have none.
            for name in sorted(set(gather_object(self._means.names))):
                self._means.add(name, *torch.zeros(2, device=accelerator.device))
        means = self._means.take(accelerator.reduce) if self._means else {}
        if not means:
            return {}
        weights = model.current_weights()
        own = means.pop("loss", None)
        total = sum(weights[name.partition("/")[0]] * mean for name, mean in means.items())
        found = {"loss": total if own is None else own}
        found |= {f"loss/{name}": mean for name, mean in means.items()}
        wrong = [name for name, value in found.items() if not math.isfinite(value)]
        if wrong:
            raise NotFiniteError(
                f"Evaluation after step {step}: {listed(wrong)} of these rows is not finite (NaN or infinite): the "
                "training diverged, or a label of the rows or a signal of the teacher is not finite."
            )
        numbers = self._agreement.take(accelerator.reduce)
        main = headline(numbers, list(model.objectives))
        return found | numbers | ({} if main is None else {AGREEMENT: main})


def searched_loss(metrics: Mapping[str, float], sets: Any) -> float:
    """The loss that a search of hyperparameters minimises: that of the evaluation, or the mean of several."""
    names = [f"eval_{name}_loss" for name in sets] if isinstance(sets, dict) else ["eval_loss"]
    return sum(metrics[name] for name in names) / len(names)


def as_rows(values: Tensor, count: int) -> Tensor:
    """Outputs of the first rows of a batch as those of `count` rows; what is repeated is dropped when gathered."""
    missing = count - len(values)
    return values if not missing else torch.cat((values, values[-1:].expand(missing, *values.shape[1:])))


def unpacked(values: tuple[Any, ...]) -> Any:
    """Nothing, the one value, or all: the shape `Trainer` expects."""
    return None if not values else values[0] if len(values) == 1 else values
