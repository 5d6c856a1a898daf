"""Exports a model to ONNX, in fp32 and int8, and reports the change in quality."""

from __future__ import annotations

import logging
import shlex
import tempfile
import time
from pathlib import Path
from typing import Any

from torch import nn

from hf_distill.capture.signals import check_weights
from hf_distill.commands.folders import check_folders
from hf_distill.commands.results import finish
from hf_distill.commands.student_facts import exported_facts, write_card
from hf_distill.commands.teach import load_task_from
from hf_distill.hub.loading import load_model, load_tokenizer
from hf_distill.hub.selection import EXPORT_FILE, checksum_of_weights
from hf_distill.reports.onnx.onnx_export import VectorModel, export_onnx, largest_difference, quantize_onnx
from hf_distill.reports.onnx.onnx_model import INT8_FILE, ONNX_FILE, OnnxModel
from hf_distill.reports.speed.latency import weight_bytes
from hf_distill.reports.speed.quality import ONNX_FOLDER
from hf_distill.settings import ExportArguments, FineTuningArguments, ScoredTaskArguments
from hf_distill.storage.files import close_path, new_files
from hf_distill.storage.steps import writing_to
from hf_distill.students.sentence import read_head
from hf_distill.tasks.loading import LoadedTask
from hf_distill.trainers.fine_tuning.trainer import evaluate_model

logger = logging.getLogger(__name__)


def run(task: ScoredTaskArguments, arguments: ExportArguments) -> dict[str, Any]:
    """Export a model to ONNX and compare the files with the model.

    Writes to the output folder: `model.onnx`, `model_quantized.onnx`, configuration and tokenizer, `export.json`,
    `arguments.yaml` and a card.

    Args:
        task: A task for scoring PyTorch, ONNX and int8, if one is named.
        arguments: The model, and the settings of the export.

    Returns:
        The content of `export.json`: `difference` and `int8_difference` (largest absolute difference of any output
        from PyTorch's), `bytes`, and with a task `scores` and `points` (score minus PyTorch's, in points of 100).

    Raises:
        ValueError: If the ONNX file differs from the model by more than `arguments.tolerance`.
        ImportError: If a package of the extra `onnx` is missing.
    """
    folder = _output_dir(arguments)
    # The files may lie in a subfolder of the model's folder.
    check_folders([task, arguments], "--output_dir", folder, (), inside=True)
    with writing_to(folder):
        return _export(task, arguments, folder)


def summary(results: dict[str, Any]) -> str:
    """Report the size and score of every file, and how far its outputs are from PyTorch's."""
    lines = []
    for name, size in results["bytes"].items():
        score = f"; {results['metric']} {results['scores'][name]:.4f}" if "scores" in results else ""
        lines.append(f"{name}: {size / 1e6:.1f} MB{score}")
    lines.append(f"largest difference from PyTorch {results['difference']:.1e}; files in {results['folder']}")
    folder, model = Path(results["folder"]), Path(results["model"])
    # Files inside the model's own folder are pushed together with it.
    pushed = model if folder == model / ONNX_FOLDER else folder
    lines.append(f"go on with: hf-distill push {shlex.quote(str(pushed))} USER/NAME --dry_run")
    return "\n".join(lines)


def _export(task: ScoredTaskArguments, arguments: ExportArguments, folder: Path) -> dict[str, Any]:
    started = time.perf_counter()
    head = read_head(arguments.model, arguments.revision)
    if head is not None and task.task is not None:
        raise ValueError(
            f"`--task` {task.task!r}: files of a sentence encoder are compared by their vectors, not scored; leave it "
            "out, and score the model by `hf-distill evaluate`."
        )
    # Load the rows before the export, which takes a while.
    rows = None if task.task is None else load_task_from(task, seed=42, splits="evaluation")
    model = load_model(arguments.model, flag="--model", revision=arguments.revision).eval()
    check_weights(model, f"Nothing is exported: `--model` {arguments.model!r}, whose")
    tokenizer = load_tokenizer(arguments.model, flag="--model", revision=arguments.revision)
    difference = export_onnx(model, folder, tokenizer, head=head, tolerance=arguments.tolerance)
    whole = model if head is None else VectorModel(model, head)
    with new_files(folder) as part:
        model.config.save_pretrained(part)
        tokenizer.save_pretrained(part)
    files: dict[str, nn.Module] = {"onnx": OnnxModel(folder / ONNX_FILE, model.config)}
    sizes = {"pytorch": weight_bytes(model), "onnx": sum(file.stat().st_size for file in folder.glob(f"{ONNX_FILE}*"))}
    int8_difference = None
    if arguments.quantize:
        quantize_onnx(folder, reduce_range=arguments.reduce_range)
        exported = OnnxModel(folder / INT8_FILE, model.config)
        int8_difference, sizes["onnx_int8"] = largest_difference(whole, exported), exported.path.stat().st_size
        files["onnx_int8"] = exported
    facts = {
        "job": "export",
        "model": arguments.model,
        "weights": checksum_of_weights(arguments.model),
        "folder": str(folder),
        "files": sorted(path.name for path in folder.glob("*.onnx*")),
        "difference": difference,
        "int8_difference": int8_difference,
        "bytes": sizes,
        **_scores(task, rows, arguments, {"pytorch": model, **files}, tokenizer),
    }
    finish(folder, facts, started, task, arguments, name=EXPORT_FILE)
    write_card(folder, exported_facts(model, tokenizer, arguments.model, facts))
    return facts


def _output_dir(arguments: ExportArguments) -> Path:
    if arguments.output_dir is not None:
        return Path(arguments.output_dir)
    if not Path(arguments.model).is_dir():
        raise ValueError(
            f"`--model` {arguments.model!r} is not a local folder, so the files cannot go inside it: name another "
            f"folder with `--output_dir`.{close_path(arguments.model)}"
        )
    return Path(arguments.model) / ONNX_FOLDER


def _scores(
    task: ScoredTaskArguments,
    rows: LoadedTask | None,
    arguments: ExportArguments,
    models: dict[str, nn.Module],
    tokenizer: Any,
) -> dict[str, Any]:
    """The headline score of every model on the task, if one is named."""
    if rows is None:
        return {}
    spec = rows.spec
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        training = FineTuningArguments(
            output_dir=scratch,
            use_cpu=True,
            report_to="none",
            per_device_eval_batch_size=arguments.eval_batch_size,
        )
        for name, model in models.items():
            logger.warning(f"scoring {name} on {spec.name}")
            scores = evaluate_model(
                model,  # type: ignore[arg-type]
                rows,
                tokenizer,
                training,
                max_length=task.max_length,
                doc_stride=task.doc_stride,
                name=f"`--model` {arguments.model!r}",
            )
            found[name] = scores[spec.headline_split][spec.headline]
    return {
        "task": spec.name,
        "metric": spec.headline,
        "split": spec.headline_split,
        "rows": len(rows.evaluation[spec.headline_split]),
        "scores": found,
        "points": {name: 100 * (score - found["pytorch"]) for name, score in found.items() if name != "pytorch"},
    }
