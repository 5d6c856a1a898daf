"""A family: several students are trained together and share the forward passes of one teacher.

Every student has an ordinary trainer, with objectives, optimizer, callbacks, checkpoints and card of its own. The
trainings run in threads, one at a time: whenever a training needs the teacher, the training that is furthest behind
continues. The teacher's signals of the last batch are kept, so that the other students get them without another pass.
Every training has its own random state, so that its student has the same weights as after a separate training.
"""

from __future__ import annotations

import contextvars
import logging
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import GradientState
from torch import Tensor
from transformers import enable_full_determinism, set_seed
from transformers.trainer_utils import TrainOutput

from ...capture.batch import on_host
from ...capture.signals import SignalRequest, Signals
from ...hub.tokenizers import tokenizer_hash
from ...teachers.base import TeacherSource
from ...teachers.routing import only_requested
from ..callbacks import TermsInProgressBar
from ..checkpoints import LAST_CHECKPOINT
from .trainer import DistillationTrainer

logger = logging.getLogger(__name__)

# Settings that decide the batches, and what the teacher says to one.
SHARED_SETTINGS = (
    *("per_device_train_batch_size", "gradient_accumulation_steps", "max_tokens_per_batch", "train_sampling_strategy"),
    *("dataloader_drop_last", "max_length", "text_column", "mlm_probability", "align_tokenizers"),
    *("teacher_text_column", "teacher_prompt", "teacher_dtype", "teacher_device", "bf16", "fp16", "pack_rows"),
)
# Other services have one run at a time in a process.
TRACKERS = frozenset({"none", "tensorboard"})


def train_family(
    trainers: Sequence[DistillationTrainer], resume_from_checkpoint: str | bool | None = None
) -> list[TrainOutput]:
    """Train several students in one pass of their teacher, which runs once for a batch.

    Each student ends with the weights, log, checkpoints and best model of its trainer's own `train`, bit for bit:
    every training begins with the random state of its seed, as after the trainer was made. Objectives, learning rates,
    evaluations, numbers of steps and callbacks may differ. A student that stops early does not affect the others; if
    one fails, the family ends. If students resume from different steps, those that are behind first train alone.

    Each of several teachers is shared. A stored teacher has no passes to share: if all teachers are stored, the
    students are trained one after the other.

    Args:
        trainers: One trainer for each student, with the same teacher, tokenizer and rows, and each with its own
            `output_dir`.
        resume_from_checkpoint: "last" or `True`, as in `DistillationTrainer.train`: every student resumes from its own
            checkpoint.

    Returns:
        What every `train` returned, in order.

    Raises:
        ValueError: If the trainers do not share teacher, tokenizer, labels or batches, or have a setting that is not
            supported in a family.
    """
    if str(resume_from_checkpoint).lower() not in ("none", "false", "true", LAST_CHECKPOINT):
        raise ValueError(
            f"`--resume_from_checkpoint` is {resume_from_checkpoint!r}, but every student of a family has checkpoints "
            "of its own: give last."
        )
    _check_family(trainers)
    for trainer in trainers:
        # With the requests of all students the fingerprint of a teacher may say more.
        trainer.manifest()
    turns = _Turns(
        [partial(_train, trainer, resume_from_checkpoint) for trainer in trainers],
        [lambda one=trainer: one.state.global_step for trainer in trainers],  # type: ignore[misc]
        trainers[0].args.device,
    )
    with ExitStack() as stack:
        for index in range(len(trainers[0].teachers)):
            stack.enter_context(_asked_once(trainers, index, turns))
        return turns.run()


def _train(trainer: DistillationTrainer, resume_from_checkpoint: str | bool | None) -> TrainOutput:
    args, name = trainer.args, _name(trainer)
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TermsInProgressBar):
            callback.label = name
    enable_full_determinism(args.seed) if args.full_determinism else set_seed(args.seed)
    try:
        return trainer.train(resume_from_checkpoint)
    except Exception:
        logger.warning(f"The training of {name!r} failed, and its family ends with it.")
        raise


# ---- One pass of the teacher ----


@contextmanager
def _asked_once(trainers: Sequence[DistillationTrainer], index: int, turns: _Turns) -> Iterator[None]:
    """Within this context one of the teachers, which all trainers have, runs once for the same batch."""
    sources = [trainer.teachers[index] for trainer in trainers]
    first = sources[0]
    if first.dataset is not None:
        yield  # What it says was stored, and lies in the batches.
        return
    requests = [_request_of(trainer, index) for trainer in trainers]
    one_pass = _OnePass(first.signals, requests, turns)
    first.request(SignalRequest.union(requests))
    try:
        for source in sources:
            # In the source's own dictionary it hides the method of the class.
            source.__dict__["signals"] = one_pass.signals
        yield
    finally:
        for source, request in zip(sources, requests, strict=True):
            source.__dict__.pop("signals", None)
            source.request(request)
    if len(trainers) > 1 and one_pass.num_passes == one_pass.num_asked > 0:
        logger.warning(
            f"The teacher ran anew for each of {len(trainers)} students, because no two of them had the same batch: "
            "give their trainers the same rows."
        )


def _request_of(trainer: DistillationTrainer, index: int) -> SignalRequest:
    """The signals that a student's objectives need of one of its teachers."""
    is_only, teacher_of = len(trainer.teachers) == 1, trainer.model.teacher_of
    return SignalRequest.union(
        objective.teacher_request
        for name, objective in trainer.model.objectives.items()
        if is_only or teacher_of[name] in (None, index)
    )


class _OnePass:
    """A teacher that gives several students what they need of the same batch, and runs once for it.

    Attributes:
        num_asked: How often a student asked.
        num_passes: How often the teacher ran.
    """

    def __init__(
        self, ask: Callable[[Mapping[str, Any]], Any], requests: Sequence[SignalRequest], turns: _Turns
    ) -> None:
        """Take a teacher that was asked for everything that the students need.

        Args:
            ask: Its `signals`.
            requests: What each student needs.
            turns: Knows which student asks.
        """
        self._ask, self._requests, self._turns = ask, requests, turns
        self._batch: Mapping[str, Any] = {}
        self._answer: Any = None
        self.num_asked = self.num_passes = 0

    def signals(self, inputs: Mapping[str, Any]) -> Any:
        """What the student that asks needs of a batch; students that are behind come first."""
        self._turns.give_way()
        self.num_asked += 1
        if self._answer is None or not _is_same_batch(inputs, self._batch):
            self._batch, self._answer = {}, None  # Their memory is free for the pass.
            self._batch, self._answer = inputs, self._ask(inputs)
            self.num_passes += 1
        is_known = isinstance(self._answer, Signals)
        return only_requested(self._answer, self._requests[self._turns.current]) if is_known else self._answer


def _is_same_batch(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(_is_same_value(value, other[name]) for name, value in one.items())


def _is_same_value(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return type(one) is type(other) and np.array_equal(one, other)
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(on_host(one), on_host(other))


# ---- Turns ----


class _EndedError(BaseException):
    """Ends a job whose family failed, past every handler of errors."""


class _Turns:
    """Jobs in threads of their own, of which one runs at a time.

    What a process has once and a training changes belongs to each job: random numbers, and accelerate's note of
    whether gradients are accumulated.

    Attributes:
        current: Number of the job that runs; -1 before the first one.
    """

    def __init__(
        self, jobs: Sequence[Callable[[], Any]], steps: Sequence[Callable[[], int]], device: torch.device
    ) -> None:
        """Take the jobs; none runs yet.

        Args:
            jobs: What to do.
            steps: Give the number of steps that each job has done.
            device: Where random numbers are drawn, beside the host.
        """
        self._jobs, self._steps, self._device = jobs, steps, device
        # Steps done, and how often a job gave way since then: the least is the furthest behind.
        self._places = [(0, 0)] * len(jobs)
        self._running = set(range(len(jobs)))
        self._results: dict[int, Any] = {}
        self._begun: list[Any] = []
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self.current = -1

    def run(self) -> list[Any]:
        """Do all jobs; returns what each returned.

        Raises:
            BaseException: The first error of a job; the others end where they would give way next.
        """
        self._begun = _global_state(self._device)
        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(self._do, number), daemon=True)
            for number in range(len(self._jobs))
        ]
        for thread in threads:
            thread.start()
        try:
            self._pass_on(0)
            self._wait_for(lambda: not self._running)
        except BaseException as error:
            # Such as the interruption of a user, which comes to this thread.
            self._error = self._error or error
            self._wait_for(lambda: not self._running)
        _set_global_state(self._begun, self._device)
        if self._error is not None:
            raise self._error
        return [self._results[number] for number in range(len(self._jobs))]

    def give_way(self) -> None:
        """Let the job that is furthest behind go on; returns when the one that called is that."""
        number = self.current
        step, times = self._steps[number](), self._places[number]
        self._places[number] = (step, times[1] + 1 if times[0] == step else 0)
        chosen = self._furthest_behind()
        if chosen != number:
            kept = _global_state(self._device)
            self._pass_on(chosen)
            self._wait_for(lambda: self.current == number)
            _set_global_state(kept, self._device)
        if self._error is not None:
            raise _EndedError

    def _do(self, number: int) -> None:
        """Do one job, in its thread."""
        self._wait_for(lambda: self.current == number)
        try:
            if self._error is None:
                _set_global_state(self._begun, self._device)
                self._results[number] = self._jobs[number]()
        except _EndedError:
            pass
        except BaseException as error:
            self._error = self._error or error
        self._running.discard(number)
        self._pass_on(self._furthest_behind() if self._running else number)

    def _furthest_behind(self) -> int:
        return min(self._running, key=lambda number: (self._places[number], number))

    def _pass_on(self, number: int) -> None:
        with self._changed:
            self.current = number
            self._changed.notify_all()

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            # Python sees the interruption of a user between two waits.
            while not self._changed.wait_for(condition, timeout=1.0):
                pass


def _global_state(device: torch.device) -> list[Any]:
    """What a training changes of its process: the random generators, and accelerate's state of the gradients."""
    gradients = {name: list(value) if isinstance(value, list) else value for name, value in _gradients().items()}
    # The generator of all numpy, which `set_seed` sets too.
    state = [random.getstate(), np.random.get_state(), torch.get_rng_state(), gradients]  # noqa: NPY002
    return state if device.type == "cpu" else [*state, torch.get_device_module(device).get_rng_state(device)]


def _set_global_state(state: Sequence[Any], device: torch.device) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])  # noqa: NPY002
    torch.set_rng_state(state[2])
    _gradients().clear()
    _gradients().update(state[3])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state[4], device)


def _gradients() -> dict[str, Any]:
    """The one dictionary in which all of accelerate keeps its state of the gradients."""
    return vars(GradientState())


# ---- What a family has in common ----


def _check_family(trainers: Sequence[DistillationTrainer]) -> None:
    """Refuse trainers that cannot share the passes of one teacher.

    Raises:
        ValueError: If there are such; the message names both sides.
    """
    if not trainers:
        raise ValueError("A family needs a trainer for each student; there is none.")
    first = trainers[0]
    for trainer in trainers:
        _check_alone(trainer)
    folders = [str(Path(str(trainer.args.output_dir)).absolute()) for trainer in trainers]
    if len(set(folders)) < len(trainers):
        raise ValueError(f"Every student of a family needs an `--output_dir` of its own; they have {folders}.")
    for trainer in trainers[1:]:
        _check_settings(first, trainer)
        who = f"{_name(first)!r} and {_name(trainer)!r}"
        if trainer.student is first.student:
            raise ValueError(f"{who} train the same student: give each one of its own.")
        if tokenizer_hash(first.processing_class) != tokenizer_hash(trainer.processing_class):
            raise ValueError(f"{who} have different tokenizers; the students of a family read the same tokens.")
        labels = [(one.student.config.id2label, one.student.config.problem_type) for one in (first, trainer)]
        if labels[0] != labels[1]:
            raise ValueError(f"{who} have different labels: {labels[0]} and {labels[1]}.")
        same = [_is_same_teacher(*pair) for pair in zip(first.teachers, trainer.teachers, strict=False)]
        if len(first.teachers) != len(trainer.teachers) or not all(same):
            raise ValueError(f"{who} have different teachers; the students of a family have the same, in one order.")


def _check_alone(trainer: DistillationTrainer) -> None:
    """Refuse a training that cannot be one of several in a process."""
    args, name = trainer.args, _name(trainer)
    if trainer.teacher is None:
        raise ValueError(f"{name!r} has no teacher, but a family shares the passes of one.")
    if trainer.model_init is not None:
        raise ValueError(f"{name!r} has `model_init`; a family needs its students: give `model`.")
    if args.world_size > 1:
        raise ValueError(
            f"A family is trained in one process, but there are {args.world_size}: start it without torchrun, or "
            "distil one student a run."
        )
    others = sorted(set(args.report_to) - TRACKERS)
    if others:
        raise ValueError(
            f"`--report_to {' '.join(others)}`: a process has one run of it at a time, but a family has several; "
            "allowed are tensorboard and none."
        )


def _check_settings(first: DistillationTrainer, other: DistillationTrainer) -> None:
    """Refuse settings that would give two students other batches, or other signals of the teacher."""
    for name in (*SHARED_SETTINGS, "data_seed"):
        values = [_setting(trainer, name) for trainer in (first, other)]
        if values[0] != values[1]:
            raise ValueError(
                f"The students of a family see the same batches of the same teacher, but `--{name}` is {values[0]!r} "
                f"for {_name(first)!r} and {values[1]!r} for {_name(other)!r}."
            )


def _setting(trainer: DistillationTrainer, name: str) -> Any:
    args = trainer.args
    # Masks are drawn with the seed of the training.
    if name == "data_seed" and (args.data_seed is None or args.mlm_probability is not None):
        return args.seed
    return getattr(args, name)


def _is_same_teacher(one: TeacherSource, other: TeacherSource) -> bool:
    if one is other:
        return True
    if type(one) is not type(other) or one.dtype != other.dtype:
        return False
    if one.model is not None and one.model is other.model:
        return True
    found, theirs = one.fingerprint(), other.fingerprint()
    # The name of its class alone identifies no teacher. One side may name more, such as how it makes vectors.
    return len(found) > 1 and all(value == theirs.get(name, value) for name, value in found.items())


def _name(trainer: DistillationTrainer) -> str:
    return Path(str(trainer.args.output_dir)).name
