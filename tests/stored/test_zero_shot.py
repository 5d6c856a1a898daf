"""Soft labels of texts that nobody has labelled, by a model of natural language inference."""

import json

import pytest
import torch
from datasets import Dataset
from tokenizer_cases import character_tokenizer
from trainings import sharpened
from transformers import (
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    BertModel,
    pipeline,
    set_seed,
)

from hf_distill import DistillationArguments, StoredTeacher
from hf_distill.commands import distill, precompute
from hf_distill.settings import PrecomputeArguments, StudentArguments, TeacherArguments, TextbookArguments
from hf_distill.teachers.zero_shot import ZeroShotTeacher, read_candidate_labels

TEXTS = ["a good film with a great actor", "the dog runs by the river", "the city at night", "a bird sees the sea"]
LABELS = ["movies=the movie and the actor", "animals=a dog or a bird", "city"]
TEMPLATE = "this is a story of {}"


@pytest.fixture
def nli(tiny_bert_config, tiny_tokenizer, tmp_path):
    """A folder with a tiny model of natural language inference."""
    set_seed(0)
    names = {0: "contradiction", 1: "neutral", 2: "entailment"}
    config = tiny_bert_config(num_labels=3, id2label=names, label2id={name: n for n, name in names.items()})
    model = sharpened(BertForSequenceClassification(config))
    torch.nn.init.normal_(model.classifier.weight, std=2.0)
    model.save_pretrained(tmp_path / "nli")
    tiny_tokenizer.save_pretrained(tmp_path / "nli")
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    return str(tmp_path / "nli")


def store(nli, tmp_path, **fields):
    defaults = {"candidate_labels": LABELS, "hypothesis_template": TEMPLATE, "store_dtype": "float32"}
    settings = {"output_dir": str(tmp_path / "stored"), "batch_size": 3, "use_cpu": True, **defaults, **fields}
    textbook = TextbookArguments([str(tmp_path / "texts.txt")])
    return precompute.run(TeacherArguments(nli), textbook, PrecomputeArguments(**settings))


@pytest.mark.parametrize("multi_label", [False, True])
def test_stored_probabilities_are_those_of_the_pipeline(nli, tmp_path, multi_label):
    found = store(nli, tmp_path, multi_label=multi_label)
    assert (found["rows"], found["objectives"]) == (4, ["logits"])
    stored = StoredTeacher(tmp_path / "stored")
    logits = torch.tensor([list(row) for row in stored.dataset["teacher_logits"]])
    ours = logits.sigmoid() if multi_label else logits.softmax(-1)
    classify = pipeline("zero-shot-classification", model=nli, device="cpu")
    said = list(read_candidate_labels(LABELS).values())
    for row, text in enumerate(TEXTS):
        result = classify(text, said, hypothesis_template=TEMPLATE, multi_label=multi_label)
        theirs = dict(zip(result["labels"], result["scores"], strict=True))
        assert ours[row].tolist() == pytest.approx([theirs[one] for one in said], abs=1e-5)
    names = json.loads((tmp_path / "stored" / "config.json").read_text())["id2label"]
    assert names == {"0": "movies", "1": "animals", "2": "city"}


@pytest.mark.parametrize("student", ["shape", "bare encoder"])
def test_a_student_with_fixed_labels_comes_of_two_commands(nli, tmp_path, student, tiny_bert_config):
    chosen, fields = StudentArguments(student_shape="2x12:2h:24"), {"multi_label": True}
    if student == "bare encoder":
        other = character_tokenizer(TEXTS)
        BertModel(tiny_bert_config(vocab_size=len(other)), add_pooling_layer=False).save_pretrained(tmp_path / "small")
        other.save_pretrained(tmp_path / "small")
        chosen = StudentArguments(student_model=str(tmp_path / "small"))
        fields = {"tokenizer_name": str(tmp_path / "small")}
    store(nli, tmp_path, **fields)
    results = distill.run(
        chosen,
        TeacherArguments(str(tmp_path / "stored")),
        TextbookArguments(),
        DistillationArguments(
            str(tmp_path / "student"),
            objectives=["logits"],
            max_steps=2,
            report_to="none",
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
        ),
    )
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
    assert list(model.config.id2label.values()) == ["movies", "animals", "city"]
    multi = student == "shape"
    assert (model.config.problem_type == "multi_label_classification") is multi
    assert results["training_seconds"] >= 0


def test_texts_that_differ_behind_the_students_tokens_are_other_texts(nli, tmp_path):
    store(nli, tmp_path, max_length=4)
    (tmp_path / "texts.txt").write_text("\n".join([f"{TEXTS[0]} not", *TEXTS[1:]]))
    with pytest.raises(ValueError, match=r"stored with other settings \(zero_shot_texts: "):
        store(nli, tmp_path, max_length=4)


def test_another_hypothesis_is_another_teacher(nli, tmp_path):
    one, two = (
        StoredTeacher(store(nli, tmp_path, output_dir=str(tmp_path / t), hypothesis_template=f"{t} {{}}")["folder"])
        for t in "ab"
    )
    assert one.fingerprint() != two.fingerprint()
    assert one.fingerprint()["stored_hypothesis_template"] == "a {}"


def test_labels_come_from_a_file_too(tmp_path):
    (tmp_path / "labels.txt").write_text("sport = sports and games\npolitics\n", encoding="utf-8")
    assert read_candidate_labels([str(tmp_path / "labels.txt")]) == {
        "sport": "sports and games",
        "politics": "politics",
    }
    for wrong in (["a", "a"], ["=b", "c"], ["a=", "c"]):
        with pytest.raises(ValueError, match=r"`--candidate_labels` has .*write every label once"):
            read_candidate_labels(wrong)


def test_what_is_no_zero_shot_teacher_is_named(nli, tmp_path, tiny_teacher, tiny_tokenizer):
    with pytest.raises(ValueError, match=r"`--hypothesis_template` 'about' must have one \{\} for the label"):
        store(nli, tmp_path, hypothesis_template="about")
    with pytest.raises(ValueError, match=r"give at least two labels"):
        store(nli, tmp_path, candidate_labels=["city"])
    with pytest.raises(ValueError, match=r"`--multi_label` needs `--candidate_labels`"):
        PrecomputeArguments(multi_label=True)
    with pytest.raises(ValueError, match=r"makes logits alone, but `--objectives` is \['hidden'\]"):
        PrecomputeArguments(candidate_labels=LABELS, objectives=["hidden"])
    with pytest.raises(ValueError, match=r"labels of `--teacher_model` are \['negative', 'positive'\]"):
        ZeroShotTeacher(tiny_teacher, tiny_tokenizer, {"a": "a", "b": "b"}, ["text"])
    pairs = Dataset.from_dict({"text": ["a"], "text_pair": ["b"]})
    pairs.to_json(str(tmp_path / "pairs.jsonl"))
    with pytest.raises(ValueError, match=r"`--candidate_labels` reads single texts"):
        precompute.run(
            TeacherArguments(nli),
            TextbookArguments([str(tmp_path / "pairs.jsonl")]),
            PrecomputeArguments(str(tmp_path / "no"), candidate_labels=LABELS, use_cpu=True),
        )


def test_texts_that_are_too_long_for_the_teacher_are_counted(nli, tmp_path, caplog):
    (tmp_path / "texts.txt").write_text("\n".join([*TEXTS, "the dog runs by the river " * 20]))
    store(nli, tmp_path, max_length=64)
    assert "1 of 5 texts have 64 tokens or more; longer ones are cut off (so many" in caplog.text
