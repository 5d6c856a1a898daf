"""Runs the first batch of a distillation to report what would be trained, on which signals, and in how much memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hf_distill.capture.signals import SignalRequest
from hf_distill.kernels.cpu import packed_bytes
from hf_distill.objectives import Objective
from hf_distill.objectives.layer_map import format_layer_map
from hf_distill.settings import DistillationArguments
from hf_distill.trainers.callbacks import epochs_in

# Numbers that an optimizer stores for every trained weight; the default is AdamW's two.
OPTIMIZER_STATES = {"sgd": 0, "adafactor": 0}
FORMULA = (
    "weights and gradients as stored, two fp32 numbers of AdamW for each trained weight, teachers as stored and what "
    "was packed of them for the first batch, and what its backward pass keeps x (rows x max_length of a full batch) / "
    "(rows x length of the first); "
    "attention and relations grow faster than that with the length, buffers of libraries are left out"
)


def first_batch(trainer: Any, args: DistillationArguments) -> dict[str, Any]:
    """Run the first batch of a training forward, and stop.

    Args:
        trainer: A `DistillationTrainer` that has not been trained yet.
        args: Its arguments.

    Returns:
        `description`, `layers`, `signals`, `steps`, `batch`, the `terms` and `loss` of the first batch, and `memory`
        in bytes by part.
    """
    loader = trainer.get_train_dataloader()
    inputs = trainer._prepare_inputs(next(iter(loader)))
    trainer.fit_projections()
    trainer.model.train()
    *_, steps = trainer.set_initial_training_values(args, loader)
    trainer.model.count_epochs(epochs_in(steps, loader, args.gradient_accumulation_steps))
    trainer.model.set_progress(0.0)
    kept = _KeptForBackward(trainer.model)
    with trainer.compute_loss_context_manager(), kept:
        loss, outputs = trainer.compute_loss(trainer.model, inputs, return_outputs=True)
    rows, length = _shape(inputs)
    full = args.max_tokens_per_batch or args.per_device_train_batch_size * args.max_length
    return {
        "description": trainer.describe(),
        "layers": _layers(trainer.model.objectives),
        "signals": _signals(trainer.model.objectives),
        "steps": steps,
        "batch": {"rows": rows, "length": length, "tokens": int(inputs["attention_mask"].sum())},
        "loss": float(loss.detach()),
        "terms": {name: float(value) for name, value in outputs["terms"].items()},
        "memory": _memory(trainer, args, round(kept.num_bytes * full / (rows * length))),
    }


def format_dry_run(facts: Mapping[str, Any]) -> str:
    """Return the text that `--dry_run` prints."""
    batch, memory = facts["batch"], facts["memory"]
    settings = ", ".join(f"{name} {value}" for name, value in sorted(facts["settings"].items()))
    return "\n".join(
        [
            f"settings that differ from the defaults: {settings or 'none'}",
            "",
            facts["description"],
            "",
            f"first weights: {facts['first_weights']}",
            facts["sizes"],
            "",
            *(f"layers of {name}: {text}" for name, text in facts["layers"].items()),
            *(f"signals of the {side}: {text}" for side, text in facts["signals"].items()),
            "",
            f"{facts['rows']:,} rows, {facts['steps']:,} steps; first batch: {batch['rows']} rows of "
            f"{batch['length']} tokens, {batch['tokens']} real tokens",
            *(f"  {name} {value:.4f}" for name, value in facts["terms"].items()),
            f"  weighted sum {facts['loss']:.4f}",
            "",
            f"memory, about {sum(memory.values()) / 1e6:,.0f} MB:",
            *(f"  {name} {size / 1e6:,.0f} MB" for name, size in memory.items()),
            f"  ({FORMULA})",
            "",
            "Dry run: nothing was trained or written.",
        ]
    )


class _KeptForBackward(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that autograd saves for the backward pass, each storage once, without parameters."""

    def __init__(self, model: nn.Module) -> None:
        self.num_bytes = 0
        known = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}

        def keep(tensor: Tensor) -> Tensor:
            pointer = tensor.untyped_storage().data_ptr()
            if pointer not in known:
                known.add(pointer)
                self.num_bytes += tensor.untyped_storage().nbytes()
            return tensor

        super().__init__(keep, lambda tensor: tensor)


def _shape(inputs: Mapping[str, Any]) -> tuple[int, int]:
    """Number of rows and padded length of a batch."""
    rows, length = inputs["input_ids"].shape
    return rows, length


def _layers(objectives: Mapping[str, Any]) -> dict[str, str]:
    described = {name: objective.describe().get("layers") for name, objective in objectives.items()}
    return {
        name: format_layer_map([(student, teacher) for student, teacher in pairs])
        for name, pairs in described.items()
        if pairs
    }


def _signals(objectives: Mapping[str, Objective]) -> dict[str, str]:
    """Describe the signals that are recorded on each side: the union of what the objectives need."""
    return {
        "student": _describe(objective.student_request for objective in objectives.values()),
        "teacher": _describe(objective.teacher_request for objective in objectives.values()),
    }


def _describe(requests: Iterable[SignalRequest]) -> str:
    union = SignalRequest.union(requests)
    parts = {
        "hidden states": union.hidden_states,
        "queries, keys and values": union.projections,
        "attention scores": union.attention_scores,
    }
    found = [f"{name} of layers {', '.join(map(str, sorted(layers)))}" for name, layers in parts.items() if layers]
    return "; ".join([*found, *(["logits"] if union.logits else [])]) or "none"


def _memory(trainer: Any, args: DistillationArguments, activations: int) -> dict[str, int]:
    """Estimate the memory of the training in bytes, by part (`FORMULA`)."""
    parameters = list(trainer.model.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    optimizer = str(args.optim.value if hasattr(args.optim, "value") else args.optim)
    states = next((number for name, number in OPTIMIZER_STATES.items() if optimizer.startswith(name)), 2)
    # Several adapters share the weights of one base model.
    live = [teacher.model for teacher in trainer.teachers if teacher.model is not None]
    frozen = {id(parameter): parameter for model in live for parameter in model.parameters()}
    return {
        "student": _bytes(parameters),
        "gradients": _bytes(trained),
        "optimizer": 4 * states * sum(parameter.numel() for parameter in trained),
        "teachers": _bytes(frozen.values()),
        "packed weights": packed_bytes(live),
        "activations": activations,
    }


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
