"""JSON files that are one mapping: SQuAD's official files, and tables."""

import json

import pytest

from hf_distill.tasks import load_task

CONTEXTS = [f"In the year {1900 + number} the town number {number} built a bridge." for number in range(10)]


def squad(unanswered=0):
    """An official file with two articles; of every paragraph the last questions have no answer."""
    paragraphs = [
        {
            "context": context,
            "qas": [
                {
                    "id": f"{number}-{which}",
                    "question": f"Question {which} of town {number}?",
                    "answers": [] if which >= 2 - unanswered else [{"text": "a bridge", "answer_start": start}],
                    "plausible_answers": [{"text": "town", "answer_start": 21}],
                    "is_impossible": which >= 2 - unanswered,
                }
                for which in range(2)
            ],
        }
        for number, context in enumerate(CONTEXTS)
        for start in [context.index("a bridge")]
    ]
    return {"version": "1.1", "data": [{"title": "One", "paragraphs": paragraphs[:5]}, {"paragraphs": paragraphs[5:]}]}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(("unanswered", "headline"), [(0, "f1"), (1, "best_f1")])
def test_an_official_file_of_squad_is_a_task(tmp_path, caplog, indent, unanswered, headline):
    path = tmp_path / "squad.json"
    path.write_text(json.dumps(squad(unanswered), indent=indent), encoding="utf-8")
    task = load_task(str(path))
    assert (task.spec.kind, task.spec.headline) == ("question_answering", headline)
    assert {name: len(rows) for name, rows in task.dataset.items()} == {"train": 16, "validation": 4}
    row = task.dataset["validation"][0]
    town = CONTEXTS.index(row["context"])
    assert (row["id"], row["question"]) == (f"{town}-0", f"Question 0 of town {town}?")
    assert row["answers"] == {"text": ["a bridge"], "answer_start": [row["context"].index("a bridge")]}
    assert [len(found["text"]) for found in task.dataset["validation"]["answers"]] == [1, 1 - unanswered] * 2
    assert not set(task.train["context"]) & set(task.dataset["validation"]["context"])
    assert ("some questions have none" in caplog.text) == bool(unanswered)


@pytest.mark.parametrize(("name", "version"), [("squad", "v1.1"), ("squad_v2", "v2.0")])
def test_official_files_are_those_of_the_registered_task(tmp_path, name, version):
    for split in ("train", "dev"):
        (tmp_path / f"{split}-{version}.json").write_text(json.dumps(squad(unanswered=version == "v2.0")))
    task = load_task(name, tmp_path)
    assert {split: len(rows) for split, rows in task.dataset.items()} == {"train": 20, "validation": 20}


@pytest.mark.parametrize(
    "form", ["rows", "list", "columns", "mappings", "split", "lines"], ids=lambda form: f"pandas {form}"
)
def test_a_table_in_any_usual_form(tmp_path, form):
    rows = [{"text": f"film {number}", "label": ("bad", "good")[number % 2]} for number in range(10)]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    content = {
        "rows": {"schema": {}, "data": rows},
        "list": rows,
        "columns": columns,
        "mappings": {name: dict(enumerate(values)) for name, values in columns.items()},
        "split": {"columns": list(columns), "index": list(range(10)), "data": [list(row.values()) for row in rows]},
    }
    path = tmp_path / "films.json"
    lines = "\n".join(map(json.dumps, rows))
    path.write_text(lines if form == "lines" else json.dumps(content[form]), encoding="utf-8-sig")
    task = load_task(str(path))
    assert task.spec.label_names == ("bad", "good")
    found = [row for split in task.dataset.values() for row in split]
    assert sorted((row["text"], task.spec.label_names[row["label"]]) for row in found) == sorted(
        (row["text"], row["label"]) for row in rows
    )


def test_what_is_no_table_is_said(tmp_path):
    path = tmp_path / "odd.json"
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": "x", "qas": [{"id": "1"}]}]}]}))
    with pytest.raises(ValueError, match=r"odd.json.*could not be read as json \(KeyError: 'question'\)"):
        load_task(str(path))
