"""What a student is distilled on: one text or several, a task's own among them."""

import shutil
from pathlib import Path

import pytest
from datasets import Dataset
from tiny_data import write_rows
from transformers import BertConfig

from hf_distill.commands.textbook import calibration_rows, read_eval_task, read_textbook, texts_in
from hf_distill.settings import DistillationArguments, TextbookArguments
from hf_distill.tasks import load_task


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

    def make(*sources, text_column="text", max_length=128, tokenizer=None, config=None, eval_task=None, **fields):
        training = DistillationArguments(
            str(tmp_path / "out"),
            use_cpu=True,
            text_column=text_column,
            max_length=max_length,
            eval_task=eval_task,
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


class TestFilesOfYourOwn:
    """What is a task for `--task` is one for `--textbook` where labels, or its columns, are asked for."""

    @pytest.fixture
    def read_dev(self, tmp_path):
        """`read_dev(textbook, eval_task, **flags)`: the task that a student is scored on."""

        def read(textbook, eval_task, config=None, **flags):
            training = DistillationArguments(str(tmp_path / "out"), use_cpu=True, eval_task=eval_task)
            return read_eval_task(TextbookArguments([textbook], **flags), training, config)

        return read

    @pytest.fixture
    def moods(self, tmp_path):
        """A file with texts and labels."""
        lines = [f'"film {number}, said Anna",{("bad", "good")[number % 2]},{number % 3}' for number in range(20)]
        (tmp_path / "moods.csv").write_text("\n".join(["review,sentiment,stars", *lines]) + "\n")
        return str(tmp_path / "moods.csv")

    def test_its_training_rows_come_with_labels_in_the_order_of_the_model(self, read, moods, caplog):
        task = load_task(moods)
        for names in (("bad", "good"), ("good", "bad"), ("Good", "Bad")):
            rows, _ = read(moods, with_labels=True, config=config_with(*names))
            assert rows["text"][:] == task.train["review"][:]
            meant = [task.spec.label_names[label] for label in task.train["sentiment"]]
            assert [names[label].lower() for label in rows["labels"]] == meant
        assert "text in 'review', labels in 'sentiment' (2 classes); 16 rows of train, 4 rows" in caplog.text

    def test_labels_that_the_model_does_not_have_are_refused(self, read, moods):
        with pytest.raises(ValueError, match=r"the task has \['bad', 'good'\]: they cannot be matched by name"):
            read(moods, with_labels=True, config=config_with("toxic", "fine"))

    def test_flags_name_columns_and_classes(self, read, moods):
        rows, _ = read(
            moods,
            with_labels=True,
            label_column="stars",
            class_names=["2", "1", "0"],
            config=config_with("0", "1", "2"),
        )
        stars = {f"film {number}, said Anna": number % 3 for number in range(20)}
        assert rows["labels"][:] == [stars[text] for text in rows["text"]]
        rows, _ = read(moods, label_column="sentiment", text_columns=["review", "stars"])
        assert set(rows.column_names) == {"text", "text_pair"}
        assert len(rows) == 16

    def test_whole_numbers_are_amounts_for_a_model_with_one_output(self, read, moods):
        for names, kind in ((["0", "1", "2"], int), (["score"], float)):
            rows, _ = read(moods, with_labels=True, label_column="stars", config=config_with(*names))
            assert {type(label) for label in rows["labels"]} == {kind}
            assert set(rows["labels"]) == {0, 1, 2}

    def test_the_column_of_plain_text_is_that_of_the_task(self, read, moods, tmp_path):
        content = (tmp_path / "moods.csv").read_text().replace("review", "text", 1).replace("stars", "said", 1)
        (tmp_path / "moods.csv").write_text(content)
        rows, _ = read(moods, with_labels=True, text_column="said")
        assert rows.column_names == ["said", "labels"]
        assert set(rows["said"]) < {"0", "1", "2"}

    def test_a_folder_without_a_description_is_one_where_labels_are_asked_for(self, read, moods, tmp_path):
        (tmp_path / "films").mkdir()
        (tmp_path / "moods.csv").rename(tmp_path / "films" / "train.csv")
        rows, _ = read(str(tmp_path / "films"), with_labels=True, config=config_with("good", "bad"))
        assert set(rows["labels"]) == {0, 1}

    def test_a_folder_without_a_description_is_one_by_flags(self, read, rte):
        rows, _ = read(f"{rte}/rte", with_labels=True, text_columns=["sentence2"], label_column="label")
        assert rows[:] == {"text": ["b0", "b1", "b2", "b3"], "labels": [0, 1, 0, 1]}

    def test_files_of_words_and_of_questions_bring_their_labels(self, read, tmp_path, tiny_tokenizer):
        (tmp_path / "names.conll").write_text("the O\ncat B-X\n\nruns O\n\ncat B-X\nruns O\n\n")
        options = {"tokenizer": tiny_tokenizer, "max_length": 16, "config": config_with("B-X", "O")}
        rows, _ = read(str(tmp_path / "names.conll"), **options)
        assert set(map(tuple, rows["labels"])) <= {(-100, 1, 0, -100), (-100, 1, -100), (-100, 0, 1, -100)}

    def test_plain_text_stays_plain_text(self, read, moods, text):
        assert len(read(moods, text_column="review")[0]) == 20
        with pytest.raises(ValueError, match=r"no column 'text' .* With `--with_labels` its columns are found\."):
            read(moods)
        with pytest.raises(ValueError, match="'text without labels'"):
            read(text, with_labels=True)

    def test_flags_of_columns_hold_for_the_task_of_evaluations(self, read, read_dev, moods, tmp_path, text):
        rows = [{"text": f"t{i}", "review": f"r{i}", "sentiment": "ab"[i % 2], "stars": i % 3} for i in range(30)]
        write_rows(tmp_path / "dev.jsonl", rows)
        dev, flags = str(tmp_path / "dev.jsonl"), {"text_columns": ["review"], "label_column": "stars"}
        for book in (moods, text):
            task = read_dev(book, dev, **flags)
            assert task.spec.text_columns == ("review",)
            assert task.spec.label_names == ("0", "1", "2")
            assert {row["review"] for row in task.dataset["validation"]} == {f"r{i}" for i in range(30)}
        # Without flags its own columns are found; one output is an amount, and a corpus that was built has its own.
        assert read_dev(moods, dev).spec.text_columns == ("text",)
        assert read_dev(moods, dev, label_column="stars", config=config_with("score")).spec.label_names is None
        (tmp_path / "corpus" / "data").mkdir(parents=True)
        for name in ("statistics.json", "README.md"):
            (tmp_path / "corpus" / name).write_text("{}")
        write_rows(tmp_path / "corpus" / "data" / "train-00000-of-00001.jsonl", [{"text": "one"}])
        assert read(str(tmp_path / "corpus"), eval_task=dev, **flags)[0][:] == {"text": ["one"]}

    def test_a_text_without_labels_beside_a_labelled_file(self, read, read_dev, moods, tmp_path):
        write_rows(tmp_path / "plain.jsonl", [{"review": "r", "other": "o"}])
        flags = {"text_columns": ["review"], "label_column": "stars"}
        assert read(str(tmp_path / "plain.jsonl"), eval_task=moods, **flags)[0][:] == {"text": ["r"]}
        assert len(read(moods, eval_task=moods, **flags)[0]) == 17, "the rows that are scored stay out"
        with pytest.raises(ValueError, match=r"`--textbook` .*plain.jsonl' has the columns .*no column 'stars'"):
            read(str(tmp_path / "plain.jsonl"), eval_task=moods, with_labels=True, **flags)
        with pytest.raises(ValueError, match=r"no column 'reviews' \(`--text_columns`\)\. Did you mean 'review'\?"):
            read(str(tmp_path / "plain.jsonl"), eval_task=moods, **flags | {"text_columns": ["reviews"]})
        with pytest.raises(
            ValueError, match=r"`--eval_task` '.*plain.jsonl' .* no column 'stars': name it with `--lab"
        ):
            read_dev(moods, str(tmp_path / "plain.jsonl"), **flags)

    def test_all_rows_of_a_file_are_scored_unless_it_is_learnt_from(self, read_dev, moods, tmp_path, caplog):
        shutil.copy(moods, tmp_path / "dev.csv")
        flags = {"text_columns": ["review"], "label_column": "stars"}
        dev = read_dev(moods, str(tmp_path / "dev.csv"), **flags)
        assert (list(dev.dataset), len(dev.split("validation"))) == (["validation"], 20)
        assert "20 rows of validation." in caplog.text
        same = read_dev(moods, moods, **flags)
        assert {name: len(rows) for name, rows in same.dataset.items()} == {"train": 17, "validation": 3}
        lines = Path(moods).read_text().splitlines()
        marked = [f"{line},{('train', 'dev')[i % 2]}" for i, line in enumerate(lines[1:])]
        (tmp_path / "dev.csv").write_text("\n".join([f"{lines[0]},split", *marked]))
        assert len(read_dev(moods, str(tmp_path / "dev.csv"), **flags).split("validation")) == 10

    def test_flags_that_no_source_takes_are_refused(self, read, rte, text):
        with pytest.raises(
            ValueError, match=r"`--label_column` is about files and folders .* but none of `--textbook`"
        ):
            read("glue/rte", data_dir=rte, with_labels=True, label_column="label")
        with pytest.raises(ValueError, match=r"none of `--textbook` \['glue/rte'\] is one, .* `--eval_task` 'sst2'\."):
            read("glue/rte", data_dir=rte, label_column="label", eval_task="sst2")

    def test_a_file_that_is_not_there_is_told_from_text_without_labels(self, read, moods):
        with pytest.raises(FileNotFoundError, match=r"`--textbook`: there is no file .* Did you mean 'moods.csv'\?"):
            read(moods.replace("moods", "mods"), with_labels=True)

    def test_what_cannot_be_told_names_the_flags(self, read, tmp_path):
        (tmp_path / "a.csv").write_text("a,b\nx y,1\nz w,2\n")
        with pytest.raises(ValueError, match=r"`--textbook` '.*a.csv' has the columns .*: name it with `--label_col"):
            read(str(tmp_path / "a.csv"), with_labels=True)


class TestCalibrationRows:
    """What first weights are refitted on: rows as the student reads them."""

    def test_texts_and_pairs(self):
        rows = Dataset.from_dict({"text": ["a", "b", None], "text_pair": ["c", None, None], "labels": [0, 1, 1]})
        assert list(calibration_rows(rows.select([0, 1]), "text")) == [("a", "c"), "b"]
        assert list(calibration_rows(rows.select_columns(["text"]), "text")) == ["a", "b"]

    def test_every_query_is_there_before_its_next_candidate(self):
        rows = Dataset.from_list(
            [{"text": "q", "candidates": ["1", "2"]}, {"text": "r", "candidates": ["3", "4", "5"]}]
        )
        pairs = [("q", "1"), ("r", "4"), ("q", "2"), ("r", "5"), ("r", "3")]
        assert list(calibration_rows(rows, "text")) == pairs

    def test_a_row_without_candidates_is_its_text(self):
        rows = Dataset.from_list([{"text": "q", "candidates": ["1"]}, {"text": "r", "candidates": None}])
        assert list(calibration_rows(rows, "text")) == [("q", "1"), "r"]

    def test_what_is_no_text_is_left_to_those_who_read_the_rows(self):
        rows = Dataset.from_list([{"text": "q", "candidates": ["1", None, "2"]}, {"text": "r", "candidates": [None]}])
        assert list(calibration_rows(rows, "text")) == [("q", "1"), ("q", "2")]
        assert list(texts_in(rows, "text")) == ["q", "1", "2", "r"]

    def test_tokens_and_choices(self):
        plain = [{"input_ids": [1, 2], "token_type_ids": [0, 1]}, {"input_ids": [3], "token_type_ids": [0]}]
        rows = Dataset.from_list([{**row, "labels": 1} for row in plain])
        assert list(calibration_rows(rows, "text")) == plain
        choices = Dataset.from_list([{"input_ids": [[1, 2], [3]], "token_type_ids": [[0, 1], [0]]}] * 2)
        found = list(calibration_rows(choices.with_format("torch"), "text"))
        assert found == [plain[0], plain[1], plain[1], plain[0]]

    def test_words_of_a_vocabulary_are_those_of_all_texts(self):
        rows = Dataset.from_list([{"text": "q", "candidates": ["1", "2"]}])
        assert list(texts_in(rows, "text")) == ["q", "1", "2"]
