"""The base of all trainers of this package: what they add to `Trainer`, and which of its arguments they accept.

A trainer resumes from complete checkpoints only, ends with an error if a loss, gradient or weight is not finite, and
counts the cost of the whole training. Rows keep their order in every evaluation.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial, update_wrapper
from pathlib import Path
from types import MethodType
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, has_length
from transformers.utils import is_in_notebook, logging

from ..capture.batch import KnowingCollator
from ..capture.signals import FiniteWatch, Signals, check_weights, named_signals
from ..kernels.cuda import faster_flags, fp32_is_tf32
from ..settings.distill import Unset
from ..storage.files import model_files, remove
from ..storage.folders import check_apart
from ..storage.steps import writing_to
from ..teachers.stored.manifest import is_stored_teacher
from .callbacks import GradualUnfreezing
from .checkpoints import Checkpoints, check_adapter, check_sizes, go_on, has_own_adapter, read_adapter
from .finite import GRADIENT, LABELS, LOSS, OUTPUT, TEACHER, WEIGHT, end_if_not_finite, moments_of
from .lengths import counted, length_grouped_sampler
from .loaders import loader_of_stream, workers_for
from .streams import NoRows, place_in_stream, whole_update
from .whole_run import RunCosts, WholeRun

logger = logging.get_logger(__name__)

Method = TypeVar("Method", bound=Callable[..., Any])


class _UnlessStock:
    """A method that a trainer has where it does more than `Trainer`; elsewhere that of the next class in line."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.method = method
        update_wrapper(self, method)  # type: ignore[arg-type]

    def __set_name__(self, owner: type, name: str) -> None:
        self.owner, self.name = owner, name

    def __get__(self, trainer: BaseTrainer | None, kind: type | None = None) -> Any:
        if trainer is None:
            return self.method
        if trainer.is_stock:
            return getattr(super(self.owner, trainer), self.name)
        return MethodType(self.method, trainer)


def unless_stock(method: Method) -> Method:
    """Let a method be skipped by every trainer that `is_stock`, as if its class did not have it."""
    return cast(Method, _UnlessStock(method))


class BaseTrainer(Trainer):
    """A `Trainer` that writes only complete checkpoints and finite weights.

    `train(resume_from_checkpoint="last")`, and `True`, resume from the last complete checkpoint of the output folder;
    incomplete ones are skipped with a message. Checkpoints of a plain `Trainer` are accepted if their files can be
    read. During a training no other process can write to the output folder.

    NaN and infinite numbers end the training, and no such model is saved. With fp16, gradients may be infinite: the
    scaler skips such a step.
    """

    args: Any
    model: Any
    accelerator: Any
    train_dataset: Any
    data_collator: Any
    # What identifies the weights that the training began with, where it is the same each time that it is started.
    started_from: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As `Trainer`."""
        self.checkpoints = Checkpoints()
        self.finite = FiniteWatch()
        self._last_batch: Any = None
        self._costs = RunCosts()
        # Whether early stopping had ended the training that is resumed.
        self._has_ended_before = False
        self._whole_run: WholeRun | None = None
        super().__init__(*args, **kwargs)
        if not self.is_stock:
            refuse_uneven_batches(self.accelerator, drops_last=self.args.dataloader_drop_last)
            refuse_lost_rows(self.args)
        if is_in_notebook():
            from .notebook_table import show_terms

            show_terms(self)
        if getattr(self.args, "early_stopping_patience", None) is not None:
            self.add_callback(
                EarlyStoppingCallback(self.args.early_stopping_patience, self.args.early_stopping_threshold)
            )
        if getattr(self.args, "gradual_unfreezing", None) is not None:
            self.add_callback(GradualUnfreezing(*self.args.gradual_unfreezing))

    @property
    def is_stock(self) -> bool:
        """Whether this is a plain `Trainer`: the same numbers, files and errors."""
        return False

    # ---- Training ----

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """As `Trainer.train`. The result is about this call only; `whole_run` is about all calls of a training.

        Args:
            resume_from_checkpoint: Folder of a checkpoint; "last" or `True` for the last complete one of the output
                folder. If there is none, "last" starts from the beginning, and `True` is an error.
            trial: The trial of a hyperparameter search.
            ignore_keys_for_eval: Outputs that an evaluation does not gather.

        Raises:
            ValueError: If there is no such checkpoint, it is not complete, or it belongs to another run; the message
                names the file or the settings.
            NotFiniteError: If a loss, a gradient or a weight of the student is not finite.
            FolderInUseError: If another process writes to the output folder.
            DiskFullError: If the disk is full; earlier checkpoints remain complete.
        """
        folder = str(self.args.output_dir)
        check_apart(folder, self.input_folders())
        if not self.is_stock and is_stored_teacher(folder):
            raise ValueError(f"`--output_dir` {folder!r} holds a stored teacher, which a student would overwrite.")
        if self.args.device.type == "cuda" and not self.is_stock:
            self._advise_arithmetic()
        self._begin_run()
        try:
            with writing_to(folder), self._no_filter():
                checkpoint = self.checkpoints.chosen(
                    resume_from_checkpoint, self.args, self._deciding(), stock=self.is_stock
                )
                if checkpoint is not None and not self.is_stock:
                    check_sizes(checkpoint, getattr(getattr(self.model, "student", self.model), "config", None))
                output = super().train(checkpoint, trial=trial, ignore_keys_for_eval=ignore_keys_for_eval)
        finally:
            self._tidy_up()
        self._whole_run = self._costs.whole(self.state, output)
        return output

    def _advise_arithmetic(self) -> None:
        """Print a line if the device is faster in bfloat16 or TF32 and the user has chosen no dtype."""
        weights = next(self.model.parameters()).dtype
        is_fp32 = self.accelerator.mixed_precision == "no" and weights == torch.float32
        if is_fp32 and self.args.tf32 is None and not fp32_is_tf32() and faster_flags():
            logger.warning_once(
                f"The training computes in fp32. On this GPU it is several times as fast with "
                f"`{'` or `'.join(faster_flags())}`; `--tf32 false` stays in fp32 without this line."
            )

    def _begin_run(self) -> None:
        """Forget what a training or an evaluation before this one left behind."""
        self._costs, self._has_ended_before = RunCosts(), False
        self._forget_preparation()

    def _begin_steps(self) -> None:
        """Forget the steps of a training before this one, and of a try with larger batches.

        Raises:
            ValueError: If nothing of the model would be trained.
        """
        self.finite = FiniteWatch()
        parts = self._trained_parts()
        if not any(parameter.requires_grad for part in parts for parameter in part.parameters()):
            raise ValueError(
                f"All parameters of the {type(parts[0]).__name__} are frozen, so that nothing would be trained. A "
                "model that was a teacher stays frozen: call its `requires_grad_(True)`."
            )
        check_adapter(parts[0])

    def _trained_parts(self) -> list[nn.Module]:
        """The modules of which something must be trained."""
        return [self.model]

    def _forget_preparation(self) -> None:
        """Let accelerate prepare the model for training where it did so for an evaluation alone."""
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if self.is_stock or sharded or self.accelerator.num_processes == 1 or self.model_wrapped is not self.model:
            return
        # It prepares a model once: one that was evaluated would train in every process by itself.
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        vars(self.model).pop("_is_accelerate_prepared", None)

    def _tidy_up(self) -> None:
        """Take back what a training leaves at its student, also where it was broken off."""
        self._last_batch = None
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, GradualUnfreezing):
                callback.free()
        if self.is_stock:
            return
        self.is_in_train = False
        noise = vars(self).pop("neftune_hook_handle", None)
        if noise is not None:
            noise.remove()

    def input_folders(self) -> dict[str, Any]:
        """Argument -> folders that are read, and so never written to."""
        return {}

    @property
    def whole_run(self) -> WholeRun:
        """The training that ended last, from its first step on.

        Raises:
            RuntimeError: If none has ended.
        """
        if self._whole_run is None:
            raise RuntimeError("No training has ended: call `train` first.")
        return self._whole_run

    def _run_epoch(self, *args: Any, **kwargs: Any) -> Any:
        self._costs.before(self.state)
        if not self.is_stock and (self.state.global_step >= self.state.max_steps or self._has_ended_before):
            # `Trainer` would go one step beyond a last step that lies in the middle of an epoch.
            self.control.should_training_stop = True
            return None
        return super()._run_epoch(*args, **kwargs)

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """As in `Trainer`; a budget of tokens needs rows that can be counted."""
        rows, budget = self.train_dataset, getattr(self.args, "max_tokens_per_batch", None)
        if budget and rows is not None and not has_length(rows):
            raise ValueError(
                f"`--max_tokens_per_batch` {budget} needs the length of every row beforehand, but a "
                f"{type(rows).__name__} is a stream: leave the flag out, or load the rows as a `datasets.Dataset`."
            )
        return super().get_train_dataloader()

    @property
    def _is_stream(self) -> bool:
        """Whether the rows of the training have no length."""
        return self.train_dataset is not None and not has_length(self.train_dataset)

    @unless_stock
    def _init_training_state(
        self, max_steps: int, steps_per_epoch: int, epochs: int, resume_from_checkpoint: str | None, trial: Any
    ) -> tuple[int, int]:
        self._begin_steps()
        place = super()._init_training_state(max_steps, steps_per_epoch, epochs, resume_from_checkpoint, trial)
        if resume_from_checkpoint is not None:
            self._has_ended_before = go_on(self.state, resume_from_checkpoint, self.callback_handler.callbacks)
        if resume_from_checkpoint is None or self.args.ignore_data_skip or not self._is_stream:
            return place
        return place_in_stream(resume_from_checkpoint, self.args.gradient_accumulation_steps)

    @unless_stock
    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """As in `Trainer`; what is left at the end of a stream makes an update of its own."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        return whole_update(batches, num_batches) if self._is_stream else batches, items

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        if self.is_stock:
            return super()._get_train_sampler(counted(self.train_dataset if train_dataset is None else train_dataset))
        # The base class is handed the rows without their unused columns, the lengths among them.
        sampler = length_grouped_sampler(self.train_dataset, self.args, lambda: int(self.state.epoch or 0))
        return sampler if sampler is not None else super()._get_train_sampler(train_dataset)

    def _get_eval_sampler(self, eval_dataset: Any) -> torch.utils.data.Sampler | None:
        # The base class would group rows by length here too; scores know rows by their place.
        if eval_dataset is None or not has_length(eval_dataset):
            return None
        return torch.utils.data.SequentialSampler(eval_dataset)

    # ---- Numbers that are not finite, and numbers that the host knows ----

    @contextmanager
    def _no_filter(self) -> Iterator[None]:
        """`Trainer`'s filter of losses would wait for every one of them; here one that is not finite ends the run."""
        before = self.args.logging_nan_inf_filter
        self.args.logging_nan_inf_filter = before and self.is_stock
        try:
            yield
        finally:
            self.args.logging_nan_inf_filter = before

    @unless_stock
    def _get_dataloader(self, dataset: Any, *args: Any, **kwargs: Any) -> torch.utils.data.DataLoader:
        make = partial(self._make_dataloader, dataset, *args)
        if self.accelerator.num_processes == 1 or has_length(dataset):
            return make(**kwargs)
        return loader_of_stream(self, make, **kwargs)

    def _make_dataloader(self, dataset: Any, *args: Any, **kwargs: Any) -> torch.utils.data.DataLoader:
        if self.args.device.type == "cpu":
            # The host itself computes: asking it costs nothing.
            return super()._get_dataloader(dataset, *args, **kwargs)
        # Facts of a batch come with it, so that no step has to ask the device.
        collator, workers = self.data_collator, self.args.dataloader_num_workers
        self.data_collator = self._knowing(collator, dataset)
        if kwargs.get("is_training") and isinstance(workers, Unset):
            self.args.dataloader_num_workers = workers_for(dataset)
        try:
            return super()._get_dataloader(dataset, *args, **kwargs)
        finally:
            self.data_collator, self.args.dataloader_num_workers = collator, workers

    def _knowing(self, collator: Any, dataset: Any) -> KnowingCollator:
        """A collator whose batches know what a step would ask the device for, and go there in few copies."""
        # A process that makes batches for others sends them tensor by tensor.
        is_own = has_length(dataset) and not self.accelerator.dispatch_batches
        return KnowingCollator(collator, packs=is_own and self.args.device.type != "cpu")

    def watch(self, values: Mapping[str, Any]) -> None:
        """Look at numbers of the step that is being computed; nothing waits for the device."""
        self.finite.see(self.state.global_step + 1, values)

    @unless_stock
    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """As in `Trainer`; the loss is watched."""
        if isinstance(inputs, NoRows):
            return torch.zeros((), device=self.args.device)
        self._last_batch = inputs
        loss = super().training_step(model, inputs, *args, **kwargs)
        self.watch({LOSS: loss})
        return loss

    @unless_stock
    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if getattr(self.accelerator, "scaler", None) is None:
            self.watch({GRADIENT: norm})
        return norm

    @unless_stock
    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in `Trainer`, once everything is known to be finite."""
        if "loss" in logs:
            end_if_not_finite(self.finite, self.accelerator)
        elif "train_loss" in logs:
            self.check_student()
        super().log(logs, start_time)

    def check_student(self) -> None:
        """Check the weights after the last update, and the student's outputs for the last rows.

        It is called in all processes at once.

        Raises:
            NotFiniteError: If something is not finite.
        """
        step = self.state.global_step
        # Sharded models speak in training only.
        if self._last_batch is not None and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            self.finite.see(step, {OUTPUT + name: value for name, value in self._outputs_now().items()})
        self.finite.see(step, {WEIGHT + name: values for name, values in self.model.named_parameters()})
        self.finite.see(step, {WEIGHT + name: values for name, values in moments_of(self.optimizer).items()})
        end_if_not_finite(self.finite, self.accelerator)

    @torch.no_grad()
    def _outputs_now(self) -> dict[str, Tensor]:
        """Return the student's outputs for the last rows with the weights as they are now; draws no random number."""
        training = self.model.training
        self.model.eval()
        try:
            with random_state_kept(self.args.device), self.compute_loss_context_manager(), self.accelerator.autocast():
                return self.outputs_of(self._prepare_inputs(self._last_batch))
        finally:
            self.model.train(training)

    def outputs_of(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return the student's outputs for a batch, by name."""
        outputs: Any = self.model(**{name: value for name, value in batch.items() if name != "labels"})
        return {name: value for name, value in outputs.items() if isinstance(value, Tensor)}

    # ---- Saving ----

    @unless_stock
    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As in `Trainer`.

        Raises:
            NotFiniteError: If a weight is not finite.
        """
        check_weights(self.model, "Nothing is saved: the trained")
        super().save_model(output_dir, _internal_call)

    @unless_stock
    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Write the model; each of its files is whole or not there."""
        with self.checkpoints.as_given(self.args), model_files(output_dir or str(self.args.output_dir)) as part:
            super()._save(str(part), state_dict)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """As in `Trainer`, but older checkpoints are deleted only when this one is complete."""
        run = self._get_output_dir(trial)
        folder = Path(run, f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        if self.is_stock:
            if self.args.should_save:
                # The state is written last: that of an earlier run would make half of a checkpoint look whole.
                remove(folder)
            return super()._save_checkpoint(model, trial)
        self.check_student()
        # On the device since the last log.
        self._costs.note(self.state, self._total_loss_scalar + float(getattr(self, "_tr_loss", 0.0)))
        with self.checkpoints.writing(folder, self.args, self.accelerator):
            if self.args.should_save:
                self._write_beside(folder)
            super()._save_checkpoint(model, trial)
            self._finish_checkpoint(folder)
        if self.args.should_save:
            self.checkpoints.rotate(run, self.args.save_total_limit, self.state.best_model_checkpoint)
        return None

    def _write_beside(self, folder: Path) -> None:
        """Write what a checkpoint holds beside what `Trainer` writes."""

    def _finish_checkpoint(self, folder: Path) -> None:
        self.checkpoints.finish(folder, self.args, self._deciding(), self.accelerator)

    def _deciding(self) -> dict[str, Any]:
        found = self.checkpoints.deciding(self.args, self.train_dataset)
        return found if self.started_from is None else {**found, "first_weights": self.started_from}

    @unless_stock
    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        trained = self.model if model is None else model
        if has_own_adapter(trained) and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            return read_adapter(trained, Path(resume_from_checkpoint))
        try:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"The checkpoint {resume_from_checkpoint!r} does not fit the model: {reason}") from error

    @unless_stock
    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        # What is pushed is a whole checkpoint.
        self._finish_checkpoint(Path(checkpoint_folder))
        super()._push_from_checkpoint(checkpoint_folder)

    @unless_stock
    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        try:
            return super()._determine_best_metric(metrics, trial)
        except KeyError as error:
            measured = ", ".join(sorted(name.removeprefix("eval_") for name in metrics))
            raise ValueError(
                f"`--metric_for_best_model {self.args.metric_for_best_model}` is not measured; there are {measured}."
            ) from error

    def _load_best_model(self) -> None:
        self.checkpoints.check_best(self.state.best_model_checkpoint)
        if has_own_adapter(self.model) and not self.is_stock:
            return self._load_from_checkpoint(str(self.state.best_model_checkpoint))
        return super()._load_best_model()


def named_targets(signals: Signals | Mapping[str, Signals] | None, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What teachers say to a batch, and its labels, by names that say whose they are."""
    targets = {LABELS + name: value for name, value in inputs.items() if "label" in name}
    by_objective = signals if isinstance(signals, Mapping) else {"": signals}
    # Objectives that learn from one teacher share what it said.
    for one in {id(one): one for one in by_objective.values() if isinstance(one, Signals)}.values():
        targets |= {TEACHER + name: value for name, value in named_signals(one)}
    return targets


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Leave every random generator of the training as it is.

    A pass over a loader draws a seed, and a `Trainer` that is made for an evaluation sets them all.

    Args:
        device: Where the training takes place.
    """
    devices = [device] if device.type not in ("cpu", "mps") else []
    kind = {"device_type": device.type} if devices else {}
    # The generator of all numpy, which `set_seed` sets too.
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=devices, **kind):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


# ---- Arguments ----


# What `Trainer` and its arguments have, and what has no meaning where the loss is that of objectives: name -> the way
# out.
REFUSED = {
    "compute_loss_func": "the loss is the sum of the objectives: write an objective (docs/extending.md)",
    "use_liger_kernel": "its kernels put the loss into the model, and the objectives need what the model computes",
    "liger_kernel_config": "its kernels put the loss into the model, and the objectives need what the model computes",
}


def refuse_without_effect(what: str, args: TrainingArguments, given: Mapping[str, Any]) -> None:
    """Refuse arguments that a distillation would ignore.

    Args:
        what: What is trained, for the message.
        args: Arguments of the training.
        given: Arguments of the trainer by name.

    Raises:
        ValueError: If one is set.
    """
    for name, way in REFUSED.items():
        value = given.get(name) or getattr(args, name, None)
        if value:
            raise ValueError(f"`{name}` would have no effect on {what}; {way}.")
    if not args.average_tokens_across_devices and args.world_size > 1:
        raise ValueError(
            f"`--average_tokens_across_devices False` would have no effect on {what}: its loss is a mean over the "
            f"rows, tokens and labels of all {args.world_size} processes."
        )


def refuse_data_parallel(args: TrainingArguments) -> None:
    """Refuse several devices in one process.

    Raises:
        ValueError: If there are several.
    """
    if args.n_gpu > 1:
        raise ValueError(
            f"{args.n_gpu} GPUs in one process (DataParallel) are not supported: start with "
            "`torchrun --nproc_per_node NUM_GPUS script.py`, or show one GPU with CUDA_VISIBLE_DEVICES."
        )


def refuse_uneven_batches(accelerator: Any, *, drops_last: bool) -> None:
    """Refuse processes that would have different numbers of batches: they would wait for each other's for ever.

    Args:
        accelerator: Knows how batches are shared out among the processes.
        drops_last: Whether batches that are not full are left out.

    Raises:
        ValueError: If there are such.
    """
    if accelerator.num_processes > 1 and not (accelerator.even_batches or accelerator.dispatch_batches or drops_last):
        raise ValueError(
            "`--accelerator_config` has `even_batches: false`, with which the last rows may leave some of the "
            f"{accelerator.num_processes} processes without a batch that the others wait for: leave it out (rows that "
            "fill up last batches count once in every score), or give `--dataloader_drop_last true`."
        )


def refuse_lost_rows(args: TrainingArguments) -> None:
    """Refuse evaluations of which transformers keeps the rows of the last batches alone.

    Raises:
        ValueError: If `eval_use_gather_object` is set in several processes.
    """
    if args.eval_use_gather_object and args.world_size > 1:
        raise ValueError(
            f"`--eval_use_gather_object` loses most rows of an evaluation in {args.world_size} processes "
            "(transformers takes the rows of the last batches for all): leave it out."
        )


def refuse_resharding(accelerator: Any, objectives: list[str]) -> None:
    """Refuse weights that FSDP takes apart after a forward pass that ends inside a layer.

    Args:
        accelerator: Knows the settings of FSDP.
        objectives: Names of the objectives, for the message.

    Raises:
        ValueError: If it does.
    """
    plugin: Any = getattr(accelerator.state, "fsdp_plugin", None)
    if getattr(plugin, "fsdp_version", 1) == 2 and plugin.reshard_after_forward:
        raise ValueError(
            f"The objectives {objectives} end inside the student's last layer, whose weights FSDP does not gather "
            "again for a backward pass that begins there: set `fsdp_reshard_after_forward: false` in accelerate's "
            "configuration, or add an objective on hidden states or logits."
        )
