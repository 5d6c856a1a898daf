"""What a student is distilled on: one text or several, a task's own among them."""

import pytest
from tiny_data import write_rows
from transformers import BertConfig

from hf_distill.commands.textbook import read_textbook
from hf_distill.settings import DistillationArguments, TextbookArguments


@pytest.fixture
def text(tmp_path):
    """A file with one sentence a line."""
    (tmp_path / "general.txt").write_text("one\ntwo\nthree\n")
    return str(tmp_path / "general.txt")


@pytest.fixture
def rte(tmp_path):
    """The parent folder of a task with pairs."""
    rows = [{"sentence1": f"a{i}", "sentence2": f"b{i}", "label": i % 2} for i in range(4)]
    for split in ("train", "validation"):
        write_rows(tmp_path / "data" / "rte" / f"{split}.jsonl", rows)
    return str(tmp_path / "data")


@pytest.fixture
def read(tmp_path):
    """`read(*sources, **fields)`: the rows to learn from, and those held back."""

    def make(*sources, text_column="text", max_length=128, tokenizer=None, config=None, **fields):
        training = DistillationArguments(
            str(tmp_path / "out"), use_cpu=True, text_column=text_column, max_length=max_length
        )
        return read_textbook(TextbookArguments(list(sources), **fields), training, tokenizer, config)

    return make


def test_one_text_keeps_its_order(read, text):
    rows, held_back = read(text)
    assert rows["text"][:] == ["one", "two", "three"]
    assert held_back is None


def test_several_texts_follow_each_other_each_with_its_first_rows(read, text, tmp_path):
    write_rows(tmp_path / "more.jsonl", [{"text": "four", "rank": 1}])
    rows, _ = read(text, str(tmp_path / "more.jsonl"), max_textbook_rows=2)
    assert rows.column_names == ["text"]
    assert rows["text"][:] == ["one", "two", "four"]


def test_a_task_gives_its_training_text_pairs_as_pairs_and_no_labels(read, text, rte):
    rows, _ = read(text, "glue/rte", data_dir=rte, max_textbook_rows=2)
    assert rows[:] == {"text": ["one", "two", "a0", "a1"], "text_pair": [None, None, "b0", "b1"]}


def test_a_folder_with_a_description_is_a_task(read, rte, tmp_path):
    folder = tmp_path / "data" / "rte"
    (folder / "task.yaml").write_text("text_columns: [sentence2]\nlabel_names: ['no', 'yes']\n")
    assert read(str(folder))[0][:] == {"text": ["b0", "b1", "b2", "b3"]}


def test_another_column_holds_the_text(read, rte):
    rows, _ = read("rte", data_dir=rte, text_column="words")
    assert rows.column_names == ["words", "text_pair"]


def test_rows_are_held_back_by_seed(read, text):
    rows, held_back = read(text, textbook_eval_rows=1)
    assert sorted([*rows["text"], *held_back["text"]]) == ["one", "three", "two"]
    assert len(held_back) == 1


def test_a_text_without_its_column_is_refused_by_name(read, rte):
    with pytest.raises(ValueError, match=r"`--textbook` '.*rte' has no column 'text' \(`--text_column`\)"):
        read(f"{rte}/rte")


@pytest.fixture
def names(tmp_path):
    """A task that tags words."""
    rows = [{"tokens": ["the", "cat", "runs"], "tags": ["O", "B-X", "O"]}, {"tokens": ["cat"], "tags": ["B-X"]}]
    for split in ("train", "validation"):
        write_rows(tmp_path / "names" / f"{split}.jsonl", rows)
    spec = "kind: token_classification\ntext_columns: [tokens]\nlabel_column: tags\nlabel_names: [O, B-X]\n"
    (tmp_path / "names" / "task.yaml").write_text(spec)
    return str(tmp_path / "names")


def config_with(*names):
    return BertConfig(id2label=dict(enumerate(names)), num_labels=len(names))


def test_labels_of_a_task_come_where_they_are_asked_for(read, rte):
    rows, _ = read("glue/rte", data_dir=rte, with_labels=True)
    assert rows["labels"][:] == [0, 1, 0, 1]
    assert rows["text_pair"][:] == ["b0", "b1", "b2", "b3"]


def test_labels_are_put_into_the_order_of_the_model(read, rte):
    turned = config_with("not_entailment", "entailment")
    rows, _ = read("glue/rte", data_dir=rte, with_labels=True, config=turned)
    assert rows["labels"][:] == [1, 0, 1, 0]


def test_words_come_as_tokens_with_their_tags(read, names, tiny_tokenizer):
    rows, _ = read(names, tokenizer=tiny_tokenizer, max_length=16)
    assert rows["labels"][:] == [[-100, 0, 1, 0, -100], [-100, 1, -100]]
    turned, _ = read(names, tokenizer=tiny_tokenizer, max_length=16, config=config_with("B-X", "O"))
    assert turned["labels"][:] == [[-100, 1, 0, 1, -100], [-100, 0, -100]]


def test_text_without_labels_cannot_join_what_has_them(read, text, rte, names):
    with pytest.raises(ValueError, match=r"with `--with_labels` must name tasks of one kind.*text without labels"):
        read(text, "glue/rte", data_dir=rte, with_labels=True)
    with pytest.raises(ValueError, match=r"`--textbook` must name tasks of one kind.*'token_classification'"):
        read(text, names)


@pytest.mark.parametrize(("value", "kind"), [(["two", "words"], "List"), (7, "Value")])
def test_a_column_that_holds_no_text_is_named_with_what_it_holds(read, tmp_path, value, kind):
    write_rows(tmp_path / "rows.jsonl", [{"text": value}])
    with pytest.raises(
        ValueError, match=rf"'text' \(`--text_column`\) must hold a text in every row, but holds {kind}"
    ):
        read(str(tmp_path / "rows.jsonl"))
