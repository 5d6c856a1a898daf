"""Times a teacher and its students on several engines, in one process and in turns (MiniLM supplement, speed table).

There are two measurements. The protocol is that of the papers: the mean time of 100 batches of 32 rows with 128
tokens, on the engine that a model is loaded with. The grid has every engine at several batch sizes and lengths, with
fewer batches.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_distill.capture.architectures import shows_its_signals
from hf_distill.reports.speed.engines import ENGINES, Engines, EngineUnavailableError, Run
from hf_distill.reports.speed.latency import Batch, Latency, check_protocol, median_ratio, take_turns
from hf_distill.students.shapes import shape_of
from hf_distill.students.sizes import count_parameters

logger = logging.getLogger(__name__)

# Speed-up over a 12x768 teacher, by layers and width: MiniLM, table 2; TinyBERT, table 1.
PAPER_TEACHER = (12, 768)
PAPER_SPEEDUPS = {(6, 768): 2.0, (12, 384): 2.7, (6, 384): 5.3, (4, 312): 9.4}
# Seconds that are enough for the threads of one engine to stop spinning before another one runs.
PAUSE = 0.005
# (batch size, length, number) -> batches on the models' device.
Source = Callable[[int, int, int], list[Batch]]
# (model, engine).
ModelOnEngine = tuple[str, str]


@dataclass(frozen=True)
class Protocol:
    """The settings of a timing: shapes, batches and rounds.

    Attributes:
        batch_size: Rows of a batch.
        seq_length: Tokens of a row.
        num_batches: Batches that are timed.
        warmup: Batches before them that are not timed.
        grid_batch_sizes: Batch sizes of the grid.
        grid_seq_lengths: Lengths of the grid, in tokens.
        grid_batches: Batches that are timed in each cell of the grid, after one that is not.
        engines: Engines to use; the first one that runs every model is used for the papers' protocol.
    """

    batch_size: int = 32
    seq_length: int = 128
    num_batches: int = 100
    warmup: int = 10
    grid_batch_sizes: Sequence[int] = (1, 32)
    grid_seq_lengths: Sequence[int] = (32, 128)
    grid_batches: int = 3
    engines: Sequence[str] = ENGINES


@dataclass(frozen=True)
class ComparedModel:
    """One model of a comparison.

    Attributes:
        name: Its name, which must be unique.
        model: The model, on its device.
        tokenizer: Its tokenizer, if it has one.
        source: The id or folder that it came from, if any.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None = None
    source: str | None = None


def compare(
    teacher: ComparedModel, students: Sequence[ComparedModel], protocol: Protocol, source: Source
) -> dict[str, Any]:
    """Time a teacher and its students.

    Args:
        teacher: The model that the others are compared with.
        students: The other models.
        protocol: Settings of the timing.
        source: Function that makes the batches for all of them.

    Returns:
        `models` (parameters, bytes by engine), `protocol` and `grid` (a row for each model, engine and shape, with
        `speedup` over the teacher on the same engine), `reference_engine`, `left_out` (what could not be run, and
        why).

    Raises:
        ValueError: If a number is out of range, an engine is unknown, or no engine runs every model.
    """
    entries = [teacher, *students]
    shapes = [(batch, length) for length in protocol.grid_seq_lengths for batch in protocol.grid_batch_sizes]
    _check(entries, protocol, shapes)
    left_out: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as scratch:
        engines = {e.name: Engines(e.model, Path(scratch) / str(i), e.tokenizer) for i, e in enumerate(entries)}
        runs = _open(engines, protocol, source(*shapes[0], 1)[0], left_out)
        reference = _reference(runs, entries, protocol.engines, left_out)
        device = teacher.model.device
        grid = []
        for batch, length in shapes:
            logger.warning(f"bench: {len(runs)} runs of {batch} x {length} tokens, {protocol.grid_batches} times")
            batches = source(batch, length, protocol.grid_batches)
            times = take_turns(runs, batches, protocol.grid_batches, 1, device, pause=PAUSE)
            grid += _rows(times, teacher.name, reference, (batch, length))
        shape = (protocol.batch_size, protocol.seq_length)
        logger.warning(f"bench: the protocol, {protocol.num_batches} batches of {shape[0]} x {shape[1]} tokens")
        chosen = {key: run for key, run in runs.items() if key[1] == reference}
        batches = source(*shape, protocol.num_batches)
        times = take_turns(chosen, batches, protocol.num_batches, protocol.warmup, device, pause=PAUSE)
        rows = _rows(times, teacher.name, reference, shape)
    papers = paper_speedups(teacher, students)
    return {
        "models": [_model_facts(entry, engines[entry.name]) for entry in entries],
        "reference_engine": reference,
        "protocol": [row | {"papers": papers.get(row["model"])} for row in rows],
        "grid": grid,
        "left_out": left_out,
    }


def paper_speedups(teacher: ComparedModel, students: Sequence[ComparedModel]) -> dict[str, float]:
    """The papers' speed-up of every student with one of their shapes, if the teacher has the shape of BERT base."""
    if _size(teacher.model) != PAPER_TEACHER:
        return {}
    sizes = {student.name: _size(student.model) for student in students}
    return {name: PAPER_SPEEDUPS[size] for name, size in sizes.items() if size in PAPER_SPEEDUPS}


def _check(entries: Sequence[ComparedModel], protocol: Protocol, shapes: Sequence[tuple[int, int]]) -> None:
    unknown = [engine for engine in protocol.engines if engine not in ENGINES]
    if unknown or not protocol.engines:
        raise ValueError(f"`--engines` has {unknown or 'none'}; allowed are {', '.join(ENGINES)}.")
    if not shapes:
        raise ValueError("`--grid_batch_sizes` and `--grid_seq_lengths` need a number each.")
    measured = [(size, length, protocol.grid_batches, 1) for size, length in shapes]
    measured.append((protocol.batch_size, protocol.seq_length, protocol.num_batches, protocol.warmup))
    for entry in entries:
        for size, length, number, warmup in measured:
            check_protocol(entry.model, batch_size=size, seq_length=length, num_batches=number, warmup=warmup)


def _open(
    engines: dict[str, Engines], protocol: Protocol, example: Batch, left_out: list[dict[str, str]]
) -> dict[ModelOnEngine, Run]:
    """Open every model on every engine; combinations that cannot be run are added to `left_out`."""
    runs: dict[ModelOnEngine, Run] = {}
    for engine in protocol.engines:
        for name, ways in engines.items():
            try:
                runs[name, engine] = ways.open(engine, example)
            except EngineUnavailableError as error:
                logger.warning(f"bench: {name} is not run on {engine}: {error}")
                left_out.append({"model": name, "engine": engine, "reason": str(error)})
    return runs


def _reference(
    runs: dict[ModelOnEngine, Run],
    entries: Sequence[ComparedModel],
    engines: Sequence[str],
    left_out: list[dict[str, str]],
) -> str:
    for engine in engines:
        if all((entry.name, engine) in runs for entry in entries):
            return engine
    reasons = "; ".join(f"{item['model']} on {item['engine']}: {item['reason'].rstrip('.')}" for item in left_out)
    raise ValueError(f"None of the engines {list(engines)} (`--engines`) runs every model: {reasons}.")


def _rows(
    times: dict[ModelOnEngine, tuple[float, ...]], teacher: str, reference: str, shape: tuple[int, int]
) -> list[dict[str, Any]]:
    """Return the measurements at one shape, a row for each model and engine."""
    rows = []
    for (name, engine), seconds in times.items():
        latency, same, base = Latency(*shape, seconds), times.get((teacher, engine)), times[teacher, reference]
        rows.append(
            {
                "model": name,
                "engine": engine,
                "batch_size": shape[0],
                "seq_length": shape[1],
                "num_batches": len(seconds),
                "seconds": latency.median,
                "mean_seconds": latency.mean,
                "sentences_per_second": latency.sentences_per_second,
                "speedup": None if same is None else median_ratio(same, seconds),
                "speedup_over_reference": median_ratio(base, seconds),
                "ratio_of_means": sum(base) / sum(seconds),
            }
        )
    return rows


def _model_facts(entry: ComparedModel, engines: Engines) -> dict[str, Any]:
    count = count_parameters(entry.model)
    return {
        "name": entry.name,
        "architecture": type(entry.model).__name__,
        "layers": entry.model.config.num_hidden_layers,
        "hidden_size": entry.model.config.hidden_size,
        "parameters": count.total,
        "embedding_parameters": count.embeddings,
        "layer_parameters": count.layers,
        "dtype": str(entry.model.dtype).removeprefix("torch."),
        "bytes": dict(engines.bytes),
    }


def _size(model: PreTrainedModel) -> tuple[int, int] | None:
    """Layers and width of a transformer."""
    if shows_its_signals(model):
        return None
    shape = shape_of(model)
    return shape.num_layers, shape.hidden_size
