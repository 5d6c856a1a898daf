"""Splits are joined of rounds, folds, languages and other data sets; rows without a label are left out and counted."""

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from task_fixtures import row_of, write_task
from tiny_data import write_rows

from hf_distill.tasks import labels, loading
from hf_distill.tasks.catalogue.registry import get_task
from hf_distill.tasks.loading import load_task
from hf_distill.tasks.spec import TaskSpec


@pytest.fixture
def said(warnings_of):
    """The warnings of loading and of labels."""
    return warnings_of(loading, labels)


def pairs(*names):
    return [{"sentence1": f"a{i}", "sentence2": f"b{i}", "label": name} for i, name in enumerate(names)]


def test_the_rounds_of_anli_are_joined_in_order(tmp_path):
    spec = get_task("anli")
    for split, name in (("train", "train"), ("validation", "dev")):
        for number in (1, 2, 3):
            row = {"context": f"{split} {number}", "hypothesis": "h", "label": "enc"[number - 1]}
            write_rows(tmp_path / "anli" / f"{name}_r{number}.jsonl", [row])
    task = load_task("anli", tmp_path)
    assert task.train["premise"] == ["train 1", "train 2", "train 3"]
    assert [spec.label_names[label] for label in task.train["label"]] == ["entailment", "neutral", "contradiction"]
    assert task.split("validation")["premise"] == ["validation 1", "validation 2", "validation 3"]


def test_a_missing_round_is_an_error_that_names_it(tmp_path):
    write_task(get_task("anli"), tmp_path)
    (tmp_path / "anli" / "train_r2.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks \['train_r2'\]"):
        load_task("anli", tmp_path)


def test_folds_of_fewclue_are_joined_without_duplicates_unless_their_union_is_there(tmp_path):
    for fold in range(5):
        rows = [{"sentence": f"同样 {n}", "label": "Positive", "id": fold} for n in (0, fold)]
        write_rows(tmp_path / f"train_{fold}.json", rows)
        write_rows(tmp_path / f"dev_{fold}.json", rows)
    task = load_task("fewclue/eprstmt", tmp_path)
    assert task.train["sentence"] == [f"同样 {n}" for n in range(5)]
    write_rows(tmp_path / "train_few_all.json", [{"sentence": "union", "label": "Negative"}])
    assert load_task("fewclue/eprstmt", tmp_path).train["sentence"] == ["union"]


def test_xnli_learns_from_english_and_is_scored_in_every_language(tmp_path):
    spec = get_task("xnli")
    task = load_task("xnli", write_task(spec, tmp_path, rows=3))
    assert len(task.train) == 3
    assert len(task.split("validation")) == 15 * 3, "one model is chosen on the development sets of all languages"
    assert list(task.evaluation) == list(spec.evaluation_splits)
    assert spec.for_split("test_sw").language == "sw"
    assert spec.averages["test_average"] == spec.evaluation_splits[1:]
    only = load_task("xnli", tmp_path, evaluation_splits=["test_de"])
    assert list(only.evaluation) == ["test_de"]


def test_mlqa_learns_from_squad_beside_it(tmp_path):
    spec = get_task("mlqa")
    task = load_task("mlqa", write_task(spec, tmp_path, rows=2))
    assert len(task.train) == 2
    assert (tmp_path / "squad" / "train.jsonl").is_file()
    assert spec.for_split("test_zh").language == "zh"


def test_the_hub_is_asked_for_every_configuration_once(monkeypatch):
    spec, asked = get_task("mlqa"), []

    def load_dataset(path, config=None, revision=None, data_dir=None):
        assert config is None, "a branch of converted files has one configuration, `default`"
        asked.append((path, data_dir, revision))
        rows = Dataset.from_list([row_of(spec, 0)])
        return {"train": rows} if data_dir is None else {"validation": rows, "test": rows}

    monkeypatch.setattr(loading, "load_dataset", load_dataset)
    task = load_task("mlqa")
    assert set(task.dataset) == {"train", *spec.evaluation_splits}
    assert asked[0] == ("rajpurkar/squad", None, None)
    languages = {f"mlqa.{language}.{language}" for language in ("en", "es", "hi", "vi", "de", "ar", "zh")}
    assert {folder for _, folder, _ in asked[1:]} == languages
    assert len(asked) == 8
    assert {revision for *_, revision in asked[1:]} == {"refs/convert/parquet"}


def test_rows_of_ocnli_without_a_majority_are_left_out_and_counted(tmp_path, said):
    for split in ("train", "dev", "test"):
        write_rows(tmp_path / f"{split}.json", pairs("entailment", "-", "neutral", "-"))
    task = load_task("clue/ocnli", tmp_path)
    assert task.train["label"] == task.split("validation")["label"] == [1, 0]
    assert task.split("test")["label"] == [1, -1, 0, -1], "the rows of a test set stay"
    assert sum("2 of 4 rows of split" in line for line in said) == 2


def test_hidden_labels_of_the_hub_are_left_out_of_ocnli_too(monkeypatch, said):
    features = Features({"sentence1": Value("string"), "sentence2": Value("string"), "label": ClassLabel(3)})
    features["label"] = ClassLabel(names=["neutral", "entailment", "contradiction"])
    rows = Dataset.from_list([{"sentence1": "a", "sentence2": "b", "label": n} for n in (2, -1)], features=features)
    monkeypatch.setattr(loading, "load_dataset", lambda *where: {"train": rows, "validation": rows})
    assert load_task("clue/ocnli").train["label"] == [2]


def test_a_set_of_one_split_gives_the_same_held_out_rows_every_time(tmp_path, said):
    rows = [{"cat": "书籍", "label": n % 2, "review": f"评论 {n}"} for n in range(40)]
    write_rows(tmp_path / "online_shopping_10_cats.jsonl", rows)
    first, second = (load_task("shopping10", tmp_path) for _ in range(2))
    held_out = first.split("validation")["review"]
    assert held_out == second.split("validation")["review"]
    assert len(held_out) == 4
    assert not set(held_out) & set(first.train["review"])
    assert len(first.train) == 36
    assert any("4 of 40 training rows are held out" in line for line in said)


def test_separators_inside_a_text_do_not_part_rows(tmp_path):
    texts = ["行\u2028一", "行\u0085二", "行\u2029三", "行\x1c四"]
    rows = [{"sentence": text, "label": "Positive"} for text in texts]
    for name in ("train_few_all", "dev_few_all"):
        write_rows(tmp_path / f"{name}.json", rows)
    assert load_task("fewclue/eprstmt", tmp_path).train["sentence"] == texts
    own = tmp_path / "own"
    own.mkdir()
    for name in ("train", "dev"):
        (own / f"{name}.tsv").write_text("sentence\tlabel\n" + "".join(f"{text}\t1\n" for text in texts), "utf-8")
    assert load_task("glue/sst2", own).train["sentence"] == texts


def test_names_of_other_distributions_mean_the_tasks_labels(tmp_path):
    row = {"premise": "a", "hypothesis": "b", "label": "contradictory"}
    for name in ("train", "dev"):
        write_rows(tmp_path / f"{name}.jsonl", [row])
    assert load_task("xnli_zh", tmp_path).train["label"] == [2]
    features = Features(
        {"premise": Value("string"), "hypothesis": Value("string"), "label": ClassLabel(names=["contradictory", "x"])}
    )
    features["label"] = ClassLabel(names=["contradictory", "neutral", "entailment"])
    rows = Dataset.from_list([{"premise": "a", "hypothesis": "b", "label": 0}], features=features)
    for name in ("train", "dev"):
        rows.to_parquet(str(tmp_path / f"{name}.parquet"))
    assert load_task("xnli_zh", tmp_path).train["label"] == [2]


def test_a_held_out_share_must_be_a_share():
    with pytest.raises(ValueError, match="between 0 and 1"):
        TaskSpec("t", ("text",), ("a", "b"), held_out_share=1.0)


def test_about_the_share_is_held_out_however_often_texts_come(tmp_path):
    texts = [f"评论 {n % 50}" for n in range(400)]
    write_rows(tmp_path / "train.jsonl", [{"text": text, "label": n % 2} for n, text in enumerate(texts)])
    task = load_task(str(tmp_path), text_columns=["text"])
    assert {name: len(rows) for name, rows in task.dataset.items()} == {"train": 320, "validation": 80}
    assert not set(task.train["text"]) & set(task.split("validation")["text"])


@pytest.mark.parametrize(("contexts", "shared"), [(10, False), (2, True)])
def test_questions_that_are_held_out_have_contexts_of_their_own(tmp_path, contexts, shared):
    rows = [
        {"question": f"q{n}", "context": f"c{n % contexts}", "answers": {"text": ["c"], "answer_start": [0]}}
        for n in range(40)
    ]
    write_rows(tmp_path / "train.jsonl", rows)
    task = load_task(str(tmp_path))
    assert len(task.split("validation")) == 8
    assert bool(set(task.train["context"]) & set(task.split("validation")["context"])) is shared


def test_no_text_is_on_both_sides_of_a_set_of_one_split(tmp_path):
    rows = [{"cat": "书籍", "label": n % 2, "review": f"评论 {n % 20}"} for n in range(40)]
    write_rows(tmp_path / "online_shopping_10_cats.jsonl", rows)
    task = load_task("shopping10", tmp_path)
    held_out = task.split("validation")["review"]
    assert 4 <= len(held_out) <= 8
    assert not set(held_out) & set(task.train["review"])
    assert len(held_out) + len(task.train) == 40
