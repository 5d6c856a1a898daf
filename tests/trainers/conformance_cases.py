"""Behaviours of `Trainer` for `test_conformance.py`: models, rows, and what is done with a trainer."""

import dataclasses
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    DefaultDataCollator,
    EarlyStoppingCallback,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedConfig,
    PreTrainedModel,
    TrainerCallback,
)

# ---- Models: a line through points, in every shape that a model of `Trainer` may have, and three small transformers


class Line(nn.Module):
    """A slope and a shift, which gives a tuple."""

    def __init__(self, slope=0.5, shift=-0.5, twice=False):
        super().__init__()
        self.slope, self.shift = nn.Parameter(torch.tensor(slope)), nn.Parameter(torch.tensor(shift))
        self.twice, self.config = twice, None

    def forward(self, x, labels=None, **kwargs):
        y = self.slope * x + self.shift
        outputs = (y, y) if self.twice else (y,)
        return outputs if labels is None else (nn.functional.mse_loss(y, labels), *outputs)


class NamedLine(Line):
    """A line that gives a mapping."""

    def forward(self, x, labels=None, **kwargs):
        found = super().forward(x, labels)
        return {"y": found[0]} if labels is None else {"loss": found[0], "y": found[1]}


class TwoTargets(Line):
    """A line with two columns of labels."""

    def forward(self, x, first=None, second=None):
        y = self.slope * x + self.shift
        return (((y - first) ** 2 + (y - second) ** 2).mean(), y, y + 1)


class BrokenLine(Line):
    """A line whose loss is not a number in its second step."""

    steps = 0

    def forward(self, x, labels=None, **kwargs):
        found = super().forward(x, labels)
        self.steps += self.training
        return (found[0] * (float("nan") if self.steps == 2 else 1.0), *found[1:])


class LineConfig(PreTrainedConfig):
    """Of `SavedLine`."""

    model_type = "line_of_the_tests"


class SavedLine(PreTrainedModel):
    """A line that can be saved."""

    config_class = LineConfig

    def __init__(self, config):
        super().__init__(config)
        self.slope, self.shift = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(-0.5))
        self.post_init()

    def forward(self, x, labels=None, **kwargs):
        return Line.forward(self, x, labels, **kwargs)

    twice = False


class NoisyLine(SavedLine):
    """Draws from all three generators."""

    def forward(self, x, labels=None, **kwargs):
        noise = torch.randn(()) + np.random.rand() + random.random()  # noqa: NPY002
        return super().forward(x + 0.05 * noise, labels)


def bert(kind=BertForSequenceClassification, dropout=0.0, **settings):
    config = BertConfig(
        vocab_size=20, hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16, pad_token_id=0,
        hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, **settings,
    )  # fmt: skip
    return kind(config)


def gpt():
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=20, n_positions=16, n_embd=12, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1)
    )


MODELS = {
    "line": Line,
    "double": lambda: Line(twice=True),
    "named": NamedLine,
    "two": TwoTargets,
    "broken": BrokenLine,
    "saved": lambda: SavedLine(LineConfig()),
    "noisy": lambda: NoisyLine(LineConfig()),
    "bert": bert,
    "dropout": lambda: bert(dropout=0.1),
    "tokens": lambda: bert(BertForTokenClassification),
    "regression": lambda: bert(num_labels=1),
    "many": lambda: bert(num_labels=3, problem_type="multi_label_classification"),
    "gpt": gpt,
}


# ---- Rows


def points(number=16, seed=0, **more):
    values = np.random.default_rng(seed).normal(size=number).astype(np.float32)
    return {"x": values, "labels": 2 * values + 1, **{name: values + shift for name, shift in more.items()}}


class Map:
    """Rows by number, and nothing else."""

    def __init__(self, columns):
        self.columns = columns

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index):
        return {name: values[index] for name, values in self.columns.items()}


class Stream(torch.utils.data.IterableDataset):
    """Rows one after another."""

    def __init__(self, columns):
        self.rows = Map(columns)

    def __iter__(self):
        return (self.rows[index] for index in range(len(self.rows)))


def words(number=12, seed=0, labels="rows"):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(3, 9, size=number)
    ids = [generator.integers(2, 20, size=length).tolist() for length in lengths]
    found = {"input_ids": ids, "attention_mask": [[1] * len(one) for one in ids]}
    targets = {
        "rows": [int(one[0] % 2) for one in ids],
        "tokens": [[int(token % 2) for token in one] for one in ids],
        "number": [one[0] / 10 for one in ids],
        "many": [[float(one[0] % 2), 1.0, 0.0] for one in ids],
    }
    return found | ({} if labels is None else {"labels": targets[labels]})


def padded(rows):
    """Batches of token rows."""
    longest = max(len(row["input_ids"]) for row in rows)
    batch = {
        name: torch.tensor([row[name] + [0] * (longest - len(row[name])) for row in rows])
        for name in ("input_ids", "attention_mask")
    }
    if "labels" in rows[0]:
        per_token = isinstance(rows[0]["labels"], list) and isinstance(rows[0]["labels"][0], int)
        values = [
            row["labels"] + [-100] * (longest - len(row["input_ids"])) if per_token else row["labels"] for row in rows
        ]
        batch["labels"] = torch.tensor(values)
    return batch


def causal(rows):
    batch = padded(rows)
    return batch | {"labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}


TEXT_ROWS = {
    "bert": "rows",
    "dropout": "rows",
    "tokens": "tokens",
    "regression": "number",
    "many": "many",
    "gpt": None,
}


# ---- What is done with a trainer


def train(make):
    trainer = make()
    return trainer, trainer.train()


def train_and_look(make):
    trainer = make()
    done = trainer.train()
    return trainer, [done, trainer.evaluate(), trainer.predict(trainer.eval_dataset)]


def evaluate(make, *args, **kwargs):
    trainer = make()
    return trainer, trainer.evaluate(*args, **kwargs)


def predict(make, rows=None, **kwargs):
    trainer = make()
    return trainer, trainer.predict(trainer.eval_dataset if rows is None else rows, **kwargs)


def resume(make, step=2, flag=None, **more):
    whole = make()
    whole.train()
    again = make(**more)
    done = again.train(resume_from_checkpoint=flag or str(Path(whole.args.output_dir, f"checkpoint-{step}")))
    return again, [done, dict(whole.model.state_dict())]


def twice(make):
    trainer = make()
    return trainer, [trainer.train(), trainer.train()]


def saved(make):
    trainer = make()
    done = trainer.train()
    trainer.save_model()
    trainer.save_state()
    trainer.log_metrics("train", done.metrics)
    trainer.save_metrics("train", {"loss": 0.5})
    return trainer, [
        trainer.get_num_trainable_parameters(),
        trainer.get_learning_rates(),
        trainer.num_examples(trainer.get_train_dataloader()),
    ]


def batches(make):
    """What the loaders give."""
    trainer = make()
    loaders = [
        trainer.get_train_dataloader(),
        trainer.get_eval_dataloader(),
        trainer.get_test_dataloader(trainer.eval_dataset),
    ]
    return trainer, [[dict(batch) for batch in loader] for loader in loaders]


def callbacks(make):
    """Callbacks are added, taken out and dropped."""
    trainer = make()
    trainer.add_callback(Watcher)
    first = trainer.pop_callback(Watcher)
    trainer.add_callback(first)
    trainer.remove_callback(first)
    trainer.add_callback(Watcher())
    names = [type(one).__name__ for one in trainer.callback_handler.callbacks]
    trainer.train()
    return trainer, [names[-1], trainer.callback_handler.callbacks[-1].seen]


class Watcher(TrainerCallback):
    """Keeps the events."""

    def __init__(self):
        self.seen = []

    def __getattribute__(self, name):
        if name.startswith("on_"):
            return lambda args, state, control, **kwargs: self.seen.append((name, state.global_step, sorted(kwargs)))
        return super().__getattribute__(name)


class Ask(TrainerCallback):
    """Sets one flag of the control in one step."""

    def __init__(self, flag, step=2):
        self.flag, self.step = flag, step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            setattr(control, self.flag, True)


def watched(make):
    trainer = make(given={"callbacks": [Watcher()]})
    trainer.train()
    return trainer, [one.seen for one in trainer.callback_handler.callbacks if isinstance(one, Watcher)]


def near(prediction):
    return {
        "near": float(
            np.mean(np.abs(np.asarray(prediction.predictions).squeeze() - np.asarray(prediction.label_ids)) < 1)
        )
    }


def shapes(prediction):
    """The shapes of all that metrics may see."""
    seen = {name: getattr(prediction, name) for name in ("predictions", "label_ids", "inputs", "losses")}
    return {
        f"{name}_{index}": float(np.asarray(value).size)
        for name, values in seen.items()
        if values is not None
        for index, value in enumerate(values if isinstance(values, tuple) else [values])
    }


class InBatches:
    """A metric that is fed batch by batch."""

    def __init__(self):
        self.errors = []

    def __call__(self, prediction, compute_result):
        self.errors.append(float((prediction.predictions - prediction.label_ids).abs().mean()))
        return {"error": float(np.mean(self.errors))} if compute_result else {}


def rows_of(model, number=16, seed=0):
    if model in TEXT_ROWS:
        return datasets.Dataset.from_dict(words(12 if number == 16 else number, seed, TEXT_ROWS[model]))
    return Map(points(number, seed, first=1.0, second=2.0) if model == "two" else points(number, seed))


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One behaviour.

    Attributes:
        act: What is done; gets a maker of trainers, returns a trainer and a result.
        model: Name in `MODELS`.
        args: Fields of the arguments.
        given: Arguments of the trainer, made anew for each.
        taught: Whether it is run with a teacher too.
    """

    act: Callable[..., Any] = train
    model: str = "line"
    args: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    given: Callable[[], dict[str, Any]] = dict
    taught: bool = False


def text(act=train, model="bert", taught=True, given=dict, **args):
    return Scenario(act, model, args, given, taught)


def line(act=train, model="line", given=dict, **args):
    return Scenario(act, model, args, given)


STEPS = {"eval_strategy": "steps", "eval_steps": 1}
SAVES = {"save_strategy": "steps", "save_steps": 1}
BEST = STEPS | SAVES | {"load_best_model_at_end": True}
SCHEDULES = {
    "linear": {}, "cosine": {}, "cosine_with_restarts": {"num_cycles": 2}, "polynomial": {"power": 2.0},
    "constant": {}, "constant_with_warmup": {}, "inverse_sqrt": {}, "cosine_with_min_lr": {"min_lr": 1e-3},
    "warmup_stable_decay": {"num_decay_steps": 1},
}  # fmt: skip
FLAGS = ("should_training_stop", "should_epoch_stop", "should_save", "should_evaluate", "should_log")

# Scenarios that end in an error of `Trainer`.
FAILING = {
    "a metric that is not there",
    "evaluation without rows",
    "resumed from nothing",
    "resumed from a folder that is not there",
    "no model",
    "a model and a maker",
    "no rows to train on",
    "an endless stream",
    "a maker with two inputs",
    "a maker of nothing",
    "a maker and an optimizer",
}

SCENARIOS = {
    # Lengths, batches, seeds
    "default": line(),
    "epochs 1": line(max_steps=-1, num_train_epochs=1),
    "epochs 1.5": line(max_steps=-1, num_train_epochs=1.5),
    "epochs 2": line(max_steps=-1, num_train_epochs=2),
    "steps beyond the rows": line(max_steps=9),
    "one step": text(max_steps=1),
    **{f"batch {size}": line(per_device_train_batch_size=size) for size in (1, 3, 16, 64)},
    **{f"accumulation {n}": text(gradient_accumulation_steps=n) for n in (2, 3)},
    "accumulation over an odd end": line(gradient_accumulation_steps=3, max_steps=-1, num_train_epochs=2),
    "tokens averaged over an update": text(
        model="gpt", taught=False, given=lambda: {"data_collator": causal}, gradient_accumulation_steps=2
    ),
    "the last batch dropped": text(dataloader_drop_last=True, per_device_train_batch_size=5, max_steps=5),
    "another seed": text(seed=7),
    "a seed of the data": text(data_seed=3),
    "rows in order": text(train_sampling_strategy="sequential"),
    "rows by length": text(train_sampling_strategy="group_by_length", taught=False),
    "rows by a column of lengths": text(
        train_sampling_strategy="group_by_length",
        length_column_name="size",
        taught=False,
        given=lambda: {"train_dataset": with_sizes()},
    ),
    "cache emptied": line(torch_empty_cache_steps=1),
    "twice": text(twice, taught=True),
    # Optimizers and schedules
    **{f"optimizer {name}": line(optim=name) for name in ("adamw_torch", "adafactor", "sgd", "adagrad", "rmsprop")},
    "settings of the optimizer": line(optim="sgd", optim_args="momentum=0.9,nesterov=True"),
    **{
        f"schedule {name}": line(lr_scheduler_type=name, lr_scheduler_kwargs=kwargs, warmup_steps=1)
        for name, kwargs in SCHEDULES.items()
    },
    "a schedule that watches the loss": line(
        lr_scheduler_type="reduce_lr_on_plateau",
        metric_for_best_model="loss",
        lr_scheduler_kwargs={"patience": 0},
        **STEPS,
    ),
    "warm-up by steps": text(warmup_steps=2, max_steps=4),
    "warm-up by a share": text(warmup_steps=0.5, max_steps=4),
    "rate": text(learning_rate=3e-3),
    "decay": text(weight_decay=0.1),
    "betas": text(adam_beta1=0.5, adam_beta2=0.9),
    "epsilon": text(adam_epsilon=1e-2),
    "gradients not clipped": text(max_grad_norm=0.0),
    "gradients clipped": text(max_grad_norm=0.1),
    "an optimizer of one's own": line(
        given=lambda: (
            (model := Line()) and {"model": model, "optimizers": (torch.optim.SGD(model.parameters(), lr=0.1), None)}
        )
    ),
    "an optimizer and a schedule": line(given=lambda: own_schedule()),
    "a class of optimizer": line(
        given=lambda: {"optimizer_cls_and_kwargs": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.5})}
    ),
    # Logs
    "log of the first step": text(logging_first_step=True, logging_steps=2),
    "logs by epoch": text(logging_strategy="epoch", max_steps=-1, num_train_epochs=2),
    "no logs": text(logging_strategy="no"),
    "logs by a share": text(logging_steps=0.5, max_steps=4),
    "stock intervals": Scenario(
        train_and_look, "bert", {"logging_steps": None, "learning_rate": None, "eval_strategy": "steps"}, dict
    ),
    "a loss that is no number, filtered": line(model="broken"),
    "a loss that is no number": line(model="broken", logging_nan_inf_filter=False),
    "tokens counted": text(include_num_input_tokens_seen="all"),
    "tokens without padding counted": text(include_num_input_tokens_seen="non_padding"),
    # Evaluation
    "evaluation by steps": text(**STEPS),
    "evaluation by epoch": text(eval_strategy="epoch", max_steps=-1, num_train_epochs=2),
    "evaluation by a share": text(eval_strategy="steps", eval_steps=0.5, max_steps=4),
    "evaluation as often as logs": text(eval_strategy="steps", logging_steps=2, max_steps=4),
    "evaluation at the start": text(eval_on_start=True, **STEPS),
    "evaluation delayed": text(eval_delay=2, **STEPS),
    "evaluation of two sets": text(
        given=lambda: {"eval_dataset": {"near": rows_of("bert", 5, 1), "far": rows_of("bert", 6, 2)}}, **STEPS
    ),
    "evaluation alone": text(evaluate),
    "evaluation under another prefix": text(lambda make: evaluate(make, metric_key_prefix="held")),
    "evaluation of other rows": line(lambda make: evaluate(make, Map(points(5, 9)))),
    "evaluation of sets by name": line(
        lambda make: evaluate(make, "near"),
        given=lambda: {"eval_dataset": {"near": Map(points(5, 1)), "far": Map(points(6, 2))}},
    ),
    "evaluation of a mapping": line(lambda make: evaluate(make, {"one": Map(points(5, 9))})),
    "evaluation without rows": line(evaluate, given=lambda: {"eval_dataset": None}),
    "a metric": line(train_and_look, given=lambda: {"compute_metrics": near}, **STEPS),
    "a metric of a classifier": text(train_and_look, given=lambda: {"compute_metrics": shapes}),
    "a metric of tokens": text(train_and_look, "tokens", given=lambda: {"compute_metrics": shapes}),
    "a metric batch by batch": line(evaluate, given=lambda: {"compute_metrics": InBatches()}, batch_eval_metrics=True),
    "a metric that sees inputs": text(
        evaluate, taught=False, given=lambda: {"compute_metrics": shapes}, include_for_metrics=["inputs"]
    ),
    "a metric that sees losses": line(
        evaluate, given=lambda: {"compute_metrics": shapes}, include_for_metrics=["loss"]
    ),
    "logits made ready": text(
        train_and_look,
        given=lambda: {
            "compute_metrics": shapes,
            "preprocess_logits_for_metrics": lambda logits, labels: logits.argmax(-1),
        },
    ),
    "outputs gathered in parts": line(predict, eval_accumulation_steps=1),
    "outputs in batches": line(predict, eval_do_concat_batches=False),
    "the loss alone": text(train_and_look, prediction_loss_only=True, given=lambda: {"compute_metrics": shapes}),
    "evaluation in halves": line(evaluate, model="saved", bf16_full_eval=True),
    **{f"evaluation in batches of {size}": line(predict, per_device_eval_batch_size=size) for size in (1, 5, 64)},
    # Prediction
    "prediction": text(predict),
    "prediction without labels": line(lambda make: predict(make, Map({"x": points()["x"]}))),
    "prediction under another prefix": line(lambda make: predict(make, metric_key_prefix="new")),
    "prediction of two outputs": line(predict, model="double"),
    "prediction of a mapping": line(predict, model="named"),
    "prediction with keys left out": line(lambda make: predict(make, ignore_keys=["y"]), model="named"),
    "prediction of a stream": line(lambda make: predict(make, Stream(points(7, 3)))),
    "prediction of tokens": text(predict, "tokens"),
    "prediction after a training by length": text(train_and_look, train_sampling_strategy="sequential"),
    # Models and labels
    "two outputs": line(train_and_look, model="double"),
    "a mapping as output": line(train_and_look, model="named"),
    "two columns of labels": line(train_and_look, model="two", label_names=["first", "second"]),
    "names of labels": text(evaluate, label_names=["labels"]),
    "a number as label": text(train_and_look, "regression"),
    "several labels": text(train_and_look, "many"),
    "labels of tokens": text(train_and_look, "tokens"),
    "a decoder": text(train_and_look, "gpt", taught=False, given=lambda: {"data_collator": causal}),
    "smoothed labels": text(label_smoothing_factor=0.2),
    "smoothed labels of tokens": text(model="tokens", label_smoothing_factor=0.2),
    "a loss of one's own": line(
        train_and_look,
        given=lambda: {
            "compute_loss_func": lambda outputs, labels, num_items_in_batch=None: (outputs[-1] - labels).abs().mean()
        },
    ),
    "a model that is made": line(given=lambda: {"model": None, "model_init": lambda: Line()}),
    "a model that is made twice": line(
        twice, given=lambda: {"model": None, "model_init": lambda trial: Line(0.1, 0.2)}
    ),
    "a model that draws": line(train_and_look, model="noisy"),
    "dropout": text(model="dropout"),
    "dropout and evaluations": text(model="dropout", taught=False, **STEPS),
    "noisy embeddings": text(neftune_noise_alpha=0.1),
    "activations computed anew": text(activation_checkpointing=True),
    "bf16": text(bf16=True),
    # Kinds of rows
    "a list of rows": line(
        train_and_look, given=lambda: {"train_dataset": [Map(points())[index] for index in range(16)]}
    ),
    "a table of rows": line(train_and_look, given=lambda: {"train_dataset": datasets.Dataset.from_dict(points())}),
    "a table with an unused column": text(
        train_and_look, given=lambda: {"train_dataset": rows_of("bert").add_column("note", ["a"] * 12)}
    ),
    "no column dropped": line(train_and_look, remove_unused_columns=False),
    "a stream": line(given=lambda: {"train_dataset": Stream(points())}),
    "a stream that ends before the steps": line(given=lambda: {"train_dataset": Stream(points(6))}, max_steps=5),
    "a stream of a table": text(given=lambda: {"train_dataset": rows_of("bert").to_iterable_dataset()}),
    "a stream for the evaluation": text(
        train_and_look, given=lambda: {"eval_dataset": rows_of("bert", 5, 3).to_iterable_dataset()}
    ),
    "a column called label": text(
        train_and_look,
        given=lambda: {"train_dataset": rows_of("bert").rename_column("labels", "label"), "data_collator": renamed},
    ),
    "a collator of transformers": line(given=lambda: {"data_collator": DefaultDataCollator()}),
    "batches": text(batches, taught=False),
    "batches of points": line(batches),
    # Saving
    "saved by steps": text(**SAVES),
    "saved by epoch": text(save_strategy="epoch", max_steps=-1, num_train_epochs=2),
    "saved by a share": text(save_strategy="steps", save_steps=0.5, max_steps=4),
    "saved when it is best": text(save_strategy="best", metric_for_best_model="loss", **STEPS),
    "not saved": text(save_strategy="no"),
    **{f"{limit} kept": text(save_total_limit=limit, max_steps=4, **SAVES) for limit in (1, 2)},
    "weights only": text(save_only_model=True, **SAVES),
    "a line that can be saved": line(model="saved", **SAVES),
    "a line that is plain": line(**SAVES),
    "saved at the end": text(saved),
    "the best at the end": text(**BEST),
    "the best at the end, one kept": text(save_total_limit=1, max_steps=4, **BEST),
    "the best by a metric that rises": text(
        given=lambda: {"compute_metrics": lambda found: {"count": float(len(found.label_ids))}},
        metric_for_best_model="count",
        **BEST,
    ),
    "the best by a metric that falls": line(
        given=lambda: {"compute_metrics": near}, metric_for_best_model="near", greater_is_better=False, **BEST
    ),
    "the best by a metric of one set": line(
        given=lambda: {"eval_dataset": {"a": Map(points(5, 1)), "b": Map(points(6, 2))}},
        metric_for_best_model="b_loss",
        **BEST,
    ),
    "a metric that is not there": line(metric_for_best_model="nothing", **BEST),
    "early end": line(
        given=lambda: {"callbacks": [EarlyStoppingCallback(1, 100.0)]},
        metric_for_best_model="loss",
        max_steps=6,
        **BEST,
    ),
    # Resuming
    "resumed": text(resume, max_steps=4, **SAVES),
    # A distillation takes no step beyond the last one.
    "resumed from the last": text(lambda make: resume(make, flag=True), taught=False, max_steps=4, **SAVES),
    "resumed in a later epoch": text(lambda make: resume(make, step=4), max_steps=7, **SAVES),
    "resumed with accumulation": text(resume, gradient_accumulation_steps=2, max_steps=4, **SAVES),
    "resumed with other generators": line(lambda make: resume(make, step=5), model="noisy", max_steps=7, **SAVES),
    "resumed without skipped rows": text(resume, ignore_data_skip=True, max_steps=4, **SAVES),
    "resumed with a stream": line(resume, given=lambda: {"train_dataset": Stream(points())}, max_steps=4, **SAVES),
    "resumed for longer": line(lambda make: resume(make, max_steps=6), max_steps=4, **SAVES),
    "resumed with the best": text(resume, max_steps=4, **BEST),
    "resumed with callbacks": line(
        resume,
        given=lambda: {"callbacks": [EarlyStoppingCallback(9)]},
        metric_for_best_model="loss",
        restore_callback_states_from_checkpoint=True,
        max_steps=4,
        **BEST,
    ),
    "resumed from nothing": line(lambda make: resume(make, flag=True)),
    "resumed from a folder that is not there": line(lambda make: resume(make, flag="nowhere")),
    # Callbacks
    "events": Scenario(watched, "bert", BEST | {"logging_steps": 2}, dict, True),
    "events of an evaluation": line(
        lambda make: (
            (trainer := make(given={"callbacks": [watcher := Watcher()]}))
            and (trainer, [trainer.evaluate(), trainer.predict(trainer.eval_dataset), watcher.seen])
        )
    ),
    "callbacks come and go": line(callbacks),
    "a class as callback": line(given=lambda: {"callbacks": [Watcher]}),
    **{
        f"a callback asks: {flag}": text(given=lambda flag=flag: {"callbacks": [Ask(flag)]}, max_steps=4)
        for flag in FLAGS
    },
    # Errors
    "no model": line(given=lambda: {"model": None}),
    "a model and a maker": line(given=lambda: {"model_init": Line}),
    "no rows to train on": line(given=lambda: {"train_dataset": None}),
    "an endless stream": line(given=lambda: {"train_dataset": Stream(points())}, max_steps=-1),
    "a maker with two inputs": line(given=lambda: {"model": None, "model_init": lambda one, two: Line()}),
    "a maker of nothing": line(given=lambda: {"model": None, "model_init": lambda: None}),
    "batches without a metric": line(evaluate, batch_eval_metrics=True),
    "a maker and an optimizer": line(
        given=lambda: {
            "model": None,
            "model_init": Line,
            "optimizers": (torch.optim.SGD(Line().parameters(), lr=0.1), None),
        }
    ),
}


def with_sizes():
    rows = rows_of("bert")
    return rows.add_column("size", [len(ids) for ids in rows["input_ids"]])


def own_schedule():
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return {
        "model": model,
        "optimizers": (optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)),
    }


def renamed(rows):
    return padded([{("labels" if name == "label" else name): value for name, value in row.items()} for row in rows])
