"""A teacher with another tokenizer: pieces of text, and training over them."""

import copy

import datasets
import pytest
import torch
from tokenizer_cases import character_tokenizer
from trainings import logged, trained
from transformers import BertForSequenceClassification, BertForTokenClassification, DataCollatorWithPadding, set_seed

from hf_distill.teachers.alignment import (
    AlignedCollator,
    align,
    mean_over_pieces,
    reads_like,
    tokenize_aligned,
)
from hf_distill.teachers.base import TokenColumns


@pytest.fixture(scope="module")
def characters(sentences):
    return character_tokenizer(sentences)


@pytest.fixture
def other_teacher(tiny_bert_config, characters):
    """A teacher that reads characters."""
    set_seed(3)
    config = tiny_bert_config(vocab_size=len(characters), id2label={0: "negative", 1: "positive"})
    return BertForSequenceClassification(config).eval()


@pytest.fixture
def build(make_trainer, other_teacher, characters, sentences):
    """`build(**arguments)`: a trainer whose teacher reads characters."""
    texts = datasets.Dataset.from_dict({"text": sentences})
    given = {"align_tokenizers": True, "objectives": ["relation", "logits"], "max_length": 64, "learning_rate": 5e-3}

    def make(teacher=other_teacher, teacher_tokenizer=characters, rows=texts, data_collator=None, **arguments):
        trainer = {"teacher_processing_class": teacher_tokenizer, "data_collator": data_collator}
        return make_trainer(teacher, train_dataset=rows, trainer=trainer, **given | arguments)

    return make


@pytest.fixture
def like_tiny(tiny_tokenizer):
    """Another tokenizer than the tiny one by its rules, which gives the same tokens of every row that is not cut."""
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.truncation_side = "left"
    return tokenizer


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        ([(0, 3), (4, 8)], [(0, 3), (4, 6), (6, 8)], ([0, 1], [0, 1, 1])),
        ([(0, 2), (2, 5)], [(0, 3), (3, 5)], ([0, 0], [0, 0])),
        ([(0, 3), (4, 8)], [(0, 3)], ([0, -1], [0])),
        ([None, (0, 3), None], [None, (0, 1), (1, 3), None], ([0, 1, 2], [0, 1, 1, 2])),
        ([(0, 3)], [None, (0, 3)], ([0], [-1, 0])),
        ([(0, 1), (0, 1), (1, 2)], [(0, 1), (1, 2)], ([0, 0, 1], [0, 1])),
        ([(0, 0), (0, 2)], [(0, 2)], ([-1, 0], [0])),
        ([], [], ([], [])),
    ],
    ids=["finer", "crossing", "cut off", "special", "special on one side", "bytes of one letter", "empty", "nothing"],
)
def test_tokens_that_share_characters_are_one_piece(student, teacher, expected):
    assert align(student, teacher) == expected
    assert align(teacher, student) == expected[::-1]


def test_both_sides_of_a_row_and_of_a_pair_have_the_same_pieces(tiny_tokenizer, characters):
    rows = datasets.Dataset.from_dict(
        {"text": ["good film", "a plot"], "text_pair": [None, "good film"], "label": [1, 0]}
    )
    encoded = tokenize_aligned(rows, tiny_tokenizer, [TokenColumns("other_", characters)], keep=["label"])
    assert encoded[0]["other_pieces"] == [0, 1, 1, 1, 1, 2, 2, 2, 2, 3]
    assert set(encoded[1]["other_student_pieces"]) - {-1} == set(encoded[1]["other_pieces"]) - {-1}
    assert encoded["label"][:] == [1, 0]
    assert encoded[0]["length"] == len(encoded[0]["input_ids"])


def test_what_is_cut_is_counted_on_each_side(tiny_tokenizer, characters, caplog):
    rows = datasets.Dataset.from_dict({"text": ["good film", "a cat", "a dog runs to the river"]})
    tokenize_aligned(rows, tiny_tokenizer, [TokenColumns("other_", characters)], max_length=7)
    assert [message.partition(";")[0] for message in caplog.messages] == [
        "1 of 3 rows have 7 tokens or more",
        "2 of 3 rows, as a teacher reads them, have 7 tokens or more",
    ]
    caplog.clear()
    rows = datasets.Dataset.from_dict({"text": ["a", "a"], "candidates": [["cat", "good film"], ["a", "dog"]]})
    tokenize_aligned(rows, tiny_tokenizer, [TokenColumns("other_", characters)], max_length=6)
    assert [message.partition(" have")[0] for message in caplog.messages] == [
        "1 of 2 rows", "2 of 2 rows, as a teacher reads them,",
    ]  # fmt: skip


def test_the_mean_over_pieces_is_the_plain_one():
    states = torch.randn(2, 5, 3)
    pieces = torch.tensor([[0, 1, 1, 2, -1], [-1, -1, 0, 0, 1]])
    means = mean_over_pieces(states, pieces, 3)
    for row in range(2):
        for piece in range(3):
            members = [states[row, token] for token in range(5) if pieces[row, token] == piece]
            expected = torch.stack(members).mean(0) if members else torch.zeros(3)
            torch.testing.assert_close(means[row, piece], expected)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_is_padded_on_both_sides_by_their_own_tokenizers(tiny_tokenizer, characters, side):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.padding_side = side
    readings = [TokenColumns("teacher0_", characters), TokenColumns("teacher1_", tiny_tokenizer)]
    rows = tokenize_aligned(datasets.Dataset.from_dict({"text": ["good film", "plot"]}), tokenizer, readings)
    batch = AlignedCollator(tokenizer, readings)(list(rows))
    for prefix in ("teacher0_", "teacher1_"):
        assert batch[f"{prefix}student_pieces"].shape == batch["input_ids"].shape
        assert batch[f"{prefix}pieces"].shape == batch[f"{prefix}input_ids"].shape
        assert batch[f"{prefix}piece_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
        assert torch.equal(batch[f"{prefix}student_pieces"] >= 0, batch["attention_mask"].bool())


def test_tokenizers_read_alike_if_all_their_rules_are_the_same(tiny_tokenizer, characters, like_tiny):
    same = copy.deepcopy(tiny_tokenizer)
    same(["a film"], padding="max_length", max_length=9, truncation=True)  # which the tokenizer remembers
    assert reads_like(same, tiny_tokenizer)
    assert not reads_like(characters, tiny_tokenizer)
    assert not reads_like(like_tiny, tiny_tokenizer)
    # A model that needs to know which text of a pair a token is of cannot read what does not say so.
    same.model_input_names = ["input_ids", "attention_mask"]
    assert reads_like(same, tiny_tokenizer)
    assert not reads_like(tiny_tokenizer, same)


def test_a_teacher_that_reads_like_the_student_is_not_encoded_again(build, tiny_teacher, tiny_tokenizer):
    trainer = build(tiny_teacher, copy.deepcopy(tiny_tokenizer))
    assert set(trainer.train_dataset.column_names) == {"input_ids", "token_type_ids", "attention_mask", "length"}


def test_where_both_sides_have_the_same_tokens_nothing_changes(build, tiny_teacher, like_tiny):
    aligned = build(tiny_teacher, like_tiny)
    plain = build(tiny_teacher, like_tiny, align_tokenizers=False)
    assert "teacher0_pieces" in aligned.train_dataset.column_names
    aligned.train()
    plain.train()
    assert logged(aligned) == pytest.approx(logged(plain), rel=1e-5)


def test_the_student_learns_from_a_teacher_that_reads_characters(build):
    texts = ["good film", "bad film", "a good plot", "a bad plot"] * 6
    rows = datasets.Dataset.from_dict({"text": texts, "labels": [0, 1] * 12})
    trainer = trained(build(max_steps=12, objectives=["relation", "logits", "labels:0.1"], rows=rows))
    assert logged(trainer)[-1] < logged(trainer)[0]


def test_accumulated_batches_give_the_update_of_one_large_batch(build):
    # A mean over tokens is one over pieces here, of which the two halves of the batch have different numbers.
    objectives = ["relation", {"objective": "hidden", "layers": "last"}]
    whole = trained(build(max_steps=1, objectives=objectives))
    parts = build(max_steps=1, objectives=objectives, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    parts.train()
    assert logged(parts) == pytest.approx(logged(whole), rel=1e-5)


def test_a_resumed_run_continues_bit_for_bit_and_knows_the_tokenizer(build, tiny_teacher, tiny_tokenizer):
    whole = trained(build(save_strategy="steps", save_steps=2))
    resumed = trained(build(), f"{whole.args.output_dir}/checkpoint-2")
    assert logged(resumed) == logged(whole)
    with pytest.raises(ValueError, match="teacher_tokenizer"):
        build(tiny_teacher, tiny_tokenizer).train(f"{whole.args.output_dir}/checkpoint-2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objectives": [{"objective": "attention"}]}, r"different tokenizers.*attention maps cannot be compared"),
        ({"teacher_tokenizer": None}, "needs the tokenizer of the teacher.*`teacher_processing_class`"),
        ({"data_collator": DataCollatorWithPadding(None)}, "`data_collator` cannot be used"),
        ({"mlm_probability": 0.15}, "`--mlm_probability` cannot be used"),
        ({"align_tokenizers": False}, "tokenizers differ.*--align_tokenizers"),
        (
            {"rows": datasets.Dataset.from_dict({"input_ids": [[1, 2]]})},
            r"Several tokenizers need text.*no column 'text'.*\['input_ids'\]",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(build, change, message):
    with pytest.raises(ValueError, match=message):
        build(**change)


def test_heads_of_other_kinds_are_refused(build, tiny_bert_config, characters):
    teacher = BertForTokenClassification(
        tiny_bert_config(vocab_size=len(characters), id2label={0: "negative", 1: "positive"})
    )
    with pytest.raises(ValueError, match="needs the same head on both sides"):
        build(teacher, objectives=["logits"])
