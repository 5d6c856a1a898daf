"""Time a distillation step against the sum of its parts, a straightforward implementation, and plain fine-tuning.

    python benchmarks/distillation_step.py --student 6x384 --workload sent \
        --output benchmarks/results/distillation_step.jsonl

Four variants run in turns in one process, several rounds; the medians over the rounds and their ratios are printed
and appended to a file of JSON lines:

- `trainer`: `DistillationTrainer` with the relation objective and its defaults (batches by length, early stop);
- `bare`: on the same batches the teacher's forward pass up to Q, K, V of the layer, the student's forward and backward
  pass to the same point with a trivial loss, gradient clipping and the optimizer;
- `plain`: a careful implementation from the paper: random batches padded to their longest row, eager attention, all
  hidden states kept, Q, K, V projected again from them, the loss over all heads at once;
- `finetuning`: stock `Trainer` on labels, the student alone, batches by length.

The rows are random token ids with the lengths of real sentences (`sent`: mean 32, longest about 128) or with 128
tokens (`full`); the weights are random. This does not affect the time of a step.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any

import datasets
import torch
from record import origin, report, script_parser
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    set_seed,
)
from turns import in_turns, medians, ratio

from hf_distill import DistillationArguments, DistillationTrainer, create_student
from hf_distill.capture.signals import SignalRequest
from hf_distill.capture.transformer import SignalCapture
from hf_distill.kernels.cpu import configure_fp32_matmul

# Mean and spread of the logarithm of a row's length: of sentences (mean 32 tokens, one row in a thousand beyond 100),
# of MNLI with BERT's English vocabulary (mean 40), of RTE (mean 53). The rows of `full` have 128 tokens.
LENGTHS = {"sent": (3.33, 0.5), "mnli": (3.59, 0.47), "rte": (3.9, 0.4), "full": (math.log(128), 0.0)}
TEACHERS = {"base": (12, 768, 12, 12), "large": (24, 1024, 16, 19)}


class StepClock(TrainerCallback):
    """Seconds between the ends of steps, data loading included."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())

    @property
    def seconds_per_step(self) -> float:
        """Mean without the first step."""
        return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)


def make_rows(workload: str, count: int, vocabulary: int) -> datasets.Dataset:
    """Rows of random ids with the lengths of the workload."""
    generator = torch.Generator().manual_seed(0)
    mean, spread = LENGTHS[workload]
    lengths = torch.exp(mean + spread * torch.randn(count, generator=generator)).round().clamp(6, 128).int().tolist()
    ids = [torch.randint(10, vocabulary, (n,), generator=generator).tolist() for n in lengths]
    return datasets.Dataset.from_dict(
        {
            "input_ids": ids,
            "attention_mask": [[1] * n for n in lengths],
            "labels": [i % 2 for i in range(count)],
            "length": lengths,
        }
    )


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pad to the longest row of the batch."""
    longest = max(len(row["input_ids"]) for row in rows)
    pad = [longest - len(row["input_ids"]) for row in rows]
    return {
        "input_ids": torch.tensor([row["input_ids"] + [0] * n for row, n in zip(rows, pad, strict=True)]),
        "attention_mask": torch.tensor([row["attention_mask"] + [0] * n for row, n in zip(rows, pad, strict=True)]),
        "labels": torch.tensor([row["labels"] for row in rows]),
    }


def timed_training(trainer: Trainer) -> float:
    """Seconds per step of a training."""
    clock = StepClock()
    trainer.add_callback(clock)
    trainer.train()
    trainer.remove_callback(clock)
    return clock.seconds_per_step


def timed_loop(batches: Iterable[Any], step: Callable[[Any], None]) -> float:
    """Seconds per step of a loop, the first step left out."""
    ends = []
    for batch in batches:
        step(batch)
        ends.append(time.perf_counter())
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def optimizer_step(model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> None:
    """Clip and update, as `Trainer` does."""
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def bare_step(teacher: Any, student: Any, layer: int, bf16: bool) -> Callable[[Any], None]:
    """Both models up to Q, K, V; backward from their plain sum."""
    depth = student.config.num_hidden_layers
    of_teacher = SignalCapture(teacher, SignalRequest(projections=frozenset({layer})))
    of_student = SignalCapture(student, SignalRequest(projections=frozenset({depth})))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, fused=True)

    def step(batch: dict[str, torch.Tensor]) -> None:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            with torch.no_grad():
                of_teacher(**inputs)
            found = of_student(**inputs).projections[depth]
            loss = (found.query + found.key + found.value).float().mean()
        loss.backward()
        optimizer_step(student, optimizer)

    return step


def plain_step(teacher: Any, student: Any, layer: int, heads: int) -> Callable[[Any], None]:
    """The formula as one reads it, on eager attention and hidden states."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)

    def relations(model: Any, hidden: Any, index: int, mask: torch.Tensor) -> list[torch.Tensor]:
        attention = model.bert.encoder.layer[index - 1].attention.self
        found = []
        for projection in (attention.query, attention.key, attention.value):
            x = projection(hidden[index - 1]).unflatten(-1, (heads, -1)).transpose(1, 2)
            scores = x @ x.transpose(-1, -2) / x.shape[-1] ** 0.5
            found.append(scores.masked_fill(~mask[:, None, None], torch.finfo(scores.dtype).min).log_softmax(-1))
        return found

    def step(batch: dict[str, torch.Tensor]) -> None:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        mask = batch["attention_mask"].bool()
        with torch.no_grad():
            hidden = teacher.bert(**inputs, output_hidden_states=True, output_attentions=True).hidden_states
            targets = relations(teacher, hidden, layer, mask)
        hidden = student.bert(**inputs, output_hidden_states=True, output_attentions=True).hidden_states
        loss = torch.zeros(())
        for target, own in zip(
            targets, relations(student, hidden, student.config.num_hidden_layers, mask), strict=True
        ):
            divergence = (target.exp() * (target - own)).masked_fill(~mask[:, None, None], 0).sum(-1)
            loss = loss + ((divergence * mask[:, None]).sum((1, 2)) / (heads * mask.sum(1))).mean()
        loss.backward()
        optimizer_step(student, optimizer)

    return step


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Every variant in turns."""
    torch.set_num_threads(options.threads)
    set_seed(0)
    depth, width, num_heads, layer = TEACHERS[options.teacher]
    config = BertConfig(
        num_hidden_layers=depth, hidden_size=width, num_attention_heads=num_heads, intermediate_size=4 * width
    )
    teacher = BertForSequenceClassification(config).eval()
    plain_teacher = BertForSequenceClassification._from_config(config, attn_implementation="eager").eval()
    rows = make_rows(options.workload, options.batch * options.steps, config.vocab_size)

    def student(eager: bool = False) -> Any:
        model = create_student(teacher, options.student)
        if eager:
            model.set_attn_implementation("eager")
        return model

    with tempfile.TemporaryDirectory() as folder:
        common = {
            "output_dir": folder,
            "per_device_train_batch_size": options.batch,
            "num_train_epochs": 1,
            "save_strategy": "no",
            "use_cpu": True,
            "bf16": options.bf16,
            "disable_tqdm": True,
            "logging_strategy": "no",
            "fp32_matmul": options.fp32_matmul,
        }
        trainer = DistillationTrainer(
            student(),
            DistillationArguments(**common, objectives=["relation"]),
            teacher_model=teacher,
            train_dataset=rows,
            data_collator=collate,
        )
        tuner = DistillationTrainer(
            student(), DistillationArguments(**common), train_dataset=rows, data_collator=collate
        )
        heads = next(iter(trainer.model.objectives.values())).num_heads
        grouped = list(trainer.get_train_dataloader())
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1)).tolist()
        shuffled = [
            collate([rows[i] for i in order[start : start + options.batch]])
            for start in range(0, len(rows), options.batch)
        ]
        bare = bare_step(teacher, student(), layer, options.bf16)
        plain = plain_step(plain_teacher, student(eager=True), layer, heads)
        in_force = configure_fp32_matmul(options.fp32_matmul)

        def with_strict_matmul(measure: Callable[[], float]) -> float:
            configure_fp32_matmul("strict")
            seconds = measure()
            configure_fp32_matmul(options.fp32_matmul)
            return seconds

        variants: dict[str, Callable[[], float]] = {
            "trainer": lambda: timed_training(trainer),
            "bare": lambda: timed_loop(grouped, bare),
            "plain": lambda: with_strict_matmul(lambda: timed_loop(shuffled, plain)),
            "finetuning": lambda: timed_training(tuner),
        }
        seconds = in_turns(variants, options.rounds)
    return {
        **origin("distillation_step"),
        "teacher": options.teacher,
        "student": options.student,
        "workload": options.workload,
        "mean_length": round(sum(rows["length"]) / len(rows), 1),
        "batch": options.batch,
        "relation_heads": heads,
        "fp32_matmul": in_force,
        "bf16": options.bf16,
        "rounds": options.rounds,
        "seconds_per_step": medians(seconds),
        "trainer_to_bare": ratio(seconds, "trainer", "bare", 3),
        "plain_to_trainer": ratio(seconds, "plain", "trainer", 3),
        "trainer_to_finetuning": ratio(seconds, "trainer", "finetuning", 3),
    }


def main() -> None:
    """Parse, measure, print, append."""
    parser = script_parser(__doc__)
    parser.add_argument("--teacher", choices=sorted(TEACHERS), default="base")
    parser.add_argument("--student", default="6x384", help="shape of the student")
    parser.add_argument("--workload", choices=sorted(LENGTHS), default="sent")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=48, help="steps a round")
    parser.add_argument("--rounds", type=int, default=1, help="counted rounds, after one that warms up")
    parser.add_argument("--bf16", action="store_true", help="trainer, bare and finetuning in bfloat16 autocast")
    parser.add_argument("--fp32_matmul", choices=["auto", "strict", "fast"], default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    report(run(options), options.output)


if __name__ == "__main__":
    main()
