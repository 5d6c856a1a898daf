"""Fit the head of a masked language model on an encoder that has none.

Only the masked tokens go through the head; the encoder is a fixed source of features unless it is to learn too.

Shape legend: N masked tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

from ...capture.batch import shown_cells
from ...capture.forward import logits_at
from ...kernels.cpu import configure_fp32_matmul
from ...settings import MaskedHeadArguments
from ...settings.distill import filled_up
from ..base import BaseTrainer
from ..distillation.collators import MaskingCollator, masking_collator
from ..signature import refuse_settings, takes_what_trainer_takes

# Settings of `Trainer` without a use here -> why.
UNUSED = {
    "label_smoothing_factor": "the loss is the plain cross-entropy of the masked tokens",
    "use_liger_kernel": "its kernels put the loss into the model, and only masked tokens go through the head here",
}


class MaskedHeadTrainer(BaseTrainer):
    """Trains a masked language model on tokens that it masks (`args.mlm_probability`), without a teacher."""

    @takes_what_trainer_takes("MaskedHeadTrainer measures the masked tokens alone")
    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        data_collator: Callable[..., Any] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        *,
        freeze_encoder: bool,
    ) -> None:
        """Make the trainer; whatever else `Trainer` takes is refused.

        Args:
            model: A model of `AutoModelForMaskedLM`.
            args: `MaskedHeadArguments`, or plain `TrainingArguments`.
            data_collator: Masks tokens, by default as BERT does.
            train_dataset: Tokenized rows.
            eval_dataset: Likewise, for `masked_accuracy`.
            processing_class: The model's tokenizer.
            callbacks: As in `Trainer`.
            optimizers: As in `Trainer`.
            freeze_encoder: Whether only the head learns. The word embeddings that it is tied to are the encoder's.

        Raises:
            ValueError: If there are several processes or devices, or an argument is given that is refused.
        """
        if args.world_size > 1 or args.n_gpu > 1:
            raise ValueError(
                f"A masked-LM head is fitted by one process on one device, but there are {args.world_size} processes "
                f"and {args.n_gpu} GPUs: start it without torchrun, with CUDA_VISIBLE_DEVICES=0."
            )
        refuse_settings("a masked-LM head", args, UNUSED)
        self.freeze_encoder = freeze_encoder
        model.base_model.requires_grad_(not freeze_encoder)
        own = args if isinstance(args, MaskedHeadArguments) else filled_up(MaskedHeadArguments, args)
        configure_fp32_matmul(own.fp32_matmul)
        super().__init__(
            model,
            own,
            data_collator or masking_collator(own, processing_class, []),
            train_dataset,
            eval_dataset,
            processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
        )

    def outputs_of(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The logits of the masked tokens."""
        return {"logits": self._masked(self.model, batch)[0]}

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

    def get_eval_dataloader(self, eval_dataset: Any = None) -> torch.utils.data.DataLoader:
        """Batches in which each row is masked by itself, so that no size of the batches changes a score."""
        collator = self.data_collator
        self.data_collator = collator.of_each_row() if isinstance(collator, MaskingCollator) else collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = collator

    @torch.no_grad()
    def masked_accuracy(self) -> dict[str, float]:
        """Return the share of masked tokens of the evaluation rows that are found, and their mean cross-entropy.

        Raises:
            ValueError: If no token is masked.
        """
        model: Any = self.model
        model.eval()
        count, right, total = 0, 0, 0.0
        for batch in self.get_eval_dataloader():
            logits, labels = self._masked(model, self._prepare_inputs(batch))
            count += len(labels)
            right += int((logits.argmax(dim=-1) == labels).sum())
            total += float(nn.functional.cross_entropy(logits.float(), labels, reduction="sum"))
        if count == 0:
            raise ValueError(
                "No token of the evaluation rows is masked, so nothing is measured: hold back more rows "
                "(`--textbook_eval_rows`), or longer ones."
            )
        return {
            "masked_tokens": count,
            "masked_accuracy": round(right / count, 4),
            "masked_loss": round(total / count, 4),
        }

    def _masked(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """(N, V) logits and (N,) labels."""
        labels = inputs["labels"]
        rows, positions = shown_cells(labels)
        given = {name: value for name, value in inputs.items() if name != "labels"}
        return logits_at(model, given, rows, positions), labels[rows, positions]
