"""Files as programs and people write them: the same rows whatever the dialect, and nothing lost without a word."""

import bz2
import csv
import gzip
import io
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from tiny_data import write_rows

from hf_distill.tasks import load_task
from hf_distill.tasks.one_file import write_task_folder

TEXTS = [f"film {number}, so {'good' if number % 2 else 'bad'}" for number in range(20)]
TEXTS[3] = 'a "quoted" film, indeed'
TEXTS[4] = "two\nlines; and\ttabs"
TEXTS[5] = "caf\u00e9 \u4e2d\u6587"
NAMES = ["good" if number % 2 else "bad" for number in range(20)]
ROWS = sorted(zip(TEXTS, NAMES, strict=True))


def table(rows=None, header=("review", "sentiment"), **options):
    """The text of a table."""
    stream = io.StringIO()
    writer = csv.writer(stream, **options)
    writer.writerows([header, *(ROWS if rows is None else rows)])
    return stream.getvalue()


def found(task, *splits):
    """All rows of a task, sorted."""
    text, label, names = task.spec.text_columns[0], task.spec.label_column, task.spec.label_names
    rows = [row for split in splits or task.dataset for row in task.dataset[split]]
    return sorted((row[text], names[row[label]] if row[label] >= 0 else None) for row in rows)


class TestTables:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.csv", table().encode()),
            ("a.csv", table().encode("utf-8-sig")),
            ("a.csv", table(delimiter=";").encode("utf-8-sig")),
            ("a.csv", table(delimiter="\t").encode()),
            ("a.csv", table(lineterminator="\n").encode()),
            ("a.csv", table(quoting=csv.QUOTE_ALL).encode()),
            ("a.csv", table(quoting=csv.QUOTE_ALL, doublequote=False, escapechar="\\").encode()),
            ("a.csv.gz", gzip.compress(table(quoting=csv.QUOTE_ALL, doublequote=False, escapechar="\\").encode())),
            ("a.csv", table(header=("review, as written", "sentiment"), delimiter=";").encode()),
            ("a.csv", table().encode() + b"\r\n\r\n"),
            ("a.csv", table(header=(" Review", " Sentiment ")).encode()),
            ("A.CSV", table().encode()),
            ("a.tsv", table(delimiter="\t").encode()),
            ("a.tsv", table(delimiter="\t", quoting=csv.QUOTE_ALL).encode("utf-8-sig")),
            ("a.csv.gz", gzip.compress(table().encode())),
            ("a.tsv.bz2", bz2.compress(table(delimiter="\t").encode())),
            ("a.CSV.xz", lzma.compress(table(delimiter=";").encode())),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_every_dialect_gives_the_same_rows(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        task = load_task(str(tmp_path / name))
        assert task.spec.name.lower() == "a"
        assert found(task) == ROWS

    @pytest.mark.parametrize(
        "place",
        ["my [final] reviews (1).csv", "what*?.csv", "\u4e2d\u6587 caf\u00e9.csv", "a%20b#c.csv", "d.e/.f/a.b.csv"],
    )
    def test_any_path_will_do(self, tmp_path, place):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(table(), encoding="utf-8")
        assert found(load_task(str(path))) == ROWS
        (path.parent / "train.csv").write_text(table(), encoding="utf-8")

    def test_marks_of_a_text_in_a_tab_separated_file_stay(self, tmp_path):
        rows = [(f'He said "{number}" and left', name) for number, name in enumerate(NAMES)]
        content = "review\tsentiment\n" + "".join(f"{text}\t{name}\n" for text, name in rows)
        (tmp_path / "a.tsv").write_text(content, encoding="utf-8")
        assert found(load_task(str(tmp_path / "a.tsv"))) == sorted(rows)

    def test_a_text_may_be_long(self, tmp_path):
        long = "long " * 60_000
        (tmp_path / "a.csv").write_text(table([(long, "good"), *ROWS]), encoding="utf-8")
        assert (long, "good") in found(load_task(str(tmp_path / "a.csv")))

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.csv", b"", r"a.csv'\].* are empty"),
            ("a.tsv", b"", r"are empty"),
            ("a.jsonl", b"", r"are empty"),
            ("a.json", b"[]", r"has no rows|hold no rows|could not be read as json"),
            ("a.csv", b"text,label\n", r"hold no rows"),
            ("a.csv", b"text,label,label\na,b,c\n", r"several columns of the name 'label': rename them"),
            (
                "a.csv",
                table().encode("latin-1", "replace"),
                r"seems to be in Latin-1 or Windows-1252: save it as UTF-8",
            ),
            ("a.tsv", table(delimiter="\t").encode("latin-1", "replace"), r"seems to be in Latin-1"),
            ("a.csv", table().encode("utf-16"), r"seems to be in UTF-16: save it as UTF-8"),
            ("a.csv", b"PK\x03\x04\xff\xfe", r"seems to be a spreadsheet"),
            ("a.conll", "Zo\u00eb B-PER\n".encode("latin-1"), r"a.conll' is not in UTF-8. It seems to be in Latin-1"),
            ("a.jsonl", b'{"text": "caf\xe9", "label": "a"}\n', r"in Latin-1 or Windows-1252: save it as UTF-8"),
            ("a.csv", b"text,label\na,b\nc,d,e\n", r"Expected 2 fields in line 3, saw 3"),
        ],
    )
    def test_what_cannot_be_read_is_one_line(self, tmp_path, name, content, message):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message) as error:
            load_task(str(tmp_path / name))
        assert "\n" not in str(error.value)


class TestMissing:
    def test_rows_without_a_text_are_counted_and_left_out(self, tmp_path, caplog):
        rows = [*ROWS, ("", "good"), ("  ", "bad"), ("None", "good")]
        (tmp_path / "a.csv").write_text(table(rows), encoding="utf-8")
        assert found(load_task(str(tmp_path / "a.csv"))) == sorted([*ROWS, ("None", "good")])
        assert "2 training rows without a text in ['review'] were left out" in caplog.text
        caplog.clear()
        write_rows(tmp_path / "a.jsonl", [{"text": text, "label": name} for text, name in [*ROWS, (None, "good")]])
        assert found(load_task(str(tmp_path / "a.jsonl"))) == ROWS
        assert "1 training rows without a text in ['text'] were left out" in caplog.text

    def test_blank_texts_that_are_scored_are_said(self, tmp_path, caplog):
        rows = [(text, name, "train") for text, name in ROWS] + [("", "good", "dev"), ("fine", "good", "dev")]
        (tmp_path / "a.csv").write_text(table(rows, ("text", "label", "split")), encoding="utf-8")
        assert len(load_task(str(tmp_path / "a.csv")).dataset["validation"]) == 2
        assert "1 rows have a blank text in ['text']; they are scored like all others" in caplog.text

    def test_rows_without_a_label_are_counted_and_never_held_out(self, tmp_path, caplog):
        rows = [
            (text, name if number % 4 else "") for number, (text, name) in enumerate(zip(TEXTS, NAMES, strict=True))
        ]
        (tmp_path / "a.csv").write_text(table(rows), encoding="utf-8")
        task = load_task(str(tmp_path / "a.csv"))
        assert min(task.dataset["validation"]["sentiment"]) >= 0
        assert sorted(task.train["sentiment"])[:6] == [-1] * 5 + [0]
        assert "17 rows of train (5 without a label), 3 rows of validation;" in caplog.text.replace(", those", ";")

    def test_a_text_that_has_a_label_once_is_on_one_side(self, tmp_path):
        (tmp_path / "a.csv").write_text(table([*ROWS, *((text, "") for text, _ in ROWS)]), encoding="utf-8")
        task = load_task(str(tmp_path / "a.csv"))
        assert not set(task.train["review"]) & set(task.dataset["validation"]["review"])
        assert len(task.train) == 32

    def test_labels_that_are_all_missing(self, tmp_path):
        for name, rows in (("a.csv", [(text, "") for text in TEXTS]), ("b.csv", [(text, "-") for text in TEXTS])):
            (tmp_path / name).write_text(table(rows), encoding="utf-8")
            with pytest.raises(ValueError, match=r"Column 'sentiment' of .* holds no label"):
                load_task(str(tmp_path / name))
        for value in (None, float("nan")):
            Dataset.from_dict({"text": TEXTS, "label": [value] * 20}).to_parquet(tmp_path / "c.parquet")
            with pytest.raises(ValueError, match=r"Column 'label' of .* holds no label"):
                load_task(str(tmp_path / "c.parquet"))

    @pytest.mark.parametrize("mark", ["nan", "None", "NULL"])
    def test_a_missing_value_that_became_a_text_is_said(self, tmp_path, caplog, mark):
        (tmp_path / "a.csv").write_text(table([*ROWS, ("one more", mark), ("and more", mark)]), encoding="utf-8")
        assert mark in load_task(str(tmp_path / "a.csv")).spec.label_names
        assert f"holds '{mark}', which is taken for a class: leave the cell empty" in caplog.text

    def test_numbers_to_estimate_may_be_minus_one(self, tmp_path, caplog):
        scores = [f"{number % 5 / 2 - 1:g}" for number in range(20)]
        (tmp_path / "a.csv").write_text(table(zip(TEXTS, scores, strict=True)), encoding="utf-8")
        task = load_task(str(tmp_path / "a.csv"))
        assert task.spec.label_names is None
        assert "without a label" not in caplog.text
        assert sorted({label for split in task.dataset.values() for label in split["sentiment"]}) == [
            -1,
            -0.5,
            0,
            0.5,
            1,
        ]


class TestLabels:
    @pytest.mark.parametrize(
        ("labels", "names"),
        [
            (["01", "02"], ("01", "02")),
            (["00", "01"], ("00", "01")),
            (["007", "12"], ("007", "12")),
            (["0", "1"], ("0", "1")),
            (["0.0", "1.0"], ("0", "1")),
            ([" good", "bad "], ("bad", "good")),
            (["True", "False"], ("False", "True")),
            (["yes", "no"], ("no", "yes")),
        ],
    )
    def test_classes_are_named_as_they_are_written(self, tmp_path, labels, names):
        (tmp_path / "a.csv").write_text(
            table([(text, labels[i % 2]) for i, text in enumerate(TEXTS)]), encoding="utf-8"
        )
        task = load_task(str(tmp_path / "a.csv"))
        assert task.spec.label_names == names
        meant = {text: names.index(labels[i % 2].strip().removesuffix(".0")) for i, text in enumerate(TEXTS)}
        rows = [row for split in task.dataset.values() for row in split]
        assert {row["review"]: row["sentiment"] for row in rows} == meant
        assert sorted(task.dataset["validation"]["sentiment"]) == [0, 0, 1, 1]

    @pytest.mark.parametrize("label", ["['good', 'bad']", '["good"]', "[]", "[0, 1]"])
    def test_a_list_that_became_a_text_is_asked_about(self, tmp_path, label):
        rows = [(text, label if name == "good" else name) for text, name in ROWS]
        (tmp_path / "a.csv").write_text(table(rows), encoding="utf-8")
        with pytest.raises(
            ValueError, match=r"holds .\[.*\]., which looks like a list of labels: write the rows as JSON"
        ):
            load_task(str(tmp_path / "a.csv"))
        assert load_task(str(tmp_path / "a.csv"), label_names=["bad", label]).spec.num_labels == 2
        (tmp_path / "a.csv").write_text(table([(text, f"[{name}]") for text, name in ROWS]), encoding="utf-8")
        assert load_task(str(tmp_path / "a.csv")).spec.label_names == ("[bad]", "[good]")

    @pytest.mark.parametrize("label", ["good", "0", "3", "0.5", "01"])
    def test_one_class_is_none(self, tmp_path, label):
        (tmp_path / "a.csv").write_text(table([(text, label) for text in TEXTS]), encoding="utf-8")
        with pytest.raises(ValueError, match=rf"holds one label only, '{label}': a classifier needs two"):
            load_task(str(tmp_path / "a.csv"))

    def test_a_class_with_one_row_is_learnt(self, tmp_path):
        (tmp_path / "a.csv").write_text(table([*ROWS, ("alone", "rare")]), encoding="utf-8")
        task = load_task(str(tmp_path / "a.csv"))
        assert task.spec.label_names == ("bad", "good", "rare")
        assert ("alone", "rare") in found(task, "train")

    def test_other_labels_in_another_split(self, tmp_path):
        rows = [(text, name, "train") for text, name in ROWS] + [("new", "unheard", "dev"), ("old", "good", "dev")]
        (tmp_path / "a.csv").write_text(table(rows, ("text", "label", "split")), encoding="utf-8")
        assert load_task(str(tmp_path / "a.csv")).spec.label_names == ("bad", "good", "unheard")
        (tmp_path / "train.csv").write_text(table(), encoding="utf-8")
        (tmp_path / "dev.csv").write_text(table([("new", "unheard")]), encoding="utf-8")
        with pytest.raises(ValueError, match=r"'validation' .* holds 'unheard'; allowed are .*`--class_names`"):
            load_task(str(tmp_path))


class TestTypes:
    """Columns of parquet and JSON files as pandas, polars and `datasets` write them."""

    @pytest.mark.parametrize(
        "labels",
        [
            pa.array(NAMES, pa.large_string()),
            pa.array(NAMES).dictionary_encode(),
            pa.array(NAMES, pa.large_string()).dictionary_encode(),
        ],
        ids=["large", "categories", "large categories"],
    )
    def test_texts_of_any_type(self, tmp_path, labels):
        columns = {"review": pa.array(TEXTS, pa.large_string()), "sentiment": labels}
        pq.write_table(pa.table(columns), tmp_path / "a.parquet")
        task = load_task(str(tmp_path / "a.parquet"))
        assert task.spec.label_names == ("bad", "good")
        assert found(task) == ROWS

    def test_a_class_label_is_known_by_its_type(self, tmp_path):
        features = Features({"said": Value("string"), "mood": ClassLabel(names=["good", "bad"]), "n": Value("int64")})
        values = {"said": TEXTS, "mood": [("good", "bad").index(name) for name in NAMES], "n": [1, 2] * 10}
        Dataset.from_dict(values, features=features).to_parquet(tmp_path / "a.parquet")
        task = load_task(str(tmp_path / "a.parquet"))
        assert (task.spec.label_column, task.spec.label_names) == ("mood", ("good", "bad"))
        assert found(task) == ROWS

    @pytest.mark.parametrize("lists", [pa.list_, pa.large_list])
    def test_lists_of_any_type(self, tmp_path, lists):
        several = pa.array([[name, "film"] for name in NAMES], lists(pa.string()))
        pq.write_table(pa.table({"text": pa.array(TEXTS), "label": several}), tmp_path / "a.parquet")
        task = load_task(str(tmp_path / "a.parquet"))
        assert (task.spec.several_labels, task.spec.label_names) == (True, ("bad", "film", "good"))
        words = pa.array([["Anna", "sleeps"], ["Oslo", "is"]] * 10, lists(pa.large_string()))
        tags = pa.array([["B-PER", "O"], ["B-LOC", "O"]] * 10, lists(pa.large_string()))
        pq.write_table(pa.table({"tokens": words, "ner_tags": tags}), tmp_path / "b.parquet")
        task = load_task(str(tmp_path / "b.parquet"))
        assert task.train.features["tokens"] == List(Value("string"))
        assert task.train[0]["tokens"] in (["Anna", "sleeps"], ["Oslo", "is"])

    def test_rows_may_be_nested_and_differ(self, tmp_path):
        rows = [
            {"said": text, "mood": name, "meta": {"n": 1}} | ({"more": [number]} if number > 9 else {})
            for number, (text, name) in enumerate(zip(TEXTS, NAMES, strict=True))
        ]
        write_rows(tmp_path / "a.jsonl", rows)
        task = load_task(str(tmp_path / "a.jsonl"))
        assert (task.spec.text_columns, task.spec.label_column) == (("said",), "mood")
        assert found(task) == ROWS

    @pytest.mark.parametrize("column", ["review", "sentiment"])
    def test_values_of_several_kinds_are_refused_whatever_the_column_is_called(self, tmp_path, column):
        rows = [{"review": text, "sentiment": name} for text, name in ROWS]
        write_rows(tmp_path / "a.jsonl", [*rows, {"review": "x", "sentiment": "good"} | {column: 3}])
        with pytest.raises(ValueError, match=rf"column '{column}' holds values of several kinds"):
            load_task(str(tmp_path / "a.jsonl"))

    @pytest.mark.parametrize("labels", [[True, False], [0.0, 1.0], [0, 1], ["0", "1"]])
    def test_labels_of_json(self, tmp_path, labels):
        write_rows(tmp_path / "a.jsonl", [{"text": text, "label": labels[i % 2]} for i, text in enumerate(TEXTS)])
        task = load_task(str(tmp_path / "a.jsonl"))
        rows = {row["text"]: row["label"] for split in task.dataset.values() for row in split}
        names = sorted({str(label).removesuffix(".0") for label in labels})
        assert task.spec.label_names == tuple(names)
        assert rows == {text: names.index(str(labels[i % 2]).removesuffix(".0")) for i, text in enumerate(TEXTS)}


class TestSplits:
    def test_splits_may_have_other_names(self, tmp_path):
        names = ["Training"] * 12 + [" eval "] * 4 + ["TESTING"] * 4
        rows = [(*row, name) for row, name in zip(ROWS, names, strict=True)]
        (tmp_path / "a.csv").write_text(table(rows, ("text", "label", "Split")), encoding="utf-8")
        task = load_task(str(tmp_path / "a.csv"))
        assert [len(task.dataset[split]) for split in ("train", "validation", "test")] == [12, 4, 4]

    def test_a_file_of_test_rows_can_be_scored(self, tmp_path):
        rows = [(*row, "test") for row in ROWS]
        (tmp_path / "a.csv").write_text(table(rows, ("text", "label", "split")), encoding="utf-8")
        task = load_task(str(tmp_path / "a.csv"), splits="evaluation")
        assert task.spec.evaluation_splits == ("test",)
        assert found(task, "test") == ROWS
        with pytest.raises(FileNotFoundError, match=r"needs the splits \['train', 'test'\], .* lacks \['train'\]"):
            load_task(str(tmp_path / "a.csv"))

    def test_rows_of_no_split_are_counted(self, tmp_path, caplog):
        rows = [(*row, name) for row, name in zip(ROWS, ["train"] * 12 + ["dev"] * 5 + [""] * 3, strict=True)]
        (tmp_path / "a.csv").write_text(table(rows, ("text", "label", "split")), encoding="utf-8")
        assert sorted(load_task(str(tmp_path / "a.csv")).dataset) == ["train", "validation"]
        assert "12 rows of train, 5 rows of validation, 3 rows of no split by the column 'split'" in caplog.text

    def test_all_rows_are_scored_where_those_of_training_are_to_be(self, tmp_path):
        (tmp_path / "a.csv").write_text(table(), encoding="utf-8")
        task = load_task(str(tmp_path / "a.csv"), splits="evaluation", evaluation_splits=["train"])
        assert list(task.evaluation) == ["train"]
        assert found(task, "train") == ROWS

    def test_files_of_registered_tasks_are_no_files_of_ones_own(self, tmp_path):
        (tmp_path / "a.csv").write_text(table(), encoding="utf-8")
        with pytest.raises(ValueError, match=r"`--data_dir` .* is for registered tasks, but `--task` '.*a.csv' is a"):
            load_task(str(tmp_path / "a.csv"), tmp_path)


class TestFolders:
    def test_columns_are_found_and_rows_held_out_as_in_one_file(self, tmp_path, caplog):
        (tmp_path / "train.csv").write_text(table(), encoding="utf-8")
        task = load_task(str(tmp_path))
        assert {name: len(rows) for name, rows in task.dataset.items()} == {"train": 16, "validation": 4}
        assert found(task) == ROWS
        assert "text in 'review', labels in 'sentiment'. `--text_columns` and `--label_column` name" in caplog.text
        assert "4 of 20 training rows are held out for it, always the same ones" in caplog.text

    def test_its_files_may_be_compressed(self, tmp_path):
        for split in ("train", "dev", "test"):
            (tmp_path / f"{split}.csv.gz").write_bytes(gzip.compress(table().encode()))
        task = load_task(str(tmp_path), text_columns=["review"], label_column="sentiment")
        assert {name: len(rows) for name, rows in task.dataset.items()} == dict.fromkeys(
            ("train", "validation", "test"), 20
        )

    def test_a_split_that_was_asked_for_is_not_held_out(self, tmp_path):
        (tmp_path / "train.csv").write_text(table(), encoding="utf-8")
        with pytest.raises(FileNotFoundError, match=r"lacks \['validaton'\]"):
            load_task(str(tmp_path), evaluation_splits=["validaton"])

    def test_a_folder_without_training_rows_can_be_scored(self, tmp_path):
        (tmp_path / "test.csv").write_text(table(), encoding="utf-8")
        task = load_task(str(tmp_path), splits="evaluation", evaluation_splits=["test"])
        assert found(task, "test") == ROWS
        with pytest.raises(FileNotFoundError, match=r"No split of task .* found: \['test.csv'\]"):
            load_task(str(tmp_path), splits="evaluation")
        (tmp_path / "test.csv").rename(tmp_path / "dev.csv")
        with pytest.raises(FileNotFoundError, match=r"lacks \['train'\]; found \['dev.csv'\]"):
            load_task(str(tmp_path))

    def test_notes_beside_training_rows_are_no_split(self, tmp_path):
        (tmp_path / "train.csv").write_text(table(), encoding="utf-8")
        (tmp_path / "notes.txt").write_text("collected in May", encoding="utf-8")
        assert len(load_task(str(tmp_path)).dataset["validation"]) == 4
        (tmp_path / "devel.csv").write_text(table(), encoding="utf-8")
        with pytest.raises(FileNotFoundError, match=r"lacks \['validation'\]; found .*'devel.csv'"):
            load_task(str(tmp_path))

    def test_a_folder_made_of_a_file_has_its_rows(self, tmp_path):
        (tmp_path / "a.csv").write_text(table([*ROWS, ("more", ""), ("", "good")]), encoding="utf-8")
        task = load_task(str(tmp_path / "a.csv"))
        write_task_folder(task, tmp_path / "folder")
        again = load_task(str(tmp_path / "folder"))
        assert [again.dataset[split][:] for split in again.dataset] == [
            task.dataset[split][:] for split in task.dataset
        ]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".jsonl.gz"])
def test_json_lines_may_begin_with_a_byte_order_mark_and_be_compressed(tmp_path, suffix):
    lines = "\r\n".join(json.dumps({"text": text, "label": name}) for text, name in ROWS).encode("utf-8-sig")
    (tmp_path / f"a{suffix}").write_bytes(gzip.compress(lines) if suffix.endswith(".gz") else lines)
    assert found(load_task(str(tmp_path / f"a{suffix}"))) == ROWS


def test_of_a_folder_with_one_row_none_is_held_out(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\na film,1\n")
    spec = {"text_columns": ("text",), "label_column": "label", "label_names": ("0", "1")}
    assert len(load_task(str(tmp_path), splits=["train"], **spec).train) == 1
    with pytest.raises(FileNotFoundError, match=r"needs the splits .* lacks \['validation'\]"):
        load_task(str(tmp_path), **spec)
