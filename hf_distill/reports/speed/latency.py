"""Latency of a teacher and a student, measured against each other in one run (MiniLM supplement, speed table).

Only ratios are comparable between machines: the papers give a student's speed-up over its teacher, from the mean time
of 100 batches of the same inputs. Here both models take turns on every batch, so that a busy machine slows down both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hf_distill.capture.forward import evaluating
from hf_distill.students.sizes import ParameterCount, count_parameters

Batch = dict[str, Tensor]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Latency:
    """Times of the forward passes of one model.

    Attributes:
        batch_size: Sentences per batch.
        seq_length: Tokens per sentence, without padding.
        seconds: Time of every timed batch.
    """

    batch_size: int
    seq_length: int
    seconds: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean seconds per batch, as the papers report it."""
        return statistics.fmean(self.seconds)

    @property
    def median(self) -> float:
        """Median seconds per batch, which is less sensitive to a busy machine."""
        return statistics.median(self.seconds)

    @property
    def sentences_per_second(self) -> float:
        """Throughput at the median."""
        return self.batch_size / self.median


@dataclass(frozen=True)
class SpeedComparison:
    """The speed and size of a student and its teacher.

    Attributes:
        teacher: Latency of the teacher.
        student: Latency of the student.
        speedup: Median over the batches of teacher time / student time: above 1, the student is faster.
        teacher_parameters: Parameters of the teacher by part.
        student_parameters: Parameters of the student by part.
        teacher_bytes: Size of the teacher's weights as saved by `save_pretrained`.
        student_bytes: Size of the student's weights.
        device: Device of both, such as `cpu (2 threads)` or a GPU's name.
        dtype: Dtype of the student's weights.
    """

    teacher: Latency
    student: Latency
    speedup: float
    teacher_parameters: ParameterCount
    student_parameters: ParameterCount
    teacher_bytes: int
    student_bytes: int
    device: str
    dtype: str

    def to_dict(self) -> dict[str, float | int | str]:
        """Return the numbers as a flat record of JSON values."""
        return {
            "speedup": self.speedup,
            "teacher_seconds": self.teacher.median,
            "student_seconds": self.student.median,
            "batch_size": self.student.batch_size,
            "seq_length": self.student.seq_length,
            "num_batches": len(self.student.seconds),
            "teacher_parameters": self.teacher_parameters.total,
            "student_parameters": self.student_parameters.total,
            "teacher_bytes": self.teacher_bytes,
            "student_bytes": self.student_bytes,
            "device": self.device,
            "dtype": self.dtype,
        }


def latency_ratio(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    *,
    batch_size: int = 32,
    seq_length: int = 128,
    num_batches: int = 100,
    warmup: int = 10,
    seed: int = 0,
) -> SpeedComparison:
    """Time teacher and student in turns on the same inputs, and compare them batch by batch.

    Args:
        teacher: The teacher.
        student: The student, on the same device.
        batch_size: Sentences per batch.
        seq_length: Tokens per sentence.
        num_batches: Timed batches; each is run by both models.
        warmup: Batches before them that are not timed.
        seed: Seed of the token ids.

    Raises:
        ValueError: If a number is out of range, or the models are on different devices.
    """
    for model in (teacher, student):
        check_protocol(model, batch_size=batch_size, seq_length=seq_length, num_batches=num_batches, warmup=warmup)
    if teacher.device != student.device:
        raise ValueError(
            f"The teacher is on {teacher.device}, the student on {student.device}: their times do not compare. "
            "Move both to one device first."
        )
    vocab_size = min(teacher.config.vocab_size, student.config.vocab_size)
    inputs = random_batch(student, vocab_size, batch_size, seq_length, seed)
    runs = {"teacher": lambda batch: teacher(**batch), "student": lambda batch: student(**batch)}
    with evaluating(teacher), evaluating(student):
        times = take_turns(runs, [inputs], num_batches, warmup, student.device)
    return SpeedComparison(
        teacher=Latency(batch_size, seq_length, times["teacher"]),
        student=Latency(batch_size, seq_length, times["student"]),
        speedup=median_ratio(times["teacher"], times["student"]),
        teacher_parameters=count_parameters(teacher),
        student_parameters=count_parameters(student),
        teacher_bytes=weight_bytes(teacher),
        student_bytes=weight_bytes(student),
        device=describe_device(student.device),
        dtype=str(student.dtype).removeprefix("torch."),
    )


def take_turns(
    runs: Mapping[Key, Callable[[Batch], Any]],
    batches: Sequence[Batch],
    num_batches: int,
    warmup: int,
    device: torch.device,
    *,
    pause: float = 0.0,
) -> dict[Key, tuple[float, ...]]:
    """Time several functions in turns: each runs a batch before any of them runs the next one.

    Args:
        runs: Functions by name. The order changes from batch to batch, because later ones find warmer caches.
        batches: Batches on the device; repeated from the first if there are too few.
        num_batches: Timed batches.
        warmup: Batches before them that are not timed.
        device: Its queue is synchronised before and after every run.
        pause: Seconds to wait before every run, so that the threads of the previous one stop spinning.

    Returns:
        Seconds of every timed batch, by name.
    """
    times: dict[Key, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for index in range(warmup + num_batches):
        batch, first = batches[index % len(batches)], index % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(pause)
            times[name].append(_timed(runs[name], batch, device))
    return {name: tuple(seconds[warmup:]) for name, seconds in times.items()}


def median_ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """Median over the batches of one time divided by the other."""
    return statistics.median(big / small for big, small in zip(slower, faster, strict=True))


def weight_bytes(model: PreTrainedModel) -> int:
    """Size in bytes of a model's saved weights: parameters and persistent buffers, shared storage counted once."""
    tensors = {tensor.data_ptr(): tensor for tensor in model.state_dict().values()}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def describe_device(device: torch.device) -> str:
    """Describe a device: a GPU's name, or the CPU with the number of threads that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def check_protocol(model: PreTrainedModel, *, batch_size: int, seq_length: int, num_batches: int, warmup: int) -> None:
    """Check the numbers of a measurement.

    Raises:
        ValueError: If a number is out of range, or the model has too few positions.
    """
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("seq_length", seq_length, 1),
        ("num_batches", num_batches, 1),
        ("warmup", warmup, 0),
    ):
        if value < least:
            raise ValueError(f"{name}={value}: it must be {least} or more.")
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and seq_length > positions:
        raise ValueError(f"seq_length={seq_length}, but {type(model).__name__} has only {positions} positions.")


def random_batch(model: PreTrainedModel, vocab_size: int, batch_size: int, seq_length: int, seed: int) -> Batch:
    """Random token ids (B, T), not the padding id, and a mask of ones, on the model's device."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocab_size, (batch_size, seq_length), generator=generator)
    pad = model.config.pad_token_id
    if pad is not None:
        ids[ids == pad] = (pad + 1) % vocab_size
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}


def _timed(run: Callable[[Batch], Any], batch: Batch, device: torch.device) -> float:
    """Seconds of one run, with the device's queue synchronised before and after."""
    _synchronize(device)
    start = time.perf_counter()
    run(batch)
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
