"""Fit the head of a masked language model on an encoder that has none.

Only the masked tokens go through the head; the encoder is a fixed source of features unless it is to learn too.

Shape legend: N masked tokens, V vocabulary.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from ...capture.masked_logits import logits_at
from ...kernels.precision import configure_fp32_matmul
from ...settings import DistillationArguments
from ..distillation.text import length_grouped_sampler
from ..distillation.trainer import DistillationTrainer
from ..drop_in import check_kind, refuse_given, settled

# What a label is where nothing was masked.
UNMASKED = -100


class MaskedHeadTrainer(DistillationTrainer):
    """Trains a masked language model on tokens that its collator masks (`args.mlm_probability`), without a teacher."""

    def __init__(
        self, model: Any, args: DistillationArguments, *places: Any, freeze_encoder: bool, **kwargs: Any
    ) -> None:
        """As `DistillationTrainer`.

        Args:
            model: A model of `AutoModelForMaskedLM`.
            args: Its `mlm_probability` must be given.
            places: What follows the arguments in `Trainer`, in its order.
            freeze_encoder: Whether only the head learns. The word embeddings that it is tied to are the encoder's.
            kwargs: Whatever else `DistillationTrainer` takes.

        Raises:
            ValueError: If there are several processes or devices.
        """
        if args.world_size > 1 or args.n_gpu > 1:
            raise ValueError(
                f"A masked-LM head is fitted by one process on one device, but there are {args.world_size} processes "
                f"and {args.n_gpu} GPUs: start it without torchrun, with CUDA_VISIBLE_DEVICES=0."
            )
        check_kind(args)
        names = list(inspect.signature(Trainer.__init__).parameters)[3:]
        given = dict(zip(names, places, strict=False)) | kwargs
        no_effect = ("compute_loss_func", "compute_metrics", "preprocess_logits_for_metrics")
        refuse_given(
            "MaskedHeadTrainer measures the masked tokens alone",
            {name: given.get(name) for name in no_effect}
            | {"label_smoothing_factor": getattr(args, "label_smoothing_factor", 0) or None},
        )
        self.freeze_encoder = freeze_encoder
        model.base_model.requires_grad_(not freeze_encoder)
        # Our defaults, though nothing is distilled.
        args = settled(args, DistillationArguments, distilling=True)
        configure_fp32_matmul(args.fp32_matmul)
        super().__init__(model, args, *places, objectives=[], **kwargs)

    @property
    def stops_if_not_finite(self) -> bool:
        """Whether numbers that are not finite end the training: always."""
        return True

    def outputs_of(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The logits of the masked tokens."""
        return {"logits": self._masked(self.model, batch)[0]}

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        sampler = length_grouped_sampler(self.train_dataset, self.args, lambda: int(self.state.epoch or 0))
        return sampler if sampler is not None else super()._get_train_sampler(train_dataset)

    def input_folders(self) -> dict[str, Any]:
        """The folder that the encoder was loaded from."""
        return {"encoder": self.model.name_or_path}

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Cross-entropy of the masked tokens, a mean over those of the whole optimizer step."""
        if self.freeze_encoder:
            # Its dropout would only make noise.
            model.base_model.eval()
        logits, labels = self._masked(model, inputs)
        total = nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
        loss = total / (max(1, len(labels)) if num_items_in_batch is None else num_items_in_batch)
        return (loss, {"logits": logits}) if return_outputs else loss

    @torch.no_grad()
    def masked_accuracy(self) -> dict[str, float]:
        """Return the share of masked tokens of the evaluation rows that are found, and their mean cross-entropy."""
        model: Any = self.model
        model.eval()
        count, right, total = 0, 0, 0.0
        for batch in self.get_eval_dataloader():
            logits, labels = self._masked(model, self._prepare_inputs(batch))
            count += len(labels)
            right += int((logits.argmax(dim=-1) == labels).sum())
            total += float(nn.functional.cross_entropy(logits.float(), labels, reduction="sum"))
        return {
            "masked_tokens": count,
            "masked_accuracy": round(right / max(1, count), 4),
            "masked_loss": round(total / max(1, count), 4),
        }

    def _masked(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """(N, V) logits and (N,) labels."""
        labels = inputs["labels"]
        rows, positions = (labels != UNMASKED).nonzero(as_tuple=True)
        given = {name: value for name, value in inputs.items() if name != "labels"}
        return logits_at(model, given, rows, positions), labels[rows, positions]
