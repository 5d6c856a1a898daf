"""One file is a task: its columns are guessed and said, and the same rows are held out every time."""

import csv

import pytest
from datasets import Dataset
from tiny_data import write_rows, write_task

from hf_distill.tasks import load_task
from hf_distill.tasks.loading import load_tasks
from hf_distill.tasks.one_file import fine_tuning_of, write_task_folder

TEXTS = [f"the film number {number} was {'good' if number % 2 else 'bad'}" for number in range(40)]
NAMES = ["good" if number % 2 else "bad" for number in range(40)]


def write_csv(path, columns, separator=","):
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=separator)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return str(path)


def write_jsonl(path, columns):
    write_rows(path, [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)])
    return str(path)


def write_parquet(path, columns):
    Dataset.from_dict(columns).to_parquet(path)
    return str(path)


def test_nobody_knows_the_language_of_rows_of_ones_own_until_it_is_said(tmp_path):
    path = write_csv(tmp_path / "reviews.csv", {"text": TEXTS, "label": NAMES})
    loaded = load_task(path)
    assert loaded.spec.language == ""
    write_task_folder(loaded, tmp_path / "folder")
    assert load_task(str(tmp_path / "folder")).spec.language == ""
    (tmp_path / "folder" / "task.yaml").write_text("text_columns: [text]\nlanguage: de\n")
    assert load_task(str(tmp_path / "folder")).spec.language == "de"


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_csv, "reviews.csv"),
        (lambda path, columns: write_csv(path, columns, "\t"), "reviews.tsv"),
        (write_jsonl, "reviews.jsonl"),
        (write_parquet, "reviews.parquet"),
    ],
    ids=["csv", "tsv", "jsonl", "parquet"],
)
def test_a_file_of_any_format_is_a_task(tmp_path, write, name, caplog):
    path = write(tmp_path / name, {"id": list(range(40)), "review": TEXTS, "sentiment": NAMES})
    task = load_task(path)
    assert task.spec.name == "reviews"
    assert (task.spec.text_columns, task.spec.label_column) == (("review",), "sentiment")
    assert task.spec.label_names == ("bad", "good")
    assert {split: len(rows) for split, rows in task.dataset.items()} == {"train": 32, "validation": 8}
    assert "text in 'review', labels in 'sentiment' (2 classes); 32 rows of train, 8 rows of validation" in caplog.text


class TestSplits:
    def test_every_class_gives_the_same_share_and_always_the_same_rows(self, tmp_path):
        path = write_csv(tmp_path / "a.csv", {"text": TEXTS, "label": ["rare"] * 5 + ["often"] * 35})
        one, two = load_task(path), load_task(path)
        assert one.dataset["validation"]["text"] == two.dataset["validation"]["text"]
        assert sorted(one.dataset["validation"]["label"]) == [0] * 7 + [1]

    def test_a_text_is_on_one_side_only(self, tmp_path):
        path = write_csv(tmp_path / "a.csv", {"text": TEXTS[:10] * 4, "label": NAMES[:10] * 4})
        task = load_task(path)
        assert not set(task.dataset["train"]["text"]) & set(task.dataset["validation"]["text"])

    def test_a_column_of_splits_decides(self, tmp_path):
        splits = ["train"] * 30 + ["dev"] * 6 + ["test"] * 4
        path = write_csv(tmp_path / "a.csv", {"text": TEXTS, "label": NAMES, "split": splits})
        task = load_task(path)
        assert {name: len(rows) for name, rows in task.dataset.items()} == {"train": 30, "validation": 6, "test": 4}

    def test_scores_are_of_test_rows_where_they_have_labels_and_choices_are_made_on_validation_rows(self, tmp_path):
        columns = {"text": TEXTS, "split": ["train"] * 30 + ["dev"] * 6 + ["test"] * 4}
        for hidden, reported in ((NAMES[36:], "test"), ([""] * 4, "validation")):
            path = write_csv(tmp_path / "a.csv", columns | {"label": NAMES[:36] + list(hidden)})
            spec = load_task(path, label_names=["bad", "good"]).spec
            assert (spec.headline_split, spec.choice_split) == (reported, "validation")
            asked = load_task(path, label_names=["bad", "good"], evaluation_splits=["validation"]).spec
            assert asked.evaluation_splits == ("validation",)

    def test_a_column_of_splits_without_validation_keeps_its_test_rows(self, tmp_path, caplog):
        path = write_csv(tmp_path / "a.csv", {"text": TEXTS, "label": NAMES, "split": ["train"] * 30 + ["test"] * 10})
        task = load_task(path)
        assert {name: len(rows) for name, rows in task.dataset.items()} == {"test": 10, "validation": 6, "train": 24}
        assert task.dataset["test"]["text"][:] == TEXTS[30:]
        assert (
            "those of validation drawn from every class, always the same ones; the others by the column" in caplog.text
        )

    def test_a_column_of_splits_without_training_rows_is_said_not_to_be_used(self, tmp_path, caplog):
        path = write_csv(tmp_path / "a.csv", {"text": TEXTS, "label": NAMES, "split": ["a", "b"] * 20})
        assert len(load_task(path).train) == 32
        assert "'split' does not say which rows are those of train and is not used" in caplog.text

    @pytest.mark.parametrize(("rows", "epochs"), [(80, 20), (2_400, 10), (98_000, 3)])
    def test_epochs_follow_from_the_number_of_rows(self, rows, epochs):
        assert fine_tuning_of(rows).epochs == epochs

    def test_a_folder_made_of_it_has_the_same_settings(self, tmp_path):
        task = load_task(write_csv(tmp_path / "a.csv", {"text": TEXTS, "label": NAMES}))
        assert task.spec.fine_tuning.epochs == 20
        write_task_folder(task, tmp_path / "folder")
        assert load_task(str(tmp_path / "folder")).spec.fine_tuning == task.spec.fine_tuning

    @pytest.mark.slow
    def test_large_files_hold_out_two_thousand_rows(self, tmp_path):
        texts = [f"text {number} of many" for number in range(10_400)]
        path = write_parquet(tmp_path / "a.parquet", {"text": texts, "label": ["a", "b"] * 5_200})
        assert len(load_task(path).dataset["validation"]) == 2_000


class TestColumns:
    @pytest.mark.parametrize(
        ("columns", "texts", "label"),
        [
            ({"premise": TEXTS, "hypothesis": TEXTS[::-1], "label": NAMES}, ("premise", "hypothesis"), "label"),
            ({"Text": TEXTS, "Label": NAMES}, ("Text",), "Label"),
            ({"what they wrote": TEXTS, "mood": NAMES}, ("what they wrote",), "mood"),
            ({"title": NAMES, "words": TEXTS, "topic": NAMES}, ("words",), "topic"),
        ],
        ids=["pairs", "case", "by values", "by length"],
    )
    def test_they_are_found_by_name_or_by_values(self, tmp_path, columns, texts, label):
        spec = load_task(write_csv(tmp_path / "a.csv", columns)).spec
        assert (spec.text_columns, spec.label_column) == (texts, label)

    def test_named_ones_count(self, tmp_path):
        path = write_csv(tmp_path / "a.csv", {"text": ["x"] * 40, "label": NAMES, "body": TEXTS, "mood": NAMES[::-1]})
        spec = load_task(path, text_columns=["body"], label_column="mood", label_names=["bad", "good"]).spec
        assert (spec.text_columns, spec.label_column, spec.label_names) == (("body",), "mood", ("bad", "good"))

    @pytest.mark.parametrize("separator", [";", "\t"])
    def test_a_csv_file_may_have_other_separators(self, tmp_path, separator):
        texts = [f"{text}, really" for text in TEXTS]
        task = load_task(write_csv(tmp_path / "a.csv", {"text": texts, "label": NAMES}, separator))
        assert set(task.dataset["train"]["text"]) < set(texts)

    def test_a_column_without_a_name_is_left_out(self, tmp_path):
        task = load_task(write_csv(tmp_path / "a.csv", {"": range(40), "text": TEXTS, "label": NAMES}))
        assert task.train.column_names == ["text", "label"]

    def test_classes_may_be_written_with_a_fraction(self, tmp_path):
        numbers = [float(number % 2) for number in range(39)] + [""]
        task = load_task(write_csv(tmp_path / "a.csv", {"text": TEXTS, "label": numbers}))
        assert task.spec.label_names == ("0", "1")
        assert set(task.train["label"]) <= {0, 1, -1}

    def test_stars_are_classes_or_numbers_as_the_flags_say(self, tmp_path):
        path = write_csv(tmp_path / "a.csv", {"text": TEXTS, "stars": [1, 2, 3, 4] * 10})
        assert load_task(path, label_names=["1", "2", "3", "4"]).spec.num_labels == 4
        spec = load_task(path, metrics=["spearman"]).spec
        assert (spec.label_names, spec.metrics) == (None, ("spearman",))

    def test_labels_that_differ_by_case_only_are_said(self, tmp_path, caplog):
        load_task(write_csv(tmp_path / "a.csv", {"text": TEXTS, "label": ["Good", *NAMES[1:]]}))
        assert "holds 'Good' and 'good', which are two labels" in caplog.text

    def test_numbers_with_fractions_are_a_regression(self, tmp_path):
        numbers = [number / 7 for number in range(40)]
        spec = load_task(write_csv(tmp_path / "a.csv", {"text": TEXTS, "score": numbers})).spec
        assert (spec.label_names, spec.metrics) == (None, ("pearson", "spearman"))

    def test_words_and_tags(self, tmp_path):
        path = tmp_path / "names.conll"
        path.write_text(
            "-DOCSTART- O\n\n" + "Anna NNP B-PER\nsleeps VB O\n\nOslo NNP B-LOC\n\n" * 10, encoding="utf-8"
        )
        task = load_task(str(path))
        assert task.spec.kind == "token_classification"
        assert task.spec.label_names == ("B-LOC", "B-PER", "O")
        assert task.dataset["train"][0]["tokens"] in (["Anna", "sleeps"], ["Oslo"])

    def test_comments_before_a_sentence_and_other_blanks_in_a_word(self, tmp_path):
        path = tmp_path / "names.conll"
        path.write_text(
            "# id 7\tdomain=en\nAnna _ _ B-PER\n# _ _ O\n\n# text = 20\u00a0000\n20\u00a0000\tO\n\u3000\tO\n\n"
            "# O\nOslo B-LOC\n\n" * 10,
            encoding="utf-8",
        )
        task = load_task(str(path))
        assert task.spec.label_names == ("B-LOC", "B-PER", "O")
        found = {tuple(words) for split in task.dataset.values() for words in split["tokens"]}
        assert found == {("Anna", "#"), ("20\u00a0000", "\u3000"), ("#", "Oslo")}

    def test_rows_of_one_text_are_held_out_together(self, tmp_path):
        texts = [text for number in range(40) for text in (f"A film {number}", f"a  Film {number} ")]
        task = load_task(write_csv(tmp_path / "a.csv", {"text": texts, "label": ["good", "good", "bad", "bad"] * 20}))
        folded = [{" ".join(text.lower().split()) for text in split["text"]} for split in task.dataset.values()]
        assert not folded[0] & folded[1]
        assert sorted(map(len, task.dataset.values())) == [16, 64]


class TestSeveralTasks:
    def test_named_columns_are_those_of_every_file_and_of_folders_without_a_description(self, tmp_path):
        columns = {"said": TEXTS, "text": ["x"] * 40, "mood": NAMES}
        file = write_csv(tmp_path / "a.csv", columns)
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        write_task(tmp_path / "plain", rows, num_train=30)
        described = {"text_columns": ["text"], "label_column": "mood", "label_names": ["bad", "good"]}
        write_task(tmp_path / "described", rows, num_train=30, **described)
        names = [file, str(tmp_path / "plain"), str(tmp_path / "described")]
        found = load_tasks(names, tmp_path / "nowhere", text_columns=["said"], label_column="mood")
        assert [task.spec.text_columns for task in found] == [("said",), ("said",), ("text",)]
        assert [task.spec.label_column for task in found] == ["mood"] * 3

    def test_columns_that_no_task_takes_are_refused(self):
        with pytest.raises(ValueError, match=r"but none of `--tasks` \['glue/sst2'\] is one"):
            load_tasks(["glue/sst2"], text_columns=["said"])

    def test_two_tasks_of_one_name_are_refused(self, tmp_path):
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            write_csv(tmp_path / folder / "train.csv", {"text": TEXTS, "label": NAMES})
        with pytest.raises(ValueError, match="two of them have the name 'train'; rename the file or folder of one"):
            load_tasks([str(tmp_path / "a" / "train.csv"), str(tmp_path / "b" / "train.csv")])

    def test_errors_name_the_flag(self, tmp_path):
        path = write_csv(tmp_path / "a.csv", {"text": TEXTS, "label": NAMES})
        with pytest.raises(ValueError, match=r"`--tasks` '.*a.csv' has the columns .*, and no column 'said'"):
            load_tasks([path], text_columns=["said"])
        with pytest.raises(ValueError, match="`--tasks` 'nothing' is neither a registered task"):
            load_tasks(["nothing"])


class TestErrors:
    @pytest.mark.parametrize(
        ("answers", "scorer"), [(["1915年"], "cmrc2018"), (["the sea"], "squad"), (["北京", None], "squad_v2")]
    )
    def test_answers_are_scored_as_their_language_and_gaps_ask(self, tmp_path, answers, scorer, caplog):
        found = [answers[n % len(answers)] for n in range(20)]
        rows = {
            "question": [f"q{n}" for n in range(20)],
            "context": [f"{text} {n}" for n, text in enumerate(found)],
            "answers": [{"text": [text] * bool(text), "answer_start": [0] * bool(text)} for text in found],
        }
        spec = load_task(write_parquet(tmp_path / "qa.parquet", rows)).spec
        assert spec.answer_scorer == scorer
        assert f"scored as {scorer})" in caplog.text

    def test_chinese_texts_have_no_spaces(self, tmp_path):
        columns = {"文本": [f"这个电影{n}很好看" for n in range(20)], "标签": ["好", "坏"] * 10}
        spec = load_task(write_csv(tmp_path / "films.csv", columns)).spec
        assert (spec.text_columns, spec.label_column, spec.label_names) == (("文本",), "标签", ("坏", "好"))

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"a": TEXTS, "b": TEXTS[::-1]}, "none of them is known to hold labels: name it with `--label_column`"),
            ({"label": NAMES, "n": NAMES}, "none of them is known to hold text: name it with `--text_columns`"),
            ({"text": ["one text"] * 2, "label": ["a", "b"]}, "no label in 'label' .* has two different texts"),
            ({"text": TEXTS, "label": [f"label {number}" for number in range(40)]}, "has two different texts"),
            ({"text": TEXTS, "label": ["good"] * 40}, "holds one label only, 'good'"),
            ({TEXTS[0]: TEXTS[1:], NAMES[0]: NAMES[1:]}, "seems to have no header: its first row is"),
            ({"text": [], "label": []}, "hold no rows"),
            (
                {"text": TEXTS, "label": [1, 2, 3, 4, 5] * 8},
                r"Name them with `--class_names 1 2 3 4 5`; .* say `metrics: \[pearson, spearman\]` in a task.yaml",
            ),
            ({"text": TEXTS, "label": ["a|b", "a"] * 20}, "several labels"),
        ],
        ids=["labels", "text", "rows", "names", "one class", "no header", "empty", "stars", "several"],
    )
    def test_what_cannot_be_told_is_asked(self, tmp_path, columns, message):
        with pytest.raises(ValueError, match=message):
            load_task(write_csv(tmp_path / "a.csv", columns))

    def test_a_verb_without_flags_of_columns_does_not_name_them(self, tmp_path, caplog):
        load_task(write_csv(tmp_path / "a.csv", {"text": TEXTS, "label": NAMES}), flag="--other")
        assert "always the same ones." in caplog.text
        assert "--text_columns" not in caplog.text

    def test_a_column_that_is_not_there(self, tmp_path):
        with pytest.raises(ValueError, match=r"no column 'mood': name it with `--label_column`"):
            load_task(write_csv(tmp_path / "a.csv", {"text": TEXTS, "label": NAMES}), label_column="mood")

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ({"label_column": "lable"}, r"no column 'lable': name it with `--label_column`\. Did you mean 'label'\?"),
            ({"text_columns": ["txt"]}, r"no column 'txt' \(`--text_columns`\)\. Did you mean 'text'\?"),
        ],
        ids=["label", "text"],
    )
    def test_a_column_that_is_misspelt(self, tmp_path, flags, message):
        with pytest.raises(ValueError, match=message):
            load_task(write_csv(tmp_path / "a.csv", {"text": TEXTS, "label": NAMES}), **flags)

    def test_a_file_that_is_not_there(self, tmp_path):
        write_csv(tmp_path / "reviews.csv", {"text": TEXTS, "label": NAMES})
        with pytest.raises(
            FileNotFoundError, match=r"there is no file '.*reveiws.csv'\. Did you mean 'reviews.csv'\?"
        ):
            load_task(str(tmp_path / "reveiws.csv"))

    def test_a_file_of_another_kind(self, tmp_path):
        (tmp_path / "reviews.xlsx").write_bytes(b"PK")
        with pytest.raises(ValueError, match=r"is a file of an unknown kind; known are \.parquet"):
            load_task(str(tmp_path / "reviews.xlsx"))

    def test_a_file_in_another_encoding(self, tmp_path):
        path = write_csv(tmp_path / "a.csv", {"text": [f"{text} caf\u00e9" for text in TEXTS], "label": NAMES})
        (tmp_path / "a.csv").write_bytes((tmp_path / "a.csv").read_text("utf-8").encode("latin-1"))
        with pytest.raises(ValueError, match="save it as UTF-8"):
            load_task(path)

    def test_a_line_without_a_tag(self, tmp_path):
        path = tmp_path / "names.conll"
        path.write_text("Anna B-PER\nsleeps\n", encoding="utf-8")
        with pytest.raises(ValueError, match="line 2: 'sleeps' has a word and no tag"):
            load_task(str(path))

    def test_a_name_that_is_almost_a_file_is_told_the_file(self, tmp_path, monkeypatch):
        write_csv(tmp_path / "reviews.csv", {"text": TEXTS, "label": NAMES})
        monkeypatch.chdir(tmp_path)
        with pytest.raises(
            ValueError, match=r"'reviews' is neither .* Did you mean 'reviews.csv'\? For your own data"
        ):
            load_task("reviews")

    def test_class_names_that_no_row_has_and_metrics_that_are_misspelt(self, tmp_path):
        path = write_csv(tmp_path / "a.csv", {"text": TEXTS, "label": NAMES})
        with pytest.raises(ValueError, match=r"column 'label' holds 'bad'; allowed are .*\(`--class_names`\)"):
            load_task(path, label_names=["fine", "good"])
        with pytest.raises(ValueError, match=r"\['acuracy'\]; .* \(`--metrics`\)\. Did you mean 'accuracy'\?"):
            load_task(path, metrics=["acuracy"])
