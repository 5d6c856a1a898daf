"""Small tasks and models on disk, as users have them."""

import json
from pathlib import Path

import yaml
from datasets import ClassLabel, Dataset, Features, Value

# Settings of a short training of a test.
QUIET = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "save_strategy": "no"}
# A task of two moods, whose rows `mood_rows` makes.
MOODS = {"text_columns": ["text"], "label_names": ["no", "yes"], "metrics": ["accuracy"]}


def write_rows(path, rows):
    """A file of JSON lines; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def mood_rows(sentences, labels=(0, 1), column="text"):
    """Sentences that begin with "bad" or "good", in turns, and the label of that."""
    return [{column: f"{('bad', 'good')[i % 2]} {text}", "label": labels[i % 2]} for i, text in enumerate(sentences)]


def labelled_rows(texts, labels, names, column="text"):
    """A data set of texts and their classes, or of values where classes have no `names`."""
    label = Value("float32") if names is None else ClassLabel(names=list(names))
    features = Features({column: Value("string"), "label": label})
    return Dataset.from_dict({column: texts, "label": labels}, features=features)


def write_task(folder, rows, num_train=40, **spec):
    """`train.jsonl`, `validation.jsonl` of the rows that are left, and a `task.yaml` of the fields that are given."""
    write_rows(folder / "train.jsonl", rows[:num_train])
    write_rows(folder / "validation.jsonl", rows[num_train:])
    if spec:
        (folder / "task.yaml").write_text(yaml.safe_dump(spec))


def save_model(folder, model, tokenizer):
    """The path of a folder with a model and its tokenizer."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(Path(folder))
