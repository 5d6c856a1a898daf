"""Run a teacher once over a data set and write its signals to disk."""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import pyarrow as pa
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets.utils import tqdm
from torch import nn
from transformers import DataCollatorWithPadding

from ... import __version__
from ...capture.architectures import without_adapters
from ...capture.batch import pad_lists, units_of
from ...capture.signals import SignalRequest
from ...hub.loading import load_tokenizer
from ...hub.tokenizers import tokenizer_hash, warn_of_other_rules
from ...kernels.cpu import configure_fp32_matmul
from ...objectives import Objective, WeightedObjective, build_objectives
from ...storage.files import WEIGHTS, new_file, new_files
from ...storage.steps import describe_file, writing_to
from ...tasks.label_names import names_of_head
from ...tasks.rows.text import LENGTH_COLUMN
from ..base import TeacherSource
from ..opening import open_teacher
from .columns import STORE_DTYPES, Column, StoredSignal, signals_of
from .manifest import (
    FORMAT,
    MANIFEST_FILE,
    SHARDS,
    differences,
    gather_notes,
    is_whole,
    note_shards,
    read_manifest,
    request_fields,
    shard_paths,
    write_manifest,
)
from .rows import IDS, hash_rows, rows_to_store

logger = logging.getLogger(__name__)

StoreDtype = Literal["float16", "bfloat16", "float32"]
# Two lengths, to tell axes of tokens from others.
PROBE_LENGTHS = (4, 6)
# Rows of one Arrow record batch: what is read together from disk.
RECORD_ROWS = 64


@dataclass(frozen=True)
class Precomputed:
    """The result of `precompute`.

    Attributes:
        folder: Where the stored teacher is; `StoredTeacher(folder)` opens it.
        rows: Rows stored.
        new_rows: Rows computed by this call; fewer where an earlier one was killed.
        num_bytes: Size of all shards.
        seconds: Time of this call.
    """

    folder: str
    rows: int
    new_rows: int
    num_bytes: int
    seconds: float


def precompute(
    dataset: datasets.Dataset,
    teacher: nn.Module | TeacherSource | str | os.PathLike[str],
    objectives: Sequence[str | Mapping[str, Any] | Objective | WeightedObjective] | SignalRequest,
    output_dir: str | os.PathLike[str],
    *,
    processing_class: Any = None,
    num_student_layers: int | None = None,
    dtype: StoreDtype = "float16",
    top_k: int | None = None,
    teacher_dtype: str = "auto",
    batch_size: int = 32,
    shard_rows: int = 2048,
    text_column: str = "text",
    max_length: int = 128,
) -> Precomputed:
    """Write the signals that objectives need of a teacher, for every row of a data set.

    If a call was killed, the same call continues it: intact shards are kept, the others are computed again, and the
    files are the same as without the interruption. The rows of a shard run in batches of similar length on the
    teacher's device; one shard is in memory. Several processes (`torchrun`) share the shards and write the same bytes;
    the call may be continued with another number of processes.

    Args:
        dataset: Tokenized rows, or rows with a column of text. Labels and other numeric columns are kept.
        teacher: A model, a `TeacherSource` that runs one, a Hub id or a folder (whose model is moved to the
            accelerator, if there is one).
        objectives: As for `DistillationTrainer`, or a `SignalRequest`.
        output_dir: Folder of the shards, of `manifest.json`, and of the teacher's configuration and tokenizer.
        processing_class: The teacher's tokenizer. Default: loaded, if the teacher is a Hub id or a folder.
        num_student_layers: Number of the student's layers, which decides the teacher's layers in maps such as
            `uniform`. Default: that of the teacher.
        dtype: dtype of the stored numbers.
        top_k: Store only this many of the largest logits of each distribution, and the logsumexp of the others. Logits
            over positions (start and end of an answer) are always stored completely. Default: all logits.
        teacher_dtype: dtype of the teacher, as for `LiveTeacher`.
        batch_size: Number of rows in a forward pass.
        shard_rows: Number of rows in a file.
        text_column: Column to tokenize if there are no `input_ids`.
        max_length: Largest number of tokens in a row, if text is tokenized.

    Returns:
        The folder, and how many rows and bytes were written.

    Raises:
        ValueError: If a setting is not possible, or `output_dir` was begun with other settings; the message names
            them.
        FolderInUseError: If another process writes there.
    """
    started = time.perf_counter()
    _check_settings(dtype, top_k, batch_size, shard_rows)
    configure_fp32_matmul()
    if processing_class is None:
        processing_class = _own_tokenizer(teacher)
    processes = PartialState()
    live = _running(teacher, teacher_dtype)
    request = _request(objectives, live, num_student_layers)
    live.request(request)
    with processes.main_process_first():
        rows = rows_to_store(dataset, processing_class, text_column, max_length)
    has_candidates = _has_candidates(rows)
    if has_candidates and request != SignalRequest(logits=True):
        raise ValueError(
            f"`--objectives` {objectives!r} need more than scores: of rows with candidates only these are stored."
        )
    short, long = (live.signals(_probe(live, length, has_candidates)) for length in PROBE_LENGTHS)
    signals = signals_of(short, long, dtype, top_k)
    config: Any = live.config
    _check_top_k(config, signals)
    manifest = {
        "format": FORMAT,
        "hf_distill": __version__,
        "source": live.source(),
        **live.fingerprint(),
        "teacher_dtype": live.dtype,
        "tokenizer": tokenizer_hash(processing_class),
        "model_type": live.model_type,
        "num_layers": live.num_layers,
        "labels": names_of_head(config),
        "request": request_fields(request),
        "signals": [signal.describe() for signal in signals],
        "dtype": dtype,
        "top_k": top_k,
        "dataset": hash_rows(rows),
        "max_length": max_length if IDS not in dataset.column_names else None,
        "rows": len(rows),
        "batch_size": batch_size,
        "shard_rows": shard_rows,
        SHARDS: {},
    }
    folder = Path(output_dir)
    with writing_to(folder):
        with processes.main_process_first():
            _begin(folder, manifest, live, processing_class)
        new_rows = sum(gather_object([_write_shards(folder, rows, live, signals, processing_class)]))
        if processes.is_main_process:
            gather_notes(folder)
        processes.wait_for_everyone()
    num_bytes = sum(path.stat().st_size for path in shard_paths(folder, manifest))
    done = Precomputed(str(folder), len(rows), new_rows, num_bytes, time.perf_counter() - started)
    say = logger.warning if processes.is_main_process else logger.info
    say(
        f"Stored teacher in {folder}: {done.rows:,} rows, {num_bytes / 1e6:,.1f} MB ({num_bytes / done.rows:,.0f} "
        f"bytes a row); {new_rows:,} rows computed now, {new_rows / done.seconds:,.1f} a second"
    )
    return done


def _check_settings(dtype: str, top_k: int | None, batch_size: int, shard_rows: int) -> None:
    if dtype not in STORE_DTYPES:
        raise ValueError(f"`--store_dtype` is {dtype!r}; allowed are {list(STORE_DTYPES)}.")
    for name, value in (("top_k", top_k), ("batch_size", batch_size), ("shard_rows", shard_rows)):
        if value is not None and value < 1:
            raise ValueError(f"`--{name}` is {value}; it must be at least 1.")


def _check_top_k(config: Any, signals: Sequence[StoredSignal]) -> None:
    """Refuse to leave out classes of which each is a question of its own: no mass is left for them to share."""
    shortened = any(signal.top_k is not None and signal.top_k < signal.width for signal in signals)
    if shortened and getattr(config, "problem_type", None) == "multi_label_classification":
        raise ValueError(
            "`--top_k` keeps the largest classes of one distribution, but the teacher's head has several labels a row "
            "(multi_label_classification), each a yes or no: leave it out."
        )


def _own_tokenizer(teacher: Any) -> Any:
    if not isinstance(teacher, (str, os.PathLike)):
        raise ValueError("Give the teacher's tokenizer as `processing_class`: a model does not know its own.")
    tokenizer = load_tokenizer(os.fspath(teacher), flag="--teacher_model")
    warn_of_other_rules(os.fspath(teacher), tokenizer)
    return tokenizer


def _running(teacher: Any, dtype: str) -> TeacherSource:
    """Return the teacher, which runs in this process."""
    live = open_teacher(teacher, flag="--teacher_model", dtype=dtype)
    if live.model is None or live.own_tokens is not None:
        raise ValueError(
            f"`--teacher_model` is {live.describe()}, but signals are stored of a model that runs here and reads the "
            "tokens of the rows as they are."
        )
    # A model stays where its owner put it; int8 computes on the CPU.
    if isinstance(teacher, (str, os.PathLike)) and dtype != "int8":
        live.to(PartialState().device)
    return live


def _request(objectives: Any, live: TeacherSource, num_student_layers: int | None) -> SignalRequest:
    """Return the signals of the teacher that the objectives need."""
    request = objectives if isinstance(objectives, SignalRequest) else SignalRequest()
    if not isinstance(objectives, SignalRequest):
        for item in build_objectives(objectives, {"teacher_model_type": live.model_type}):
            item.objective.bind(num_student_layers or live.num_layers or 0, live.num_layers)
            request = request | item.objective.teacher_request
    if not request:
        raise ValueError(f"`--objectives` {objectives!r} need nothing of a teacher: there is nothing to store.")
    return request


def _has_candidates(rows: datasets.Dataset) -> bool:
    """Whether each row is several sequences."""
    return hasattr(rows.features[IDS].feature, "feature")


def _probe(live: TeacherSource, length: int, has_candidates: bool) -> dict[str, torch.Tensor]:
    """One made-up row of so many tokens, or of so many candidates."""
    ids = torch.arange(length, device=live.device)[None]
    ids = ids[..., None].expand(1, length, PROBE_LENGTHS[0]) if has_candidates else ids
    return {IDS: ids, "attention_mask": torch.ones_like(ids)}


def _begin(folder: Path, manifest: Mapping[str, Any], live: TeacherSource, processing_class: Any) -> None:
    """Write everything but the shards, or compare with what an earlier call wrote.

    Raises:
        ValueError: If the folder was begun with other settings.
    """
    if (folder / MANIFEST_FILE).is_file():
        different = differences(read_manifest(folder), manifest)
        if different:
            raise ValueError(
                f"{str(folder)!r} holds signals that were stored with other settings ({different}). Continue with "
                "the same ones, or choose another `--output_dir`."
            )
        if PartialState().is_main_process:
            gather_notes(folder)
        return
    if any(folder.glob("*.arrow")):
        raise ValueError(f"{str(folder)!r} holds shards without {MANIFEST_FILE}: choose another `--output_dir`.")
    weights = sorted(path.name for path in folder.glob("*") if WEIGHTS.fullmatch(path.name))
    if weights:
        raise ValueError(
            f"{str(folder)!r} holds a model ({weights[0]}), whose configuration would be lost: choose another "
            "`--output_dir`."
        )
    model = without_adapters(live.model)
    config: Any = copy.deepcopy(live.config)
    config.architectures = [type(model).__name__]
    with new_files(folder) as part:
        config.save_pretrained(part)
        processing_class.save_pretrained(part)
    if live.head is not None:
        live.head.save(folder, config.hidden_size)
    # Last, so that a folder with a manifest has the rest.
    write_manifest(folder, manifest)


def _write_shards(
    folder: Path,
    rows: datasets.Dataset,
    live: TeacherSource,
    signals: Sequence[StoredSignal],
    processing_class: Any,
) -> int:
    """Compute the shards of this process that are missing or damaged; returns how many rows that were."""
    manifest, processes = read_manifest(folder), PartialState()
    number, made = processes.process_index, dict[str, Any]()
    columns = [column for signal in signals for column in signal.columns]
    features = datasets.Features({**rows.features, **{column.name: column.feature for column in columns}})
    pad: Any = DataCollatorWithPadding(processing_class)
    collator = partial(pad_lists, pad) if _has_candidates(rows) else pad
    size, done = manifest["shard_rows"], 0
    paths = list(enumerate(shard_paths(folder, manifest)))[number :: processes.num_processes]
    total = sum(min(size, len(rows) - index * size) for index, _ in paths)
    with tqdm(total=total, unit="row", desc="Storing the teacher's signals", disable=number > 0) as bar:
        for index, path in paths:
            start, end = index * size, min((index + 1) * size, len(rows))
            if is_whole(path, manifest):
                bar.update(end - start)
                continue
            if path.name in manifest[SHARDS]:
                what = "is not what was written" if path.is_file() else "is missing"
                logger.warning(f"{path} {what}: it is made anew.")
            part: Any = rows.with_format("arrow")[start:end]
            arrays = _compute(part, live, signals, collator, manifest["batch_size"], bar)
            table = pa.table({**dict(zip(part.column_names, part.columns, strict=True)), **arrays})
            _write_table(path, table.select(list(features)).cast(features.arrow_schema))
            made[path.name] = describe_file(path)
            note_shards(folder, made, number)
            done += end - start
    return done


def _compute(
    part: pa.Table,
    live: TeacherSource,
    signals: Sequence[StoredSignal],
    collator: Callable[[list[dict[str, Any]]], Mapping[str, torch.Tensor]],
    batch_size: int,
    bar: Any,
) -> dict[str, pa.Array]:
    """Return the columns of the signals for the rows of one shard, in their order."""
    lengths = np.asarray(part[LENGTH_COLUMN])
    # The longest first: what does not fit into memory fails at once.
    order = np.argsort(-lengths, kind="stable")
    inputs = part.select([n for n in part.column_names if n in live.input_columns and n != "labels"])
    parts: dict[Column, list[tuple[np.ndarray, np.ndarray]]] = {}
    for chosen in np.array_split(order, math.ceil(len(order) / batch_size)):
        padded = collator(inputs.take(chosen).to_pylist())
        batch = {name: tensor.to(live.device) for name, tensor in padded.items()}
        found, places = live.signals(batch), units_of(batch["attention_mask"])
        for signal in signals:
            for column, tensor in zip(signal.columns, signal.encode(found), strict=True):
                parts.setdefault(column, []).append(column.pack(tensor, places))
        bar.update(len(chosen))
    return {column.name: _ragged(pieces, order) for column, pieces in parts.items()}


def _ragged(pieces: Sequence[tuple[np.ndarray, np.ndarray]], order: np.ndarray) -> pa.LargeListArray:
    """Make one list per row of flat numbers and counts of rows that were taken in this order."""
    found = [row for values, counts in pieces for row in np.split(values, np.cumsum(counts)[:-1])]
    # Not Arrow's own `take`, which is twenty times slower on lists.
    rows = [found[position] for position in np.argsort(order, kind="stable")]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(rows)))


def _write_table(path: Path, table: pa.Table) -> None:
    """Write a shard whole or not at all; its bytes depend on its rows alone."""
    with new_file(path) as part, pa.OSFile(str(part), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=RECORD_ROWS)
