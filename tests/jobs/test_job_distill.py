"""Distil from a teacher folder and a text file: what lies in the folder afterwards, and what is refused."""

import json
from itertools import pairwise

import pytest
import torch
import yaml
from tiny_data import QUIET, write_rows
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_distill.commands import distill_student
from hf_distill.commands.distill import run as distill
from hf_distill.hub.disclosure import public
from hf_distill.hub.model_card import read_facts
from hf_distill.kernels.cpu import fast_products_in_force
from hf_distill.settings import DistillationArguments, StudentArguments, TeacherArguments, TextbookArguments
from hf_distill.settings.parsing import parse

CLASSES = (StudentArguments, TeacherArguments, TextbookArguments, DistillationArguments)


@pytest.fixture
def run(tmp_path, teacher, text):
    """`run(**fields)`: distil with the tiny teacher; fields go to the arguments that have them."""

    def make(**fields):
        student = {"student_shape": "2x12:2h:20", "student_init": "random", "student_model": None}
        book = {"textbook": text, "max_textbook_rows": None, "textbook_eval_rows": 0}
        book |= {"text_columns": None, "label_column": None, "class_names": None}
        taught = {"teacher_model": teacher}
        training = {
            "output_dir": str(tmp_path / "student"),
            "objectives": ["relation", "logits:0.5"],
            "max_steps": 4,
            "per_device_train_batch_size": 8,
            "max_length": 16,
            "logging_steps": 1,
            **QUIET,
        }
        for name, value in fields.items():
            next((part for part in (student, book, taught) if name in part), training)[name] = value
        return distill(
            StudentArguments(**student),
            TeacherArguments(**taught),
            TextbookArguments(**book),
            DistillationArguments(**training),
        )

    return make


def losses(results):
    return [entry["loss"] for entry in results["history"]]


def test_the_folder_holds_a_plain_student_with_card_results_and_arguments(run, tmp_path, teacher, text):
    results = run()
    folder = tmp_path / "student"
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "arguments.yaml", "config.json", "distillation.json", "model.safetensors", "results.json",
        "tokenizer.json", "tokenizer_config.json", "training_args.bin",
    }  # fmt: skip
    model, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert {name: keys for name, keys in info.items() if keys} == {}
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert model.num_parameters() == results["student_parameters"] < results["teacher_parameters"]
    assert AutoTokenizer.from_pretrained(folder)("good film").input_ids[0] == 2

    stored = json.loads((folder / "results.json").read_text())
    assert stored == json.loads(json.dumps(public(results)))
    assert (stored["job"], stored["steps"], stored["textbook_rows"], stored["seed"]) == ("distill", 4, 64, 42)
    assert (stored["teacher"], stored["textbook"], stored["student_shape"]) == (
        public(teacher),
        [public(text)],
        "2x12:2h:20",
    )
    assert stored["objectives"]["relation"]["layers"] == [[2, 3]]
    assert stored["objectives"]["logits"]["weight"] == 0.5
    assert stored["settings"]["max_length"] == 16
    assert stored["evaluation"] is None
    assert {"loss", "loss/relation/qq", "loss/logits/soft", "grad_norm"} <= stored["history"][0].keys()


def test_the_card_tells_models_objectives_and_curves_and_no_path(run, tmp_path):
    results = run()
    card = (tmp_path / "student" / "README.md").read_text()
    facts = read_facts(tmp_path / "student")
    assert [fact.name for fact in facts.teacher] == ["my-teacher"]
    assert {fact.name: fact.weight for fact in facts.objectives} == {"relation": 1.0, "logits": 0.5}
    assert facts.student.parameters == results["student_parameters"]
    assert [value for _, value in facts.curves["loss"]] == losses(results)
    assert (facts.updates, facts.rows_per_update, facts.seed) == (4, 8, 42)
    assert facts.labels == ["negative", "positive"]
    assert (facts.corpus.name, facts.corpus.statistics) == ("sentences.txt", {"rows": 64})
    shown = "hf-distill distill --student_shape 2x12:2h:20 --student_init random --teacher_model my-teacher"
    assert facts.commands[0].startswith(shown)
    assert set(facts.settings) == {"max_steps", "max_length"}, "what nobody chose is no setting"
    for part in ("my-teacher", "`relation`", "loss/logits/soft", "AutoModelForSequenceClassification"):
        assert part in card
    assert str(tmp_path) not in card


def test_the_written_arguments_repeat_the_run(run, tmp_path):
    first = run()
    arguments = str(tmp_path / "student" / "arguments.yaml")
    again = distill(*parse(CLASSES, [arguments, "--output_dir", str(tmp_path / "again")]))
    assert losses(again) == losses(first)
    assert again["settings"] == first["settings"] | {"output_dir": str(tmp_path / "again")}
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("student", "again"))
    assert one == two


def test_a_killed_run_continues_from_its_last_checkpoint(run, tmp_path):
    whole = run(output_dir=str(tmp_path / "whole"))
    run(max_steps=4, save_strategy="steps", save_steps=2)
    checkpoints = tmp_path / "student"
    for name in ("model.safetensors", "results.json"):
        (checkpoints / name).unlink()
    (checkpoints / "checkpoint-4").rename(tmp_path / "lost")
    continued = run(resume_from_checkpoint="last")
    assert losses(continued) == losses(whole)
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("student", "whole"))
    assert one == two


@pytest.fixture
def first_weights(run, tmp_path):
    """`first_weights(**fields)`: where those of a student that is cut out of its teacher came from."""

    def told(**fields):
        shape = {"student_init": "teacher", "student_shape": "2x12:2h:16"}
        words = run(**shape, save_strategy="steps", save_steps=2, **fields)["first_weights"]
        assert read_facts(tmp_path / "student").initialisation == words
        return words

    return told


def test_a_resumed_run_still_tells_where_its_first_weights_came_from(first_weights):
    before = first_weights()
    assert "explain" in before
    assert first_weights(resume_from_checkpoint="last", max_steps=6) == before


@pytest.mark.usefixtures("own_products")
def test_first_weights_are_fitted_by_the_products_of_the_training(run, monkeypatch):
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"
    asked = []
    made = distill_student.make_student
    monkeypatch.setattr(
        distill_student, "make_student", lambda *given: asked.append(fast_products_in_force()) or made(*given)
    )
    run(student_init="teacher", max_steps=1, fp32_matmul="fast")
    assert asked == [True], "a pipeline that goes on fits what one that was never stopped does"


def test_damaged_checkpoints_are_no_reason_to_leave_the_first_weights_unfitted(first_weights, tmp_path):
    first_weights()
    for checkpoint in (tmp_path / "student").glob("checkpoint-*"):
        (checkpoint / "model.safetensors").write_bytes(b"half")
    assert "explain" in first_weights(resume_from_checkpoint="last")


def test_calibration_text_without_the_column_of_the_text_is_named(tmp_path, teacher, text):
    (tmp_path / "rows.jsonl").write_text('{"sentence": "a cat"}\n')
    with pytest.raises(ValueError, match=r"`--calibration_text` '.*rows.jsonl' has no column 'text' \(`--text_col"):
        distill(
            StudentArguments("2x12:2h:16", calibration_text=str(tmp_path / "rows.jsonl")),
            TeacherArguments(teacher),
            TextbookArguments([text]),
            DistillationArguments(str(tmp_path / "student"), use_cpu=True),
        )


def test_the_last_checkpoint_of_a_new_run_is_its_beginning(run):
    assert run(resume_from_checkpoint="last", max_steps=1)["steps"] == 1


def test_only_the_first_rows_and_some_held_back(run):
    results = run(max_textbook_rows=20, textbook_eval_rows=4)
    assert results["textbook_rows"] == 16
    assert set(results["evaluation"]) >= {"eval_loss", "eval_loss/relation/vv", "eval_loss/logits/soft"}
    assert run(max_textbook_rows=1000)["textbook_rows"] == 64


@pytest.mark.parametrize(
    ("fields", "rate"),
    [
        ({"student_init": "random"}, 6e-4),
        ({"student_init": "teacher"}, 1e-4),
        ({"student_init": "teacher", "learning_rate": 6e-4}, 6e-4),
    ],
)
def test_weights_that_were_cut_out_of_the_teacher_learn_slowly(run, tmp_path, fields, rate):
    run(**fields, max_steps=1)
    stored = yaml.safe_load((tmp_path / "student" / "arguments.yaml").read_text(encoding="utf-8"))
    assert stored["learning_rate"] == rate


def test_the_student_may_begin_as_layers_of_the_teacher_or_as_a_stored_model(run, tmp_path):
    results = run(student_shape="2x24:4h:32", student_init="teacher_layers", output_dir=str(tmp_path / "cut"))
    assert results["student_init"] == "teacher_layers"
    further = run(student_model=str(tmp_path / "cut"))
    assert further["student_shape"] is None
    assert further["student_init"] == str(tmp_path / "cut")
    assert further["student_parameters"] == results["student_parameters"]
    assert losses(further)[0] < losses(results)[0]


def test_a_student_with_another_vocabulary_is_refused_unless_each_side_reads_its_own(run, tmp_path, tiny_tokenizer):
    run(max_steps=1, output_dir=str(tmp_path / "other"))
    path = tmp_path / "other" / "tokenizer.json"
    stored = json.loads(path.read_text())
    vocabulary = stored["model"]["vocab"]
    one, two = list(vocabulary)[-2:]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    path.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=r"tokenizers differ.*the teacher's tokenizer"):
        run(student_model=str(tmp_path / "other"))
    results = run(student_model=str(tmp_path / "other"), align_tokenizers=True)
    assert results["steps"] == 4
    kept = AutoTokenizer.from_pretrained(tmp_path / "student").get_vocab()
    assert kept == AutoTokenizer.from_pretrained(tmp_path / "other").get_vocab() != tiny_tokenizer.get_vocab()


def test_a_watched_run_tells_its_evaluations_and_which_was_the_best(run, tmp_path, sentences):
    mood = tmp_path / "mood"
    mood.mkdir()
    spec = {"text_columns": ["text"], "label_names": ["negative", "positive"], "metrics": ["accuracy"]}
    (mood / "task.yaml").write_text(json.dumps(spec))
    rows = [json.dumps({"text": text, "label": index % 2}) for index, text in enumerate(sentences[:20])]
    (mood / "validation.jsonl").write_text("\n".join(rows))
    named = [(text, ("negative", "positive")[index % 2]) for index, text in enumerate(sentences[:20])]
    watched = {"eval_strategy": "steps", "eval_steps": 2, "eval_task": str(mood), "eval_agreement": True}
    best = {
        "metric_for_best_model": "headline",
        "load_best_model_at_end": True,
        "save_strategy": "steps",
        "save_steps": 2,
    }
    results = run(**watched, **best, textbook_eval_rows=8)
    assert [entry["step"] for entry in results["evaluations"]] == [2, 4, 4]
    scores = {entry["step"]: entry["eval_task/accuracy"] for entry in results["evaluations"][:2]}
    assert results["best"] == {
        "metric": "task/accuracy", "value": max(scores.values()), "step": max(scores, key=scores.get), "loaded": True,
    }  # fmt: skip
    assert results["evaluation"]["eval_task/accuracy"] == max(scores.values())
    assert str(tmp_path) not in (tmp_path / "student" / "README.md").read_text()
    alone = run(**watched, output_dir=str(tmp_path / "alone"))
    assert (alone["best"], alone["textbook_rows"]) == (None, 64)
    assert {"eval_agreement", "eval_loss/relation/vv"} <= alone["evaluation"].keys()
    (tmp_path / "dev.csv").write_text("".join(f"{text},0,{mood}\n" for text, mood in [("said", "mood"), *named]))
    columns = {"text_columns": ["said"], "label_column": "mood", "class_names": ["negative", "positive"]}
    own = run(**watched | {"eval_task": str(tmp_path / "dev.csv")}, **columns, output_dir=str(tmp_path / "own"))
    assert own["evaluation"].keys() > alone["evaluation"].keys()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"eval_strategy": "steps", "eval_steps": 1}, "nothing to evaluate on: hold rows out with `--textbook_eval"),
        ({"eval_agreement": True}, "nothing to evaluate on"),
        ({"teacher_model": None}, "`--teacher_model` is missing"),
        ({"teacher_model": "no/such-teacher"}, "`--teacher_model`: cannot load 'no/such-teacher'"),
        ({"student_model": "no/such-student"}, "`--student_model`: cannot load 'no/such-student'"),
        ({"student_shape": "tiny"}, "'tiny'.*LAYERSxHIDDEN"),
        ({"text_column": "sentence"}, r"no column 'sentence'.*`--text_column`.*\['text'\]"),
        ({"textbook_eval_rows": 64}, "`--textbook_eval_rows` is 64, but there are 64 rows"),
        ({"textbook_eval_rows": -1}, "`--textbook_eval_rows` is -1; it must be at least 0"),
        ({"max_textbook_rows": 0}, "`--max_textbook_rows` is 0; it must be at least 1"),
        ({"textbook": "no/such-text"}, "`--textbook` 'no/such-text' is neither a file nor a folder"),
        ({"objectives": ["relatoin"]}, "`--objectives` has 'relatoin'.*Did you mean 'relation'"),
    ],
)
def test_what_cannot_work_is_refused_with_the_flag_in_the_message(run, fields, message):
    with pytest.raises((ValueError, OSError), match=message):
        run(**fields)


def test_a_teacher_without_a_tokenizer_is_refused(run, tmp_path, tiny_teacher):
    tiny_teacher.save_pretrained(tmp_path / "bare")
    with pytest.raises((ValueError, OSError), match=r"`--teacher_model`.*no tokenizer files.*save_pretrained"):
        run(teacher_model=str(tmp_path / "bare"))


def test_a_student_of_pairs_shows_a_pair_on_its_card(run, tmp_path, sentences):
    rows = [{"text": one, "text_pair": two} for one, two in pairwise(sentences)]
    write_rows(tmp_path / "pairs.jsonl", rows)
    run(textbook=[str(tmp_path / "pairs.jsonl")], objectives=["logits"])
    facts = read_facts(tmp_path / "student")
    assert facts.text_pairs
    assert list(facts.example.inputs) == ["text", "text_pair"]
    assert "classify({" in (tmp_path / "student" / "README.md").read_text(encoding="utf-8")
