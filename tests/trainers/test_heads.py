"""Heads that speak about words and spans: loss, accumulation, fine-tuning from rows to scores, distillation."""

import copy

import pytest
import torch
from datasets import Dataset, DatasetDict
from torch.nn import functional
from trainings import logged, trained
from transformers import AutoModelForQuestionAnswering, AutoModelForTokenClassification, set_seed

from hf_distill import create_student
from hf_distill.settings import FineTuningArguments
from hf_distill.tasks import tokenize_task
from hf_distill.tasks.loading import LoadedTask
from hf_distill.tasks.rows.questions import normalise_questions
from hf_distill.tasks.rows.words import normalise_words
from hf_distill.tasks.spec import TaskSpec
from hf_distill.trainers.fine_tuning.heads import head_of
from hf_distill.trainers.fine_tuning.trainer import TaskLoss, build_trainer, evaluate_model, finetune

TAGS = ("O", "B-X", "I-X")
WORDS = TaskSpec(
    "words", ("tokens",), TAGS, label_column="tags", kind="token_classification", metrics=("f1", "accuracy")
)
SPANS = TaskSpec(
    "spans", ("question", "context"), None, label_column="answers", kind="question_answering",
    metrics=("f1", "exact_match"),
)  # fmt: skip


def word_rows(sentences):
    """Words with an early first letter are entities."""
    rows = [sentence.split() for sentence in sentences]
    tags = [[int(word[0] < "h") for word in row] for row in rows]
    return normalise_words(Dataset.from_dict({"tokens": rows, "tags": tags}), WORDS, split="train")


def span_rows(sentences):
    """The second word is the answer."""
    rows = []
    for sentence in sentences:
        word = sentence.split()[1]
        start = sentence.index(" ") + 1
        rows.append({"question": "it", "context": sentence, "answers": {"text": [word], "answer_start": [start]}})
    return normalise_questions(Dataset.from_list(rows), SPANS, split="train")


@pytest.fixture(params=["words", "spans"])
def task(request, sentences):
    """A small task whose validation rows are among its training rows."""
    spec, rows = (WORDS, word_rows(sentences)) if request.param == "words" else (SPANS, span_rows(sentences))
    return LoadedTask(spec, DatasetDict(train=rows, validation=rows.select(range(32))), "here")


@pytest.fixture
def model(task, tiny_bert_config):
    """A model with the head of the task."""
    set_seed(0)
    names = dict(enumerate(TAGS)) if task.spec is WORDS else {0: "start", 1: "end"}
    return head_of(task.spec).auto_class.from_config(tiny_bert_config(id2label=names, num_labels=len(names)))


def settings(folder, **values):
    return FineTuningArguments(
        str(folder), use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no",
        per_device_train_batch_size=8, **values,
    )  # fmt: skip


def test_a_model_learns_words_and_spans_and_is_scored_on_them(task, model, tiny_tokenizer, tmp_path):
    args = settings(tmp_path, num_train_epochs=30, learning_rate=5e-3)
    result = finetune(model, task, tiny_tokenizer, args, max_length=32)
    assert result.metric == "f1"
    assert result.score > 0.8
    auto = {"words": AutoModelForTokenClassification, "spans": AutoModelForQuestionAnswering}[task.spec.name]
    loaded = auto.from_pretrained(tmp_path)
    scores = evaluate_model(loaded, task, tiny_tokenizer, settings(tmp_path), max_length=32)
    assert scores["validation"]["f1"] == result.scores["validation"]["f1"]


def test_scores_during_training_are_those_at_the_end(task, model, tiny_tokenizer, tmp_path):
    args = settings(tmp_path, max_steps=4, eval_strategy="steps", eval_steps=4)
    result = finetune(model, task, tiny_tokenizer, args, max_length=32)
    (during,) = [entry["eval_f1"] for entry in result.history if "eval_f1" in entry]
    assert during == result.scores["validation"]["f1"]


def test_accumulated_batches_give_the_update_of_one_large_batch(task, model, tiny_tokenizer, tmp_path):
    tokens = tokenize_task(task.train.select(range(16)), task.spec, tiny_tokenizer, 32)
    weights = []
    for size, parts in ((16, 1), (4, 4)):
        args = settings(tmp_path, max_steps=1, learning_rate=1e-2, gradient_accumulation_steps=parts, optim="sgd")
        args.per_device_train_batch_size, args.train_sampling_strategy = size, "sequential"
        args.warmup_steps, args.weight_decay, args.num_train_epochs = 0, 0.0, 1.0
        set_seed(0)
        own = type(model)(model.config)
        build_trainer(own, task.spec, tiny_tokenizer, args, tokens).train()
        weights.append({name: value.detach().clone() for name, value in own.named_parameters()})
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-6, msg=name)


@torch.no_grad()
def test_scores_do_not_depend_on_batches_or_the_side_of_the_padding(task, model, tiny_tokenizer, tmp_path):
    """A model that knows no places: whatever differs comes from here."""
    for name, weight in model.named_parameters():
        weight.mul_(0 if "position_embeddings" in name else 8)
    left = copy.copy(tiny_tokenizer)
    left.padding_side = "left"
    found = []
    for tokenizer, size in ((tiny_tokenizer, 32), (tiny_tokenizer, 5), (left, 5)):
        args = settings(tmp_path, per_device_eval_batch_size=size)
        found.append(evaluate_model(model, task, tokenizer, args, max_length=32)["validation"])
    assert found[1] == pytest.approx(found[0], abs=1e-5)
    assert found[2] == pytest.approx(found[0], abs=1e-5)
    assert len(set(found[0].values())) > 1


def test_the_loss_of_words_counts_first_tokens_only():
    logits, labels = torch.randn(2, 4, 3), torch.tensor([[-100, 1, -100, -100], [-100, 0, 2, -100]])
    expected = functional.cross_entropy(logits[labels >= 0], labels[labels >= 0])
    loss = TaskLoss(head_of(WORDS))
    assert loss({"logits": logits}, labels).item() == pytest.approx(expected.item())
    order = [2, 0, 1]
    turned = torch.empty_like(logits)
    turned[..., order] = logits
    assert TaskLoss(head_of(WORDS, order))({"logits": turned}, labels).item() == pytest.approx(expected.item())


def test_the_loss_of_spans_is_the_mean_of_both_ends():
    start, end, labels = torch.randn(3, 5), torch.randn(3, 5), torch.tensor([[1, 2], [0, 0], [3, 4]])
    expected = (functional.cross_entropy(start, labels[:, 0]) + functional.cross_entropy(end, labels[:, 1])) / 2
    loss = TaskLoss(head_of(SPANS))({"start_logits": start, "end_logits": end}, labels)
    assert loss.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("objectives", [["logits"], ["logits", "labels", "relation"]], ids=["logits", "with labels"])
def test_a_student_learns_from_tokens_with_labels(task, model, tiny_tokenizer, tmp_path, objectives, make_trainer):
    finetune(model, task, tiny_tokenizer, settings(tmp_path / "t", max_steps=40, learning_rate=5e-3), max_length=32)
    student = create_student(model, "2x24:4h:32", init="random")
    tokens = tokenize_task(task.train, task.spec, tiny_tokenizer, 32)
    given = {"objectives": objectives, "max_steps": 6, "learning_rate": 5e-3}
    given["train_sampling_strategy"] = "group_by_length"
    trainer = trained(make_trainer(model, student=student, train_dataset=tokens, **given))
    assert logged(trainer)[-1] < logged(trainer)[0]
    assert type(trainer.student) is type(model)


def test_padding_changes_no_term_of_words_and_spans(task, model, tiny_tokenizer, make_trainer):
    student = create_student(model, "2x24:4h:32", init="random")
    tokens = tokenize_task(task.train.select(range(6)), task.spec, tiny_tokenizer, 32)
    trainer = make_trainer(model, student=student, train_dataset=tokens, objectives=["logits", "labels"])
    columns = [name for name in tokens.column_names if name in trainer._remove_unused_columns(tokens).column_names]
    rows = [{name: row[name] for name in columns} for row in tokens]
    short = trainer.data_collator([dict(row) for row in rows])
    long = {
        name: value if value.ndim == 1 else functional.pad(
            value, (0, 5), value={"labels": -100, "input_ids": 0}.get(name, 0)
        )
        for name, value in short.items()
    }  # fmt: skip
    trainer.model.eval()
    with torch.no_grad():
        losses = [trainer.compute_loss(trainer.model, dict(batch)).item() for batch in (short, long)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
