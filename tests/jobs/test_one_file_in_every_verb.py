"""Every verb that reads a file as a task takes the same flags of columns and sees the same rows and labels."""

import csv

import pytest
from tiny_data import save_model
from transformers import BertForMaskedLM, BertForSequenceClassification, set_seed

from hf_distill.cli import main
from hf_distill.tasks import load_task, loading

QUICK = "--use_cpu --disable_tqdm true --report_to none --max_steps 1 --save_strategy no --output_dir out".split()
SHAPE = ["--student_shape", "2x12:2h:20"]
TASK, TASKS, LABELS = ["--task", "moods.csv"], ["--tasks", "moods.csv"], ["--textbook", "moods.csv", "--with_labels"]
VERBS = {
    "teach": [*TASK, *QUICK, "--teacher_model", "classifier"],
    "adapt": [*TASK, *QUICK, "--student_model", "classifier"],
    "evaluate": ["classifier", *TASK, "--use_cpu", "--output_dir", "out"],
    "predict": [
        "classifier",
        *TASK,
        "--max_length",
        "16",
        "--use_cpu",
        "--split",
        "validation",
        "--output_dir",
        "out",
    ],
    "export": [*TASK, "--model", "classifier", "--output_dir", "out"],
    "bench": [
        *TASK,
        "--teacher_model",
        "classifier",
        "--student_shapes",
        SHAPE[1],
        "--use_cpu",
        "--output_dir",
        "out",
    ],
    "pipeline": [*TASK, *SHAPE, "--teacher_model", "classifier", "--use_cpu", "--output_dir", "out"],
    "corpus": [*TASK, "--corpus", "text.txt", "--engine", "bm25s", "--corpus_dir", "out"],
    "augment": [*TASK, "--masked_lm", "masked", "--corpus_dir", "out", "--use_cpu"],
    "compare": [*TASK, "--corpora", "text.txt", "--output_dir", "out"],
    "mtl": [*TASKS, *QUICK, "--teacher_model", "classifier"],
    "grid": [*TASKS, "--models", "classifier", "--use_cpu", "--output_dir", "out"],
    "distill": [*LABELS, *QUICK, *SHAPE, "--teacher_model", "classifier"],
    "distill with --eval_task": [
        *("--textbook", "text.txt", "--eval_task", "moods.csv", "--teacher_model", "classifier"),
        *QUICK,
        *SHAPE,
    ],
    "precompute": [*LABELS, "--teacher_model", "classifier", "--use_cpu", "--output_dir", "out"],
}
# Flags -> text column, label column and labels of the task.
FLAGS = {
    "guessed": ([], ("text", "label", ("no", "yes"))),
    "named": (
        ["--text_columns", "said", "--label_column", "mood", "--class_names", "yes", "no"],
        ("said", "mood", ("yes", "no")),
    ),
}


class Seen(BaseException):
    """A verb has loaded a task."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_tokenizer, tiny_bert_config, sentences):
    """A file, its text, and models."""
    path = tmp_path_factory.mktemp("verbs")
    set_seed(0)
    labels = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    save_model(path / "classifier", BertForSequenceClassification(tiny_bert_config(**labels)), tiny_tokenizer)
    save_model(path / "masked", BertForMaskedLM(tiny_bert_config()), tiny_tokenizer)
    (path / "text.txt").write_text("\n".join(sentences))
    with (path / "moods.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label", "said", "mood"])
        for number, text in enumerate(sentences):
            one, other = ("no", "yes") if number % 2 else ("yes", "no")
            writer.writerow([text, one, f"{text}, he said", other])
    return path


WHOLE = {"to_score": True, "splits": "evaluation"}


@pytest.mark.parametrize("flags", list(FLAGS))
@pytest.mark.parametrize("verb", list(VERBS))
def test_a_file_is_the_same_task(folder, monkeypatch, verb, flags):
    given, (text, label, names) = FLAGS[flags]
    monkeypatch.chdir(folder)
    # What is named for evaluations alone has no training rows.
    columns = {"text_columns": [text], "label_column": label, "label_names": list(names)}
    wanted = load_task("moods.csv", **columns, **WHOLE if "--eval_task" in verb else {})

    def stop(spec, dataset, source):
        raise Seen(spec, dataset)

    monkeypatch.setattr(loading, "LoadedTask", stop)
    with pytest.raises(Seen) as seen:
        main([verb.split()[0], *VERBS[verb], *given])
    spec, dataset = seen.value.args
    assert (spec.text_columns, spec.label_column, spec.label_names) == ((text,), label, names)
    assert {name: rows[:] for name, rows in dataset.items()} == {
        name: rows[:] for name, rows in wanted.dataset.items()
    }
