"""Trainings on the simulated device: what each costs in a step, and whether it ends as it should.

`report.measured` runs all of them, or those that are named, in a process of their own. Each gives `mixes` of the whole
run (place -> how many), and of one step `waits` and `copies` likewise, `launches`, `bytes`, and `loss_bytes` by
objective.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import device

# isort: split
# Everything else comes after the device.
import datasets
import torch
from tiny_data import labelled_rows
from tokenizer_cases import character_tokenizer, word_tokenizer
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    TrainerCallback,
    set_seed,
)

from hf_distill import (
    DistillationArguments,
    DistillationTrainer,
    EncoderForGeneration,
    GenerationSettings,
    GenerationTrainer,
    GenerationTrainingArguments,
    MTLArguments,
    MTLTrainer,
    MultiTeacherArguments,
    MultiTeacherTrainer,
    StoredTeacher,
    adapter_teachers,
    precompute,
)
from hf_distill.capture import signals
from hf_distill.generation.packing import SpecialIds
from hf_distill.settings import FineTuningArguments
from hf_distill.tasks import tokenize_task
from hf_distill.tasks.loading import LoadedTask
from hf_distill.tasks.spec import FineTuningDefaults, TaskSpec
from hf_distill.teachers.stored.teacher import join_rows
from hf_distill.trainers.distillation.model import DistillationModel
from hf_distill.trainers.fine_tuning.masked_lm_head import MaskedHeadTrainer
from hf_distill.trainers.fine_tuning.trainer import build_trainer

# The step that is counted; in the one before it, optimizers make their state.
FIRST, LAST = 1, 2
TOKENIZER = word_tokenizer()
WORDS = sorted(word for word in TOKENIZER.get_vocab() if word.isalpha())
OBJECTIVES = ["relation", "minilm", "logits", "labels", "annealed", "hidden", "cosine", "pkd", "fsp", "nst"]
OBJECTIVES += ["attention", "tinybert", "tinybert_prediction"]
DEFAULTS = FineTuningDefaults(max_length=32)
NAMES = {"id2label": {0: "bad", 1: "good"}}
SPEC = TaskSpec("mood", ("text",), ("bad", "good"), metrics=("accuracy",), fine_tuning=DEFAULTS)
SCORE = TaskSpec("score", ("text",), None, metrics=("pearson",), fine_tuning=DEFAULTS)


# ---- Models and rows ----


def _config(**fields: Any) -> BertConfig:
    sizes = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 32}
    sizes |= {"vocab_size": len(TOKENIZER), "max_position_embeddings": 64, "num_labels": 2}
    return BertConfig(**{**sizes, **fields})


def model(kind: Any = BertForSequenceClassification, seed: int = 0, **fields: Any) -> Any:
    """A tiny model."""
    set_seed(seed)
    return kind(_config(**fields))


def pair(kind: Any = BertForSequenceClassification, **fields: Any) -> tuple[Any, Any]:
    """A teacher and a smaller student."""
    return model(kind, **fields).eval(), model(kind, 1, **{**fields, "hidden_size": 12, "num_hidden_layers": 2})


def texts(count: int = 24) -> list[str]:
    """Texts of three to twelve words."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 13, (count,), generator=generator).tolist()
    return [
        " ".join(WORDS[i] for i in torch.randint(0, len(WORDS), (length,), generator=generator)) for length in lengths
    ]


def rows(labels: Callable[[int, int], Any] | None = None, column: str = "labels", **columns: Any) -> datasets.Dataset:
    """Tokenized rows; `labels(row, length)` makes their labels, by default two classes."""
    encoded = dict(TOKENIZER(texts()))
    made = [(labels or (lambda row, _: row % 2))(row, len(ids)) for row, ids in enumerate(encoded["input_ids"])]
    return datasets.Dataset.from_dict({**encoded, column: made, **columns})


def arguments(kind: Any = DistillationArguments, **values: Any) -> Any:
    """Arguments of a training of two steps that logs and saves nothing on the way."""
    given = {"max_steps": LAST, "per_device_train_batch_size": 4, "logging_steps": 100, "save_strategy": "no"}
    given |= {"report_to": "none", "disable_tqdm": True, "train_sampling_strategy": "random"}
    given |= {"dataloader_num_workers": 0}
    return kind(tempfile.mkdtemp(), **{**given, **values})


# ---- What is measured ----


class _Steps(TrainerCallback):
    """Remembers the counts at the end of every step, before anything is logged or saved."""

    def __init__(self, watch: device.Watch) -> None:
        self.watch, self.at = watch, dict[int, dict[str, Any]]()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.at[state.global_step] = self.watch.counts()


class Run:
    """One configuration: a trainer is made, and its steps are counted."""

    def __init__(self, watch: device.Watch) -> None:
        self.steps = _Steps(watch)
        self.watch = watch

    def distil(
        self, objectives: Any, models: Any = None, data: Any = None, *, trainer: Any = None, **values: Any
    ) -> Any:
        """Train a student of one teacher, or with a list of teachers of several."""
        teacher, student = pair() if models is None else models
        several = isinstance(teacher, list)
        kind = MultiTeacherTrainer if several else DistillationTrainer
        made = kind(
            copy.deepcopy(student),
            arguments(MultiTeacherArguments if several else DistillationArguments, **values),
            train_dataset=rows() if data is None else data,
            processing_class=TOKENIZER,
            objectives=objectives,
            callbacks=[self.steps],
            **{"teacher_models" if several else "teacher_model": teacher},
            **(trainer or {}),
        )
        made.train()
        return made

    def found(self) -> dict[str, Any]:
        """What one step costs."""
        first, last = self.steps.at.get(FIRST), self.steps.at.get(LAST)
        if first is None or last is None:
            return {"mixes": dict(self.watch.mixes)}
        count = LAST - FIRST

        def each(name: str) -> dict[str, float]:
            return {place: number / count for place, number in (last[name] - first[name]).items()}

        parts = each("bytes")
        return {
            "mixes": dict(self.watch.mixes),
            **{name: each(name) for name in ("waits", "copies")},
            "launches": (last["launches"] - first["launches"]) / count,
            "bytes": sum(parts.values()),
            "loss_bytes": {name: number for name, number in parts.items() if name},
        }


# ---- The configurations ----

RUNS: dict[str, Callable[[Run], Any]] = {}


def _run(name: str) -> Callable[[Callable[[Run], Any]], Callable[[Run], Any]]:
    def register(function: Callable[[Run], Any]) -> Callable[[Run], Any]:
        RUNS[name] = function
        return function

    return register


for _name, _values in {"fp32": {}, "bf16": {"bf16": True}, "fp16 and a scaler": {"fp16": True}}.items():
    _run(f"all objectives, {_name}")(lambda run, values=_values: run.distil(OBJECTIVES, **values))
_run("bert_emd")(lambda run: run.distil(["bert_emd"]))
_run("two micro-batches, checkpointing")(
    lambda run: run.distil(["relation", "logits"], gradient_accumulation_steps=2, gradient_checkpointing=True)
)
_run("rows of one length")(
    lambda run: run.distil(["relation", "logits"], data=rows().filter(lambda row: len(row["input_ids"]) == 9))
)


@_run("rows padded on the left")
def _(run: Run) -> None:
    left = copy.deepcopy(TOKENIZER)
    left.padding_side = "left"
    teacher, student = pair()
    args, given = arguments(), {"train_dataset": rows(), "processing_class": left, "callbacks": [run.steps]}
    DistillationTrainer(student, args, teacher_model=teacher, objectives=["relation", "pkd"], **given).train()


@_run("masked tokens")
def _(run: Run) -> None:
    items = [{"objective": "logits", "positions": "labels"}, "labels"]
    run.distil(items, pair(BertForMaskedLM), rows().remove_columns("labels"), mlm_probability=0.3)


@_run("a head of tags")
def _(run: Run) -> None:
    data = rows(lambda row, length: [(row + place) % 3 - 1 for place in range(length)])
    items = ["logits", "labels", "annealed", {"objective": "logits", "name": "shown", "positions": "labels"}]
    run.distil(items, pair(BertForTokenClassification), data)


@_run("a head of answers")
def _(run: Run) -> None:
    ends = [3] * 24
    data = rows(lambda row, length: 1, "start_positions", end_positions=ends)
    run.distil(["logits", "labels", "annealed"], pair(BertForQuestionAnswering), data)


@_run("a head of values")
def _(run: Run) -> None:
    fields = {"num_labels": 1, "problem_type": "regression"}
    run.distil(["logits", "labels", "annealed"], pair(**fields), rows(lambda row, length: row / 24))


@_run("a head of several labels")
def _(run: Run) -> None:
    fields = {"num_labels": 3, "problem_type": "multi_label_classification"}
    data = rows(lambda row, length: [float(row % 2), 1.0, 0.0])
    run.distil(["logits", "labels", "annealed"], pair(**fields), data)


def _lists(run: Run, teachers: int) -> None:
    """Rerankers on queries with two or three candidates."""
    lines, fields = texts(), {"num_labels": 1, "problem_type": "regression"}
    data = [{"text": one, "candidates": lines[row % 20 : row % 20 + 2 + row % 2]} for row, one in enumerate(lines)]
    taught = [model(seed=seed, **fields).eval() for seed in range(teachers)]
    models = (taught if teachers > 1 else taught[0], pair(**fields)[1])
    run.distil(["margin", "listwise"], models, datasets.Dataset.from_list(data), max_length=32)


_run("candidates of a query")(lambda run: _lists(run, 1))
_run("candidates of a query, two teachers")(lambda run: _lists(run, 2))


@_run("temperatures of rows")
def _(run: Run) -> None:
    values = {"temperature": 4.0, "temperature_schedule": {"name": "flsw"}, "probability_shift": True}
    run.distil([{"objective": "logits", **values}, {"objective": "logits", "name": "kl", "schedule": "linear_decay"}])


_run("vectors of texts")(
    lambda run: run.distil(["embedding", {"objective": "similarity", "loss": "both"}], pair(BertModel), bf16=True)
)


@_run("a teacher in bfloat16")
def _(run: Run) -> None:
    run.distil(["relation", "logits"], teacher_dtype="bfloat16")


@_run("a teacher on the CPU")
def _(run: Run) -> None:
    run.distil(["relation", "logits"], teacher_device="cpu")


@_run("a quantised teacher, which may not move")
def _(run: Run) -> None:
    teacher, student = pair()

    def to(*given: Any, **named: Any) -> Any:
        raise ValueError("a quantised model is not moved")

    teacher.cuda()
    teacher.is_quantized, teacher.to = True, to
    run.distil(["relation", "logits"], (teacher, student))


def _stored(seed: int, objectives: list[str], name: str = "teacher", **fields: Any) -> StoredTeacher:
    """A teacher whose signals were computed for `rows()`."""
    folder = tempfile.mkdtemp()
    teacher = model(seed=seed, **fields).eval()
    return StoredTeacher(precompute(rows(), teacher, objectives, folder, processing_class=TOKENIZER).folder, name)


@_run("a stored teacher")
def _(run: Run) -> None:
    teacher = _stored(0, ["relation", "logits"])
    run.distil(["relation", "logits"], (teacher, pair()[1]), teacher.dataset, dataloader_num_workers=2)


@_run("two stored teachers")
def _(run: Run) -> None:
    teachers = [_stored(2, ["logits"], "one"), _stored(3, ["logits"], "two")]
    run.distil(["logits"], (teachers, pair()[1]), join_rows(teachers))


@_run("batches by tokens")
def _(run: Run) -> None:
    values = {"max_tokens_per_batch": 48, "train_sampling_strategy": "group_by_length"}
    run.distil(["relation", "logits"], **values)


_run("packed rows, bf16")(lambda run: run.distil(["relation", "hidden"], pack_rows=True, bf16=True))


@_run("a teacher with a tokenizer of its own")
def _(run: Run) -> None:
    lines = texts()
    other = character_tokenizer(lines)
    teacher = model(vocab_size=len(other), max_position_embeddings=128).eval()
    data = datasets.Dataset.from_dict({"text": lines, "labels": [row % 2 for row in range(len(lines))]})
    given = {"teacher_processing_class": other}
    run.distil(["logits", "hidden"], (teacher, pair()[1]), data, trainer=given, align_tokenizers=True)


for _rule in ("mean_logits", "mean_probabilities", "confidence"):
    _run(f"two teachers, {_rule}")(
        lambda run, rule=_rule: run.distil(
            ["logits", {"objective": "relation", "teacher": 1}],
            ([model(seed=2).eval(), model(seed=3).eval()], pair()[1]),
            combine=rule,
        )
    )


@_run("two teachers, each row its own")
def _(run: Run) -> None:
    teachers = [model(seed=2).eval(), model(seed=3).eval()]
    data = rows(teacher_id=[row % 2 for row in range(24)])
    run.distil(["logits", "relation"], (teachers, pair()[1]), data, combine="route")


@_run("two teachers, offloaded")
def _(run: Run) -> None:
    run.distil(["logits"], ([model(seed=2).eval(), model(seed=3).eval()], pair()[1]), offload_teachers=True)


@_run("adapters as teachers")
def _(run: Run) -> None:
    import peft

    folders = []
    for index in range(2):
        config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"], init_lora_weights=False)
        folders.append(str(Path(tempfile.mkdtemp(), f"adapter_{index}")))
        peft.get_peft_model(model(seed=index), config).save_pretrained(folders[-1])
    run.distil(["logits"], (adapter_teachers(model().eval(), folders), pair()[1]))


@_run("a student's adapter")
def _(run: Run) -> None:
    import peft

    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    run.distil(["relation", "logits"], trainer={"peft_config": config})


def _task(spec: TaskSpec) -> LoadedTask:
    labels = [row % 2 if spec.label_names else row / 24 for row in range(24)]
    data = labelled_rows(texts(), labels, spec.label_names)
    return LoadedTask(spec, datasets.DatasetDict(train=data, validation=data.select(range(8))), "here")


def _many_tasks(run: Run, teachers: Any = None, folder: str | None = None, **values: Any) -> MTLTrainer:
    args = arguments(MTLArguments, gradient_accumulation_steps=1, **values)
    args.output_dir = folder or args.output_dir
    return MTLTrainer(
        model(BertModel),
        args,
        processing_class=TOKENIZER,
        tasks=[_task(SPEC), _task(SCORE)],
        task_teachers={"mood": teachers or [model(seed=seed, **NAMES).eval() for seed in (2, 3)]},
        callbacks=[run.steps],
        max_length=32,
    )


@_run("many tasks, learnt weights")
def _(run: Run) -> None:
    trainer = _many_tasks(run, task_weighting="uncertainty")
    trainer.train()
    trainer.evaluate()


_run("many tasks, gradient norms, noise")(
    lambda run: _many_tasks(run, task_weighting="gradient_norm", r3f_lambda=0.1, bf16=True).train()
)
_run("many tasks, a stored teacher")(
    lambda run: _many_tasks(run, [_stored(2, ["logits"], "teacher_0", **NAMES).folder]).train()
)


@_run("many tasks, checkpoint and resume, bf16")
def _(run: Run) -> None:
    values = {"save_strategy": "steps", "save_steps": 1, "max_steps": 3, "bf16": True, "save_total_limit": 3}
    folder = tempfile.mkdtemp()
    whole, resumed = (_many_tasks(Run(run.watch), None, folder, **values) for _ in range(2))
    whole.train()
    resumed.train(resume_from_checkpoint=str(Path(folder, "checkpoint-2")))
    _check_equal(resumed.model, whole.model)


@_run("fine-tuning on rows")
def _(run: Run) -> None:
    args = arguments(FineTuningArguments).with_task_defaults(SPEC)
    task = _task(SPEC)
    data = {split: tokenize_task(task.dataset[split], SPEC, TOKENIZER, 32) for split in ("train", "validation")}
    trainer = build_trainer(model(), SPEC, TOKENIZER, args, data["train"], data["validation"], [run.steps])
    trainer.train()
    trainer.evaluate()


@_run("fine-tuning on values")
def _(run: Run) -> None:
    args = arguments(FineTuningArguments).with_task_defaults(SCORE)
    data = tokenize_task(_task(SCORE).dataset["train"], SCORE, TOKENIZER, 32)
    build_trainer(model(num_labels=1), SCORE, TOKENIZER, args, data, callbacks=[run.steps]).train()


@_run("a masked-LM head")
def _(run: Run) -> None:
    args = arguments(mlm_probability=0.3)
    data = rows().remove_columns("labels")
    given = {"train_dataset": data, "processing_class": TOKENIZER, "callbacks": [run.steps]}
    MaskedHeadTrainer(model(BertForMaskedLM), args, freeze_encoder=False, **given).train()


def _writing(run: Run, way: str) -> None:
    ids = TOKENIZER(texts(), add_special_tokens=False)["input_ids"]
    data = datasets.Dataset.from_dict({"source": ids, "target": [one[: 1 + len(one) % 4] for one in ids]})
    settings = GenerationSettings(num_beams=2, max_new_tokens=4, batch_size=4, max_source_length=16)
    writer = EncoderForGeneration(
        model(BertForMaskedLM), SpecialIds.from_tokenizer(TOKENIZER), way=way, settings=settings, tokenizer=TOKENIZER
    )
    args = arguments(GenerationTrainingArguments)
    trainer = GenerationTrainer(writer, args, train_dataset=data, eval_dataset=data, callbacks=[run.steps])
    trainer.train()
    trainer.evaluate()
    assert len(trainer.predict_texts(data.select(range(4)))) == 4


_run("generation")(lambda run: _writing(run, "pseudo"))


def _check_equal(one: Any, other: Any) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert all(torch.equal(ours[name].cpu(), theirs[name].cpu()) for name in ours), "a resumed run ends elsewhere"


@_run("evaluation, checkpoint and resume")
def _(run: Run) -> None:
    values = {"save_strategy": "steps", "save_steps": 1, "max_steps": 3, "fp16": True}
    given = {"eval_task": _task(SPEC), "eval_dataset": rows()}
    teacher, student = model(**NAMES), model(hidden_size=12, **NAMES)

    def build(folder: str) -> Any:
        args = arguments(**values, eval_agreement=True, max_length=32)
        args.output_dir = folder
        return DistillationTrainer(
            copy.deepcopy(student),
            args,
            train_dataset=rows(),
            processing_class=TOKENIZER,
            teacher_model=teacher,
            objectives=["relation", "logits", "hidden"],
            **given,
        )

    folder = tempfile.mkdtemp()
    whole = build(folder)
    whole.train()
    metrics = whole.evaluate()
    assert {"eval_agreement", "eval_loss"} <= metrics.keys()
    assert len(whole.predict(rows()).predictions) == 24
    resumed = build(folder)
    resumed.train(resume_from_checkpoint=str(Path(folder, "checkpoint-2")))
    _check_equal(resumed.student, whole.student)
    whole.save_model(folder)
    BertForSequenceClassification.from_pretrained(folder)


def _plainness_of_numbers(is_plain: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda values: is_plain(values.elem if isinstance(values, device.DeviceTensor) else values)


# Tensors of kinds of their own, such as those of the device, would not be looked at.
signals.is_plain = _plainness_of_numbers(signals.is_plain)


def measure(name: str) -> dict[str, Any]:
    """Run one configuration."""
    with device.Watch() as watch, _objectives_watched(watch):
        run = Run(watch)
        RUNS[name](run)
    return run.found()


@contextmanager
def _objectives_watched(watch: device.Watch) -> Iterator[None]:
    """The bytes of every objective are counted as those of a part."""
    before = DistillationModel.__init__

    def init(wrapped: Any, *args: Any, **kwargs: Any) -> None:
        before(wrapped, *args, **kwargs)
        for name, objective in wrapped.objectives.items():
            objective.forward = _in_part(watch, name, objective.forward)

    DistillationModel.__init__ = init  # type: ignore[method-assign]
    try:
        yield
    finally:
        DistillationModel.__init__ = before  # type: ignore[method-assign]


def _in_part(watch: device.Watch, name: str, forward: Any) -> Any:
    def inside(*args: Any, **kwargs: Any) -> Any:
        with watch.part(name):
            return forward(*args, **kwargs)

    return inside


def main(names: list[str]) -> dict[str, Mapping[str, Any]]:
    """Run configurations; one that fails has its error."""
    found: dict[str, Any] = {}
    for name in names or RUNS:
        try:
            found[name] = measure(name)
        except Exception as error:
            found[name] = {"error": f"{type(error).__name__}: {error}"}
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    datasets.disable_progress_bars()
    print(json.dumps(main(sys.argv[1:])), file=sys.__stdout__)
