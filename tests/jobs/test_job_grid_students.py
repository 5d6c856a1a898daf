"""The students that a grid compares: distilled first, each once, in their order."""

import json
from pathlib import Path

import pytest
import yaml
from tiny_data import mood_rows, save_model, write_task
from transformers import BertModel, set_seed

from hf_distill.commands import grid
from hf_distill.commands.grid import CLASSES, run as run_grid, student_settings
from hf_distill.objectives import build_objectives
from hf_distill.settings import (
    DistillationArguments,
    GridArguments,
    MTLArguments,
    StudentArguments,
    TasksArguments,
    TeacherArguments,
)
from hf_distill.settings.parsing import parse
from hf_distill.students.shapes import parse_shape
from hf_distill.tasks import list_tasks

CONFIGS = Path(__file__).parents[2] / "examples" / "configs"


@pytest.fixture
def data(tmp_path, sentences, tiny_bert_config, tiny_tokenizer):
    """A task, a textbook and a teacher of four layers."""
    spec = {
        "text_columns": ["text"], "label_names": ["no", "yes"], "metrics": ["accuracy"],
        "fine_tuning": {"max_length": 16, "epochs": 1, "batch_size": 8, "learning_rate": 1e-3},
    }  # fmt: skip
    write_task(tmp_path / "mood", mood_rows(sentences), **spec)
    (tmp_path / "general.txt").write_text("\n".join(sentences))
    set_seed(0)
    save_model(tmp_path / "teacher", BertModel(tiny_bert_config(num_hidden_layers=4)), tiny_tokenizer)
    return tmp_path


def arguments(data, **values):
    given = {
        "tasks": [str(data / "mood")], "use_cpu": True, "output_dir": str(data / "grid"),
        "distill": {
            "teacher_model": str(data / "teacher"), "textbook": str(data / "general.txt"), "max_steps": 2,
            "student_shape": "2x12:4h:16", "max_length": 16, "report_to": "none", "save_strategy": "no",
        },
        "students": {
            "last": {"objectives": ["minilm"]},
            "assistant": {"student_shape": "4x12:4h:16", "objectives": ["minilm"]},
            "with_assistant": {"teacher_model": "assistant", "objectives": ["minilm"]},
        },
    }  # fmt: skip
    return GridArguments(**{**given, **values})


def test_students_are_distilled_and_compared_beside_models(data, monkeypatch):
    facts = run_grid(arguments(data, models=[f"teacher={data / 'teacher'}"]))
    assert list(facts["tables"]["1"]) == ["teacher", "last", "assistant", "with_assistant"]
    folder = data / "grid" / "students"
    written = yaml.safe_load((folder / "with_assistant" / "arguments.yaml").read_text())
    assert written["teacher_model"] == str(folder / "assistant")
    assert json.loads((folder / "assistant" / "config.json").read_text())["num_hidden_layers"] == 4
    monkeypatch.setattr(grid.distill, "run", lambda *_: pytest.fail("distilled again"))
    assert run_grid(arguments(data, models=[f"teacher={data / 'teacher'}"]))["cells"] == facts["cells"]


def test_a_finished_student_of_other_settings_is_refused(data):
    one = {"last": {"objectives": ["minilm"]}}
    run_grid(arguments(data, students=one))
    other = {"last": {"objectives": ["relation"]}}
    with pytest.raises(ValueError, match=r"`--students`: 'last' was begun with other settings \(objectives"):
        run_grid(arguments(data, students=other))


def test_a_student_that_was_stopped_goes_on_with_its_own_settings_only(data):
    one = {"last": {"objectives": ["minilm"]}}
    run_grid(arguments(data, students=one))
    (data / "grid" / "students" / "last" / "results.json").unlink()
    (data / "grid" / "students" / "last" / "checkpoint-1").mkdir()
    with pytest.raises(ValueError, match=r"'last' was begun with other settings \(learning_rate"):
        run_grid(arguments(data, students={"last": {"objectives": ["minilm"], "learning_rate": 1e-3}}))


def test_settings_that_no_distillation_has_are_named(data):
    with pytest.raises(ValueError, match=r"students/last\.yaml' has unknown arguments .'colour'.; known are"):
        run_grid(arguments(data, students={"last": {"colour": "red"}}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"models": []}, "There is nothing to compare: give `--models`, `--students` or both"),
        ({"models": ["a=x"], "students": {"a": {}}}, r"have the names \['a', 'a'\]"),
        ({"students": "last"}, "`--students` must be JSON"),
        ({"students": {"last": "minilm"}}, "`--students last` must be JSON"),
        ({"students": {"last": {}}, "distill": ["minilm"]}, "`--distill` must be `name: value` pairs"),
    ],
)
def test_a_grid_without_sense_names_its_flag(values, message):
    with pytest.raises(ValueError, match=message):
        student_settings(GridArguments(**{"tasks": ["t"], **values}))


def test_the_ablations_of_minilm_are_those_of_its_tables(tmp_path):
    (grid,) = parse((GridArguments,), [str(CONFIGS / "minilm_ablation.yaml")])
    layers = {}
    for name, settings in student_settings(grid).items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(settings))
        parsed = parse(CLASSES, [str(file)], presets=True)
        training = next(one for one in parsed if isinstance(one, DistillationArguments))
        student = next(one for one in parsed if isinstance(one, StudentArguments))
        depth = int(student.student_shape.partition("x")[0])
        objectives = build_objectives(training.objectives)
        for one in objectives:
            one.objective.bind(depth, 12)
        layers[name] = {one.name: list(getattr(one.objective, "pairs", ())) for one in objectives}
    assert layers == {
        "last": {"minilm": [(3, 12)]}, "last_two": {"minilm": [(2, 8), (3, 12)]},
        "first_and_last": {"minilm": [(1, 4), (3, 12)]}, "all": {"minilm": [(1, 4), (2, 8), (3, 12)]},
        "hidden_mse": {"attention": [], "hidden": []}, "assistant": {"minilm": [(12, 12)]},
        "last_with_assistant": {"minilm": [(3, 12)]},
    }  # fmt: skip


MITKD = ([1e-5, 2e-5, 5e-5], [3, 5, 10], [16, 32, 48])
CLUE = ([1e-5, 2e-5, 3e-5, 5e-5], [16, 32, 64])


@pytest.mark.parametrize(
    ("file", "task", "rates", "epochs", "batches"),
    [
        ("mitkd_en", "glue/rte", *MITKD),
        ("mitkd_en", "chemprot", *MITKD),
        ("mitkd_en", "glue/cola", MITKD[0], [25], MITKD[2]),
        ("mitkd_en", "squad_v2", [3e-5, 6e-5, 8e-5, 9e-5], [3], [32]),
        ("mitkd_zh", "fewclue/bustm", *MITKD),
        ("mitkd_zh", "canli", *MITKD),
        ("mitkd_zh", "clue/cluewsc2020", CLUE[0], [50], CLUE[1]),
        ("mitkd_zh", "clue/ocnli", CLUE[0], [5], CLUE[1]),
        ("minilm_ablation", "glue/sst2", [2e-5, 3e-5, 4e-5, 5e-5], [3, 4, 5], [32]),
        ("minilm_ablation", "squad_v2", [6e-5], [3], [32]),
    ],
)
def test_the_files_fine_tune_as_their_papers(file, task, rates, epochs, batches):
    (grid,) = parse((GridArguments,), [str(CONFIGS / f"{file}.yaml")])
    assert grid.settings_of(task) == (rates, epochs, batches)
    assert grid.warmup_steps == 0.1


@pytest.mark.parametrize(("language", "students"), [("en", 3), ("zh", 4)])
def test_mitkd_can_be_run_from_its_files(language, students, tmp_path):
    tasks, _, training = parse(
        (TasksArguments, TeacherArguments, MTLArguments),
        [str(CONFIGS / f"mitkd_teacher_{language}.yaml"), "--use_cpu", "--output_dir", str(tmp_path)],
    )
    (grid,) = parse((GridArguments,), [str(CONFIGS / f"mitkd_{language}.yaml")])
    assert {*tasks.tasks, *grid.tasks} <= set(list_tasks())
    assert training.gradient_accumulation_steps > 1
    found = student_settings(grid)
    assert len(found) == students
    for name, settings in found.items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(settings))
        student, *_ = parse(CLASSES, [str(file), "--use_cpu"], presets=True)
        parse_shape(student.student_shape)
