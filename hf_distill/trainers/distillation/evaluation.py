"""Logs and evaluations of a distillation: terms and schedules in its logs, and the measures of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import datasets
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import ProgressCallback
from transformers.trainer_utils import EvalLoopOutput, has_length

from ...settings.training import HEADLINE
from ...storage.finite import NotFiniteError, listed
from ...tasks.loading import LoadedTask
from ...tasks.rows.text import makes_rows_when_asked
from ...teachers.base import TeacherSource
from ...teachers.routing import take_inputs
from .agreement import AGREEMENT, AgreementMeter, headline
from .callbacks import TermsInProgressBar
from .chance import without_chance
from .model import count_items
from .publishing import PublishingTrainer
from .rows import RowReader, check_one_set
from .task_scores import TaskEvaluation, task_to_evaluate
from .terms import ExactMeans, rows_that_count


class EvaluatingTrainer(PublishingTrainer):
    """A `Trainer` that logs every term, and evaluates terms, agreement with the teacher and the score of a task.

    Everything that an evaluation finds is in the metrics that `evaluate` returns, so that `metric_for_best_model` and
    early stopping may go by it. An evaluation draws no random number: a run that is watched ends with the very
    weights of one that is not.
    """

    args: Any
    rows: RowReader
    teacher: TeacherSource | None
    task_evaluation: TaskEvaluation | None = None
    data_collator: Any
    compute_metrics: Any
    preprocess_logits_for_metrics: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As `Trainer`."""
        self._term_sums: dict[str, Tensor] = {}
        self._num_logged_steps = 0
        self._eval_means = ExactMeans()
        self._agreement = AgreementMeter()
        # What a pass over the rows of a task asks of the student; `None` in any other pass.
        self._only: str | None = None
        self._predicting = False
        self._rows_of_loader: Any = None
        super().__init__(*args, **kwargs)

    def _plan_evaluation(self, eval_task: LoadedTask | None, eval_dataset: Any, tokenizer: Any) -> Any:
        """Read the task that is to be scored; returns the held-out rows, by default the task's evaluation text."""
        args = self.args
        if not self.distilling:
            if eval_task is not None or getattr(args, "eval_task", None) or getattr(args, "eval_agreement", False):
                raise ValueError("`--eval_task` and `--eval_agreement` watch a distillation: give it objectives.")
            return eval_dataset
        task = task_to_evaluate(eval_task, args)
        if task is None:
            return eval_dataset
        self.task_evaluation = TaskEvaluation(task, tokenizer, args)
        return self.task_evaluation.text_rows(self.teachers) if eval_dataset is None else eval_dataset

    @property
    def teachers(self) -> list[TeacherSource]:
        """The teachers in their order."""
        raise NotImplementedError

    def _start_watching(self) -> None:
        """Resolve what the arguments ask for, now that the student is known."""
        if self.args.eval_agreement and not self.model.agreeing:
            raise ValueError(
                "`--eval_agreement` compares student and teacher where an objective sees outputs, hidden states, or "
                f"queries, keys and values of both; {sorted(self.model.objectives)} see none of these."
            )
        if self.task_evaluation is not None:
            self.task_evaluation.choose(self.model)
            if (self.args.metric_for_best_model or "").removeprefix("eval_") == HEADLINE:
                of_set = self._prefix_of_task().removeprefix("eval").removeprefix("_")
                self.args.metric_for_best_model = f"{of_set}_" * bool(of_set) + self.task_evaluation.headline
        self.args.check_metric(self.eval_dataset if isinstance(self.eval_dataset, dict) else ())
        # In a notebook there is a table instead of the bar; without bars there is neither.
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(TermsInProgressBar())

    # ---- Logs ----

    def _add_trained(self, terms: Mapping[str, Tensor]) -> None:
        """Keep the terms of a micro-batch until the next log; nothing waits for the device."""
        self.watch(terms)
        for name, value in terms.items():
            self._term_sums[name] = self._term_sums[name] + value if name in self._term_sums else value

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of every unweighted term since the last log as `loss/<objective>/<term>`, and what moves."""
        if "loss" in logs and self._term_sums:
            names = sorted(self._term_sums)
            values = self.accelerator.reduce(torch.stack([self._term_sums[name] for name in names]), "mean")
            means = (values / max(1, self._num_logged_steps)).tolist()
            logs.update({f"loss/{name}": mean for name, mean in zip(names, means, strict=True)})
            logs.update(self.model.current_settings())
            self._term_sums, self._num_logged_steps = {}, 0
        super().log(logs, start_time)

    # ---- Search ----

    def hyperparameter_search(
        self,
        hp_space: Callable[[Any], dict[str, float]] | None = None,
        compute_objective: Callable[[dict[str, float]], float] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """As in `Trainer`, which by default would minimise the sum of all that an evaluation measures.

        A distillation measures terms that rise and fall, so here the default is `eval_loss`: with several evaluation
        sets the mean of theirs. What `compute_objective` gives is minimised too, unless `direction` says otherwise.
        """
        if self.distilling and compute_objective is None:
            compute_objective = self._searched_loss
        return super().hyperparameter_search(hp_space, compute_objective, *args, **kwargs)

    def _searched_loss(self, metrics: Mapping[str, float]) -> float:
        """The loss that a search minimises."""
        rows = self.eval_dataset
        names = [f"eval_{name}_loss" for name in rows] if isinstance(rows, dict) else ["eval_loss"]
        return sum(metrics[name] for name in names) / len(names)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As in `Trainer`; nothing is left of the logs of a training before it."""
        self._term_sums, self._num_logged_steps = {}, 0
        return super().train(*args, **kwargs)

    # ---- Evaluation ----

    def _teacher_signals(self, inputs: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    def _check_rows(self, dataset: Any, name: str) -> None:
        """Refuse rows from which the teachers cannot be read."""

    def _read_rows(self, dataset: Any, name: str, *, several: bool = False, predicting: bool = False) -> Any:
        """A data set as the models read it: the same for training, `evaluate` and `predict`."""
        dataset = self.rows.prepare(dataset, name, several=several, predicting=predicting)
        if not predicting:
            self._check_rows(dataset, name)
        return dataset

    def get_eval_dataloader(self, eval_dataset: Any = None) -> torch.utils.data.DataLoader:
        """As in `Trainer`, for rows of any kind: text is tokenized, and over-long rows are found before the pass."""
        if self.distilling:
            self.eval_dataset = self._read_rows(self.eval_dataset, "eval_dataset", several=True)
            eval_dataset = self._read_rows(eval_dataset, "eval_dataset")
            rows = self.eval_dataset if eval_dataset is None else eval_dataset
            if not isinstance(rows, str) and rows is not self._rows_of_loader:
                # With persistent workers the base class keeps one loader, whatever rows it is asked for.
                getattr(self, "_eval_dataloaders", {}).pop("eval", None)
                self._rows_of_loader = rows
        return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> torch.utils.data.DataLoader:
        """As `get_eval_dataloader`, for the student alone: the rows need no labels and no signals of a teacher."""
        if self.distilling:
            test_dataset = self._read_rows(test_dataset, "test_dataset", predicting=True)
        check_one_set(test_dataset, "test_dataset")
        return super().get_test_dataloader(test_dataset)

    def _get_eval_sampler(self, eval_dataset: Any) -> torch.utils.data.Sampler | None:
        # The base class would group rows by length in a random order where the training does.
        if eval_dataset is None or not has_length(eval_dataset):
            return None
        return torch.utils.data.SequentialSampler(eval_dataset)

    def _remove_unused_columns(self, dataset: Any, description: str | None = None) -> Any:
        # A transform, or a collator of the user's, needs them.
        if self.distilling and (makes_rows_when_asked(dataset) or self.rows.leaves_raw):
            return dataset
        return super()._remove_unused_columns(dataset, description)

    def _get_collator_with_removed_columns(self, data_collator: Any, description: str | None = None) -> Any:
        if self.distilling and self.rows.collates_any_row:
            return data_collator
        return super()._get_collator_with_removed_columns(data_collator, description)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        if self.distilling:
            self.rows.check_batch(inputs)
        return super()._prepare_inputs(inputs)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Any, Any, Any]:
        """Loss with or without labels; logits only where metrics need them."""
        if not self.distilling:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        inputs = self._prepare_inputs(inputs)
        if self._only is not None:
            with torch.no_grad(), self.compute_loss_context_manager():
                labels = inputs.pop("labels")
                return None, _unpack(tuple(model(only=self._only, **inputs).values())), labels
        count, real = rows_that_count(inputs, self.accelerator)
        # A batch of repeated rows alone is run all the same, as the other processes wait for its outputs.
        seen = inputs if real == count else take_inputs(inputs, torch.arange(max(1, real), device=self.args.device))
        with torch.no_grad(), self.compute_loss_context_manager():
            outputs = model(
                teacher_signals=self._signals_to_compare(seen),
                return_logits=not prediction_loss_only,
                return_agreement=self.args.eval_agreement,
                **seen,
            )
        terms, agreement = outputs["terms"], outputs.pop("agreement", {})
        self._add_evaluated(terms, count_items(seen), counts=real > 0)
        self._agreement.add(agreement if real > 0 else {key: torch.zeros_like(v) for key, v in agreement.items()})
        loss = torch.as_tensor(outputs["loss"]).detach() if terms else None
        if prediction_loss_only:
            return loss, None, None
        left_out = {"loss", "terms", *(ignore_keys or ())}
        logits = tuple(_in_rows(value.detach(), count) for name, value in outputs.items() if name not in left_out)
        labels = tuple(inputs[name] for name in self.label_names if inputs.get(name) is not None)
        return loss, _unpack(logits), _unpack(labels)

    def _signals_to_compare(self, inputs: Mapping[str, Any]) -> Any:
        """Return the teacher's signals; `None` where only the student can read the rows that it is to predict."""
        needed = self.teacher.required_columns if self._predicting and self.teacher is not None else ()
        return self._teacher_signals(inputs) if all(name in inputs for name in needed) else None

    def _add_evaluated(self, terms: Mapping[str, Tensor], items: Mapping[Any, Tensor], *, counts: bool) -> None:
        for name, value in terms.items():
            number = items[self.model.counted_in(name.partition("/")[0])]
            pair = (value, number) if counts else (torch.zeros_like(value), torch.zeros_like(number))
            self._eval_means.add(name, *pair)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """As in `Trainer`; the loss and its terms are exact means over the data set, not means of batch means.

        With `eval_agreement` and `eval_task` there are agreement with the teacher and scores of the student too.
        """
        if not self.distilling:
            return super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        self._predicting = kwargs.get("description") == "Prediction"
        self._eval_means = ExactMeans()
        with without_chance(self.args.device):
            output = super().evaluation_loop(*args, **kwargs)
            if output.metrics is not None:
                found = self._measured()
                if self.task_evaluation is not None and prefix == self._prefix_of_task():
                    pad_to = 8 if self.args.device.type == "cuda" else None
                    found |= self.task_evaluation.score(self._run_student, pad_to)
                output.metrics.update({f"{prefix}_{name}": value for name, value in found.items()})
        return output

    def _measured(self) -> dict[str, float]:
        """The loss, its terms and the agreement of the rows that were just evaluated."""
        if self.accelerator.num_processes > 1:
            # Rows of one process may have labels where those of another have none.
            for name in sorted(set(gather_object(self._eval_means.names))):
                self._eval_means.add(name, *torch.zeros(2, device=self.args.device))
        if not self._eval_means:
            return {}
        means, weights = self._eval_means.take(self.accelerator.reduce), self.model.current_weights()
        if not means:
            return {}
        found = {"loss": sum(weights[name.partition("/")[0]] * mean for name, mean in means.items())}
        found |= {f"loss/{name}": mean for name, mean in means.items()}
        wrong = [name for name, value in found.items() if not math.isfinite(value)]
        if wrong:
            raise NotFiniteError(
                f"Evaluation after step {self.state.global_step}: {listed(wrong)} of these rows is not finite (NaN or "
                "infinite): the training diverged, or a label of the rows or something the teacher says is not finite."
            )
        numbers = self._agreement.take(self.accelerator.reduce)
        main = headline(numbers, list(self.model.objectives))
        return found | numbers | ({} if main is None else {AGREEMENT: main})

    def _prefix_of_task(self) -> str:
        """The evaluation that scores the task: the only one, or that of the first of several data sets."""
        several = isinstance(self.eval_dataset, dict)
        return f"eval_{next(iter(self.eval_dataset))}" if several else "eval"  # type: ignore[arg-type]

    def _run_student(
        self, rows: datasets.Dataset, only: str, collator: Any, kept: Callable[[Any], Any] | None
    ) -> tuple[Any, Any]:
        """Outputs or features of the student, and the labels, for all rows: one more pass of the stock loop."""
        own = self.data_collator, self.compute_metrics, self.preprocess_logits_for_metrics
        self.data_collator, self.compute_metrics = collator, None
        self.preprocess_logits_for_metrics = None if kept is None else lambda logits, labels: kept(logits)
        self._only = only
        try:
            output = super().evaluation_loop(
                self.get_test_dataloader(rows), description="Task", prediction_loss_only=False
            )
        finally:
            self._only = None
            self.data_collator, self.compute_metrics, self.preprocess_logits_for_metrics = own
        return output.predictions, output.label_ids


def _in_rows(values: Tensor, count: int) -> Tensor:
    """Outputs of the first rows of a batch as those of `count` rows; what is repeated is dropped when gathered."""
    missing = count - len(values)
    return values if not missing else torch.cat((values, values[-1:].expand(missing, *values.shape[1:])))


def _unpack(values: tuple[Any, ...]) -> Any:
    """Nothing, the one value, or all: the shape `Trainer` expects."""
    return None if not values else values[0] if len(values) == 1 else values
