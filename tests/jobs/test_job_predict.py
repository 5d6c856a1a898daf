"""The verb `predict`: predictions of texts, and the files of leaderboards."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_data import save_model, write_task
from transformers import BertForSequenceClassification, BertModel, set_seed

from hf_distill import load_task
from hf_distill.cli import main
from hf_distill.commands import evaluate, predict
from hf_distill.settings import EvaluationArguments, PredictionArguments, TaskArguments
from hf_distill.tasks.submissions import submission
from hf_distill.trainers.fine_tuning.predictions import prediction_records


@pytest.fixture
def classifier(tiny_bert_config, tiny_tokenizer, tmp_path):
    """`classifier(names, **config)`: a folder of a model that tells texts apart."""

    def make(classes, folder="model", **fields):
        set_seed(3)
        labels = dict(enumerate(classes))
        names = {"id2label": labels, "label2id": {name: i for i, name in labels.items()}, "num_labels": len(labels)}
        config = tiny_bert_config(**names, **fields)
        model = BertForSequenceClassification(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(4)
        save_model(tmp_path / folder, model, tiny_tokenizer)
        return str(tmp_path / folder), model.eval()

    return make


def logits_of(model, tokenizer, texts):
    with torch.no_grad():
        return torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts]).numpy()


def run(folder, tmp_path, **fields):
    out = tmp_path / "out"
    facts = predict.run(PredictionArguments(folder, output_dir=str(out), use_cpu=True, max_length=32, **fields))
    return facts, out


def test_every_text_gets_a_line_in_its_order(classifier, tiny_tokenizer, sentences, tmp_path):
    folder, model = classifier(["bad", "good"])
    (tmp_path / "texts.txt").write_text("\n".join(sentences[:9]) + "\n")
    facts, out = run(folder, tmp_path, text=[str(tmp_path / "texts.txt")], eval_batch_size=4)
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    expected = torch.tensor(logits_of(model, tiny_tokenizer, sentences[:9])).softmax(-1)
    assert [row["row"] for row in rows] == list(range(9))
    assert [row["probabilities"]["good"] for row in rows] == pytest.approx(expected[:, 1].tolist(), abs=1e-5)
    assert [row["label"] for row in rows] == [["bad", "good"][i] for i in expected.argmax(1)]
    assert (facts["rows"], facts["file"], facts["submission"]) == (9, "predictions.jsonl", None)
    assert "9 rows predicted" in predict.summary(facts)
    assert (out / "arguments.yaml").is_file()


def test_a_file_as_a_task_has_the_flags_of_every_verb(classifier, sentences, tmp_path):
    folder, _ = classifier(["bad", "good"])
    lines = [f"{text},{text},{('bad', 'good')[i % 2]}" for i, text in enumerate(sentences)]
    (tmp_path / "a.csv").write_text("\n".join(["title,said,mood", *lines]))
    given = {"task": str(tmp_path / "a.csv"), "text_columns": ["said"], "label_column": "mood"}
    facts, _ = run(folder, tmp_path, split="validation", **given)
    assert facts["rows"] == 12
    with pytest.raises(
        ValueError, match=r"has no split 'test' of texts to classify; it has \['train', 'validation'\]"
    ):
        run(folder, tmp_path, **given)


def test_a_file_of_test_rows_is_predicted_whole(classifier, tiny_tokenizer, sentences, tmp_path):
    folder, model = classifier(["bad", "good"])
    lines = [f"{text},{('bad', 'good')[number % 2]},test" for number, text in enumerate(sentences[:9])]
    (tmp_path / "new.csv").write_text("\n".join(["review,mood,split", *lines]) + "\n")
    facts, out = run(folder, tmp_path, task=str(tmp_path / "new.csv"))
    assert (facts["split"], facts["rows"]) == ("test", 9)
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    expected = logits_of(model, tiny_tokenizer, sentences[:9]).argmax(1)
    assert [row["label"] for row in rows] == [["bad", "good"][place] for place in expected]


def test_rows_of_a_task_are_cut_where_evaluate_cuts_them(classifier, sentences, tmp_path):
    folder, _ = classifier(["bad", "good"])
    fields = {"text_columns": ["text"], "label_names": ["bad", "good"], "fine_tuning": {"max_length": 5}}
    rows = [{"text": text, "label": i % 2} for i, text in enumerate(sentences)]
    write_task(tmp_path / "short", rows, **fields)
    own, out = {}, {}
    for name, given in {"default": {}, "named": {"max_length": 5}, "longer": {"max_length": 32}}.items():
        arguments = {"task": str(tmp_path / "short"), "split": "validation", "use_cpu": True, **given}
        out[name] = tmp_path / name
        predict.run(PredictionArguments(folder, output_dir=str(out[name]), **arguments))
        own[name] = (out[name] / "predictions.jsonl").read_text()
    assert own["default"] == own["named"] != own["longer"]
    task = TaskArguments(str(tmp_path / "short"))
    scored = evaluate.run(task, EvaluationArguments(folder, output_dir=str(tmp_path / "scored"), use_cpu=True))
    labels = [json.loads(line)["label"] for line in own["default"].splitlines()]
    right = [label == ("bad", "good")[row["label"]] for label, row in zip(labels, rows[40:], strict=True)]
    assert scored["score"] == pytest.approx(sum(right) / len(right))


def test_texts_of_tables_with_commas_and_lines_keep_their_rows(classifier, tiny_tokenizer, tmp_path):
    folder, model = classifier(["bad", "good"])
    texts = ["a good, long film", "the cat\nruns", 'a "dull" story', "NA"]
    with (tmp_path / "texts.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["text"], *([text] for text in texts)])
    _, out = run(folder, tmp_path, text=[str(tmp_path / "texts.csv")])
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    expected = torch.tensor(logits_of(model, tiny_tokenizer, texts)).softmax(-1)
    assert [row["probabilities"]["good"] for row in rows] == pytest.approx(expected[:, 1].tolist(), abs=1e-5)
    (tmp_path / "texts.jsonl").write_text('{"text": "a"}\n{"text": null}\n')
    with pytest.raises(ValueError, match="'text' must hold a text in every row, but row 1 has None"):
        run(folder, tmp_path, text=[str(tmp_path / "texts.jsonl")])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": "a.csv", "text_column": "said"}, "`--text_column said` is the column of `--text`"),
        ({"text": ["a.csv"], "text_columns": ["said"]}, "`--text_columns` is about the rows of a task"),
        ({"text": ["a.csv"], "class_names": ["no", "yes"]}, "`--class_names` is about the rows of a task"),
    ],
)
def test_columns_of_texts_and_of_tasks_are_told_apart(given, message):
    with pytest.raises(ValueError, match=message):
        PredictionArguments("model", **given)


def test_a_table_has_a_column_for_each_probability(classifier, sentences, tmp_path):
    folder, _ = classifier(
        ["a", "b", "c"], problem_type="multi_label_classification", label_thresholds=[0.0, 1.0, 0.0]
    )
    (tmp_path / "texts.txt").write_text("\n".join(sentences[:3]) + "\n")
    _, out = run(folder, tmp_path, text=[str(tmp_path / "texts.txt")], file_format="csv")
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    assert list(rows[0]) == ["row", "labels", "probability_a", "probability_b", "probability_c"]
    assert [row["labels"] for row in rows] == ["a;c"] * 3


def test_a_regression_gives_values(tiny_bert_config):
    config = tiny_bert_config(num_labels=1, id2label={0: "score"}, problem_type="regression")
    assert prediction_records(config, np.array([[1.25], [3.0]])) == [
        {"row": 0, "value": 1.25},
        {"row": 1, "value": 3.0},
    ]


def glue(folder, task, columns, splits):
    for split, labels in splits.items():
        rows = {name: [f"the cat {split} {i}" for i in range(len(labels))] for name in columns}
        place = folder / task
        place.mkdir(parents=True, exist_ok=True)
        table = {**rows, "label": labels, "idx": list(range(len(labels)))}
        pq.write_table(pa.table(table), place / f"{split}.parquet")
    return str(folder)


def test_the_file_of_a_leaderboard(classifier, tiny_tokenizer, tmp_path):
    """The head's order is another than the task's; the file has the task's."""
    folder, model = classifier(["positive", "negative"])
    data = glue(tmp_path / "glue", "sst2", ["sentence"], {"train": [0, 1], "validation": [0, 1], "test": [-1] * 5})
    assert main(["predict", folder, "--task", "glue/sst2", "--data_dir", data, "--submission", "--use_cpu",
                 "--max_length", "32", "--output_dir", str(tmp_path / "out")]) == 0  # fmt: skip
    logits = logits_of(model, tiny_tokenizer, [f"the cat test {i}" for i in range(5)])
    expected = [f"{i}\t{1 - label}" for i, label in enumerate(logits.argmax(1))]
    assert (tmp_path / "out" / "SST-2.tsv").read_text().splitlines() == ["index\tprediction", *expected]


@pytest.mark.parametrize(
    ("task", "split", "said", "name", "lines"),
    [
        ("glue/mnli", "test_mismatched", [0, 2], "MNLI-mm.tsv", ["0\tentailment", "1\tcontradiction"]),
        ("glue/rte", "test", [1], "RTE.tsv", ["0\tnot_entailment"]),
        ("glue/cola", "test", [1, 0], "CoLA.tsv", ["0\t1", "1\t0"]),
        ("glue/stsb", "test", [5.3, -0.2, 2.5], "STS-B.tsv", ["0\t5.000", "1\t0.000", "2\t2.500"]),
    ],
)
def test_files_of_glue(task, split, said, name, lines):
    from hf_distill.tasks import get_task

    found, content = submission(get_task(task), split, said)
    assert (found, content.splitlines()) == (name, ["index\tprediction", *lines])


def test_files_of_clue():
    from hf_distill.tasks import get_task

    name, content = submission(get_task("clue/tnews"), "test", [0, 2], [7, 9])
    assert name == "tnews11_predict.json"
    assert [json.loads(line) for line in content.splitlines()] == [
        {"id": 7, "label": "100"},
        {"id": 9, "label": "102"},
    ]
    assert submission(get_task("clue/ocnli"), "test", [1])[0] == "ocnli_50k_predict.json"
    with pytest.raises(ValueError, match="no leaderboard accepts the split 'validation'"):
        submission(get_task("clue/ocnli"), "validation", [1])


def test_what_cannot_be_predicted_is_said(classifier, tiny_bert_config, tiny_tokenizer, tmp_path):
    encoder = tmp_path / "encoder"
    save_model(encoder, BertModel(tiny_bert_config(), add_pooling_layer=False), tiny_tokenizer)
    with pytest.raises(ValueError, match="is a BertModel; texts are predicted by"):
        run(str(encoder), tmp_path, text=["texts.txt"])
    with pytest.raises(ValueError, match="Give the texts to read as `--text`, or a task"):
        PredictionArguments("model")
    with pytest.raises(ValueError, match="name it by `--task`"):
        PredictionArguments("model", text=["a.txt"], submission=True)
    folder, _ = classifier(["bad", "good"])
    data = glue(tmp_path / "glue", "sst2", ["sentence"], {"train": [0, 1], "validation": [0, 1]})
    with pytest.raises(ValueError, match=r"has no split 'test' of texts"):
        run(folder, tmp_path, task="glue/sst2", data_dir=data)
    assert load_task("glue/sst2", data).spec.test_splits == ("test",)


def test_texts_are_cut_as_in_the_training_and_what_is_cut_is_counted(classifier, tiny_tokenizer, tmp_path, caplog):
    folder, model = classifier(["bad", "good"])
    (tmp_path / "texts.txt").write_text("the cat\n" + "the cat runs to the river " * 30 + "\n")
    given = {"text": [str(tmp_path / "texts.txt")], "output_dir": str(tmp_path / "out"), "use_cpu": True}
    for remembered, flag, cut_at in ((None, None, 64), (20, None, 20), (20, 12, 12)):
        tiny_tokenizer("a", **({} if remembered is None else {"truncation": True, "max_length": remembered}))
        tiny_tokenizer.save_pretrained(folder)
        predict.run(PredictionArguments(folder, max_length=flag, **given))
        rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
        words = ("the cat runs to the river " * 30).split()[: cut_at - 2]
        expected = torch.tensor(logits_of(model, tiny_tokenizer, [" ".join(words)])).softmax(-1)
        assert rows[1]["probabilities"]["good"] == pytest.approx(float(expected[0, 1]), abs=1e-5)
        assert f"1 of 2 texts have {cut_at} tokens or more; longer ones are" in caplog.text
