"""`GenerationTrainer`: trains an encoder to generate text, and generates (UniLM; MiniLM's supplement, section 5)."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
import xxhash
from torch import Tensor
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainingArguments

from hf_distill.capture.batch import shown_cells
from hf_distill.generation.decoding import beam_search
from hf_distill.generation.model import EncoderForGeneration
from hf_distill.generation.packing import SpecialIds, pack
from hf_distill.generation.settings import GenerationSettings
from hf_distill.kernels.cpu import configure_fp32_matmul
from hf_distill.settings import GenerationTrainingArguments
from hf_distill.tasks.catalogue.generation import GENERATION_DEFAULTS
from hf_distill.tasks.rows.text import LENGTH_COLUMN
from hf_distill.trainers.base import (
    random_state_kept,
    refuse_data_parallel,
)
from hf_distill.trainers.fine_tuning.trainer import FineTuningTrainer
from hf_distill.trainers.signature import refuse_settings, takes_what_trainer_takes

# Settings of `Trainer` that have no use here -> reason.
UNUSED = {
    "bf16_full_eval": "the loss is measured with the weights that it trains; `--bf16` is for both",
    "fp16_full_eval": "the loss is measured with the weights that it trains; `--fp16` is for both",
    "use_liger_kernel": "the loss is the model's own",
    "include_for_metrics": "an evaluation is the loss alone",
    "batch_eval_metrics": "an evaluation is the loss alone",
    "label_names": "the labels are the tokens of `target`",
}


@dataclass(frozen=True)
class PackingCollator:
    """Packs rows of `source` and `target` into batches.

    The noise of the masks comes from a generator that is seeded with `seed` and the rows of the batch, as in
    `MaskingCollator`, so a resumed training sees the same batches as an uninterrupted one.

    Attributes:
        ids: The special ids.
        way: `pseudo` or `shift`.
        max_source_length: Maximum tokens of a source.
        max_target_length: Maximum tokens of a target.
        noise: Whether some masks are replaced by tokens, as in training.
        seed: Seed of the noise.
    """

    ids: SpecialIds
    way: str
    max_source_length: int
    max_target_length: int
    noise: bool = True
    seed: int = 0

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Make one batch."""
        sources, targets = ([list(map(int, row[name])) for row in rows] for name in ("source", "target"))
        noise = None
        if self.noise:
            digest = xxhash.xxh3_64(json.dumps([sources, targets]).encode(), seed=self.seed)
            # Seeds of generators have 63 bits.
            noise = torch.Generator().manual_seed(digest.intdigest() >> 1)
        lengths = {"max_source_length": self.max_source_length, "max_target_length": self.max_target_length}
        return pack(self.way, sources, targets, self.ids, **lengths, noise=noise)

    def without_noise(self) -> PackingCollator:
        """Return the collator for evaluation."""
        return PackingCollator(self.ids, self.way, self.max_source_length, self.max_target_length, noise=False)


def with_lengths(rows: datasets.Dataset) -> datasets.Dataset:
    """Add `length`, the number of tokens of source and target, by which rows are batched."""
    if LENGTH_COLUMN in rows.column_names:
        return rows
    pairs = zip(rows["source"], rows["target"], strict=True)
    return rows.add_column(LENGTH_COLUMN, [len(source) + len(target) + 3 for source, target in pairs])


class GenerationTrainer(FineTuningTrainer):
    """Trains an `EncoderForGeneration` on tokenized rows, measures its loss, and generates texts with it.

    It saves the masked language model, its tokenizer and its settings; `EncoderForGeneration.from_pretrained` loads
    them, also from checkpoints.
    """

    model: Any

    @takes_what_trainer_takes("GenerationTrainer packs its rows itself and measures the model's own loss")
    def __init__(
        self,
        model: EncoderForGeneration,
        args: TrainingArguments | None = None,
        train_dataset: datasets.Dataset | None = None,
        eval_dataset: datasets.Dataset | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        *,
        max_source_length: int | None = None,
        max_target_length: int | None = None,
    ) -> None:
        """Make the trainer.

        The positional arguments are those of `Trainer`; additional arguments are keyword-only. `data_collator`,
        `model_init` and functions for losses and scores are refused: rows are packed here, and the loss is the model's
        own.

        Args:
            model: The model.
            args: Settings of the training; `label_smoothing_factor` spreads over all tokens but gold and padding.
                Fields that `GenerationTrainingArguments` leave unset get XSum's values.
            train_dataset: Rows of `tokenize_generation`: `source` and `target`, ids without special tokens at the
                ends.
            eval_dataset: Rows of the same form, for the loss.
            processing_class: The model's tokenizer; `None` takes that of the model.
            callbacks: As in `Trainer`.
            optimizers: As in `Trainer`.
            optimizer_cls_and_kwargs: As in `Trainer`.
            max_source_length: Maximum tokens of a source; `None` takes that of the model's settings.
            max_target_length: Maximum tokens of a text; `None` takes that of the model's settings.

        Raises:
            TypeError: If `args` is not a `TrainingArguments`.
            ValueError: If the model has no room for rows of these lengths, there is no tokenizer, one process has
                several devices, or an argument is refused or would have no effect.
        """
        own: Any = args if args is not None else GenerationTrainingArguments("trainer_output")
        refuse_settings("a training that writes", own, UNUSED)
        refuse_data_parallel(own)
        if isinstance(own, GenerationTrainingArguments):
            own = own.with_generation_defaults(GENERATION_DEFAULTS, model.config.num_hidden_layers)
        tokenizer = model.tokenizer if processing_class is None else processing_class
        if tokenizer is None:
            raise ValueError("The model was loaded without a tokenizer: give it as `processing_class`.")
        configure_fp32_matmul(getattr(own, "fp32_matmul", "auto"))
        model.tokenizer = tokenizer
        source_length = model.settings.max_source_length if max_source_length is None else max_source_length
        target_length = model.settings.max_new_tokens if max_target_length is None else max_target_length
        if source_length + target_length > model.max_length:
            raise ValueError(
                f"`--max_source_length` {source_length} and `--max_target_length` {target_length} need "
                f"{source_length + target_length} positions, but the model has {model.max_length}: give smaller ones, "
                "or lengthen the model."
            )
        model.label_smoothing = float(own.label_smoothing_factor or 0.0)
        own = copy.copy(own)
        # The loss is the model's own, and `forward` does not take all columns of the rows.
        own.label_smoothing_factor, own.remove_unused_columns = 0.0, False
        if own.ddp_find_unused_parameters is None:
            # A masked language model has no unused parameters.
            own.ddp_find_unused_parameters = False
        seed = own.seed if own.data_seed is None else own.data_seed
        super().__init__(
            model=model,
            args=own,
            data_collator=PackingCollator(model.ids, model.way, source_length, target_length, seed=seed),
            train_dataset=None if train_dataset is None else with_lengths(train_dataset),
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
        )

    # ---- Loss ----

    def outputs_of(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return the logits of the target tokens."""
        return {"logits": self.model(**batch).logits}

    def get_eval_dataloader(self, eval_dataset: Any = None) -> torch.utils.data.DataLoader:
        """Return batches without noise."""
        collator: Any = self.data_collator
        self.data_collator = collator.without_noise()
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = collator

    @torch.no_grad()
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return the cross-entropy of the target tokens, without label smoothing: a mean over the tokens of all rows.

        Raises:
            ValueError: If there are no rows.
        """
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        if not isinstance(rows, datasets.Dataset):
            raise ValueError(
                "The loss is measured on one data set of `tokenize_generation`: give it as `eval_dataset`."
            )
        # Batching by length saves padding; a mean over tokens does not depend on the order.
        rows = with_lengths(rows)
        rows = rows.select(np.argsort(-np.asarray(rows[LENGTH_COLUMN]), kind="stable"))
        training = self.model.training
        self.model.eval()
        try:
            with random_state_kept(self.args.device):
                sums = [
                    self.accelerator.gather_for_metrics(self._row_losses(self._prepare_inputs(batch)))
                    for batch in self.get_eval_dataloader(rows)
                ]
        finally:
            self.model.train(training)
        total, count = torch.cat(sums).double().sum(dim=0).tolist()
        metrics = {f"{metric_key_prefix}_loss": total / max(1.0, count), f"{metric_key_prefix}_tokens": count}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _row_losses(self, batch: dict[str, Tensor]) -> Tensor:
        """Return (B, 2): summed cross-entropy and number of the target tokens of every row."""
        labels = batch["labels"]
        rows, columns = shown_cells(labels)
        with self.compute_loss_context_manager(), self.accelerator.autocast():
            logits = self.model(**batch).logits
        losses = torch.nn.functional.cross_entropy(logits.float(), labels[rows, columns], reduction="none")
        found = torch.zeros(len(labels), 2, device=losses.device)
        return found.index_add_(0, rows, torch.stack([losses, torch.ones_like(losses)], dim=1))

    # ---- Texts ----

    def predict(self, test_dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """Refused, because token scores are not texts.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "GenerationTrainer generates texts: call `predict_texts(rows)` for one of every row, in their order, or "
            "`evaluate(rows)` for the loss."
        )

    def predict_texts(self, rows: datasets.Dataset, settings: GenerationSettings | None = None) -> list[str]:
        """Return the generated texts for rows of `tokenize_generation`, in order."""
        found = dict(pair for batch in self.iter_texts(rows, settings) for pair in batch)
        return [found[number] for number in range(len(rows))]

    def iter_texts(
        self, rows: datasets.Dataset, settings: GenerationSettings | None = None, *, known: Collection[int] = ()
    ) -> Iterator[list[tuple[int, str]]]:
        """Yield the same texts in batches, with row numbers; sources of similar length are batched, longest first.

        Args:
            rows: Rows of `tokenize_generation`.
            settings: Settings of the generation; `None` takes the model's own.
            known: Numbers of rows to skip, because their texts exist already.
        """
        settings = self.model.settings if settings is None else settings
        sources = rows.with_format(None)["source"][:]
        order = sorted(range(len(sources)), key=lambda number: (-len(sources[number]), number))
        tokenizer: Any = self.processing_class
        known = set(known)
        for start in range(0, len(order), settings.batch_size):
            numbers = [number for number in order[start : start + settings.batch_size] if number not in known]
            if not numbers:
                continue
            written = beam_search(
                self.model, [list(sources[number]) for number in numbers], settings, tokenizer=tokenizer
            )
            texts = tokenizer.batch_decode(written, skip_special_tokens=True)
            yield [(number, text.strip()) for number, text in zip(numbers, texts, strict=True)]

    # ---- Saving ----

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Write the files for `EncoderForGeneration.from_pretrained`."""
        if self.args.should_save:
            self.model.save_pretrained(output_dir if output_dir is not None else str(self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Read the weights of the masked language model, the only weights in a checkpoint.

        Raises:
            OSError: If the checkpoint does not exist.
            ValueError: If it was trained in another way.
        """
        stored = EncoderForGeneration.from_pretrained(
            resume_from_checkpoint, self.processing_class, flag="--resume_from_checkpoint"
        )
        if stored.way != self.model.way:
            raise ValueError(
                f"`--resume_from_checkpoint` {resume_from_checkpoint!r} was trained with `--way` {stored.way!r}, and "
                f"`--way` is {self.model.way!r}."
            )
        self.model.masked_lm.load_state_dict(stored.masked_lm.state_dict())

    def _load_best_model(self) -> None:
        self.checkpoints.check_best(self.state.best_model_checkpoint)
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))
