"""The loss of a micro-batch of one task among many, computed inside the trained module.

DDP, autocast and checkpoints must include the parameters that are trained beside the model (learnt weights of tasks),
so a module around the model has them; the saved model does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hf_distill.capture.architectures import describe_architecture
from hf_distill.settings.mtl import MTLArguments, Noise
from hf_distill.tasks.spec import TaskSpec
from hf_distill.trainers.fine_tuning.heads import head_of
from hf_distill.trainers.multi_task.model import MultiTaskModel
from hf_distill.trainers.multi_task.teachers import shown_positions, soft_task_loss, without_padding
from hf_distill.trainers.multi_task.weighting import (
    GradientNormWeights,
    UncertaintyWeights,
    log_classes,
)


class MultiTaskLoss(nn.Module):
    """A model of many tasks with its losses around it.

    Attributes:
        model: What is trained and saved.
        weighting: Weights of the tasks, if they move.
        scales: Task -> what its loss is divided by.
    """

    def __init__(
        self, model: MultiTaskModel, specs: Mapping[str, TaskSpec], max_lengths: Mapping[str, int], args: MTLArguments
    ) -> None:
        """Put the losses around a model.

        Args:
            model: The model.
            specs: Task -> what it is.
            max_lengths: Task -> tokens of its longest row.
            args: Weights and choices.
        """
        super().__init__()
        self.model = model
        self.specs = dict(specs)
        self.args = args
        self.heads = {name: head_of(spec) for name, spec in self.specs.items()}
        scaled = args.loss_scaling == "log_classes"
        self.scales = {
            name: log_classes(spec, max_lengths[name]) if scaled else 1.0 for name, spec in self.specs.items()
        }
        self.weighting: UncertaintyWeights | GradientNormWeights | None = None
        if args.task_weighting == "uncertainty":
            self.weighting = UncertaintyWeights(list(self.specs))
        elif args.task_weighting == "gradient_norm":
            self.weighting = GradientNormWeights(list(self.specs), args.gradient_norm_alpha)
            self._last_shared = list(describe_architecture(model.plain_encoder).layer_list()[-1].parameters())
        self._progress = 0.0
        # FSDP shards by them, where accelerate's configuration names no classes.
        layers = describe_architecture(model.plain_encoder).layer_list()
        self._no_split_modules = {type(layer).__name__ for layer in layers}

    @property
    def config(self) -> Any:
        """Configuration of the encoder."""
        return self.model.config

    def activation_checkpointing_enable(self, **kwargs: Any) -> None:
        """As on the encoder; heads are small and keep what they compute."""
        self.model.plain_encoder.activation_checkpointing_enable(**kwargs)

    def set_progress(self, progress: float) -> None:
        """Share of the training that is over, for annealing."""
        self._progress = progress

    def label_weights(self) -> tuple[float, float]:
        """Weights of labels and of teachers in a task that has teachers (BAM, section 2.2)."""
        if self.args.teacher_annealing:
            return self._progress, 1.0 - self._progress
        return self.args.hard_label_weight, self.args.soft_label_weight

    def forward(
        self, task: str, labels: Tensor, targets: Mapping[str, Tensor] | None = None, **inputs: Tensor
    ) -> dict[str, Any]:
        """Loss of one micro-batch.

        Args:
            task: Its task.
            labels: As the task's collator gives them.
            targets: The teachers' logits by name; empty without teachers.
            inputs: What the model reads.

        Returns:
            `loss`, the mean over the rows, scaled and weighted; `terms`: the task's own loss, `hard` and, with
            teachers or R3F, `soft` and `r3f`, detached.
        """
        mask = inputs.get("attention_mask")
        outputs = self.model(task, **inputs)
        terms = {"hard": self._hard(task, outputs, labels, mask)}
        spec, found = self.specs[task], without_padding(outputs, mask)
        if targets:
            teachers = without_padding(targets, mask)
            terms["soft"] = soft_task_loss(
                spec,
                found,
                teachers,
                self.args.temperature,
                shown_positions(spec, labels),
                scale_by_squared_temperature=self.args.scale_by_squared_temperature,
            )
        if self.training and self.args.r3f_lambda > 0 and spec.problem_type != "regression":
            noisy = without_padding(self._noisy(task, inputs), mask)
            if spec.several_labels:
                found, noisy = as_questions(found), as_questions(noisy)
            terms["r3f"] = r3f_loss(found, noisy, shown_positions(spec, labels))
        loss = self._sum(terms) / self.scales[task]
        loss = self._weigh(task, loss)
        return {"loss": loss, "terms": {name: value.detach() for name, value in terms.items()}}

    def _hard(self, task: str, outputs: Any, labels: Tensor, mask: Tensor | None) -> Tensor:
        total, count = self.heads[task].loss(outputs, labels, self.args.label_smoothing_factor, mask)
        return total / count.clamp(min=1)

    def _noisy(self, task: str, inputs: Mapping[str, Tensor]) -> Any:
        """Outputs from embeddings with noise."""
        embed = self.model.plain_encoder.get_input_embeddings()
        noisy = disturbed(embed(inputs["input_ids"]), self.args.r3f_epsilon, self.args.r3f_noise)
        rest = {name: value for name, value in inputs.items() if name != "input_ids"}
        return self.model(task, inputs_embeds=noisy, **rest)

    def _sum(self, terms: Mapping[str, Tensor]) -> Tensor:
        hard, soft = self.label_weights() if "soft" in terms else (1.0, 0.0)
        loss = hard * terms["hard"]
        if "soft" in terms:
            loss = loss + soft * terms["soft"]
        if "r3f" in terms:
            loss = loss + self.args.r3f_lambda * terms["r3f"]
        return loss

    def _weigh(self, task: str, loss: Tensor) -> Tensor:
        if self.weighting is None or not torch.is_grad_enabled():
            return loss
        if isinstance(self.weighting, GradientNormWeights):
            self.weighting.observe(task, loss, [weight for weight in self._last_shared if weight.requires_grad])
        return self.weighting(task, loss)

    def current_weights(self) -> Mapping[str, float]:
        """Factor on each task's loss; nothing where all are equal."""
        return {} if self.weighting is None else self.weighting.weights()


# ---- R3F: predictions that stay the same when the embeddings are disturbed (Aghajanyan et al. 2020) ----


def disturbed(embeddings: Tensor, epsilon: float, noise: Noise) -> Tensor:
    """Embeddings (B, T, H) with noise: uniform in [-epsilon, epsilon], or normal with deviation epsilon."""
    drawn = torch.empty_like(embeddings)
    drawn = drawn.uniform_(-epsilon, epsilon) if noise == "uniform" else drawn.normal_(0.0, epsilon)
    return embeddings.detach() + drawn


def as_questions(outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Logits (B, C) of several labels a row as those of C questions with the answers yes and no, (B, C, 2)."""
    return {name: torch.stack((value, torch.zeros_like(value)), -1) for name, value in outputs.items()}


def symmetric_divergence(clean: Tensor, noisy: Tensor) -> Tensor:
    """`KL(p | q) + KL(q | p)` of two sets of logits (..., C), summed over the classes; returns (...)."""
    log_p, log_q = clean.float().log_softmax(-1), noisy.float().log_softmax(-1)
    forward = functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    return forward + functional.kl_div(log_p, log_q, reduction="none", log_target=True).sum(-1)


def r3f_loss(clean: Any, noisy: Any, shown: Tensor | None) -> Tensor:
    """Mean divergence of a head's outputs with and without noise.

    Args:
        clean: Outputs by name, `logits` or `start_logits` and `end_logits`.
        noisy: The same with noise.
        shown: Which distributions count, of the shape of the outputs without their classes; `None`: all.
    """
    names = [name for name in ("logits", "start_logits", "end_logits") if clean.get(name) is not None]
    parts = []
    for name in names:
        values = symmetric_divergence(clean[name], noisy[name])
        parts.append(values.mean() if shown is None else (values * shown).sum() / shown.sum().clamp(min=1))
    return torch.stack(parts).mean()
