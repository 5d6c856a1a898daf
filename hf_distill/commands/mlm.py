"""Fits a masked-LM head on an encoder, so that `hf-distill augment` can replace words with it."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import AutoModelForMaskedLM, set_seed

from hf_distill.commands.folders import writes_folder
from hf_distill.commands.results import cost_of_training, finish
from hf_distill.commands.textbook import hold_back, read_rows
from hf_distill.hub.loading import UNREADABLE, load_error, load_tokenizer
from hf_distill.settings import MaskedHeadArguments, MLMHeadArguments, TextbookArguments
from hf_distill.settings.parsing import changed_arguments
from hf_distill.tasks.rows.text import tokenize_text
from hf_distill.trainers.fine_tuning.masked_lm_head import MaskedHeadTrainer


@writes_folder()
def run(head: MLMHeadArguments, textbook: TextbookArguments, training: MaskedHeadArguments) -> dict[str, Any]:
    """Give an encoder a head that predicts masked tokens, tied to its word embeddings.

    Writes to `training.output_dir`: the masked language model with its tokenizer, `results.json` and `arguments.yaml`,
    which repeats the run.

    Args:
        head: The encoder, and whether its weights are frozen.
        textbook: Any text; `textbook_eval_rows` of it are held out for the score.
        training: Settings of the training.

    Returns:
        The content of `results.json`: share of masked tokens that are predicted correctly (`masked_accuracy`) before
        and after, rows, steps, seconds.

    Raises:
        ValueError: If no encoder or text is given.
    """
    if head.encoder is None:
        raise ValueError("`--encoder` is missing: give the Hub id or folder of the encoder.")
    started = time.perf_counter()
    set_seed(training.seed)
    tokenizer = load_tokenizer(head.encoder, flag="--encoder", revision=head.encoder_revision)
    try:
        model = AutoModelForMaskedLM.from_pretrained(head.encoder, revision=head.encoder_revision, dtype=torch.float32)
    except UNREADABLE as error:
        raise load_error(head.encoder, error, flag="--encoder") from error
    rows = read_rows(textbook, training.text_column, tokenizer, training.max_length)
    train_rows, held_back = hold_back(rows, textbook.textbook_eval_rows, training.seed)
    options: dict[str, Any] = {"text_column": training.text_column, "max_length": training.max_length}
    eval_rows = None if held_back is None else tokenize_text(held_back, tokenizer, **options)
    trainer = MaskedHeadTrainer(
        model,
        training,
        freeze_encoder=head.freeze_encoder,
        train_dataset=tokenize_text(train_rows, tokenizer, **options),
        eval_dataset=eval_rows,
        processing_class=tokenizer,
    )
    before = None if eval_rows is None else trainer.masked_accuracy()
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model()
    facts = {
        "job": "mlm",
        "model": str(training.output_dir),
        "encoder": head.encoder,
        "textbook": textbook.textbook,
        "train_rows": len(train_rows),
        "before": before,
        "after": None if eval_rows is None else trainer.masked_accuracy(),
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        **trainer.whole_run.facts(),
        "seed": training.seed,
        "settings": changed_arguments(head, training),
        "history": [entry for entry in trainer.state.log_history if "loss" in entry],
    }
    return finish(str(training.output_dir), facts, started, head, textbook, training)


def summary(results: dict[str, Any]) -> str:
    """Report the masked accuracy before and after, the cost of the training and where the model is."""
    found = ""
    if results["after"] is not None:
        before, after = (results[when]["masked_accuracy"] for when in ("before", "after"))
        found = f"masked tokens found: {before:.4f} before, {after:.4f} after\n"
    return f"{found}{cost_of_training(results)}; masked language model in {results['model']}"
