"""Fine-tunes an encoder to generate text, generates texts for evaluation rows, and scores them."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import xxhash
from transformers import set_seed

from hf_distill.commands.folders import writes_folder
from hf_distill.commands.results import cost_of_training, finish
from hf_distill.commands.student_facts import shown_command, write_card, writing_facts
from hf_distill.generation.model import EncoderForGeneration
from hf_distill.generation.predictions import PredictionFile
from hf_distill.generation.settings import GenerationSettings
from hf_distill.generation.trainer import GenerationTrainer
from hf_distill.hub.loading import load_tokenizer, update_digest
from hf_distill.settings import GenerationArguments, GenerationTaskArguments, GenerationTrainingArguments
from hf_distill.tasks.catalogue.generation import GenerationDefaults
from hf_distill.tasks.metrics.text_scores import check_scorers, score_generated
from hf_distill.tasks.rows.generation import LoadedGeneration, load_generation_task, tokenize_generation

logger = logging.getLogger(__name__)

PREDICTIONS_FILE = "predictions.jsonl"
# Settings that change the result, besides model, task, seed and decoding.
DECIDING = (
    *("learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("world_size", "warmup_steps", "weight_decay", "label_smoothing_factor", "max_grad_norm", "bf16", "fp16"),
)


@dataclass(frozen=True)
class Lengths:
    """The maximum source and target lengths in tokens, special tokens included."""

    source: int
    target: int


@writes_folder()
def run(
    task: GenerationTaskArguments, generation: GenerationArguments, training: GenerationTrainingArguments
) -> dict[str, Any]:
    """Fine-tune an encoder to generate the texts of a task, and score what it generates.

    Writes to `training.output_dir`: the model, which `EncoderForGeneration.from_pretrained` loads, `predictions.jsonl`
    with the texts of all evaluation splits, `results.json`, and `arguments.yaml`, which repeats the run. A killed run
    continues with `resume_from_checkpoint="last"`: its training from a checkpoint, its decoding after the last written
    text.

    Args:
        task: The task and the location of its rows.
        generation: The encoder, and the settings of decoding; unset ones come from the task's paper.
        training: Settings of the training; unset ones come from the task's paper.

    Returns:
        The content of `results.json`: `score` (headline metric on the headline split, as a fraction), `scores` and
        `losses` of every split, seconds of training and of decoding, rows per second, settings, curve. Only the first
        process decodes and scores.

    Raises:
        ValueError: If no student is given, or task, lengths and model do not match.
        ImportError: If a package that scores texts is missing.
    """
    if generation.student_model is None:
        raise ValueError("`--student_model` is missing: give the Hub id or folder of the encoder that is to write.")
    started = time.perf_counter()
    set_seed(training.seed)
    loaded = load_generation_task(task.task, task.data_dir, train=not generation.eval_only, **task.spec_fields())
    loaded = loaded.subset(task.max_train_samples, task.max_eval_samples, seed=training.seed)
    check_scorers(loaded.spec)
    model, lengths = _model(task, generation, loaded.spec.settings)
    training = training.with_generation_defaults(loaded.spec.settings, model.config.num_hidden_layers)
    rows = {
        split: tokenize_generation(
            part, model.tokenizer, max_source_length=lengths.source, max_target_length=lengths.target
        )
        for split, part in loaded.dataset.items()
    }
    trainer = GenerationTrainer(
        model,
        training,
        train_dataset=rows.get(loaded.spec.train_split),
        eval_dataset=rows[loaded.spec.choice_split],
        max_source_length=lengths.source,
        max_target_length=lengths.target,
    )
    facts = {
        "job": "generate",
        "task": loaded.spec.name,
        "metric": loaded.spec.headline,
        "split": loaded.spec.headline_split,
        "model": str(training.output_dir) if not generation.eval_only else generation.student_model,
        "base_model": generation.student_model,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seed": training.seed,
        "data": loaded.source,
        "split_rows": {split: len(rows[split]) for split in loaded.spec.evaluation_splits},
        "max_eval_samples": task.max_eval_samples,
        **({} if generation.eval_only else _train(trainer, training)),
        "losses": {split: trainer.evaluate(rows[split])["eval_loss"] for split in loaded.spec.evaluation_splits},
        "settings": ({} if generation.eval_only else {name: getattr(training, name) for name in DECIDING})
        | {"way": model.way, "max_source_length": lengths.source, "max_target_length": lengths.target},
        "decoding": asdict(model.settings),
        "settings_source": loaded.spec.settings.source,
    }
    if training.should_save:
        facts |= _write_and_score(trainer, loaded, rows)
    given, folder = (task, generation, training), str(training.output_dir)
    finish(folder, facts, started, *given, write=training.should_save)
    if training.should_save and not generation.eval_only:
        command, source = shown_command("generate", *given), generation.student_model
        write_card(folder, writing_facts(model.masked_lm, source, loaded.spec, facts, folder, command))
    return facts


def summary(results: dict[str, Any]) -> str:
    """Report scores and speeds; in a process that does not decode, only the cost of its training."""
    lines = [cost_of_training(results)] if "steps" in results else []
    for split, scores in results.get("scores", {}).items():
        shown = ", ".join(f"{name} {score:.4f}" for name, score in scores.items())
        speed = results["decode_speed"][split]
        lines.append(f"{results['task']}, {split}: loss {results['losses'][split]:.4f}, {shown}")
        lines.append(f"{speed['rows']} texts in {speed['seconds']:.0f} s ({speed['rows_per_second']:.1f} a second)")
    return "\n".join([*lines, f"model in {results['model']}"])


def _model(
    task: GenerationTaskArguments, generation: GenerationArguments, defaults: GenerationDefaults
) -> tuple[EncoderForGeneration, Lengths]:
    """Load the model with its settings and enough positions; also return the maximum source and target lengths."""
    tokenizer = None
    if generation.tokenizer_name is not None:
        tokenizer = load_tokenizer(generation.tokenizer_name, flag="--tokenizer_name")
    model = EncoderForGeneration.from_pretrained(
        str(generation.student_model),
        tokenizer,
        way=generation.way,
        revision=generation.student_revision,
        flag="--student_model",
    )
    known = model.settings if generation.eval_only else _paper_settings(defaults, model.tokenizer)
    lengths = Lengths(
        task.max_source_length or known.max_source_length, task.max_target_length or known.max_new_tokens
    )
    if lengths.source + lengths.target > model.max_length:
        logger.warning(
            f"Sources of {lengths.source} tokens and texts of {lengths.target} need more than the {model.max_length} "
            "positions of the model: its table of positions is repeated, as UniLM does it."
        )
        model.lengthen(lengths.source + lengths.target)
    unknown = [token for token in generation.ngram_ignore or () if not _is_known(token, model.tokenizer)]
    if unknown:
        raise ValueError(f"`--ngram_ignore` has {unknown}, which the student's tokenizer does not know.")
    given = generation.decoding() | {"max_source_length": lengths.source, "max_new_tokens": lengths.target}
    model.settings = GenerationSettings(**(asdict(known) | given))
    return model, lengths


def _is_known(token: str, tokenizer: Any) -> bool:
    """Whether a token has its own id."""
    return tokenizer.convert_tokens_to_ids(token) not in (None, tokenizer.unk_token_id)


def _paper_settings(defaults: GenerationDefaults, tokenizer: Any) -> GenerationSettings:
    """Return the decoding settings of the paper for a task."""
    return GenerationSettings(
        num_beams=defaults.num_beams,
        max_new_tokens=defaults.max_target_length,
        length_penalty=defaults.length_penalty,
        no_repeat_ngram_size=defaults.no_repeat_ngram_size,
        ngram_ignore=tuple(token for token in defaults.ngram_ignore if _is_known(token, tokenizer)),
        max_source_length=defaults.max_source_length,
    )


def _train(trainer: GenerationTrainer, training: GenerationTrainingArguments) -> dict[str, Any]:
    """Train and save the model, and return the facts to report."""
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model()
    return {
        "train_rows": len(trainer.train_dataset),
        **trainer.whole_run.facts(),
        "history": list(trainer.state.log_history),
    }


def _write_and_score(
    trainer: GenerationTrainer, loaded: LoadedGeneration, rows: dict[str, datasets.Dataset]
) -> dict[str, Any]:
    """Generate the texts of the evaluation splits, score them, and record the decoding speed."""
    path = Path(str(trainer.args.output_dir), PREDICTIONS_FILE)
    references = {split: loaded.dataset[split]["references"][:] for split in loaded.spec.evaluation_splits}
    facts = [
        {"split": split, "row": row, "references": texts}
        for split, part in references.items()
        for row, texts in enumerate(part)
    ]
    tokens = {split: rows[split] for split in references}
    file = PredictionFile(path, _decoding_key(trainer.model, tokens), facts)
    first = 0
    speeds, scores = {}, {}
    for split, part in tokens.items():
        known = {number - first for number in file.known if first <= number < first + len(part)}
        started = time.perf_counter()
        for batch in trainer.iter_texts(part, known=known):
            file.append([(first + row, text) for row, text in batch])
        seconds = time.perf_counter() - started
        new = len(part) - len(known)
        speeds[split] = {"rows": new, "seconds": round(seconds, 2), "rows_per_second": round(new / seconds, 2)}
        first += len(part)
    texts = iter(file.finish())
    for split, part in references.items():
        scores[split] = score_generated(loaded.spec, [next(texts) for _ in part], part)
    return {
        "score": scores[loaded.spec.headline_split][loaded.spec.headline],
        "scores": scores,
        "decode_speed": speeds,
        "predictions": str(path),
    }


def _decoding_key(model: EncoderForGeneration, rows: dict[str, datasets.Dataset]) -> str:
    """A hash of everything that determines the generated texts."""
    digest = xxhash.xxh3_128()
    update_digest(digest, model.masked_lm.state_dict())
    settings = {name: value for name, value in asdict(model.settings).items() if name != "batch_size"}
    digest.update(json.dumps([model.way, model.pair_types, settings]).encode())
    for split, part in rows.items():
        digest.update(json.dumps([split, [list(ids) for ids in part["source"][:]]]).encode())
    return digest.hexdigest()
