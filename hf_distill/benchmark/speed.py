"""Latency of a teacher and a student, measured against each other in one run (MiniLM supplement, speed table).

Only ratios travel between machines: the papers give a student's speed-up over its teacher, from the mean time of 100
batches of the same inputs. Here both models take turns on every batch, so that a busy machine slows both.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from hf_distill.students import ParameterCount, count_parameters


@dataclass(frozen=True)
class Latency:
    """Time of forward passes of one model.

    Attributes:
        batch_size: Sentences per batch.
        seq_length: Tokens per sentence, none of them padding.
        seconds: Time of every measured batch.
    """

    batch_size: int
    seq_length: int
    seconds: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean seconds per batch, the papers' number."""
        return statistics.fmean(self.seconds)

    @property
    def median(self) -> float:
        """Median seconds per batch, which a busy machine disturbs less."""
        return statistics.median(self.seconds)

    @property
    def sentences_per_second(self) -> float:
        """Throughput at the median."""
        return self.batch_size / self.median


@dataclass(frozen=True)
class SpeedComparison:
    """A student beside its teacher.

    Attributes:
        teacher: Latency of the teacher.
        student: Latency of the student.
        speedup: Median over the batches of teacher time / student time: above 1, the student is faster.
        teacher_parameters: Parameters of the teacher by part.
        student_parameters: Parameters of the student by part.
        teacher_bytes: Bytes of the teacher's weights as `save_pretrained` writes them.
        student_bytes: Bytes of the student's weights.
        device: Where both ran, such as `cpu (2 threads)` or a GPU's name.
        dtype: Type of the student's weights.
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
        """The numbers as one flat JSON-able record."""
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


def latency(
    model: PreTrainedModel,
    *,
    batch_size: int = 32,
    seq_length: int = 128,
    num_batches: int = 100,
    warmup: int = 10,
    seed: int = 0,
) -> Latency:
    """Time forward passes of a model on random token ids without padding.

    The model is put into eval mode for the measurement and back into the mode it was in; no gradient is computed.

    Args:
        model: The model, where it is and as it is.
        batch_size: Sentences per batch.
        seq_length: Tokens per sentence.
        num_batches: Batches that count.
        warmup: Batches before them that do not.
        seed: Seed of the token ids.

    Raises:
        ValueError: If a number is out of range, or the model has no such positions.
    """
    _check(batch_size, seq_length, num_batches, warmup, model)
    inputs = _random_inputs(model, model.config.vocab_size, batch_size, seq_length, seed)
    with _measuring(model):
        times = [_timed(model, inputs) for _ in range(warmup + num_batches)]
    return Latency(batch_size, seq_length, tuple(times[warmup:]))


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
    """Time teacher and student on the same inputs, in turns, and compare them batch by batch.

    Args:
        teacher: The teacher.
        student: The student, on the same device.
        batch_size: Sentences per batch.
        seq_length: Tokens per sentence.
        num_batches: Batches that count; each is run by both.
        warmup: Batches before them that do not.
        seed: Seed of the token ids.

    Raises:
        ValueError: If a number is out of range, or the models are on different devices.
    """
    for model in (teacher, student):
        _check(batch_size, seq_length, num_batches, warmup, model)
    if teacher.device != student.device:
        raise ValueError(
            f"The teacher is on {teacher.device}, the student on {student.device}: their times do not compare. "
            "Move both to one device first."
        )
    vocab_size = min(teacher.config.vocab_size, student.config.vocab_size)
    inputs = _random_inputs(student, vocab_size, batch_size, seq_length, seed)
    pairs = []
    with _measuring(teacher), _measuring(student):
        for index in range(warmup + num_batches):
            # Who goes first alternates: the second one finds warmer caches.
            order = (teacher, student) if index % 2 == 0 else (student, teacher)
            times = {id(model): _timed(model, inputs) for model in order}
            pairs.append((times[id(teacher)], times[id(student)]))
    measured = pairs[warmup:]
    return SpeedComparison(
        teacher=Latency(batch_size, seq_length, tuple(pair[0] for pair in measured)),
        student=Latency(batch_size, seq_length, tuple(pair[1] for pair in measured)),
        speedup=statistics.median(big / small for big, small in measured),
        teacher_parameters=count_parameters(teacher),
        student_parameters=count_parameters(student),
        teacher_bytes=weight_bytes(teacher),
        student_bytes=weight_bytes(student),
        device=describe_device(student.device),
        dtype=str(student.dtype).removeprefix("torch."),
    )


def weight_bytes(model: PreTrainedModel) -> int:
    """Bytes of a model's weights on disk: parameters and saved buffers, shared storage once."""
    tensors = {tensor.data_ptr(): tensor for tensor in model.state_dict().values()}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def folder_bytes(folder: str | os.PathLike[str]) -> int:
    """Bytes of the weight files of a saved model.

    Raises:
        FileNotFoundError: If the folder holds no weights.
    """
    sizes = [entry.stat().st_size for entry in os.scandir(folder) if entry.name.endswith((".safetensors", ".bin"))]
    if not sizes:
        raise FileNotFoundError(f"{os.fspath(folder)!r} holds no weights (*.safetensors).")
    return sum(sizes)


def describe_device(device: torch.device) -> str:
    """The device in words: a GPU's name, or the processor with the threads that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def _check(batch_size: int, seq_length: int, num_batches: int, warmup: int, model: PreTrainedModel) -> None:
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


def _random_inputs(
    model: PreTrainedModel, vocab_size: int, batch_size: int, seq_length: int, seed: int
) -> dict[str, torch.Tensor]:
    """Token ids (B, T) other than the padding id, and a mask of ones."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocab_size, (batch_size, seq_length), generator=generator)
    pad = model.config.pad_token_id
    if pad is not None:
        ids[ids == pad] = (pad + 1) % vocab_size
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}


@contextmanager
def _measuring(model: PreTrainedModel) -> Iterator[None]:
    """Eval mode without gradients; afterwards every module is in the mode it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def _timed(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> float:
    """Seconds of one forward pass, the device's queue emptied before and after."""
    _synchronize(model.device)
    start = time.perf_counter()
    model(**inputs)
    _synchronize(model.device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
