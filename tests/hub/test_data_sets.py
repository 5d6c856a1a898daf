"""Data sets come from the Hub whatever way they lie there: files, a parquet copy of a script, or a script alone."""

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from hf_distill.corpus.build.loading import load_general_corpus
from hf_distill.hub import data_sets
from hf_distill.tasks.catalogue.registry import get_task
from hf_distill.tasks.loading import load_task
from hf_distill.tasks.rows.generation import load_generation_task

LANGUAGES = ("en", "es", "hi", "vi", "de", "ar", "zh")


@pytest.fixture
def said(warnings_of):
    return warnings_of(data_sets)


def questions(*contexts):
    rows = [
        {"id": text, "question": "who?", "context": text, "answers": {"text": ["a"], "answer_start": [0]}}
        for text in contexts
    ]
    return Dataset.from_list(rows)


def phrases(*sentences, names=("negative", "neutral", "positive")):
    features = Features({"sentence": Value("string"), "label": ClassLabel(names=list(names))})
    rows = {"sentence": list(sentences), "label": [number % len(names) for number in range(len(sentences))]}
    return Dataset.from_dict(rows, features=features)


def texts(*rows):
    return Dataset.from_dict({"text": list(rows)})


def test_the_configurations_of_a_scripts_copy_are_told_apart(hub_data):
    copy = {
        f"mlqa.{context}.{question}": {
            "validation": questions(f"a {context}-{question} validation"),
            "test": questions(f"a {context}-{question} test", f"a {context}-{question} more"),
        }
        for context in LANGUAGES
        for question in ("en", context)
    }
    hub_data.add_data_set("facebook/mlqa", script=True, converted=copy)
    hub_data.add_data_set("rajpurkar/squad", {"plain_text": {"train": questions("a squad")}})
    task = load_task("mlqa")
    assert task.train["context"] == ["a squad"]
    assert task.split("validation_en")["context"] == ["a en-en validation"]
    for language in LANGUAGES:
        shown = task.split(f"test_{language}")["context"]
        assert shown == [f"a {language}-{language} test", f"a {language}-{language} more"]


def test_a_configuration_of_a_copy_of_several_is_the_one_that_is_asked_for(hub_data):
    shares = (50, 66, 75, "all")
    copy = {
        f"sentences_{share}agree": {"train": phrases(*(f"{share} {number}" for number in range(20)))}
        for share in shares
    }
    hub_data.add_data_set("takala/financial_phrasebank", script=True, converted=copy)
    task = load_task("financial_phrasebank")
    sentences = [*task.train["sentence"], *task.split("validation")["sentence"]]
    assert sorted(sentences) == sorted(f"50 {number}" for number in range(20))
    other = load_task("financial_phrasebank", hub_config="sentences_allagree")
    assert all(text.startswith("all ") for text in other.train["sentence"])
    names = "'sentences_50agree', 'sentences_66agree', 'sentences_75agree', 'sentences_allagree'"
    with pytest.raises(FileNotFoundError, match=rf"has no 'sentences_100agree'; .* \[{names}\].*--data_dir"):
        load_task("financial_phrasebank", hub_config="sentences_100agree")


def test_the_only_configuration_of_a_copy_needs_no_name(hub_data):
    tags = ClassLabel(names=list(get_task("msra_ner").label_names))
    features = Features({"tokens": datasets.List(Value("string")), "ner_tags": datasets.List(tags)})
    rows = Dataset.from_dict({"tokens": [["北", "京"]], "ner_tags": [[5, 6]]}, features=features)
    hub_data.add_data_set("levow/msra_ner", script=True, converted={"msra_ner": {"train": rows, "test": rows}})
    task = load_task("msra_ner")
    assert task.train["ner_tags"] == task.split("test")["ner_tags"] == [[5, 6]]


def test_a_script_that_the_hub_has_converted_is_read_without_being_told(hub_data):
    rows = Dataset.from_list([{"document": "a long text", "summary": "text"}])
    hub_data.add_data_set(
        "EdinburghNLP/xsum", script=True, converted={"default": {"train": rows, "validation": rows, "test": rows}}
    )
    assert load_generation_task("xsum").train["references"] == [["text"]]
    # Not what the cache has of another configuration.
    with pytest.raises(FileNotFoundError, match=r"has no 'short'; its configurations are \['default'\]"):
        load_generation_task("xsum", hub_config="short")


def test_a_script_alone_says_what_can_be_done(hub_data):
    hub_data.add_data_set("EdinburghNLP/xsum", script=True)
    hub_data.add_data_set("anna/books", script=True)
    for load, flag in (
        (lambda: load_generation_task("xsum"), "--data_dir"),
        (lambda: load_task("glue/sst2", hub_path="anna/books"), "--data_dir"),
        (lambda: load_general_corpus("anna/books"), "--corpus"),
        (lambda: load_general_corpus("anna/books", max_rows=3, flag="--textbook"), "--textbook"),
    ):
        with pytest.raises(FileNotFoundError) as raised:
            load()
        message = str(raised.value)
        assert "is a loading script" in message
        assert "no parquet copy" in message
        assert f"`{flag}`" in message
        assert "\n" not in message


def test_configurations_of_files_are_asked_for_by_name(hub_data):
    configs = {name: {"train": texts(name), "test": texts(f"{name} test")} for name in ("small", "large")}
    hub_data.add_data_set("anna/texts", configs)
    assert load_general_corpus("anna/texts", "large")["text"] == ["large"]
    assert load_general_corpus("anna/texts", "small", split="test", max_rows=1)["text"] == ["small test"]
    with pytest.raises(FileNotFoundError, match=r"available configs: \['small', 'large'\]"):
        load_general_corpus("anna/texts")


def test_splits_of_unusual_names_stay_apart_in_a_copy(hub_data):
    names = ("train", "validation_matched", "validation_mismatched", "test_matched", "test_mismatched")
    features = Features(
        {
            "premise": Value("string"),
            "hypothesis": Value("string"),
            "label": ClassLabel(names=["entailment", "neutral", "contradiction"]),
        }
    )
    rows = {
        name: Dataset.from_dict({"premise": [name], "hypothesis": ["h"], "label": [1]}, features=features)
        for name in names
    }
    hub_data.add_data_set("nyu-mll/glue", script=True, converted={"mnli": rows, "other": {"train": rows["train"]}})
    task = load_task("mnli")
    assert {name: task.split(name)["premise"][:] for name in names} == {name: [name] for name in names}
    # Rounds, in the only configuration of a copy.
    rounds = {f"{part}_r{number}": f"{part} {number}" for part in ("train", "dev", "test") for number in (1, 2, 3)}
    rows = {
        name: Dataset.from_dict({"premise": [text], "hypothesis": ["h"], "label": [1]}, features=features)
        for name, text in rounds.items()
    }
    hub_data.add_data_set("facebook/anli", script=True, converted={"plain_text": rows})
    assert load_task("anli").split("validation")["premise"] == ["dev 1", "dev 2", "dev 3"]


def test_a_copy_of_the_first_rows_is_said_to_be_one(hub_data, said):
    hub_data.add_data_set("anna/web", script=True, converted={"en": {"partial-train": texts("one", "two")}})
    assert load_general_corpus("anna/web")["text"] == ["one", "two"]
    assert "only the first rows of ['partial-train']" in said[0]


def test_where_nobody_answers_datasets_says_what_is_wrong_in_one_line(hub_data, monkeypatch):
    hub_data.faults = lambda method, path: "drop"
    monkeypatch.setattr(data_sets, "_SECONDS", 1.0)
    with pytest.raises(FileNotFoundError, match=r"does not give the data set 'takala/.*--data_dir") as raised:
        load_task("financial_phrasebank")
    assert "\n" not in str(raised.value)
