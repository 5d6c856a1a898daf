"""One training run for `test_distributed.py`; started once alone and once by torchrun with two processes."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import BertConfig, BertForSequenceClassification, DefaultDataCollator, TrainingArguments, set_seed

from hf_distill import DistillationArguments, DistillationTrainer
from hf_distill.tasks.catalogue.registry import get_task
from hf_distill.trainers.fine_tuning.heads import head_of
from hf_distill.trainers.fine_tuning.trainer import FineTuningTrainer, TaskLoss


def model(width: int, layers: int, seed: int) -> BertForSequenceClassification:
    set_seed(seed)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=50,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=32,
            max_position_embeddings=32,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


def rows(count: int = 32) -> datasets.Dataset:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 12, (count,), generator=generator).tolist()
    ids = torch.randint(5, 50, (count, 12), generator=generator)
    mask = [[1] * n + [0] * (12 - n) for n in lengths]
    return datasets.Dataset.from_dict(
        {"input_ids": ids.tolist(), "attention_mask": mask, "labels": [i % 2 for i in range(count)]}
    )


def evaluated(trainer: DistillationTrainer) -> dict[str, dict[str, Any]]:
    """Evaluations of numbers of rows that two processes cannot share out evenly, and predictions."""
    found = {str(count): trainer.evaluate(rows(count)) for count in (1, 5, 32, 37)}
    bare = trainer.predict(rows(37).remove_columns("labels"))
    found["of labels"] = labels_trainer(trainer.args).evaluate()
    return {**found, "bare": {**bare.metrics, "predictions": bare.predictions.tolist()}}


def labels_trainer(args: DistillationArguments) -> FineTuningTrainer:
    """A trainer of labels; its rows fill the last batches of two processes only in part."""
    loss = TaskLoss(head_of(get_task("sst2")))
    settings = TrainingArguments(args.output_dir, per_device_eval_batch_size=4, use_cpu=True, report_to="none")
    return FineTuningTrainer(
        model(16, 2, seed=3), settings, DefaultDataCollator(), eval_dataset=rows(37), compute_loss_func=loss
    )


def main(output_dir: str, batch_size: int, resume: str) -> DistillationTrainer:
    args = DistillationArguments(
        output_dir,
        objectives=["relation:1", "logits:0.5", "labels:0.3"],
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=4,
        max_steps=4,
        save_steps=2,
        logging_steps=1,
        train_sampling_strategy="sequential",
        use_cpu=True,
        eval_agreement=True,
        disable_tqdm=True,
        report_to="none",
    )
    trainer = DistillationTrainer(
        model(16, 2, seed=1),
        args,
        DefaultDataCollator(),
        rows(),
        teacher_model=model(32, 3, seed=0),
        compute_metrics=lambda found: {"rows": len(found.label_ids), "ones": int(found.label_ids.sum())},
    )
    trainer.train(resume_from_checkpoint=resume or None)
    metrics = evaluated(trainer)
    if trainer.is_world_process_zero():
        trainer.save_model(f"{output_dir}/student")
        history = [entry for entry in trainer.state.log_history if "loss" in entry]
        Path(output_dir, "result.json").write_text(json.dumps({"history": history, "metrics": metrics}))
    trainer.end()
    return trainer


if __name__ == "__main__":
    # The trainer must not die before the process: PyTorch's Reducer joins the threads of gloo while it holds the lock
    # of the interpreter, and once in many runs one of them waits for that lock.
    trainer = main(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
    sys.stdout.flush()
    os._exit(0)
