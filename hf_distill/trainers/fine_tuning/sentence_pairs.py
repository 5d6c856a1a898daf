"""Fine-tunes a sentence encoder on scored pairs, so that its cosines have the order of the scores (CoSENT).

Shape legend: B pairs, T padded length, D numbers of a vector.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar, cast

import datasets
import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModel, DataCollatorWithPadding, EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase

from hf_distill.capture.batch import as_single_rows, pad_lists
from hf_distill.objectives.features import unit_vectors
from hf_distill.settings import FineTuningArguments
from hf_distill.students.sentence import SentenceHead, encode_texts
from hf_distill.tasks.loading import LoadedTask
from hf_distill.tasks.rows.text import LENGTH_COLUMN, remember_length, say_rows_cut
from hf_distill.tasks.spec import TaskSpec
from hf_distill.tasks.vectors import Pairs, cosine_correlations, pairs_of
from hf_distill.trainers.fine_tuning.heads import Collator, TaskHead
from hf_distill.trainers.fine_tuning.trainer import (
    FineTuningResult,
    Scores,
    build_trainer,
    fit,
    labelled_rows,
    save_model,
)

# Cosines are multiplied by it before they are compared (CoSENT's own 20, a temperature of 0.05).
SCALE = 20.0


def learns_vectors(spec: TaskSpec) -> bool:
    """Whether a sentence encoder learns a task by its vectors: pairs of texts with a number. Classes need a head."""
    return spec.problem_type == "regression" and len(spec.text_columns) == 2


def cosent(cosines: Tensor, likeness: Tensor, scale: float = SCALE) -> Tensor:
    """CoSENT: of two pairs the one that is more alike should have the larger cosine.

    `log(1 + sum over (i, j) with y_i > y_j of exp(scale (c_j - c_i)))` (Su 2022), the loss that sentence-transformers
    recommends for pairs with scores. The pairs of a batch are compared with each other: accumulation does not make
    them more.

    Args:
        cosines: (B,) of the vectors of each pair.
        likeness: (B,) gold numbers, of which the order alone counts.
        scale: Factor of the cosines.

    Returns:
        A scalar, 0 where no two pairs differ.
    """
    scaled = cosines.float() * scale
    # Row i, column j: c_j - c_i, which should be negative where y_i > y_j.
    wrong = (scaled[None, :] - scaled[:, None]).masked_fill(likeness[:, None] <= likeness[None, :], -torch.inf)
    return torch.cat((wrong.new_zeros(1), wrong.flatten())).logsumexp(0)


class PairEncoder(nn.Module):
    """An encoder with its sentence head, which gives the cosine of each pair as `logits`."""

    def __init__(self, encoder: PreTrainedModel, head: SentenceHead) -> None:
        """Take both as they are."""
        super().__init__()
        self.encoder, self.head = encoder, head
        self.config = encoder.config

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """`logits` (B,) of inputs (B, 2, T)."""
        mask = as_single_rows(attention_mask)
        types = {} if token_type_ids is None else {"token_type_ids": as_single_rows(token_type_ids)}
        states = self.encoder(input_ids=as_single_rows(input_ids), attention_mask=mask, **types)[0]
        units = unit_vectors(self.head(states, mask).float()).unflatten(0, (-1, 2))
        return {"logits": (units[:, 0] * units[:, 1]).sum(-1)}


class PairHead(TaskHead):
    """The cosines of pairs with scores, in place of a head."""

    auto_class: ClassVar[Any] = AutoModel
    suffix: ClassVar[str] = "Model"

    def collator(self, tokenizer: PreTrainedTokenizerBase, multiple: int | None) -> Collator:
        """Both texts of all pairs padded to the longest, (B, 2, T)."""
        pad = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=multiple)

        def collate(rows: list[Any]) -> dict[str, Any]:
            return {**pad_lists(pad, rows), "labels": torch.tensor([row["labels"] for row in rows])}

        return collate

    def loss(
        self, outputs: Any, labels: Tensor, label_smoothing: float, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The loss of a batch times the number of its pairs, and that number."""
        count = torch.tensor(len(labels), device=labels.device)
        return cosent(outputs["logits"], labels) * len(labels), count

    def kept(self, outputs: Any) -> Tensor:
        """The cosines."""
        return outputs[0] if isinstance(outputs, tuple) else outputs


def finetune_pairs(
    encoder: PreTrainedModel,
    head: SentenceHead,
    task: LoadedTask,
    tokenizer: PreTrainedTokenizerBase,
    args: FineTuningArguments,
    *,
    max_length: int | None = None,
) -> FineTuningResult:
    """Fine-tune a sentence encoder on scored pairs, write it as a folder of sentence-transformers, and score it.

    Args:
        encoder: The encoder, without a head for classes.
        head: Pooling and what follows it; dense layers learn too.
        task: The rows.
        tokenizer: The encoder's.
        args: What is unset is the task's.
        max_length: Tokens of a text; `None` takes those of the head, else the task's.

    Returns:
        As `finetune`; the scores are those of `Pairs`.
    """
    spec = task.spec
    args = args.with_defaults(spec.fine_tuning, Pairs.headline)
    limit = max_length or head.max_length or spec.fine_tuning.max_length
    rows = _tokens(labelled_rows(task), spec, tokenizer, limit, head.prompt)
    choosing = task.dataset.get(spec.choice_split)
    trainer = build_trainer(
        PairEncoder(encoder, head),
        spec,
        tokenizer,
        args,
        rows,
        None if choosing is None else _tokens(choosing, spec, tokenizer, limit, head.prompt),
        head=PairHead(spec),
    )
    trainer.compute_metrics = _correlations
    training = fit(trainer, args, limit)
    if args.should_save:
        save_model(encoder, tokenizer, str(args.output_dir), head)
    scores = Scores()
    trainer.model.eval()
    for split in task.evaluation:
        found = cast(Pairs, pairs_of(task, split))
        size, texts = args.per_device_eval_batch_size, found.texts
        scores[split] = found.scores(
            encode_texts(encoder, head, tokenizer, texts, batch_size=size, max_length=max_length, prompt=head.prompt)
        )
    return FineTuningResult(
        model=encoder,
        scores=scores,
        score=scores[spec.headline_split][Pairs.headline],
        metric=Pairs.headline,
        **training,
    )


def random_encoder(encoder: PreTrainedModel, head: SentenceHead) -> tuple[PreTrainedModel, SentenceHead]:
    """The same encoder and head with random weights. Seed torch before."""
    renewed = copy.deepcopy(head)
    for module in renewed.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    # An encoder without a pooler gets a twin without one.
    options = {"add_pooling_layer": False} if getattr(encoder, "pooler", encoder) is None else {}
    return type(encoder)(encoder.config, **options), renewed


def _tokens(
    rows: datasets.Dataset, spec: TaskSpec, tokenizer: PreTrainedTokenizerBase, limit: int, prompt: str
) -> datasets.Dataset:
    """Rows of two token lists each, their number as `labels`, and the length of the longer text."""

    def encode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        sides = [
            tokenizer([prompt + text for text in batch[column]], truncation=True, max_length=limit)
            for column in spec.text_columns
        ]
        columns: dict[str, list[Any]] = {
            name: [list(pair) for pair in zip(*(side[name] for side in sides), strict=True)] for name in sides[0]
        }
        longest = [max(map(len, pair)) for pair in columns["input_ids"]]
        return {**columns, "labels": [float(value) for value in batch[spec.label_column]], LENGTH_COLUMN: longest}

    tokens = rows.map(encode, batched=True, remove_columns=rows.column_names, desc=f"Tokenising {spec.short_name}")
    say_rows_cut(tokens, limit, f"rows of task {spec.name!r}")
    remember_length(tokenizer, limit)
    return tokens


def _correlations(prediction: EvalPrediction) -> dict[str, float]:
    cosines = np.asarray(prediction.predictions, dtype=np.float64).reshape(-1)
    return cosine_correlations(cosines, np.asarray(prediction.label_ids, dtype=np.float64).reshape(-1))
