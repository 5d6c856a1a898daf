"""Time a step of TextBrewer's recipes in TextBrewer and here, in turns in one process.

    python benchmarks/textbrewer_step.py --recipe t4_tiny --bf16 --output benchmarks/results/textbrewer_step.jsonl

TextBrewer is not a dependency: run this in a separate environment with both packages (`pip install
textbrewer==0.2.1.post1`).

- `t4_tiny`: the recipe of TextBrewer's paper (section 4.1): a 12x768 teacher, a 4x312 student, five hidden-state
  matches with linear projections, five NST matches, logits at temperature 8, batch 32;
- `three_teachers`: the mean logits of three 12x768 teachers, temperature 8, batch 32.

Variants: `textbrewer` (random batches padded to their longest row), `textbrewer_128` (padded to 128, as in its
examples), `ours` (batches by length), and `stored` (the same with teachers that `precompute` stored, in the arithmetic
of `ours`; the one-time cost per batch is `precompute_seconds_per_step`, so a training of three epochs costs that plus
three times `stored`). Rows are random token ids with lengths like those of RTE (`rte`, mean 53), MNLI, the task of
TextBrewer's examples (`mnli`, mean 40), or sentences (`sent`, mean 32). Ours sees every row once in a round, and a
round is timed as a whole: batches by length begin with the longest, and `Trainer` groups by length within a quarter of
the rows, so fewer than eight batches would not be grouped at all. TextBrewer sees the first `--their_steps` of its
random batches of the same rows: random batches have the same cost on average.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import torch
from distillation_step import LENGTHS, collate, make_rows
from record import origin, report, script_parser
from tokenizers import Tokenizer, models
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast, set_seed
from turns import in_turns, medians, ratio

from hf_distill import (
    DistillationArguments,
    DistillationTrainer,
    MultiTeacherArguments,
    MultiTeacherTrainer,
    StoredTeacher,
    create_student,
    precompute,
)
from hf_distill.kernels.cpu import configure_fp32_matmul
from hf_distill.settings.convert import convert_config

# Teacher layer, student layer.
PAIRS = ((0, 0), (3, 1), (6, 2), (9, 3), (12, 4))
RECIPES: dict[str, dict[str, Any]] = {
    "t4_tiny": {
        "temperature": 8,
        "hard_label_weight": 0,
        "intermediate_matches": [
            *(
                {"layer_T": t, "layer_S": s, "feature": "hidden", "loss": "hidden_mse", "weight": 1,
                 "proj": ["linear", 312, 768]}
                for t, s in PAIRS
            ),
            *(
                {"layer_T": [t, t], "layer_S": [s, s], "feature": "hidden", "loss": "nst", "weight": 1}
                for t, s in PAIRS
            ),
        ],
    },
    "three_teachers": {"temperature": 8, "hard_label_weight": 0},
}  # fmt: skip
COLUMNS = ("input_ids", "attention_mask")


def make_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer of numbers: stored teachers record the tokenizer of their token ids."""
    words = {"[PAD]": 0, "[UNK]": 1, **{str(index): index for index in range(2, vocabulary)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def their_batches(
    rows: datasets.Dataset, batch_size: int, count: int, width: int | None
) -> list[dict[str, torch.Tensor]]:
    """`count` random batches padded to their longest row, or to `width`."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1)).tolist()
    batches = []
    for start in range(0, batch_size * count, batch_size):
        chosen = [{**rows[index], "labels": 0} for index in order[start : start + batch_size]]
        batch = collate(chosen)
        missing = 0 if width is None else width - batch["input_ids"].shape[1]
        batches.append({name: torch.nn.functional.pad(batch[name], (0, missing)) for name in COLUMNS})
    return batches


def textbrewer_run(
    recipe: str, teachers: list[Any], student: Any, batches: list[dict[str, torch.Tensor]], folder: str
) -> Callable[[], float]:
    """A training with TextBrewer, as in its documentation."""
    import textbrewer

    config = textbrewer.DistillationConfig(**RECIPES[recipe])
    training = textbrewer.TrainingConfig(device="cpu", output_dir=folder, log_dir=None)

    def adaptor(batch: Any, outputs: Any) -> dict[str, Any]:
        found = {"logits": outputs.logits}
        return found | ({"hidden": outputs.hidden_states, "inputs_mask": batch["attention_mask"]} if matching else {})

    matching = recipe == "t4_tiny"
    if matching:
        for model in (*teachers, student):
            model.config.output_hidden_states = True
        distiller = textbrewer.GeneralDistiller(training, config, teachers[0], student, adaptor, adaptor)
    else:
        distiller = textbrewer.MultiTeacherDistiller(training, config, teachers, student, adaptor, adaptor)

    def measure() -> float:
        configure_fp32_matmul("strict")
        optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)
        started = time.perf_counter()
        with distiller:
            distiller.train(optimizer, batches, num_epochs=1, max_grad_norm=1.0)
        return (time.perf_counter() - started) / len(batches)

    return measure


def our_run(
    options: argparse.Namespace, teachers: list[Any], student: Any, rows: Any, folder: str
) -> Callable[[], float]:
    """A training here; `rows` is None for stored teachers, which have their own."""
    converted = convert_config(RECIPES[options.recipe]).arguments
    common = {
        "output_dir": folder,
        "per_device_train_batch_size": options.batch,
        "learning_rate": 1e-4,
        "num_train_epochs": 1,
        "save_strategy": "no",
        "logging_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "bf16": options.bf16,
        **converted,
    }
    data = {"train_dataset": rows, "data_collator": None if rows is None else collate_rows}
    if len(teachers) == 1:
        trainer = DistillationTrainer(student, DistillationArguments(**common), teacher_model=teachers[0], **data)
    else:
        trainer = MultiTeacherTrainer(student, MultiTeacherArguments(**common), teacher_models=teachers, **data)

    def measure() -> float:
        configure_fp32_matmul("auto")
        started = time.perf_counter()
        trainer.train()
        return (time.perf_counter() - started) / trainer.state.global_step

    return measure


def collate_rows(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pad to the longest row; there are no labels."""
    batch = collate([{**row, "labels": 0} for row in rows])
    return {name: batch[name] for name in COLUMNS}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Every variant in turns."""
    set_seed(0)
    count = 1 if options.recipe == "t4_tiny" else 3
    config = BertConfig()

    def new_teachers() -> list[Any]:
        torch.manual_seed(0)
        return [BertForSequenceClassification(config).eval() for _ in range(count)]

    ours, theirs = new_teachers(), new_teachers()
    rows = make_rows(options.workload, options.batch * options.steps, config.vocab_size).remove_columns("labels")
    with tempfile.TemporaryDirectory() as folder:
        loaders = {
            "textbrewer": their_batches(rows, options.batch, options.their_steps, None),
            "textbrewer_128": their_batches(rows, options.batch, options.their_steps, 128),
        }
        variants = {
            name: textbrewer_run(options.recipe, theirs, create_student(theirs[0], "4x312"), loader, folder)
            for name, loader in loaders.items()
        }
        variants["ours"] = our_run(options, ours, create_student(ours[0], "4x312"), rows, folder)
        started = time.perf_counter()
        stored = store_teachers(options, ours, rows, Path(folder))
        precompute_seconds = (time.perf_counter() - started) / options.steps
        variants["stored"] = our_run(options, stored, create_student(ours[0], "4x312"), None, folder)
        seconds = in_turns(variants, options.rounds)
    return summarize(options, seconds, precompute_seconds, rows)


def store_teachers(
    options: argparse.Namespace, teachers: list[Any], rows: datasets.Dataset, folder: Path
) -> list[StoredTeacher]:
    """Store what a training of several epochs reads instead of running the teachers in each epoch."""
    objectives = convert_config(RECIPES[options.recipe]).arguments["objectives"]
    settings: dict[str, Any] = {
        "processing_class": make_tokenizer(teachers[0].config.vocab_size),
        "num_student_layers": 4,
        "batch_size": options.batch,
        "teacher_dtype": "bfloat16" if options.bf16 else "float32",
    }
    stored = []
    for index, teacher in enumerate(teachers):
        path = folder / f"stored_{index}"
        precompute(rows, teacher, objectives, path, **settings)
        stored.append(StoredTeacher(path, name=f"teacher_{index}"))
    return stored


def summarize(
    options: argparse.Namespace, seconds: dict[str, list[float]], precompute_seconds: float, rows: datasets.Dataset
) -> dict[str, Any]:
    """Medians and the ratios of interest."""
    taken = medians(seconds)
    three_epochs = precompute_seconds + 3 * taken["stored"]
    return {
        **origin("textbrewer_step"),
        "recipe": options.recipe,
        "workload": options.workload,
        "mean_length": round(sum(rows["length"]) / len(rows), 1),
        "batch": options.batch,
        "bf16": options.bf16,
        "rounds": options.rounds,
        "steps": options.steps,
        "their_steps": options.their_steps,
        "seconds_per_step": taken,
        "precompute_seconds_per_step": round(precompute_seconds, 4),
        "textbrewer_to_ours": ratio(seconds, "textbrewer", "ours"),
        "textbrewer_128_to_ours": ratio(seconds, "textbrewer_128", "ours"),
        "textbrewer_to_stored": ratio(seconds, "textbrewer", "stored"),
        "ours_to_stored": ratio(seconds, "ours", "stored"),
        "textbrewer_to_stored_in_3_epochs": round(3 * taken["textbrewer"] / three_epochs, 2),
        "textbrewer_128_to_stored_in_3_epochs": round(3 * taken["textbrewer_128"] / three_epochs, 2),
    }


def main() -> None:
    """Parse, measure, print, append."""
    parser = script_parser(__doc__)
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="t4_tiny")
    parser.add_argument("--workload", choices=sorted(LENGTHS), default="rte")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=64, help="our steps a round")
    parser.add_argument("--their_steps", type=int, default=8, help="TextBrewer's steps a round")
    parser.add_argument("--rounds", type=int, default=1, help="counted rounds, after one that warms up")
    parser.add_argument("--bf16", action="store_true", help="ours in bfloat16 autocast")
    options = parser.parse_args()
    if not 0 < options.their_steps <= options.steps:
        parser.error(f"--their_steps is {options.their_steps}; it must lie between 1 and --steps ({options.steps})")
    report(run(options), options.output)


if __name__ == "__main__":
    main()
