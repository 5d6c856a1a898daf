"""Folders and shapes become one table."""

import json

import pytest
import torch
from tiny_data import mood_rows, save_model, write_task

from hf_distill.commands import bench as module
from hf_distill.commands.bench import run as bench
from hf_distill.reports.speed import comparison
from hf_distill.reports.speed.report import draw_quality
from hf_distill.settings import BenchmarkArguments

QUICK = {
    "engines": ["sdpa"],
    "batch_size": 2,
    "seq_length": 16,
    "num_batches": 3,
    "warmup": 1,
    "grid_batch_sizes": [1],
    "grid_seq_lengths": [8],
    "grid_batches": 2,
    "use_cpu": True,
}


@pytest.fixture
def folders(tmp_path, tiny_teacher, tiny_student, tiny_tokenizer, sentences):
    """`teacher/` and `student/` with scores, and a task."""
    for name, model, score in (("teacher", tiny_teacher, 0.9), ("student", tiny_student, 0.8)):
        save_model(tmp_path / name, model, tiny_tokenizer)
        results = {"job": "teach", "task": "mood", "metric": "accuracy", "score": score}
        (tmp_path / name / "results.json").write_text(json.dumps(results))
    spec = {"text_columns": ["text"], "label_names": ["a", "b"], "metrics": ["accuracy"]}
    write_task(tmp_path / "mood", mood_rows(sentences[:6]), num_train=3, **spec)
    return tmp_path


@pytest.fixture
def seen(monkeypatch):
    """The batches that were run, in order."""
    batches, take_turns = [], comparison.take_turns

    def note(runs, given, *args, **kwargs):
        batches.append(given)
        return take_turns(runs, given, *args, **kwargs)

    monkeypatch.setattr(comparison, "take_turns", note)
    return batches


def test_shapes_alone_are_enough(tmp_path, seen):
    folder = tmp_path / "bench"
    shapes = BenchmarkArguments(
        teacher_shape="2x24:2h", student_shapes=["1x12:2h", "1x24:2h"], output_dir=str(folder), **QUICK
    )
    facts = bench(shapes, "hf-distill bench …")
    assert [model["name"] for model in facts["models"]] == ["2x24:2h", "1x12:2h", "1x24:2h"]
    assert facts["inputs"] == "random tokens without padding"
    assert facts["command"] == "hf-distill bench …"
    assert [batches[0]["input_ids"].shape for batches in seen] == [(1, 8), (2, 16)]
    assert json.loads((folder / "bench.json").read_text())["grid"] == facts["grid"]
    assert (folder / "bench.md").read_text().startswith("# 1x12:2h, 1x24:2h against 2x24:2h\n")
    assert facts["figure"] is None
    assert facts["left_out"][-1]["reason"].startswith("fewer than two models have a score")


def test_folders_bring_their_scores_and_a_figure(folders):
    pytest.importorskip("matplotlib", reason="pip install 'hf_distill[plots]'")
    names = {"teacher_model": str(folders / "teacher"), "student_models": [str(folders / "student")]}
    facts = bench(BenchmarkArguments(**names, output_dir=str(folders / "bench"), **QUICK))
    assert [(model["name"], model["quality"]["score"]) for model in facts["models"]] == [
        ("teacher", 0.9),
        ("student", 0.8),
    ]
    assert facts["figure"] == "quality_against_latency.png"
    assert (folders / "bench" / facts["figure"]).stat().st_size > 1000
    assert facts["left_out"] == []


def test_without_matplotlib_the_figure_alone_is_missing(folders, monkeypatch):
    def missing(*_args, **_kwargs):
        raise ImportError("pip install 'hf_distill[plots]'")

    assert module.draw_quality is draw_quality
    monkeypatch.setattr(module, "draw_quality", missing)
    names = {"teacher_model": str(folders / "teacher"), "student_models": [str(folders / "student")]}
    facts = bench(BenchmarkArguments(**names, output_dir=str(folders / "bench"), **QUICK))
    assert "hf_distill[plots]" in facts["left_out"][-1]["reason"]
    assert (folders / "bench" / "bench.md").is_file()


def test_rows_of_a_task_are_cut_and_padded_to_the_shape(folders, seen, tiny_tokenizer):
    names = {"teacher_model": str(folders / "teacher"), "student_shapes": ["1x12:2h:16"]}
    facts = bench(BenchmarkArguments(**names, task=str(folders / "mood"), output_dir=str(folders / "b"), **QUICK))
    grid, protocol = seen
    assert [batch["input_ids"].shape for batch in grid] == [(1, 8)] * 2
    # Three batches of two rows out of three texts: all of them, taken again from the first.
    assert [batch["input_ids"].shape for batch in protocol] == [(2, 16)] * 3
    rows = torch.cat([batch["input_ids"] for batch in protocol])
    assert torch.equal(rows[:3], rows[3:])
    assert (rows == tiny_tokenizer.pad_token_id).any()
    assert set(protocol[0]) == {"input_ids", "attention_mask", "token_type_ids"}
    assert facts["inputs"] == f"rows of {folders / 'mood'} (train)"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"student_shapes": ["1x12"]}, "Name the teacher, by `--teacher_model` or by `--teacher_shape`"),
        ({"teacher_model": "a", "teacher_shape": "2x24", "student_shapes": ["1x12"]}, "not both"),
        ({"teacher_shape": "2x24"}, "Name at least one student"),
        ({"teacher_shape": "2x24", "student_shapes": ["1x12"], "task": "glue/qnli"}, "`--task` needs a tokenizer"),
        (
            {"teacher_shape": "2x24", "student_shapes": ["1x12"], "text_columns": ["text"]},
            "`--text_columns` is about the rows of a task: name it by `--task`",
        ),
    ],
)
def test_one_teacher_and_a_student_must_be_named(given, message):
    with pytest.raises(ValueError, match=message):
        BenchmarkArguments(**given)


def test_models_need_names_that_tell_them_apart(tmp_path):
    twice = {"teacher_shape": "1x12:2h", "student_shapes": ["1x12:2h"], "output_dir": str(tmp_path)}
    with pytest.raises(ValueError, match="have the same name"):
        bench(BenchmarkArguments(**twice, **QUICK))
