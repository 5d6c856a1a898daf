"""A stored teacher teaches what the live one does."""

import pytest
import torch
from stored_cases import EVERYTHING, assert_same_logs, train
from torch.testing import assert_close
from trainings import assert_same_weights
from transformers import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    DataCollatorWithPadding,
    RobertaConfig,
    RobertaForSequenceClassification,
    set_seed,
)

from hf_distill.capture.signals import SignalRequest
from hf_distill.objectives import list_objectives
from hf_distill.objectives.base import objective_class
from hf_distill.teachers.base import LiveTeacher
from hf_distill.teachers.stored.teacher import StoredTeacher


@pytest.mark.parametrize("side", ["right", "left"])
def test_with_the_same_batches_training_equals_that_with_the_live_teacher_bit_for_bit(
    side, store, build, tiny_teacher, tiny_tokenizer, left_tokenizer, rows, one_thread
):
    # On one thread: several share out the rows of a product by their places in the batch, which rounds differently.
    tokenizer = tiny_tokenizer if side == "right" else left_tokenizer
    live = build(tiny_teacher, tokenizer=tokenizer, trainer={"train_dataset": rows})
    stored = build(store(batch_size=8, shard_rows=8, processing_class=tokenizer), tokenizer=tokenizer)
    assert train(stored) == train(live)
    assert_same_weights(stored.student, live.student)


@pytest.mark.parametrize(("dtype", "rel"), [("float32", 1e-5), ("float16", 2e-3), ("bfloat16", 2e-2)])
def test_in_any_batches_training_follows_the_live_teacher_within_the_precision_of_the_store(
    dtype, rel, store, build, tiny_teacher, rows
):
    settings = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4, "max_steps": 3}
    settings |= {"train_sampling_strategy": "random"}
    live = train(build(tiny_teacher, trainer={"train_dataset": rows}, **settings))
    stored = train(build(store(dtype=dtype, batch_size=5, shard_rows=23), **settings))
    assert_same_logs(stored, live, rel)


def test_every_objective_learns_the_same_from_the_store(store, build, tiny_teacher, tiny_bert_config, rows):
    student = BertForSequenceClassification(
        tiny_bert_config(num_hidden_layers=2, id2label=tiny_teacher.config.id2label)
    )
    # But those that want candidates, which these rows have none of.
    names = [name for name in list_objectives() if not objective_class(name).reads_candidates]
    everything = [{"objective": name} for name in names]
    settings = {"student": student, "objectives": everything}
    live = train(build(tiny_teacher, trainer={"train_dataset": rows}, **settings))
    folder = store(objectives=everything, num_student_layers=2)
    stored = train(build(folder, dataloader_num_workers=1, **settings))
    assert {name.split("/")[1] for name in stored[0] if "/" in name} == set(names)
    assert_same_logs(stored, live, 1e-4)


def test_accumulated_batches_give_the_update_of_one_large_batch(store, build):
    folder = store()
    large = train(build(folder))
    small = train(build(folder, per_device_train_batch_size=2, gradient_accumulation_steps=4))
    assert_same_logs(small, large, 1e-4)


def test_rows_of_like_length_are_batched_together(store, build, tiny_teacher, rows):
    rows = rows.add_column("length", [len(ids) for ids in rows["input_ids"]])
    settings = {"train_sampling_strategy": "group_by_length"}
    live = train(build(tiny_teacher, trainer={"train_dataset": rows}, **settings))
    assert_same_logs(train(build(store(), **settings)), live, 1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
def test_every_signal_comes_back_as_the_teacher_gave_it(side, store, tiny_tokenizer, left_tokenizer, rows):
    set_seed(0)
    # Its positions are counted from the first real token: padding on the left changes nothing.
    config = RobertaConfig(
        vocab_size=len(tiny_tokenizer), hidden_size=24, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=32, max_position_embeddings=64, pad_token_id=0, num_labels=4,
    )  # fmt: skip
    teacher = RobertaForSequenceClassification(config)
    stored = StoredTeacher(store(teacher=teacher, objectives=EVERYTHING, batch_size=7, shard_rows=20))
    chosen = [3, 60, 19, 20, 41]
    inner = DataCollatorWithPadding(tiny_tokenizer if side == "right" else left_tokenizer)
    batch = stored.collator(inner)([stored.dataset[row] for row in chosen])
    live = LiveTeacher(teacher)
    live.request(EVERYTHING)
    expected, found = live.signals(batch), stored.signals(batch)
    real = batch["attention_mask"].bool()
    assert not real.all()
    if side == "right":  # The head of RoBERTa reads the first position, which padding on the left takes from it.
        assert_close(found.logits, expected.logits)
    for layer in (0, 2):
        assert_close(found.hidden_states[layer][real], expected.hidden_states[layer][real])
    for part in ("query", "key", "value"):
        ours, theirs = (getattr(signals.projections[3], part) for signals in (found, expected))
        assert_close(ours[real], theirs[real])
    assert found.projections[3].num_heads == 4
    pairs = (real[:, :, None] & real[:, None, :])[:, None].expand(-1, 4, -1, -1)
    assert_close(found.attention_scores[1][pairs], expected.attention_scores[1][pairs])
    assert torch.equal(found.attention_mask, batch["attention_mask"])


@pytest.mark.parametrize("head", [BertForTokenClassification, BertForQuestionAnswering])
def test_heads_of_tokens_and_of_answers_are_stored_too(head, store, tiny_bert_config, rows):
    set_seed(0)
    teacher = head(tiny_bert_config(num_labels=2 if head is BertForQuestionAnswering else 4)).eval()
    stored = StoredTeacher(store(rows.remove_columns("labels"), teacher, ["logits"], batch_size=6, shard_rows=30))
    batch = stored.collator()([stored.dataset[row] for row in range(8)])
    live = LiveTeacher(teacher)
    live.request(SignalRequest(logits=True))
    real = batch["attention_mask"].bool()
    expected, found = live.signals(batch).logits, stored.signals(batch).logits
    assert found.keys() == expected.keys()
    for name in expected:
        assert_close(found[name][real], expected[name][real])


def test_a_run_resumed_from_a_checkpoint_equals_one_that_was_not_interrupted(store, build, tmp_path):
    folder = store(dtype="float16")
    settings = {"train_sampling_strategy": "random"}
    whole = build(folder, save_strategy="steps", save_steps=2, **settings)
    expected = train(whole)
    resumed = build(folder, **settings)
    assert train(resumed, resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2")) == expected
    assert_same_weights(resumed.student, whole.student)


def test_a_checkpoint_is_refused_by_another_store(store, build, tmp_path):
    build(store(), save_strategy="steps", save_steps=2).train()
    other = build(store(dtype="float16", folder="other"))
    with pytest.raises(ValueError, match=r"stored_dtype: float32 in the checkpoint, float16 now"):
        other.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
