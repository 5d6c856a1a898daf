"""A folder of one's own is a task: by flags, or by a task.yaml in it."""

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from tiny_data import write_rows

from hf_distill.tasks.loading import load_task


def write(folder, rows, validation=None):
    for stem, split in (("train", rows), ("validation", validation or rows)):
        write_rows(folder / f"{stem}.jsonl", split)
    return folder


def test_columns_named_by_flags_and_labels_read_from_the_rows(tmp_path):
    folder = write(tmp_path / "news", [{"title": "a", "topic": "sport"}, {"title": "b", "topic": "arts"}])
    task = load_task(str(folder), text_columns=["title"], label_column="topic")
    assert task.spec.name == "news"
    assert task.spec.label_names == ("arts", "sport"), "texts are sorted"
    assert task.train["topic"][:] == [1, 0]
    assert task.spec.metrics == ("accuracy", "f1")


def test_a_task_file_gives_the_fields_of_the_spec_and_flags_win(tmp_path):
    rows = [{"a": "x", "b": "y", "gold": index} for index in range(3)]
    folder = write(tmp_path / "pairs", rows)
    (folder / "task.yaml").write_text(
        "name: mine/pairs\ntext_columns: [a, b]\nlabel_column: gold\nlabel_names: [low, mid, high]\n"
        "metrics: [f1_macro, accuracy]\nfine_tuning: {learning_rate: 1e-4, epochs: 2}\n"
    )
    task = load_task(str(folder))
    assert task.spec.name == "mine/pairs"
    assert task.spec.label_names == ("low", "mid", "high")
    assert task.spec.headline == "f1_macro"
    assert task.spec.fine_tuning.learning_rate == 1e-4
    assert load_task(str(folder), text_columns=["b"]).spec.text_columns == ("b",)
    assert load_task("mine/pairs", data_dir=folder).spec.name == "mine/pairs"


def test_fractions_are_regression_and_whole_numbers_are_classes(tmp_path):
    scores = write(tmp_path / "scores", [{"text": "a", "label": 0.5}, {"text": "b", "label": 2.0}])
    task = load_task(str(scores), text_columns=["text"])
    assert (task.spec.label_names, task.spec.metrics) == (None, ("pearson", "spearman"))
    classes = write(tmp_path / "classes", [{"text": "a", "label": label} for label in (2, 0, 1, -1)])
    assert load_task(str(classes), text_columns=["text"]).spec.label_names == ("0", "1", "2")


def test_the_names_of_a_class_label_column_are_taken(tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["z", "a"])})
    for stem in ("train", "validation"):
        rows = Dataset.from_dict({"text": ["x", "y"], "label": [0, 1]}, features=features)
        rows.to_parquet(str(tmp_path / f"{stem}.parquet"))
    task = load_task(str(tmp_path), text_columns=["text"])
    assert task.spec.label_names == ("z", "a")
    assert task.train["label"][:] == [0, 1]


def test_class_names_given_by_the_user_map_texts_and_decide_the_order(tmp_path):
    folder = write(tmp_path / "t", [{"text": "a", "label": "yes"}, {"text": "b", "label": "no"}])
    task = load_task(str(folder), text_columns=["text"], label_names=["yes", "no"])
    assert task.train["label"][:] == [0, 1]


def test_another_split_can_be_evaluated_on(tmp_path):
    folder = write(tmp_path / "t", [{"text": "a", "label": "yes"}, {"text": "b", "label": "no"}])
    (folder / "validation.jsonl").rename(folder / "autumn.jsonl")
    with pytest.raises(
        FileNotFoundError, match=r"lacks \['validation'\]; found .*autumn.jsonl.*`--evaluation_splits`"
    ):
        load_task(str(folder), text_columns=["text"])
    task = load_task(str(folder), text_columns=["text"], evaluation_splits=["autumn"])
    assert list(task.evaluation) == ["autumn"]


@pytest.mark.parametrize(
    ("rows", "fields", "message"),
    [
        (
            [{"a": 1, "label": 0}, {"a": 2, "label": 1}],
            {},
            "The folder .* none of them is known to hold text.*--text_columns",
        ),
        (
            [{"text": "a", "label": 1}, {"text": "a", "label": 3}],
            {"text_columns": ["text"]},
            r"Name them with `--class_names 1 3`",
        ),
        ([{"text": "a", "label": None}], {"text_columns": ["text"]}, "holds no label"),
        ([{"text": "a", "topic": 1}], {"text_columns": ["text"]}, "'label' is needed, found the columns"),
        ([{"text": "a", "label": "x"}], {"text_columns": ["text"]}, "one label only, .x."),
    ],
)
def test_what_cannot_be_a_task_is_refused_with_the_way_out(tmp_path, rows, fields, message):
    with pytest.raises(ValueError, match=message):
        load_task(str(write(tmp_path / "t", rows)), **fields)


def test_a_task_file_must_hold_fields(tmp_path):
    folder = write(tmp_path / "t", [{"text": "a", "label": "x"}])
    (folder / "task.yaml").write_text("just text")
    with pytest.raises(ValueError, match="must hold fields of a task"):
        load_task(str(folder))
    (folder / "task.yaml").write_text("text_column: text\ntext_columns: [text]\nlabel_names: [a, b]")
    with pytest.raises(ValueError, match=r"no fields \['text_column'\]"):
        load_task(str(folder))


def test_a_name_that_is_neither_task_nor_folder_is_refused():
    with pytest.raises(ValueError, match="neither a registered task nor a folder"):
        load_task("no/such/task")


@pytest.mark.parametrize(
    ("labels", "fields"),
    [
        ({"main": "x"}, {}),
        ({"main": "x"}, {"label_names": ["x", "y"]}),
        (["x", "y"], {"label_names": ["x", "y"]}),
        ([0, 1], {"label_names": ["x", "y"]}),
    ],
)
def test_lists_are_refused_where_a_row_has_one_label(tmp_path, labels, fields):
    folder = write(tmp_path / "several", [{"text": "a cat", "label": labels}, {"text": "a dog", "label": labels}])
    with pytest.raises(ValueError, match=r"The label column 'label' of .* must hold one label a row, but holds"):
        load_task(str(folder), text_columns=["text"], **fields)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["World", "long", "World|long"], "several labels of one row"),
        (["a", "b", "a, b"], "several labels of one row"),
        (["0", "1", "good"], "holds numbers .* and words"),
        (["0,5", "1,5", "2"], "numbers are read with a point, so write 0.5"),
        (["-1", "1"], "`--class_names -1 1`"),
    ],
)
def test_labels_that_may_mean_something_else_are_asked_about(tmp_path, labels, message):
    rows = [{"text": f"row {number}", "label": label} for number, label in enumerate(labels)]
    folder = write(tmp_path / "odd", rows)
    with pytest.raises(ValueError, match=message):
        load_task(str(folder), text_columns=["text"])
    named = load_task(str(folder), text_columns=["text"], label_names=labels)
    assert named.spec.label_names == tuple(labels)


def test_an_empty_cell_among_whole_numbers_is_a_missing_label(tmp_path):
    rows = [{"text": "a", "label": 0.0}, {"text": "b", "label": 1.0}, {"text": "c", "label": None}]
    task = load_task(str(write(tmp_path / "gaps", rows)), text_columns=["text"])
    assert task.spec.label_names == ("0", "1")
    assert task.train["label"][:] == [0, 1, -1]


@pytest.mark.parametrize("labels", [[-1, 0, 1], ["hidden", "partly", "visible"], ["-", "neg", "pos"]])
def test_what_marks_hidden_labels_may_be_a_class(tmp_path, caplog, labels):
    folder = str(write(tmp_path / "marked", [{"text": f"row {label}", "label": label} for label in labels]))
    names = [str(label) for label in labels]
    assert load_task(folder, text_columns=["text"]).train["label"][:] == [-1, 0, 1]
    assert f"holds {names[0]}, which marks rows without a label" in caplog.text
    assert f"`--class_names {' '.join(names)}`" in caplog.text
    caplog.clear()
    assert load_task(folder, text_columns=["text"], label_names=names).train["label"][:] == [0, 1, 2]
    assert not caplog.text


@pytest.mark.parametrize("column", ["text", "label"])
def test_a_column_of_several_kinds_is_refused_by_name(tmp_path, column):
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}, {"text": "c", "label": "x"} | {column: 5}]
    with pytest.raises(ValueError, match=rf"column '{column}' holds values of several kinds \(str .*, int 5\)"):
        load_task(str(write(tmp_path / "mixed", rows)), text_columns=["text"])


def moods(count=20):
    return Dataset.from_list([{"text": f"film {n}", "label": ("bad", "good")[n % 2]} for n in range(count)])


@pytest.mark.parametrize("tests", [None, "labelled", "hidden"])
@pytest.mark.parametrize("form", ["files", "shards", "saved"])
def test_a_folder_without_validation_rows_holds_some_out(tmp_path, form, tests):
    parts = {"train": moods()} | ({} if tests is None else {"test": moods(6)})
    if tests == "hidden":
        parts["test"] = parts["test"].remove_columns("label").add_column("label", [None, *parts["test"]["label"][1:]])
    if form == "saved":
        DatasetDict(parts).save_to_disk(str(tmp_path))
    for name, rows in {} if form == "saved" else parts.items():
        count = 2 if form == "shards" else 1
        (tmp_path / "data").mkdir(exist_ok=True)
        for number in range(count):
            shard = f"data/{name}-{number:05}-of-{count:05}" if form == "shards" else name
            rows.shard(count, number).to_parquet(str(tmp_path / f"{shard}.parquet"))
    task = load_task(str(tmp_path))
    assert task.spec.evaluation_splits == (("test", "validation") if tests == "labelled" else ("validation",))
    assert task.spec.choice_split == "validation"
    assert (len(task.train), len(task.split("validation"))) == (16, 4)
    assert not set(task.train["text"]) & set(task.split("validation")["text"])
    assert ("test" in task.dataset) == (tests is not None)


def test_a_data_set_that_was_saved_without_splits_is_one_of_training_rows(tmp_path):
    moods().save_to_disk(str(tmp_path))
    assert {name: len(rows) for name, rows in load_task(str(tmp_path)).dataset.items()} == {
        "train": 16, "validation": 4
    }  # fmt: skip


def test_numbers_of_classes_are_named_as_they_are_written(tmp_path):
    folder = write(tmp_path / "t", [{"text": str(n), "label": 1234567 + n % 2} for n in range(4)])
    with pytest.raises(ValueError, match="`--class_names 1234567 1234568`"):
        load_task(str(folder))


def test_numbers_of_classes_that_others_name_are_doubted(tmp_path, caplog):
    folder = write(
        tmp_path / "t",
        [{"text": str(n), "label": ("good", "bad")[n % 2]} for n in range(4)],
        [{"text": "a", "label": "1"}, {"text": "b", "label": "0"}],
    )
    assert load_task(str(folder)).split("validation")["label"] == [1, 0]
    assert (
        "the labels of ['validation'] are numbers where other splits have names; they are taken to count ['bad', "
        in (caplog.text)
    )
    caplog.clear()
    assert load_task(str(folder), label_names=["good", "bad"]).split("validation")["label"] == [1, 0]
    (folder / "train.jsonl").write_text((folder / "validation.jsonl").read_text())
    (folder / "task.yaml").write_text("text_columns: [text]\nlabel_names: [bad, good]\n")
    load_task(str(folder))
    assert "other splits have names" not in caplog.text


def test_a_split_may_lack_classes_of_the_task(tmp_path):
    for stem, names in (("train", ["c", "a", "b"]), ("validation", ["b", "c"])):
        features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
        rows = Dataset.from_dict({"text": list("xyz"[: len(names)]), "label": range(len(names))}, features=features)
        rows.to_parquet(str(tmp_path / f"{stem}.parquet"))
    task = load_task(str(tmp_path))
    assert task.spec.label_names == ("c", "a", "b")
    assert task.split("validation")["label"] == [2, 0]
