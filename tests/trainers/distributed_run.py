"""One training run for `test_distributed.py`; started once alone and once by torchrun with two processes."""

import copy
import dataclasses
import json
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from typing import Any

import datasets
import torch
import xxhash
from accelerate.utils import gather_object
from tokenizer_cases import WORDS, word_tokenizer
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DefaultDataCollator,
    TrainingArguments,
    set_seed,
)

from hf_distill import DistillationArguments, DistillationTrainer, MTLArguments, MTLTrainer, StoredTeacher, precompute
from hf_distill.tasks.catalogue.registry import get_task
from hf_distill.tasks.loading import LoadedTask
from hf_distill.tasks.spec import FineTuningDefaults, TaskSpec
from hf_distill.trainers.fine_tuning.heads import head_of
from hf_distill.trainers.fine_tuning.trainer import FineTuningTrainer, TaskLoss

SIZES = {"num_attention_heads": 4, "intermediate_size": 32, "max_position_embeddings": 32}
SIZES |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def model(width: int, layers: int, seed: int) -> BertForSequenceClassification:
    set_seed(seed)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=50,
            hidden_size=width,
            num_hidden_layers=layers,
            **SIZES,
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


# Each is a mean over rows or tokens; of `bert_emd` and `similarity` the batch itself decides the loss.
OBJECTIVES = ["relation", "minilm", "logits", "labels", "annealed", "hidden", "cosine", "pkd", "fsp", "nst"]
OBJECTIVES += ["attention", "tinybert", "tinybert_prediction"]
MASSES = {"objective": "bert_emd", "cost_attention": True}


def every_objective(args: DistillationArguments) -> dict[str, Any]:
    """Losses and an evaluation of all objectives at once, of a model that was evaluated before it is trained."""
    args = dataclasses.replace(args, max_steps=2, objectives=OBJECTIVES, save_strategy="no", eval_agreement=False)
    trainer = DistillationTrainer(
        model(16, 2, seed=1), args, DefaultDataCollator(), rows(), teacher_model=model(32, 3, seed=0)
    )
    trainer.evaluate(rows(5))
    trainer.train()
    return {"history": _losses(trainer), "metrics": trainer.evaluate(rows(37))}


def shared_masses(args: DistillationArguments) -> list[list[float]]:
    """The masses of `bert_emd` in every process, after two steps."""
    args = dataclasses.replace(args, max_steps=2, objectives=[MASSES], save_strategy="no", eval_agreement=False)
    teacher, student = model(32, 3, seed=0), model(16, 2, seed=1)
    trainer = DistillationTrainer(student, args, DefaultDataCollator(), rows(), teacher_model=teacher)
    trainer.train()
    return gather_object([trainer.model.objectives["bert_emd"].teacher_masses.tolist()])


def from_a_store(args: DistillationArguments) -> dict[str, Any]:
    """Signals that every process stores a part of, and losses and an evaluation from them."""
    tokenizer = word_tokenizer()
    folder = Path(args.output_dir, "stored")
    data = rows(37)
    settings = {"processing_class": tokenizer, "shard_rows": 8, "batch_size": 4, "dtype": "float32"}
    done = precompute(data, model(32, 3, seed=0), ["relation", "logits"], folder, **settings)
    stored = StoredTeacher(folder)
    args = dataclasses.replace(args, max_steps=2, objectives=["relation", "logits"], save_strategy="no")
    trainer = DistillationTrainer(model(16, 2, seed=1), args, processing_class=tokenizer, teacher_model=str(folder))
    trainer.train()
    digest = {path.name: xxhash.xxh3_64_hexdigest(path.read_bytes()) for path in sorted(folder.glob("*.arrow"))}
    metrics = trainer.evaluate(stored.dataset)
    return {"shards": digest, "rows": done.new_rows, "history": _losses(trainer), "metrics": metrics}


def many_tasks(args: DistillationArguments, batch_size: int) -> dict[str, Any]:
    """Scores of two tasks before they are trained on, and the weights by gradient norms in every process."""
    texts = [" ".join(WORDS[(7 * row + place) % len(WORDS)] for place in range(3 + row % 5)) for row in range(37)]
    tasks = []
    for name, classes in (("two", 2), ("three", 3)):
        names = tuple(f"{name} {label}" for label in range(classes))
        defaults = FineTuningDefaults(max_length=16)
        features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(names))}
        data = datasets.Dataset.from_dict(
            {"text": texts, "label": [row % classes for row in range(37)]}, features=datasets.Features(features)
        )
        spec = TaskSpec(name, ("text",), names, metrics=("accuracy",), fine_tuning=defaults)
        tasks.append(LoadedTask(spec, datasets.DatasetDict(train=data, validation=data), "here"))
    tokenizer = word_tokenizer()
    set_seed(0)
    encoder = BertModel(BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, **SIZES))
    own = MTLArguments(
        args.output_dir,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=4,
        gradient_accumulation_steps=1,
        max_steps=4,
        save_strategy="no",
        task_weighting="gradient_norm",
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = MTLTrainer(encoder, own, processing_class=tokenizer, tasks=tasks, max_length=16)
    metrics = trainer.evaluate()
    trainer.train()
    return {"metrics": metrics, "weights": gather_object([dict(trainer.model.current_weights())])}


def by_tokens(args: DistillationArguments) -> dict[str, Any]:
    """An epoch of batches by tokens: how many, and which rows all processes saw."""
    seen: list[list[int]] = []

    def collate(features: list[dict[str, Any]]) -> dict[str, Any]:
        seen.extend(row["input_ids"] for row in features)
        return DefaultDataCollator()(features)

    changes = {"max_steps": -1, "num_train_epochs": 1, "objectives": ["logits"], "save_strategy": "no"}
    changes |= {"train_sampling_strategy": "group_by_length", "max_tokens_per_batch": 60, "eval_agreement": False}
    args = dataclasses.replace(args, **changes)
    trainer = DistillationTrainer(model(16, 2, seed=1), args, collate, rows(37), teacher_model=model(32, 3, seed=0))
    trainer.train()
    return {"steps": trainer.state.global_step, "rows": sorted(gather_object(seen))}


def a_stream(args: DistillationArguments) -> dict[str, Any]:
    """Losses and an evaluation of rows without a length, each batch of which is padded to its own longest row."""
    texts = [" ".join(WORDS[(7 * row + place) % 40] for place in range(3 + row % 7)) for row in range(37)]
    stream = datasets.Dataset.from_dict({"text": texts}).to_iterable_dataset()
    args = dataclasses.replace(args, objectives=["relation", "logits"], save_strategy="no")
    tokenizer = word_tokenizer()
    teacher, student = model(32, 3, seed=0), model(16, 2, seed=1)
    for one in (teacher, student):
        one.resize_token_embeddings(len(tokenizer))
    trainer = DistillationTrainer(
        student, args, train_dataset=stream, teacher_model=teacher, processing_class=tokenizer
    )
    trainer.train()
    return {"history": _losses(trainer), "metrics": trainer.evaluate(stream)}


def fully_sharded(args: DistillationArguments) -> dict[str, float]:
    """How far gradients are from those of one process, where FSDP2 shards the layers that a model names."""
    if not distributed.is_initialized():
        return {}
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    found = {}
    # A pass that ends inside a layer must find it gathered still; the trainer refuses the other way.
    for objectives, reshard in ((["relation"], False), (["relation", "logits"], True), (["hidden"], True)):
        args = dataclasses.replace(args, objectives=objectives, eval_agreement=False)
        teacher, student = model(32, 3, seed=0), model(16, 2, seed=1)
        trainer = DistillationTrainer(student, args, DefaultDataCollator(), rows(), teacher_model=teacher)
        data = rows(4)
        batch = DefaultDataCollator()([data[row] for row in range(4)])
        signals, sharded = trainer.teacher.signals(batch), trainer.model.train()
        whole = copy.deepcopy(sharded)
        for layer in [one for one in sharded.modules() if type(one).__name__ in sharded._no_split_modules]:
            fully_shard(layer, mesh=mesh, reshard_after_forward=reshard)
        fully_shard(sharded, mesh=mesh, reshard_after_forward=reshard)
        for one in (whole, sharded):
            one(teacher_signals=signals, **batch)["loss"].backward()
        parts = dict(sharded.named_parameters())
        gradients = {name: weight.grad for name, weight in whole.named_parameters() if weight.grad is not None}
        found["+".join(objectives)] = max(
            float((parts[name].grad.full_tensor() - gradient).abs().max()) for name, gradient in gradients.items()
        )
    return found


def _losses(trainer: Any) -> list[dict[str, float]]:
    return [{k: v for k, v in entry.items() if "loss" in k} for entry in trainer.state.log_history if "loss" in entry]


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
    more = (
        {}
        if resume
        else {
            "objectives": every_objective(args),
            "masses": shared_masses(args),
            "stored": from_a_store(args),
            "tasks": many_tasks(args, batch_size),
            "tokens": by_tokens(args),
            "stream": a_stream(args),
            "sharded": fully_sharded(args),
        }
    )
    if trainer.is_world_process_zero():
        trainer.save_model(f"{output_dir}/student")
        history = [entry for entry in trainer.state.log_history if "loss" in entry]
        Path(output_dir, "result.json").write_text(json.dumps({"history": history, "metrics": metrics, **more}))
    trainer.end()
    return trainer


if __name__ == "__main__":
    # The trainer must not die before the process: PyTorch's Reducer joins the threads of gloo while it holds the lock
    # of the interpreter, and once in many runs one of them waits for that lock.
    trainer = main(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
    sys.stdout.flush()
    os._exit(0)
