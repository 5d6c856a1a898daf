"""Which rows, objectives, tokenizers and students fit a stored teacher."""

import copy
import pickle

import numpy as np
import pytest
import torch
from stored_cases import EVERYTHING
from torch.testing import assert_close
from trainings import trained
from transformers import DataCollatorWithPadding

from hf_distill.capture.batch import KnowingCollator
from hf_distill.teachers.stored.teacher import SIGNALS, StoredCollator, StoredTeacher, join_rows


@pytest.mark.parametrize("remove", [True, False])
def test_unused_columns_go_and_stored_ones_stay(remove, store, build, rows):
    folder = store(rows.add_column("origin", list(range(len(rows)))), objectives=EVERYTHING)
    trainer = build(folder, objectives=["relation", "logits"], remove_unused_columns=remove)
    batch = next(iter(trainer.get_train_dataloader()))
    wanted = {"teacher_logits", "teacher_query_3", "teacher_key_3", "teacher_value_3"}
    inputs = {"input_ids", "attention_mask", "token_type_ids", "labels"}
    assert batch.keys() == wanted | inputs | (set() if remove else {"length", "origin"})


def test_rows_may_be_chosen_shuffled_and_split(store, build):
    stored = StoredTeacher(store())
    parts = stored.dataset.shuffle(seed=1).train_test_split(test_size=16, seed=0)
    data = {"train_dataset": parts["train"].filter(lambda row: row["labels"] == 1), "eval_dataset": parts["test"]}
    trainer = trained(build(stored, trainer=data))
    live = build(stored, trainer={"eval_dataset": parts["test"].with_format(None)})
    live.model.load_state_dict(trainer.model.state_dict())
    assert trainer.evaluate()["eval_loss"] == pytest.approx(live.evaluate()["eval_loss"], rel=1e-6)


def test_rows_without_signals_are_refused(store, build, rows):
    folder = store()
    with pytest.raises(ValueError, match=r"`train_dataset` has no stored signals.*Leave `train_dataset` out"):
        build(folder, trainer={"train_dataset": rows})
    with pytest.raises(ValueError, match=r"`eval_dataset\['more'\]` has no stored signals"):
        build(folder, trainer={"eval_dataset": {"more": rows}})


def test_masks_that_the_teacher_did_not_see_are_refused(store, build):
    with pytest.raises(
        ValueError, match=r"`--mlm_probability` masks other tokens.*stored teacher has read the rows without masks"
    ):
        build(store(), mlm_probability=0.2)


def test_rows_whose_tokens_changed_are_refused(store, build):
    stored = StoredTeacher(store())
    cut = stored.dataset.map(lambda row: {k: row[k][:4] for k in ("input_ids", "attention_mask", "token_type_ids")})
    with pytest.raises(ValueError, match=r"Row 0 of a batch has 4 tokens, but 'teacher_query_3' was stored for"):
        build(stored, trainer={"train_dataset": cut}).train()


def test_signals_that_were_not_stored_are_refused(store, build):
    folder = store(objectives=["relation"])
    with pytest.raises(ValueError, match=r"need logits of the teacher, which .* does not hold.*Run precompute"):
        build(folder, objectives=["logits"])
    with pytest.raises(ValueError, match=r"need projections of layers \[1\]"):
        build(folder, objectives=[{"objective": "relation", "teacher_layer": "1"}])


def test_another_tokenizer_is_refused(store, build, tiny_tokenizer):
    other = copy.deepcopy(tiny_tokenizer)
    other.add_tokens(["zebra"])
    with pytest.raises(ValueError, match=r"tokenizers differ.*'zebra': None against"):
        build(store(), tokenizer=other)


def test_without_a_tokenizer_that_of_the_store_is_taken(store, build, tiny_tokenizer):
    assert build(store(), tokenizer=None).processing_class.get_vocab() == tiny_tokenizer.get_vocab()


def test_a_student_with_another_vocabulary_is_refused(store, build, tiny_student, tiny_tokenizer):
    tiny_student.resize_token_embeddings(len(tiny_tokenizer) - 1)
    with pytest.raises(ValueError, match="The teacher's vocabulary has"):
        build(store())


def test_labels_in_another_order_are_put_into_the_students(store, build, tiny_student):
    folder = store()
    swapped = copy.deepcopy(tiny_student)
    swapped.config.id2label = {0: "positive", 1: "negative"}
    batch = next(iter(build(folder).get_train_dataloader()))
    expected = build(folder).teacher_signals(batch).logits["logits"]
    found = build(folder, student=swapped).teacher_signals(batch).logits["logits"]
    assert torch.equal(found, expected.flip(-1))
    swapped.config.id2label = {0: "cat", 1: "dog"}
    with pytest.raises(ValueError, match=r"different labels: \['negative', 'positive'\] against \['cat', 'dog'\]"):
        build(folder, student=swapped)


def test_a_batch_without_signals_is_refused(store, rows):
    stored = StoredTeacher(store())
    batch = DataCollatorWithPadding(stored.tokenizer())([rows[0]])
    with pytest.raises(ValueError, match=r"A batch lacks the stored signals \['teacher_logits'"):
        stored.signals(batch)


def test_several_stored_teachers_of_the_same_rows_stand_side_by_side(store, tiny_teacher, rows):
    folder = store(folder="one")
    with torch.no_grad():
        tiny_teacher.classifier.bias.add_(1)
    one, two = StoredTeacher(folder), StoredTeacher(store(folder="two", objectives=["logits"]), name="second")
    joined = join_rows([one, two])
    batch = StoredCollator([one, two], DataCollatorWithPadding(one.tokenizer()))([joined[3], joined[9]])
    assert_close(two.signals(batch).logits["logits"], one.signals(batch).logits["logits"] + 1)
    assert isinstance(joined[0]["second_logits"], np.ndarray)
    with pytest.raises(ValueError, match=r"two have|Two stored teachers have the columns \['teacher_logits'\]"):
        join_rows([one, StoredTeacher(two.folder)])
    fewer = StoredTeacher(store(rows.select(range(9)), folder="three"), name="third")
    with pytest.raises(ValueError, match=r"\(64 rows\) and .* \(9 rows\) were stored for different rows"):
        join_rows([one, fewer])


@pytest.mark.parametrize("side", ["right", "left"])
def test_for_a_device_signals_are_one_tensor_without_padding(side, store, tiny_tokenizer, left_tokenizer):
    stored = StoredTeacher(store(objectives=EVERYTHING, dtype="bfloat16"))
    rows = [stored.dataset[row] for row in range(8)]
    collator = stored.collator(DataCollatorWithPadding(tiny_tokenizer if side == "right" else left_tokenizer))
    expected = collator(rows)
    batch = pickle.loads(pickle.dumps(KnowingCollator(collator, packs=True)(rows)))
    flat = batch[SIGNALS]
    inputs = expected.keys() - set(stored.required_columns)
    assert batch.keys() == {*inputs, SIGNALS}
    tokens = int(batch["attention_mask"].sum())
    assert flat.memory.nbytes < sum(expected[name].nbytes for name in stored.required_columns)
    assert {column.name: size for column, size in flat.parts}["teacher_query_3"] == 2 * tokens * 24
    there = batch.to("cpu")
    assert there.keys() == expected.keys()
    for name, values in expected.items():
        assert torch.equal(there[name], values), name


def test_numbers_of_different_sizes_share_the_tensor(store, tiny_teacher, rows):
    stored = StoredTeacher(store(objectives=["logits"], dtype="float16", top_k=1))
    features = [stored.dataset[row] for row in (3, 1, 2)]
    batch = KnowingCollator(stored.collator(), packs=True)(features).to("cpu")
    for name, values in stored.collator()(features).items():
        assert torch.equal(batch[name], values), name
