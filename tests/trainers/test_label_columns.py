"""What of a row is its label: by the head, and by names."""

import datetime

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, List
from tokenizer_cases import word_tokenizer
from tokenizers import normalizers
from transformers import (
    AutoTokenizer,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)

from hf_distill.capture.architectures import label_head
from hf_distill.tasks import label_names as names
from hf_distill.teachers.base import LiveTeacher
from hf_distill.teachers.opening import share_tokens
from hf_distill.trainers.distillation import collators, rows
from hf_distill.trainers.distillation.collators import LabelReader, RowCollator
from hf_distill.trainers.distillation.rows import ClassOrder


@pytest.fixture
def said(warnings_of):
    """`said()`: what was warned since the last call."""
    lines = warnings_of(names, collators, rows)

    def take():
        found = " ".join(lines)
        lines.clear()
        return found

    return take


@pytest.fixture
def head(tiny_bert_config):
    """`head(names, cls=..., **fields)`: a model whose outputs have names."""

    def make(names, cls=BertForSequenceClassification, **fields):
        fields = {"hidden_size": 8, "num_hidden_layers": 1, "num_labels": len(names)} | fields
        return cls(tiny_bert_config(id2label=dict(enumerate(names)), **fields))

    return make


def read(model, values, *, needed=True, sizes=None):
    reader = LabelReader(label_head(model), needed=needed)
    found = reader.take([{"labels": value} for value in values])
    mask = None if sizes is None else torch.ones(len(sizes), max(sizes))
    return reader.tensors(found, mask, sizes or [2] * len(values)).get("labels")


def test_written_classes_are_names_by_the_one_rule(head):
    model = head(["neg", "café"])
    assert read(model, ["Neg", "CAFÉ", "cafe\u0301 ", None, "", "neg"]).tolist() == [0, 1, 1, -100, -100, 0]
    with pytest.raises(ValueError, match="holds 'neutral', but"):
        read(model, ["neg", "neutral"])


def test_the_names_of_the_outputs_count_where_a_configuration_contradicts_itself(head, said):
    model = head(["neg", "pos"], label2id={"pos": 0, "neg": 1})
    assert read(model, ["neg", "pos"]).tolist() == [0, 1]
    assert "contradicts itself" in said()


def test_several_answers_are_between_no_and_yes(head):
    model = head(["a", "b", "c"], problem_type="multi_label_classification")
    assert read(model, [["a"], ["C", "a"]]).tolist() == [[1, 0, 0], [1, 0, 1]]
    assert read(model, [[], ["b"], []]).tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert read(model, [[1, 0, True], [0, 0.5, 1]]).tolist() == [[1, 0, 1], [0, 0.5, 1]]
    for wrong in ([0, 1, 2], [-100, 0, 1]):
        with pytest.raises(ValueError, match="wants a list with a 0 or 1"):
            read(model, [[0, 0, 1], wrong])


def test_a_value_may_be_a_list_of_one_and_a_mark_is_questioned(head, said):
    model = head(["score"])
    assert read(model, [[1.5], [2.0]]).tolist() == [1.5, 2.0]
    assert not said()
    assert read(model, [1.5, -100.0]).tolist() == [1.5, -100.0]
    assert "learns as a value" in said()


def test_classes_of_tokens_are_the_heads(head):
    model = head(["O", "B-X"], BertForTokenClassification)
    assert read(model, [["b-x", "O"], [1]], sizes=[2, 1]).tolist() == [[1, 0], [1, -100]]
    with pytest.raises(ValueError, match="has the class 2"):
        read(model, [[0, 2]], sizes=[2])
    with pytest.raises(ValueError, match="holds"):
        read(model, [[0, 0.5]], sizes=[2])


def test_named_classes_of_a_data_set_come_in_the_heads_order(head, said):
    rows = Dataset.from_dict({"labels": [0, 1, 2, None, -1]})
    named = rows.cast_column("labels", ClassLabel(names=["Pos", "neg", "neutral"]))
    order = ClassOrder(label_head(head(["neg", "neutral", "pos"])))
    found = order.apply(named, "train_dataset")
    assert found["labels"][:] == [2, 0, 1, None, -1]
    assert found.features["labels"].names == ["neg", "neutral", "pos"]
    assert next(iter(order.apply(named.to_iterable_dataset(), "stream"))) == {"labels": 2}
    assert not said()
    assert order.apply(rows, "eval_dataset") is rows
    assert "numbers without names" in said()
    assert ClassOrder(label_head(head(["LABEL_0", "LABEL_1", "LABEL_2"]))).apply(named, "train_dataset") is named
    assert ClassOrder(label_head(head(["Pos", "neg", "neutral"]))).apply(named, "train_dataset") is named
    assert not said()
    assert ClassOrder(label_head(head(["a", "b", "c"]))).apply(named, "train_dataset") is named
    assert "are not the head's" in said()


@pytest.mark.filterwarnings("ignore:To copy construct")  # `datasets` formats the rows of a mapped stream twice.
@pytest.mark.parametrize("kind", [None, "numpy", "torch"])
def test_classes_come_in_the_heads_order_whatever_the_format_of_the_rows(head, kind):
    named = Dataset.from_dict({"labels": [0, 1, 1]}).cast_column("labels", ClassLabel(names=["pos", "neg"]))
    tags = Dataset.from_dict({"labels": [[0, 1], [1]]}).cast_column("labels", List(ClassLabel(names=["B-X", "O"])))
    cases = [(named, head(["neg", "pos"]), [1, 0, 0])]
    cases += [(tags, head(["O", "B-X"], BertForTokenClassification), [[1, 0], [0]])]
    for data, model, expected in cases:
        order = ClassOrder(label_head(model))
        found = order.apply(data.with_format(kind), "train_dataset")
        assert found.format["type"] == kind
        assert found.with_format(None)["labels"][:] == expected
        stream = order.apply(data.to_iterable_dataset().with_format(kind), "stream")
        assert [collators.plain(row["labels"]) for row in stream] == expected


def test_named_tags_come_in_the_heads_order(head):
    tags = List(ClassLabel(names=["O", "I-X", "B-X"]))
    rows = Dataset.from_dict({"labels": [[0, 2, 1], [-100, 1]]}).cast_column("labels", tags)
    order = ClassOrder(label_head(head(["O", "B-X", "I-X"], BertForTokenClassification)))
    assert order.apply(rows, "train_dataset")["labels"][:] == [[0, 1, 2], [-100, 2]]


def test_a_teacher_that_is_a_model_is_compared_with_the_tokenizer_in_its_folder(head, tiny_tokenizer, tmp_path):
    head(["a", "b"]).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    teacher = BertForSequenceClassification.from_pretrained(tmp_path)
    cased = AutoTokenizer.from_pretrained(tmp_path)
    cased.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    source = LiveTeacher(teacher)
    share_tokens(source, teacher, tiny_tokenizer, None, pairs=False)
    assert source.shared_ids == len(tiny_tokenizer)
    with pytest.raises(ValueError, match="their tokens are the same, but they split text differently"):
        share_tokens(source, teacher, cased, None, pairs=False)
    # More was added since, to model and tokenizer.
    cased.add_tokens(["zebra"])
    share_tokens(source, teacher, cased, None, pairs=False)
    assert source.shared_ids is None


@pytest.mark.parametrize("side", ["left", "right"])
def test_places_of_answers_are_behind_the_padding(head, side):
    rows = [{"input_ids": [2, 7, 8, 3], "start_positions": 1, "end_positions": 2}]
    rows += [{"input_ids": [2, 9, 3], "start_positions": 1, "end_positions": 9}]
    tokenizer = word_tokenizer()
    tokenizer.padding_side = side
    collator = RowCollator(tokenizer, LabelReader(label_head(head(["start", "end"], BertForQuestionAnswering))))
    batch = collator([dict(row) for row in rows])
    starts = batch["input_ids"].gather(1, batch["start_positions"][:, None])[:, 0]
    assert starts.tolist() == [7, 9]
    # What was cut off lies outside of its row still.
    assert batch["end_positions"][1] >= batch["input_ids"].shape[1]
    # Rows that were padded before have counted it.
    padded = {"input_ids": [0, 2, 9, 3], "attention_mask": [0, 1, 1, 1], "start_positions": 2, "end_positions": 2}
    assert collator([padded])["start_positions"].tolist() == [2]


def test_columns_that_hold_no_numbers_stay_out_of_a_batch(head, tiny_tokenizer):
    row = {"input_ids": [2, 7, 3], "when": datetime.date(2024, 1, 1), "names": ["a"], "facts": {"a": 1}, "id": "x"}
    row |= {"score": 0.5, "vector": np.ones(2), "is_new": True}
    batch = RowCollator(tiny_tokenizer, None)([row, dict(row)])
    assert set(batch) == {"input_ids", "attention_mask", "score", "vector", "is_new"}


@pytest.mark.parametrize("cls", [BertForMaskedLM, BertForQuestionAnswering, BertForMultipleChoice])
def test_outputs_that_stand_for_no_labels_keep_their_order(head, cls):
    teacher = LiveTeacher(head(["a", "b"], cls))
    for names_of_student in (["b", "a"], ["a", "b", "c"], ["x", "y"]):
        teacher.match_labels(head(names_of_student, cls).config)
        assert teacher.label_order is None
    one = LiveTeacher(head(["score"]))
    one.match_labels(head(["similarity"]).config)
    assert one.label_order is None
