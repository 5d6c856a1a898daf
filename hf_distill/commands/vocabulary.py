"""Trims the vocabulary of a model to the pieces that occur in given texts."""

from __future__ import annotations

import time
from typing import Any

from hf_distill.commands.folders import writes_folder
from hf_distill.commands.results import finish
from hf_distill.commands.student_facts import completed, shown_command, trimmed_facts, write_card
from hf_distill.commands.textbook import read_rows, texts_in
from hf_distill.hub.loading import load_model, load_tokenizer
from hf_distill.settings import TextbookArguments, VocabularyArguments
from hf_distill.students.sentence import keep_activation, read_head
from hf_distill.students.sizes import count_parameters
from hf_distill.students.vocabulary import trim_vocabulary
from hf_distill.trainers.fine_tuning.trainer import save_model


@writes_folder()
def run(arguments: VocabularyArguments) -> dict[str, Any]:
    """Write a model with fewer word embeddings, and the tokenizer for its pieces.

    Writes to `output_dir`: model and tokenizer, which load like any other, their card, `results.json` and
        `arguments.yaml`. A sentence encoder stays a sentence encoder.

    Args:
        arguments: The model, the text, and the number of pieces to keep.

    Returns:
        The content of `results.json`: pieces and parameters before and after; and, for texts that were not counted,
        the share of unknown pieces before and after and the share of removed pieces.

    Raises:
        OSError: If the model does not exist.
        ValueError: If no model or text is named, or the vocabulary cannot be trimmed to this size.
    """
    if arguments.model is None:
        raise ValueError("`--model` is missing: give the Hub id or folder of the model whose vocabulary is trimmed.")
    started = time.perf_counter()
    model = load_model(arguments.model, flag="--model")
    tokenizer = load_tokenizer(arguments.model, flag="--model")
    textbook = TextbookArguments(
        arguments.textbook, data_dir=arguments.data_dir, max_textbook_rows=arguments.max_textbook_rows
    )
    rows = read_rows(textbook, arguments.text_column, tokenizer)
    head = read_head(arguments.model)
    trimmed = trim_vocabulary(
        tokenizer,
        model,
        texts_in(rows, arguments.text_column) or (),
        size=arguments.size,
        prompts=() if head is None else head.prompts.values(),
    )
    small: Any = trimmed.model
    keep_activation(small, [model])
    save_model(small, trimmed.tokenizer, arguments.output_dir, head)
    facts = {
        "job": "vocabulary",
        "model": arguments.output_dir,
        "source": arguments.model,
        "pieces": len(trimmed.kept),
        "pieces_before": trimmed.pieces_before,
        "parameters": count_parameters(small).total,
        "parameters_before": count_parameters(model).total,
        "measured_texts": trimmed.measured_texts,
        "unknown": trimmed.unknown,
        "unknown_before": trimmed.unknown_before,
        "changed": trimmed.changed,
        "textbook": arguments.textbook,
        "textbook_rows": len(rows),
        "in_words": str(trimmed),
    }
    finish(arguments.output_dir, facts, started, arguments)
    command = shown_command("vocabulary", arguments)
    known = trimmed_facts(small, arguments.model, str(trimmed), facts, arguments.output_dir, command)
    write_card(arguments.output_dir, completed(known, small, trimmed.tokenizer))
    return facts


def summary(results: dict[str, Any]) -> str:
    """Report what was kept, its size, and where the model is."""
    sizes = f"{results['parameters'] / 1e6:.1f} of {results['parameters_before'] / 1e6:.1f} million parameters"
    return f"{results['in_words']}; {sizes}; model in {results['model']}"
