"""Rows come from local files of any known layout, always with the task's columns and the task's label order."""

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from tiny_data import write_rows

from hf_distill.tasks import files
from hf_distill.tasks.catalogue.registry import get_task
from hf_distill.tasks.label_names import match_label_order
from hf_distill.tasks.loading import load_task

ROWS = [("a good film", 1), ("a bad film", 0), ('"quoted" film', 1)]


def write_tsv(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ([header] if header else []) + rows
    path.write_text("".join("\t".join(map(str, line)) + "\n" for line in lines), encoding="utf-8")


def sst2_rows(rows=ROWS):
    return [{"sentence": text, "label": label, "idx": index} for index, (text, label) in enumerate(rows)]


def write_sst2(folder, suffix=".jsonl", train="train", validation="validation", rows=ROWS):
    folder.mkdir(parents=True, exist_ok=True)
    for stem in (train, validation):
        path = folder / f"{stem}{suffix}"
        if suffix in (".jsonl", ".json"):
            write_rows(path, sst2_rows(rows))
        elif suffix == ".parquet":
            Dataset.from_list(sst2_rows(rows)).to_parquet(str(path))
        elif suffix == ".csv":
            Dataset.from_list(sst2_rows(rows)).to_csv(str(path))
        else:
            write_tsv(path, ["sentence", "label"], rows)


def content(split):
    return list(zip(split["sentence"], split["label"], strict=True))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json", ".tsv", ".csv", ".txt"])
@pytest.mark.parametrize("validation", ["validation", "dev", "valid"])
def test_every_format_and_usual_name_gives_the_same_rows(tmp_path, suffix, validation):
    write_sst2(tmp_path, suffix, validation=validation)
    task = load_task("glue/sst2", tmp_path)
    assert content(task.train) == content(task.evaluation["validation"]) == ROWS
    assert task.train.features["label"] == ClassLabel(names=["negative", "positive"])
    assert task.train.features["sentence"] == Value("string")


@pytest.mark.parametrize("place", [".", "sst2", "SST-2", "glue/sst2", "glue/SST-2", "data", "sst2/data"])
def test_the_folder_may_be_the_tasks_own_or_a_parent(tmp_path, place):
    write_sst2(tmp_path / place)
    task = load_task("glue/sst2", tmp_path)
    assert content(task.train) == ROWS
    assert task.source == str(tmp_path / place)


def test_shards_are_read_in_order(tmp_path):
    for index, row in enumerate(ROWS[:2]):
        shard = Dataset.from_list(sst2_rows([row]))
        shard.to_parquet(str(tmp_path / f"train-{index:05d}-of-00002.parquet"))
    write_rows(tmp_path / "validation.jsonl", sst2_rows())
    assert content(load_task("sst2", tmp_path).train) == ROWS[:2]


def test_a_missing_shard_is_an_error(tmp_path):
    Dataset.from_list(sst2_rows()).to_parquet(str(tmp_path / "train-00000-of-00002.parquet"))
    with pytest.raises(FileNotFoundError, match="1 of 2 shards"):
        load_task("sst2", tmp_path)


def test_a_folder_written_by_save_to_disk_is_read(tmp_path):
    rows = Dataset.from_list(sst2_rows())
    DatasetDict({"train": rows, "validation": rows}).save_to_disk(str(tmp_path / "sst2"))
    assert content(load_task("sst2", tmp_path).train) == ROWS


def test_two_formats_of_one_split_are_said(tmp_path, warnings_of):
    said = warnings_of(files)
    write_sst2(tmp_path, ".tsv", rows=ROWS[:1])
    write_sst2(tmp_path, ".parquet")
    assert content(load_task("sst2", tmp_path).train) == ROWS
    assert "['.parquet', '.tsv']; reading .parquet" in said[0]


def test_headerless_cola_of_the_original_distribution(tmp_path):
    rows = [("gj04", 1, "", "They sang."), ("gj04", 0, "*", 'They "sang.')]
    write_tsv(tmp_path / "CoLA" / "train.tsv", None, rows)
    write_tsv(tmp_path / "CoLA" / "dev.tsv", None, rows[:1])
    write_tsv(tmp_path / "CoLA" / "test.tsv", ["index", "sentence"], [(0, "Sang they.")])
    task = load_task("cola", tmp_path)
    assert content(task.train) == [("They sang.", 1), ('They "sang.', 0)]
    assert content(task.dataset["test"]) == [("Sang they.", -1)], "labels of the test split are hidden"


def test_mnli_of_the_original_distribution_has_two_validation_splits_and_labels_as_text(tmp_path):
    header = ["index", "sentence1", "sentence2", "label1", "gold_label"]
    rows = [(0, "A", "B", "neutral", "entailment"), (1, "C", "D", "neutral", "contradiction")]
    write_tsv(tmp_path / "train.tsv", header, rows)
    write_tsv(tmp_path / "dev_matched.tsv", header, [(0, "E", "F", "neutral", "neutral")])
    write_tsv(tmp_path / "dev_mismatched.tsv", header, [(0, "G", "H", "-", "-")])
    task = load_task("mnli", tmp_path)
    assert task.train["premise"][:] == ["A", "C"]
    assert task.train["label"][:] == [0, 2]
    assert list(task.evaluation) == ["validation_matched", "validation_mismatched"]
    assert task.evaluation["validation_matched"]["label"][:] == [1]
    assert task.evaluation["validation_mismatched"]["label"][:] == [-1], "a dash is no label"


def test_mrpc_and_qqp_and_stsb_of_the_original_distribution(tmp_path):
    write_tsv(
        tmp_path / "MRPC" / "msr_paraphrase_train.txt",
        ["﻿Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"],
        [(1, 7, 8, "One.", 'He said "two.')],
    )
    write_tsv(
        tmp_path / "MRPC" / "dev.tsv", ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"], [(0, 1, 2, "A", "B")]
    )
    mrpc = load_task("mrpc", tmp_path)
    assert mrpc.train[0] == {"sentence1": "One.", "sentence2": 'He said "two.', "label": 1}
    header = ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"]
    write_tsv(tmp_path / "QQP" / "train.tsv", header, [(1, 1, 2, "Why?", "null", 0)])
    write_tsv(tmp_path / "QQP" / "dev.tsv", header, [(1, 1, 2, "Who?", "NA", 1)])
    assert load_task("qqp", tmp_path).evaluation["validation"][0]["question2"] == "NA", "text stays text"
    header = ["index", "genre", "sentence1", "sentence2", "score"]
    write_tsv(tmp_path / "STS-B" / "train.tsv", header, [(0, "news", "A", "B", "2.600")])
    write_tsv(tmp_path / "STS-B" / "dev.tsv", header, [(0, "news", "A", "B", "5")])
    stsb = load_task("stsb", tmp_path)
    assert stsb.train.features["label"] == Value("float32")
    assert stsb.train["label"][0] == pytest.approx(2.6)


def nli_folder(tmp_path, feature, labels):
    for stem in ("train", "validation"):
        rows = {"sentence1": ["A"] * len(labels), "sentence2": ["B"] * len(labels), "label": labels}
        features = Features({"sentence1": Value("string"), "sentence2": Value("string"), "label": feature})
        Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / f"{stem}.parquet"))
    return tmp_path


@pytest.mark.parametrize(
    ("feature", "labels"),
    [
        (ClassLabel(names=["entailment", "not_entailment"]), [0, 1, 1]),
        (ClassLabel(names=["not_entailment", "entailment"]), [1, 0, 0]),
        (ClassLabel(names=["Not_Entailment", "Entailment"]), [1, 0, 0]),
        (ClassLabel(names=["0", "1"]), [0, 1, 1]),
        (Value("string"), ["entailment", "not_entailment", "not_entailment"]),
        (Value("string"), ["0", "1", " 1"]),
        (Value("int8"), [0, 1, 1]),
        (Value("float64"), [0.0, 1.0, 1.0]),
        (Value("bool"), [False, True, True]),
    ],
)
def test_labels_come_in_the_tasks_order_compared_by_name(tmp_path, feature, labels):
    train = load_task("rte", nli_folder(tmp_path, feature, labels)).train
    assert train["label"][:] == [0, 1, 1]
    assert train.features["label"].names == ["entailment", "not_entailment"]


@pytest.mark.parametrize(
    ("feature", "labels", "message"),
    [
        (ClassLabel(names=["yes", "no"]), [0, 1], r"\['yes', 'no'\].*\['entailment', 'not_entailment'\]"),
        (Value("string"), ["entailment", "maybe"], r"\['maybe'\|\"'maybe'\"\]|maybe"),
        (Value("int64"), [0, 2], "2"),
        (Value("float64"), [0.0, 0.5], "0.5"),
        (ClassLabel(names=["entailment", "not_entailment"]), [-1, -1], "no visible label"),
    ],
)
def test_labels_that_are_none_of_the_tasks_are_refused(tmp_path, feature, labels, message):
    with pytest.raises(ValueError, match=message):
        load_task("rte", nli_folder(tmp_path, feature, labels))


def test_regression_labels_must_be_numbers(tmp_path):
    with pytest.raises(ValueError, match="'high', which is not a finite number"):
        load_task("stsb", nli_folder(tmp_path, Value("string"), ["1.5", "high"]))


def test_missing_labels_become_hidden(tmp_path):
    train = load_task("rte", nli_folder(tmp_path, Value("string"), ["entailment", None, "-1"])).train
    assert train["label"][:] == [0, -1, -1]


def test_a_missing_split_is_an_error_with_what_was_found(tmp_path):
    write_rows(tmp_path / "train.jsonl", sst2_rows())
    with pytest.raises(FileNotFoundError, match=r"lacks \['validation'\]; found \['train.jsonl'\]"):
        load_task("sst2", tmp_path)
    assert content(load_task("sst2", tmp_path, splits=["train"]).train) == ROWS
    (tmp_path / "train.jsonl").rename(tmp_path / "dev.jsonl")
    assert list(load_task("sst2", tmp_path, splits="evaluation").dataset) == ["validation"]


def test_an_empty_or_absent_folder_is_an_error_with_what_is_needed(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Needed are files such as train.parquet"):
        load_task("sst2", tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        load_task("sst2", tmp_path / "nowhere")


def test_a_missing_column_is_an_error_with_the_columns_found(tmp_path):
    for stem in ("train", "validation"):
        write_rows(tmp_path / f"{stem}.jsonl", [{"phrase": "a film", "label": 1}])
    with pytest.raises(ValueError, match=r"lacks columns \['sentence'\]; found \['phrase', 'label'\].*--text_columns"):
        load_task("sst2", tmp_path)
    for task in ("sst2", get_task("sst2")):
        assert load_task(task, tmp_path, text_columns=["phrase"]).train["phrase"][:] == ["a film"]


def test_rows_without_text_are_counted_in_training_and_refused_in_evaluation(tmp_path, warnings_of):
    said = warnings_of(files)
    write_rows(tmp_path / "train.jsonl", [*sst2_rows(), {"sentence": None, "label": 0, "idx": 9}])
    write_rows(tmp_path / "validation.jsonl", sst2_rows())
    assert content(load_task("sst2", tmp_path).train) == ROWS
    assert "1 training rows without a text" in said[0]
    write_rows(tmp_path / "validation.jsonl", [*sst2_rows(), {"sentence": None, "label": 0, "idx": 9}])
    with pytest.raises(ValueError, match="1 rows have no text"):
        load_task("sst2", tmp_path)


def test_a_broken_file_is_named(tmp_path):
    write_sst2(tmp_path)
    (tmp_path / "train.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"train.jsonl.*could not be read as json"):
        load_task("sst2", tmp_path)


def test_without_folder_and_network_the_way_out_is_named():
    with pytest.raises(FileNotFoundError, match=r"nyu-mll/glue.*--data_dir"):
        load_task("sst2")


def test_a_subset_is_drawn_with_the_seed(tmp_path):
    rows = [(f"film {index}", index % 2) for index in range(50)]
    write_sst2(tmp_path, rows=rows)
    task = load_task("sst2", tmp_path)
    first, again, other = (task.subset(10, 5, seed=seed) for seed in (1, 1, 2))
    assert len(first.train) == 10
    assert len(first.evaluation["validation"]) == 5
    assert content(first.train) == content(again.train) != content(other.train)
    assert set(content(first.train)) <= set(rows)
    assert len(task.subset(1000).train) == 50
    with pytest.raises(ValueError, match="--max_train_samples"):
        task.subset(0)


def test_a_split_that_was_not_loaded_is_an_error(tmp_path):
    write_sst2(tmp_path)
    with pytest.raises(ValueError, match=r"without the split 'test'; there are \['train', 'validation'\]"):
        load_task("sst2", tmp_path).split("test")


def test_label_orders_are_matched_by_name():
    wanted = get_task("mnli").label_names
    order = match_label_order(["contradiction", "entailment", "neutral"], wanted, where="teacher")
    assert order == [1, 2, 0]
    assert match_label_order(["LABEL_0", "LABEL_1", "LABEL_2"], wanted, where="teacher") == [0, 1, 2]
    with pytest.raises(ValueError, match="teacher has the labels"):
        match_label_order(["LABEL_0", "LABEL_1"], wanted, where="teacher")
