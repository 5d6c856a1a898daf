"""Words with tags: what is accepted, which token carries a word's tag, and how tags are scored."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, List

from hf_distill.tasks import build_compute_metrics, load_task, tokenize_task
from hf_distill.tasks.rows.predictions import score_words
from hf_distill.tasks.rows.words import encode_words, normalise_words
from hf_distill.tasks.spec import TaskSpec

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
SPEC = TaskSpec(
    "people", ("tokens",), TAGS, label_column="tags", kind="token_classification", metrics=("f1", "accuracy")
)
WORDS = [["the", "cat", "sees", "ann"], ["bob", "runs"], ["rome"]]
GOLD = [[0, 0, 0, 1], [1, 0], [3]]


def rows_of(tags, words=WORDS):
    return Dataset.from_dict({"tokens": words, "tags": tags})


@pytest.fixture
def rows():
    """Three sentences, normalised."""
    return normalise_words(rows_of(GOLD), SPEC, split="train")


def outputs_for(tokens, tags, width=None):
    """Logits that say these tags at the first token of every word and nonsense elsewhere."""
    width = width or max(tokens["length"])
    logits = np.random.default_rng(0).normal(size=(len(tokens), width, len(TAGS)))
    for number, (row, index) in enumerate(zip(tokens["row"], tokens["word_index"], strict=True)):
        for place, word in enumerate(index):
            if word >= 0:
                logits[number, place, tags[row][word]] = 100
    return logits


@pytest.mark.parametrize(
    "tags",
    [GOLD, [[TAGS[tag] for tag in row] for row in GOLD], [[str(tag) for tag in row] for row in GOLD]],
    ids=["numbers", "names", "numbers as text"],
)
def test_tags_come_as_numbers_or_names(tags):
    rows = normalise_words(rows_of(tags), SPEC, split="train")
    assert rows["tags"][:] == GOLD
    assert rows.features["tags"] == List(ClassLabel(names=list(TAGS)))


def test_another_order_of_names_is_put_right():
    names = ["B-LOC", "O", "I-LOC", "I-PER", "B-PER"]
    other = rows_of([[names.index(TAGS[tag]) for tag in row] for row in GOLD])
    other = other.cast_column("tags", List(ClassLabel(names=names)))
    assert normalise_words(other, SPEC, split="train")["tags"][:] == GOLD


def test_a_split_without_tags_has_hidden_ones():
    rows = normalise_words(rows_of(GOLD).remove_columns("tags"), SPEC, split="test")
    assert rows["tags"][:] == [[-1] * 4, [-1] * 2, [-1]]


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ([[0, 0, 0], [1, 0], [3]], "row 0 has 4 words in 'tokens', but 3 tags in 'tags'"),
        ([[0, 0, 0, 9], [1, 0], [3]], r"column 'tags' holds \['9'\]; allowed are the tags \['O', 'B-PER'"),
    ],
)
def test_rows_that_make_no_sense_are_refused(tags, message):
    with pytest.raises(ValueError, match=message):
        normalise_words(rows_of(tags), SPEC, split="train")


def test_a_column_that_holds_no_lists_is_refused():
    with pytest.raises(ValueError, match="'tokens' must hold a list in every row"):
        normalise_words(Dataset.from_dict({"tokens": ["the cat"], "tags": [[0, 0]]}), SPEC, split="train")


def test_only_the_first_token_of_a_word_has_its_tag(tiny_tokenizer):
    batch = {"tokens": [["the", "cat-dog", ",", "ann's"]], "tags": [[0, 3, 0, 1]]}
    encoded = encode_words(batch, [7], SPEC, tiny_tokenizer, 64)
    tokens = tiny_tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    firsts = {word: tokens[place] for place, word in enumerate(encoded["word_index"][0]) if word >= 0}
    assert list(firsts) == [0, 1, 2, 3]
    assert (firsts[0], firsts[1]) == ("the", "cat")
    tagged = [label for label in encoded["labels"][0] if label >= 0]
    assert tagged == [0, 3, 0, 1]
    assert encoded["row"] == [7]


def test_a_hidden_tag_is_no_label(tiny_tokenizer):
    encoded = encode_words({"tokens": [["the", "cat"]], "tags": [[-1, 3]]}, [0], SPEC, tiny_tokenizer, 64)
    assert encoded["labels"] == [[-100, -100, 3, -100]]
    assert encoded["word_index"] == [[-1, 0, 1, -1]]


def test_right_outputs_score_one_in_any_order_and_with_any_padding(rows, tiny_tokenizer):
    tokens = tokenize_task(rows, SPEC, tiny_tokenizer, 32)
    shuffled = tokens.select([2, 0, 1])
    for part, width in ((tokens, None), (shuffled, None), (shuffled, 40)):
        assert score_words(SPEC, rows, part, outputs_for(part, GOLD, width)) == {"f1": 1.0, "accuracy": 1.0}


def test_logits_and_best_tags_score_the_same(rows, tiny_tokenizer):
    tokens = tokenize_task(rows, SPEC, tiny_tokenizer, 32)
    logits = outputs_for(tokens, [[0, 0, 0, 0], [1, 0], [4]])
    assert score_words(SPEC, rows, tokens, logits) == score_words(SPEC, rows, tokens, logits.argmax(-1))
    assert score_words(SPEC, rows, tokens, logits)["accuracy"] == pytest.approx(5 / 7)


def test_words_behind_the_longest_row_count_as_outside(rows, tiny_tokenizer, caplog):
    tokens = tokenize_task(rows, SPEC, tiny_tokenizer, 5)
    scores = score_words(SPEC, rows, tokens, outputs_for(tokens, GOLD))
    assert scores["accuracy"] == pytest.approx(6 / 7), "the name at the end of the first row is not seen"
    assert scores["f1"] == pytest.approx(2 * 1 * (2 / 3) / (1 + 2 / 3))


def test_outputs_that_are_not_finite_are_an_error(rows, tiny_tokenizer):
    tokens = tokenize_task(rows, SPEC, tiny_tokenizer, 32)
    with pytest.raises(ValueError, match="not finite"):
        score_words(SPEC, rows, tokens, np.full((3, 6, 5), np.nan))


def test_the_hook_needs_rows_and_tokens():
    with pytest.raises(ValueError, match=r"build_compute_metrics\(spec, rows, tokens\)"):
        build_compute_metrics(SPEC)


def test_tags_that_mark_no_entities_are_scored_by_accuracy_alone():
    with pytest.raises(ValueError, match=r"metrics: \[accuracy\]"):
        TaskSpec("pos", ("tokens",), ("NOUN", "VERB"), kind="token_classification", metrics=("f1",))
    spec = TaskSpec("pos", ("tokens",), ("NOUN", "VERB"), kind="token_classification", metrics=("accuracy",))
    assert spec.num_labels == 2


def test_a_folder_of_the_user_is_read(tmp_path):
    for split in ("train", "validation"):
        rows_of([[TAGS[tag] for tag in row] for row in GOLD]).to_json(tmp_path / f"{split}.jsonl")
    (tmp_path / "task.yaml").write_text("kind: token_classification\ntext_columns: [tokens]\nlabel_column: tags\n")
    task = load_task(str(tmp_path))
    assert task.spec.label_names == ("B-LOC", "B-PER", "O")
    assert task.spec.metrics == ("f1", "precision", "recall", "accuracy")
    assert [task.spec.label_names[tag] for tag in task.train[1]["tags"]] == ["B-PER", "O"]
