"""Fine-tune an encoder to generate text: summaries, questions, or any text that follows from another one.

    python examples/run_generation.py --model_name_or_path outputs/student --train_file train.jsonl \
        --validation_file validation.jsonl --source_column document --target_column summary \
        --num_train_epochs 10 --output_dir outputs/summaries

The model reads the source in both directions and generates the target token by token, with UniLM's attention mask; any
encoder with absolute positions can be used. Two lines load the saved model and generate:

    model = EncoderForGeneration.from_pretrained("outputs/summaries")
    model.generate_texts(["A long document."])

`hf-distill generate` has the papers' tasks (question generation, XSum, CNN/DailyMail) with their settings.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets import load_dataset
from transformers import HfArgumentParser, set_seed

from hf_distill import EncoderForGeneration, GenerationSettings, GenerationTrainer, GenerationTrainingArguments
from hf_distill.tasks import load_metric


@dataclass
class ModelArguments:
    """The encoder, and the settings of the generation."""

    model_name_or_path: str = field(metadata={"help": "Hub id or folder of an encoder, or of a saved model."})
    max_source_length: int = field(default=256, metadata={"help": "Maximum tokens of a source; the rest is cut off."})
    max_target_length: int = field(default=64, metadata={"help": "Maximum tokens of a target, also in generation."})
    num_beams: int = field(default=5, metadata={"help": "Hypotheses of the beam search; 1 is greedy."})


@dataclass
class DataArguments:
    """Rows with a source and a target."""

    dataset_name: str | None = field(default=None, metadata={"help": "Data set on the Hub."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Its configuration."})
    train_file: str | None = field(default=None, metadata={"help": "JSON lines, csv or parquet instead."})
    validation_file: str | None = field(default=None, metadata={"help": "Rows to evaluate on, in the same format."})
    source_column: str = field(default="source", metadata={"help": "Column of the text that is read."})
    target_column: str = field(default="target", metadata={"help": "Column of the text that is generated."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on the first rows only."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate on the first rows only."})
    metric: str = field(default="rouge", metadata={"help": "Score of the generated texts: rouge, bleu or meteor."})


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train, generate texts for the validation rows, score them, save the model, and return the metrics."""
    parser = HfArgumentParser((ModelArguments, DataArguments, GenerationTrainingArguments), description=__doc__)
    model_args, data_args, args = parser.parse_args_into_dataclasses(argv)
    set_seed(args.seed)

    if data_args.train_file is not None:
        suffix = data_args.train_file.rpartition(".")[2]
        files = {"train": data_args.train_file, "validation": data_args.validation_file}
        rows = load_dataset({"jsonl": "json"}.get(suffix, suffix), data_files=files)
    else:
        rows = load_dataset(data_args.dataset_name, data_args.dataset_config_name)
    for split, limit in (("train", data_args.max_train_samples), ("validation", data_args.max_eval_samples)):
        if limit is not None:
            rows[split] = rows[split].select(range(min(limit, len(rows[split]))))

    settings = GenerationSettings(
        max_source_length=model_args.max_source_length,
        max_new_tokens=model_args.max_target_length,
        num_beams=model_args.num_beams,
    )
    model = EncoderForGeneration.from_pretrained(model_args.model_name_or_path, settings=settings)
    model.lengthen(model_args.max_source_length + model_args.max_target_length)
    names = {"source": data_args.source_column, "target": data_args.target_column}
    limits = {"source": model_args.max_source_length - 2, "target": model_args.max_target_length - 1}

    def tokenize(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        """Token ids without special tokens at the ends, which the trainer adds."""
        ids = {
            side: model.tokenizer(batch[name], add_special_tokens=False)["input_ids"] for side, name in names.items()
        }
        return {side: [row[: limits[side]] for row in part] for side, part in ids.items()}

    tokens = rows.map(tokenize, batched=True, remove_columns=rows["train"].column_names)
    trainer = GenerationTrainer(model, args, train_dataset=tokens["train"], eval_dataset=tokens["validation"])
    result = trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_metrics("train", result.metrics)
    trainer.save_model()

    evaluation = trainer.evaluate()
    written = trainer.predict_texts(tokens["validation"])
    references = list(rows["validation"][data_args.target_column])
    scores = load_metric(data_args.metric).compute(predictions=written, references=references)
    evaluation |= {f"eval_{name}": float(score) for name, score in scores.items()}
    trainer.log_metrics("eval", evaluation)
    trainer.save_metrics("eval", evaluation)
    with Path(args.output_dir, "predictions.jsonl").open("w", encoding="utf-8") as file:
        for text, reference in zip(written, references, strict=True):
            file.write(json.dumps({"text": text, "reference": reference}, ensure_ascii=False) + "\n")
    return evaluation | result.metrics


if __name__ == "__main__":
    main()
