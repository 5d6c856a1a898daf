"""Store a teacher from a folder and a text file, then distil from what was stored."""

import json
import shutil

import pytest
from tiny_data import QUIET

from hf_distill.commands.distill import run as distill
from hf_distill.commands.precompute import run as precompute
from hf_distill.hub.disclosure import public
from hf_distill.hub.model_card import read_facts
from hf_distill.settings import (
    DistillationArguments,
    PrecomputeArguments,
    StudentArguments,
    TeacherArguments,
    TextbookArguments,
)
from hf_distill.settings.parsing import parse

OBJECTIVES = ["relation", "logits:0.5"]


@pytest.fixture
def store(tmp_path, teacher, text):
    """`store(**fields)`: what the job returns; fields go to the arguments that have them."""

    def make(**fields):
        taught, book = {"teacher_model": teacher}, {"textbook": [text], "textbook_eval_rows": 0}
        storing = {
            "output_dir": str(tmp_path / "stored"),
            "objectives": OBJECTIVES,
            "max_length": 16,
            "store_dtype": "float32",
            "use_cpu": True,
        }
        for name, value in fields.items():
            next((part for part in (taught, book) if name in part), storing)[name] = value
        return precompute(TeacherArguments(**taught), TextbookArguments(**book), PrecomputeArguments(**storing))

    return make


@pytest.fixture
def run(tmp_path):
    """`run(teacher, textbook=None, student={}, book={}, **training)`: distil."""

    def make(teacher, textbook=None, *, student=None, book=None, output="student", **training):
        settings = {
            "output_dir": str(tmp_path / output),
            "objectives": OBJECTIVES,
            "max_steps": 3,
            "per_device_train_batch_size": 8,
            "max_length": 16,
            "logging_steps": 1,
            **QUIET,
            **training,
        }
        return distill(
            StudentArguments(**{"student_shape": "2x12:2h:20", **(student or {})}),
            TeacherArguments(teacher_model=teacher),
            TextbookArguments(textbook, **(book or {})),
            DistillationArguments(**settings),
        )

    return make


def test_distilling_from_the_store_equals_distilling_from_the_model(store, run, teacher, text, tmp_path):
    folder = store()["folder"]
    live = run(teacher, [text], output="live", student={"student_init": "random"})
    shutil.rmtree(teacher)
    stored = run(folder)
    for one, other in zip(stored["history"], live["history"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    for name in ("teacher_parameters", "student_parameters", "textbook_rows", "objectives"):
        assert stored[name] == live[name]
    assert [fact.name for fact in read_facts(tmp_path / "student").teacher] == ["my-teacher"]
    assert str(tmp_path) not in (tmp_path / "student" / "README.md").read_text()


def test_a_student_of_a_stored_teacher_is_cut_out_of_the_model_that_was_stored(store, run, teacher, text, tmp_path):
    student = {"calibration_text": text, "calibration_tokens": 200}
    live = run(teacher, [text], output="live", student=student)
    stored = run(store()["folder"], student={**student, "student_init_model": teacher})
    assert (stored["student_init"], live["student_init"]) == ("teacher", "teacher")
    assert stored["history"][0]["loss"] == pytest.approx(live["history"][0]["loss"], rel=1e-5)
    assert stored["first_weights"].startswith("cut out of my-teacher: teacher layers")


def test_first_weights_are_fitted_on_the_rows_of_the_store_where_no_text_is_named(store, run, teacher):
    results = run(store()["folder"], student={"student_init_model": teacher, "calibration_tokens": 200})
    assert "explained variance by layer" in results["first_weights"]
    assert "tokens)" in results["first_weights"]


def test_first_weights_of_a_model_with_other_tokens_are_refused(store, run, teacher, tmp_path):
    other = shutil.copytree(teacher, tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, last = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[last] = vocabulary[last], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match=r"`--student_init_model .*other` has another tokenizer than the teacher"):
        run(store()["folder"], student={"student_init_model": str(other)})


def test_a_student_that_exists_takes_no_first_weights():
    with pytest.raises(ValueError, match=r"`--student_init_model a` gives first weights to .* `--student_model b`"):
        StudentArguments(student_init_model="a", student_model="b")


def test_the_results_tell_rows_bytes_and_speed_and_the_arguments_repeat_them(store, tmp_path):
    results = store()
    assert json.loads((tmp_path / "stored" / "results.json").read_text()) == json.loads(json.dumps(public(results)))
    shards = (tmp_path / "stored").glob("*.arrow")
    assert results["bytes"] == sum(path.stat().st_size for path in shards)
    assert (results["rows"], results["new_rows"]) == (64, 64)
    assert results["rows_per_second"] > 0
    classes = (TeacherArguments, TextbookArguments, PrecomputeArguments)
    again = precompute(*parse(classes, [str(tmp_path / "stored" / "arguments.yaml")]))
    assert (again["rows"], again["new_rows"]) == (64, 0)


def test_rows_of_the_store_may_be_limited_and_held_back(store, run):
    results = run(store()["folder"], book={"max_textbook_rows": 20, "textbook_eval_rows": 4})
    assert results["textbook_rows"] == 16
    assert results["evaluation"]["eval_loss"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"textbook": ["some.txt"]}, r"`--textbook` \['some.txt'\] is given, but the stored teacher"),
        ({"student": {"student_init": "teacher_layers"}}, "`--student_init teacher_layers` takes weights, which"),
        (
            {"objectives": [{"objective": "relation", "layer_map": "1:1"}]},
            r"need projections of layers \[1\] of the teacher",
        ),
        ({"book": {"textbook_eval_rows": 64}}, "`--textbook_eval_rows` is 64, but there are 64 rows"),
    ],
)
def test_what_a_stored_teacher_cannot_do_is_refused(options, message, store, run):
    folder = store()["folder"]
    with pytest.raises(ValueError, match=message):
        run(folder, **options)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"teacher_model": None}, "`--teacher_model` is missing"),
        ({"teacher_model": "no/such-teacher"}, "`--teacher_model`: cannot load 'no/such-teacher'"),
        ({"textbook": None}, "`--textbook` is missing"),
        ({"textbook_eval_rows": 3}, "`--textbook_eval_rows` is for `hf-distill distill`"),
        ({"store_dtype": "int8"}, "`--store_dtype` is 'int8'; allowed are"),
        ({"shard_rows": 0}, "`--shard_rows` is 0; it must be at least 1"),
        ({"student_shape": "tiny"}, "'tiny'.*LAYERSxHIDDEN"),
        ({"objectives": [{"objective": "relation", "layer_map": "1:9"}]}, "`layer_map .*no layer 9"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_the_flag_in_the_message(store, fields, message):
    with pytest.raises((ValueError, OSError), match=message):
        store(**fields)


def test_the_shape_of_the_student_says_which_layers_a_map_needs(store, tmp_path):
    store(student_shape="2x12:2h:20", objectives=[{"objective": "relation", "layer_map": "uniform"}])
    manifest = json.loads((tmp_path / "stored" / "manifest.json").read_text())
    assert len(manifest["request"]["projections"]) == 2


def test_distilling_without_any_text_is_refused(run, teacher):
    with pytest.raises(ValueError, match="`--textbook` is missing"):
        run(teacher)
