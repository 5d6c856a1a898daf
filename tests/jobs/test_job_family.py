"""`distill --student_shape A B`: a family in one pass, each student as a distillation alone leaves it."""

import json
import shutil

import pytest
from tiny_data import QUIET

from hf_distill.cli import main
from hf_distill.commands.distill import run as distill
from hf_distill.commands.distill_family import members
from hf_distill.hub.model_card import read_facts
from hf_distill.settings import (
    DistillationArguments,
    FamilyArguments,
    MultiTeacherArguments,
    StudentArguments,
    TeacherArguments,
    TextbookArguments,
)
from hf_distill.storage.files import read_json

SHAPE = "2x12:2h:20"
SMALL = {"shape": "1x12:2h:20", "name": "small", "objectives": ["logits"], "learning_rate": 0.001}
# What a training of its own tells otherwise: times, and where it wrote.
TIMED = {"seconds", "training_seconds", "first_weights", "environment", "model", "family", "settings"}


@pytest.fixture
def training(tmp_path):
    """`training(folder, **settings)`: four steps with an evaluation."""

    def make(folder, kind=DistillationArguments, **settings):
        given = {
            "output_dir": str(tmp_path / folder), "objectives": ["relation"], "max_steps": 4, "max_length": 16,
            "per_device_train_batch_size": 8, "logging_steps": 2, **QUIET,
        }  # fmt: skip
        return kind(**given | settings)

    return make


def told(value):
    """What a run says, without its times."""
    if isinstance(value, dict):
        return {k: told(v) for k, v in value.items() if k not in TIMED and not k.endswith(("_runtime", "_per_second"))}
    return [told(item) for item in value] if isinstance(value, list) else value


def test_each_folder_is_that_of_a_distillation_alone(teacher, text, training, tmp_path, capsys):
    words = ["distill", "--teacher_model", teacher, "--textbook", text, "--textbook_eval_rows", "8"]
    words += ["--student_shape", SHAPE, json.dumps(SMALL), "--objectives", "relation", "--max_length", "16"]
    words += ["--max_steps", "4", "--per_device_train_batch_size", "8", "--logging_steps", "2"]
    words += [word for name, value in QUIET.items() for word in (f"--{name}", str(value))]
    assert main([*words, "--output_dir", str(tmp_path / "family")]) == 0
    names = {"2x12-2h-20": {}, "small": {"objectives": ["logits"], "learning_rate": 0.001}}
    out = capsys.readouterr().out
    for name, own in names.items():
        shape = StudentArguments(student_shape=SMALL["shape"] if name == "small" else SHAPE)
        book = TextbookArguments(textbook=[text], textbook_eval_rows=8)
        distill(shape, TeacherArguments(teacher_model=teacher), book, training(f"alone/{name}", **own))
        family, alone = tmp_path / "family" / name, tmp_path / "alone" / name
        assert {path.name for path in family.iterdir()} == {path.name for path in alone.iterdir()}
        for file in ("model.safetensors", "config.json"):
            assert (family / file).read_bytes() == (alone / file).read_bytes()
        assert told(read_json(family / "results.json")) == told(read_json(alone / "results.json"))
        assert read_json(family / "results.json")["family"] == list(names)
        facts, theirs = read_facts(family), read_facts(alone)
        assert (facts.curves, facts.commands, facts.model_name) == (theirs.curves, theirs.commands, theirs.model_name)
        assert facts.hardware.startswith(theirs.hardware)
        assert "in one pass of the teacher with" in facts.hardware
        assert f"| {name} | " in out
    assert "| student | parameters | of the teacher |" in out


def test_a_family_of_several_teachers_goes_on_where_it_was_killed(teacher, text, tmp_path):
    quiet = QUIET | {"save_strategy": "steps", "save_steps": 2, "student_init": "random", "max_steps": 4}
    words = ["distill", "--teacher_models", teacher, teacher, "--textbook", text, "--objectives", "logits"]
    words += ["--student_shape", SHAPE, "1x12:2h:20", "--max_length", "16", "--per_device_train_batch_size", "8"]
    words += [word for name, value in quiet.items() for word in (f"--{name}", str(value))]
    assert main([*words, "--output_dir", str(tmp_path / "family")]) == 0
    first, second = tmp_path / "family" / "2x12-2h-20", tmp_path / "family" / "1x12-2h-20"
    weights = {folder: (folder / "model.safetensors").read_bytes() for folder in (first, second)}
    for folder in weights:
        (folder / "model.safetensors").unlink()
    shutil.rmtree(second / "checkpoint-4")
    assert main([*words, "--output_dir", str(tmp_path / "family"), "--resume_from_checkpoint", "last"]) == 0
    assert {folder: (folder / "model.safetensors").read_bytes() for folder in weights} == weights


def test_a_dry_run_shows_every_student_and_writes_nothing(teacher, text, tmp_path, capsys):
    words = ["distill", "--teacher_model", teacher, "--textbook", text, "--student_shape", SHAPE, "1x12:2h:20"]
    assert main([*words, "--dry_run", "--use_cpu", "--output_dir", str(tmp_path / "family")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("2x12-2h-20\n")
    assert "\n1x12-2h-20\n" in out
    assert not (tmp_path / "family").exists()


def test_students_have_settings_of_their_own_and_share_the_rest(training):
    items = [SHAPE, SMALL | {"student_init": "random"}, {"student_model": "made/old", "max_steps": 2}]
    args = training("out", MultiTeacherArguments, weight_decay=0.2, push_to_hub=False)
    found = members(FamilyArguments(student_shape=items, calibration_tokens=7), args)
    assert list(found) == ["2x12-2h-20", "small", "old"]
    students = {name: student for name, (student, _) in found.items()}
    assert [(s.student_shape, s.student_init, s.student_model) for s in students.values()] == [
        (SHAPE, None, None), ("1x12:2h:20", "random", None), ("4x312", None, "made/old"),
    ]  # fmt: skip
    assert {student.calibration_tokens for student in students.values()} == {7}
    trainings = {name: own for name, (_, own) in found.items()}
    assert [(t.objectives, t.learning_rate, t.max_steps) for t in trainings.values()] == [
        (["relation"], 6e-4, 4), (["logits"], 0.001, 4), (["relation"], 6e-4, 2),
    ]  # fmt: skip
    assert {own.weight_decay for own in trainings.values()} == {0.2}
    assert [own.output_dir.rsplit("/", 2)[1:] for own in trainings.values()] == [["out", name] for name in found]


def test_every_student_has_a_repository_of_its_own(training):
    for given, begins in {None: "out", "me/film": "me/film"}.items():
        args = training("out", push_to_hub=True, hub_model_id=given)
        found = members(FamilyArguments(student_shape=[SHAPE, SMALL]), args)
        assert [own.hub_model_id for _, own in found.values()] == [f"{begins}-2x12-2h-20", f"{begins}-small"]


def test_one_shape_is_one_student(training):
    args = training("out")
    for student in (FamilyArguments(student_shape=SHAPE, student_init="random"), FamilyArguments()):
        [(alone, own)] = members(student, args).values()
        assert (type(alone), own) == (StudentArguments, args)
        assert (alone.student_shape, alone.student_init) == (student.student_shape[0], student.student_init)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([SHAPE, SHAPE], "two students '2x12-2h-20'.*its own `name`"),
        ([SHAPE, SMALL | {"name": "a/b"}], "a name is 'a/b'.*cannot have '/'"),
        (
            [SHAPE, SMALL | {"learning_rat": 1}],
            "small has an unknown setting 'learning_rat'.*Did you mean 'learning_rate'",
        ),
        ([SHAPE, SMALL | {"max_length": 8}], "small has `max_length`, which all students of a family share"),
        ([SHAPE, SMALL | {"student_vocabulary": 8}], "small has `student_vocabulary`, which all"),
        ([SHAPE, SMALL | {"learning_rate": "fast"}], "small: `learning_rate` is 'fast'"),
        ([SHAPE, {"objectives": ["logits"]}], "no `shape` and no `student_model`"),
        ([SHAPE, "{shape"], "must be JSON"),
        ([SHAPE, 5], "is 5"),
        ([None], "no `shape`"),
        ([], "is empty"),
        ([SMALL], "one student: give its settings as separate flags"),
    ],
)
def test_wrong_students_are_refused(items, message, training):
    with pytest.raises(ValueError, match=f"`--student_shape`.*{message}"):
        members(FamilyArguments(student_shape=items), training("out"))


def test_a_model_beside_shapes_is_refused(training):
    with pytest.raises(ValueError, match=r"`--student_model` is one student, but `--student_shape` has several"):
        members(FamilyArguments(student_shape=[SHAPE, "1x12"], student_model="old"), training("out"))
