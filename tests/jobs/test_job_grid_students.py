"""The students that a grid compares: distilled first, each once, in their order."""

import json
from pathlib import Path

import pytest
import yaml
from tiny_data import MOODS, mood_rows, save_model, write_task
from transformers import BertModel, set_seed

from hf_distill.commands import grid
from hf_distill.commands.grid import CLASSES, distil_students, run as run_grid
from hf_distill.commands.grid_students import plan_students
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
    spec = MOODS | {"fine_tuning": {"max_length": 16, "epochs": 1, "batch_size": 8, "learning_rate": 1e-3}}
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


def settings_of(grid):
    """Student -> the settings of its distillation."""
    return {one.name: one.settings for one in plan_students(grid, {task: task for task in grid.tasks})}


def test_students_are_distilled_and_compared_beside_models(data, monkeypatch):
    facts = run_grid(arguments(data, models=[f"teacher={data / 'teacher'}"]))
    assert list(facts["tables"]["1"]) == ["teacher", "last", "assistant", "with_assistant"]
    folder = data / "grid" / "students"
    written = yaml.safe_load((folder / "with_assistant" / "arguments.yaml").read_text())
    assert written["teacher_model"] == str(folder / "assistant")
    assert json.loads((folder / "assistant" / "config.json").read_text())["num_hidden_layers"] == 4
    monkeypatch.setattr(grid.distill, "run", lambda *_: pytest.fail("distilled again"))
    assert run_grid(arguments(data, models=[f"teacher={data / 'teacher'}"]))["cells"] == facts["cells"]


def test_a_grid_that_was_moved_goes_on(data, monkeypatch):
    facts = run_grid(arguments(data, models=[f"teacher={data / 'teacher'}"]))
    (data / "grid").rename(data / "elsewhere")
    moved = {"output_dir": str(data / "elsewhere"), "models": [f"teacher={data / 'teacher'}"]}
    monkeypatch.setattr(grid.distill, "run", lambda *_: pytest.fail("distilled again"))
    monkeypatch.setattr(grid, "_fine_tune", lambda *_: pytest.fail("fine-tuned again"))
    assert run_grid(arguments(data, **moved))["tables"] == facts["tables"]
    written = yaml.safe_load((data / "elsewhere" / "students" / "with_assistant.yaml").read_text())
    assert written["teacher_model"] == str(data / "elsewhere" / "students" / "assistant")
    assert written["output_dir"] == str(data / "elsewhere" / "students" / "with_assistant")
    monkeypatch.chdir(data)
    given = moved | {"output_dir": "elsewhere"}
    assert run_grid(arguments(data, **given))["tables"] == facts["tables"], "the same place, written otherwise"
    other = arguments(data).students | {"last": {"objectives": ["relation"]}}
    with pytest.raises(ValueError, match=r"'last' was begun with other settings \(objectives: \['minilm'\] there"):
        run_grid(arguments(data, students=other, **given))


def test_a_finished_student_of_other_settings_is_refused(data):
    one = {"last": {"objectives": ["minilm"]}}
    run_grid(arguments(data, students=one))
    other = {"last": {"objectives": ["relation"]}}
    with pytest.raises(ValueError, match=r"`--students`: 'last' was begun with other settings \(objectives"):
        run_grid(arguments(data, students=other))


def test_a_student_of_other_text_under_an_old_name_is_refused(data):
    one = {"last": {"objectives": ["minilm"]}}
    run_grid(arguments(data, students=one))
    with (data / "general.txt").open("a") as file:
        file.write("one more text\n")
    with pytest.raises(ValueError, match=r"'last' was begun with files of another content \(.*general.txt: "):
        run_grid(arguments(data, students=one))


def test_a_student_that_was_stopped_goes_on_with_its_own_settings_only(data, monkeypatch, caplog):
    one = {"last": {"objectives": ["minilm"]}}
    run_grid(arguments(data, students=one))
    assert "There is no checkpoint" not in caplog.text, "nobody asked a first run to go on"
    (data / "grid" / "students" / "last" / "results.json").unlink()
    (data / "grid" / "students" / "last" / "checkpoint-1").mkdir()
    asked = []
    monkeypatch.setattr(grid.distill, "run", lambda *given: asked.append(given[-1].resume_from_checkpoint))
    distil_students(plan_students(arguments(data, students=one), {str(data / "mood"): "mood"}), data / "grid")
    assert asked == ["last"]
    with pytest.raises(ValueError, match=r"'last' was begun with other settings \(learning_rate"):
        run_grid(arguments(data, students={"last": {"objectives": ["minilm"], "learning_rate": 1e-3}}))


def test_settings_that_no_distillation_has_are_named(data):
    with pytest.raises(ValueError, match=r"students/last\.yaml' has unknown arguments .'colour'.; `--help_all` lists"):
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
        plan_students(GridArguments(**{"tasks": ["t"], **values}), {"t": "t"})


def planned(**values):
    """Folder below that of the students -> what differs from the others."""
    given = {"tasks": ["glue/rte", "own"], "output_dir": "out", **values}
    return {
        one.folder.removeprefix("out/students/"): (one, {
            name: value for name, value in one.settings.items()
            if name not in ("output_dir", "use_cpu")
        })
        for one in plan_students(GridArguments(**given), {"glue/rte": "glue/rte", "own": "mine"})
    }  # fmt: skip


def test_a_student_of_each_task_and_seed_has_a_folder_of_its_own():
    students = {
        "general": {"teacher_model": "roberta"},
        "task": {"teacher_model": "teachers/{task}", "textbook": ["{task}", "more"], "student_model": "general"},
        "again": {"teacher_model": "roberta", "student_model": "task", "only_tasks": ["glue/rte"]},
    }
    found = planned(students=students, distillation_seeds=[1, 2])
    assert list(found) == [
        "general/seed1", "general/seed2", "task/glue_rte/seed1", "task/mine/seed1", "task/glue_rte/seed2",
        "task/mine/seed2", "again/glue_rte/seed1", "again/glue_rte/seed2",
    ]  # fmt: skip
    student, settings = found["task/mine/seed2"]
    assert student.tasks == ("own",)
    assert settings == {
        "teacher_model": "teachers/mine", "textbook": ["own", "more"], "student_model": "out/students/general/seed2",
        "seed": 2,
    }  # fmt: skip
    assert found["general/seed1"][0].tasks == ("glue/rte", "own")
    assert found["again/glue_rte/seed2"][1]["student_model"] == "out/students/task/glue_rte/seed2"


def test_a_task_may_change_the_settings_of_a_student():
    one = {"a": {"teacher_model": "t", "max_steps": 5, "of_task": {"own": {"max_steps": 9}}}}
    found = planned(students=one)
    assert {folder: settings["max_steps"] for folder, (_, settings) in found.items()} == {"a/glue_rte": 5, "a/mine": 9}


@pytest.mark.parametrize("setting", [{"only_tasks": ["sst2"]}, {"of_task": {"sst2": {}}}])
def test_a_student_of_no_task_of_the_grid_is_refused(setting):
    with pytest.raises(ValueError, match=r"`--students a`: \w+ has \['sst2'\], but the `--tasks` are"):
        planned(students={"a": setting})


def test_a_student_of_other_tasks_of_a_paper_is_left_out():
    students = {
        "a": {"teacher_model": "t", "only_tasks": ["squad_v2"]},
        "b": {"teacher_model": "t", "only_tasks": ["squad_v2", "own"], "of_task": {"squad_v2": {"max_steps": 1}}},
    }
    assert list(planned(students=students)) == ["b/mine"]


def test_means_are_over_the_seeds_of_the_distillation_too(data):
    one = {"last": {"objectives": ["minilm"]}}
    facts = run_grid(arguments(data, students=one, distillation_seeds=[1, 2], seeds=[3, 4]))
    assert [(cell["distillation_seed"], cell["seed"]) for cell in facts["cells"]] == [(1, 3), (1, 4), (2, 3), (2, 4)]
    assert facts["tables"]["1"]["last"]["mood"]["runs"] == 4
    weights = [(data / "grid" / "students" / "last" / f"seed{n}" / "model.safetensors").read_bytes() for n in (1, 2)]
    assert weights[0] != weights[1]


def test_students_with_a_head_are_scored_as_they_are(data, tiny_teacher, tiny_tokenizer):
    tiny_teacher.config.id2label = {0: "no", 1: "yes"}
    save_model(data / "teachers" / "mood", tiny_teacher, tiny_tokenizer)
    distill = {
        "teacher_model": str(data / "teachers" / "{task}"), "textbook": "{task}", "max_steps": 1, "max_length": 16,
        "objectives": ["logits"], "report_to": "none", "save_strategy": "no", "student_shape": "2x12:4h:16",
    }  # fmt: skip
    models = [f"teacher={data / 'teachers' / '{task}'}"]
    facts = run_grid(arguments(data, models=models, students={"t2": {}}, distill=distill, fine_tune=False))
    assert [(cell["model"], cell["steps"], cell["seed"]) for cell in facts["cells"]] == [
        ("teacher", 0, None), ("t2", 0, None),
    ]  # fmt: skip
    assert (data / "grid" / "cells" / "t2" / "mood" / "1" / "as_it_is.json").is_file()


def test_what_trains_nothing_takes_no_settings_of_a_training():
    with pytest.raises(ValueError, match="`--no_fine_tune` trains nothing, but `--epochs` is given"):
        GridArguments(tasks=["t"], models=["m"], epochs=[1], fine_tune=False)


def test_the_ablations_of_minilm_are_those_of_its_tables(tmp_path):
    (grid,) = parse((GridArguments,), [str(CONFIGS / "minilm_ablation.yaml")])
    layers = {}
    for name, settings in settings_of(grid).items():
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


@pytest.mark.parametrize(("language", "students"), [("en", 4), ("zh", 4)])
def test_mitkd_can_be_run_from_its_files(language, students, tmp_path):
    tasks, _, training = parse(
        (TasksArguments, TeacherArguments, MTLArguments),
        [str(CONFIGS / f"mitkd_teacher_{language}.yaml"), "--use_cpu", "--output_dir", str(tmp_path)],
    )
    (grid,) = parse((GridArguments,), [str(CONFIGS / f"mitkd_{language}.yaml")])
    assert {*tasks.tasks, *grid.tasks} <= set(list_tasks())
    assert training.gradient_accumulation_steps > 1
    found = settings_of(grid)
    assert len(found) == students
    for name, settings in found.items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(settings))
        student, *_ = parse(CLASSES, [str(file), "--use_cpu"], presets=True)
        parse_shape(student.student_shape)
