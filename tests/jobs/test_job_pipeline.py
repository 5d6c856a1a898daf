"""The whole job on tiny data: what it writes, what it does again, and what it refuses before it starts."""

import json
import logging
import os
import shutil
import sys

import pytest
import torch
import yaml
from datasets import Dataset, DatasetDict
from tiny_data import mood_rows, save_model, write_rows, write_task
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    TrainingArguments,
    set_seed,
)

from hf_distill.commands import adapt, corpus, distill, pipeline as module, pipeline_plan, teach
from hf_distill.commands.pipeline import run as run_pipeline, summary as format_report
from hf_distill.hub.disclosure import public
from hf_distill.hub.model_card import read_facts
from hf_distill.settings import (
    CorpusArguments,
    DistillationArguments,
    FineTuningArguments,
    PipelineArguments,
    StudentArguments,
    TaskArguments,
    TeacherArguments,
)
from hf_distill.settings.parsing import parse
from hf_distill.storage.steps import MARKER
from hf_distill.tasks.loading import LoadedTask
from hf_distill.tasks.one_file import fine_tuning_of
from hf_distill.tasks.spec import TaskSpec

CLASSES = (TaskArguments, TeacherArguments, StudentArguments, CorpusArguments, PipelineArguments)
STAGES = ["teacher", "corpus", "distilled", "student"]
VERBS = {"teacher": teach, "corpus": corpus, "distilled": distill, "student": adapt}
QUIET = {"disable_tqdm": True, "report_to": "none", "logging_steps": 1}


@pytest.fixture(scope="module")
def material(tmp_path_factory, tiny_tokenizer, tiny_bert_config, sentences):
    """A task folder with its description, a general corpus and an encoder; returns their folder."""
    folder = tmp_path_factory.mktemp("material")
    spec = {"text_columns": ["text"], "label_column": "label", "label_names": ["no", "yes"], "metrics": ["accuracy"]}
    write_task(folder / "mood", mood_rows(sentences, ("no", "yes")), **spec)
    general = [f"{first} and {second}" for first, second in zip(sentences, reversed(sentences), strict=True)]
    write_rows(folder / "general.jsonl", [{"text": text} for text in general])
    set_seed(0)
    save_model(folder / "encoder", BertModel(tiny_bert_config()), tiny_tokenizer)
    return folder


@pytest.fixture(scope="module")
def settings(material):
    """The settings of a run as a configuration file holds them."""
    quick = {**QUIET, "max_steps": 2, "per_device_train_batch_size": 8}
    return {
        "task": str(material / "mood"),
        "teacher_model": str(material / "encoder"),
        "corpus": str(material / "general.jsonl"),
        "corpus_licence": "cc0-1.0",
        "engine": "bm25s",
        "top_k": 3,
        "max_length": 16,
        "student_shape": "2x12:2h:20",
        "output_dir": str(material / "out"),
        "use_cpu": True,
        "export": False,
        "teach": {**quick, "learning_rate": "5e-3"},
        "distill": {**quick, "objectives": ["relation", "logits:0.5"]},
        "adapt": {**quick, "learning_rate": 5e-3},
    }


@pytest.fixture(scope="module")
def run(settings, material):
    """`run(*flags, **changes)`: the pipeline from a configuration file with these settings."""

    def make(*flags, command="make it", page=False, **changes):
        path = material / "config.yaml"
        path.write_text(yaml.safe_dump(settings | changes))
        with pytest.MonkeyPatch.context() as patch:
            protocol = {"batch_size": 2, "seq_length": 128, "num_batches": 2, "warmup": 0}
            patch.setattr(module, "SPEED_PROTOCOL", protocol)
            if not page:
                patch.setattr(module.report_verb, "run", lambda arguments: None)
            return run_pipeline(*parse(CLASSES, [str(path), *flags]), command=command)

    return make


@pytest.fixture(scope="module")
def finished(run, material):
    """The report of one whole run, and a copy of all that it wrote."""
    report = run(page=True, export=True)
    shutil.copytree(material / "out", material / "copy")
    return report


@pytest.fixture
def out(finished, material):
    """The folder of the run, whatever an earlier test did to it."""
    shutil.rmtree(material / "out", ignore_errors=True)
    return shutil.copytree(material / "copy", material / "out")


@pytest.fixture
def started(out, monkeypatch):
    """Jobs that do nothing and give what is stored: stages that were started, in order, with their arguments."""
    noted = {}
    for stage, verb in VERBS.items():

        def fake(*arguments, _stage=stage, **_):
            noted[_stage] = arguments
            return json.loads((out / _stage / "results.json").read_text())

        monkeypatch.setattr(verb, "run", fake)
    return noted


def kill(*_, **__):
    raise KeyboardInterrupt


def test_it_ends_with_report_models_and_table(finished, out):
    report = finished
    written = json.loads((out / "report.json").read_text())
    # Where it is, the terminal says alone.
    assert written | {"folder": out.name} == json.loads(json.dumps(public(report)))
    assert (report["task"], report["metric"], report["split"]) == ("mood", "accuracy", "validation")
    assert (report["command"], report["seed"]) == ("make it", 42)
    for role in ("teacher", "student", "baseline"):
        assert 0 <= report[role]["score"] <= 1
    assert report["student"]["parameters"] == report["baseline"]["parameters"] < report["teacher"]["parameters"]
    assert report["distillation"]["steps"] == 2
    assert report["distillation"]["objectives"]["logits"]["weight"] == 0.5
    assert report["distillation"]["textbook_rows"] == report["corpus"]["rows"]
    assert report["corpus"]["engine"]["name"] == "bm25s"
    assert report["latency"]["speedup"] > 0
    assert report["latency"]["seq_length"] == 64, "no more tokens than the models have positions"

    for folder in ("teacher", "distilled", "student", "student/baseline"):
        model, info = AutoModelForSequenceClassification.from_pretrained(out / folder, output_loading_info=True)
        assert {name: keys for name, keys in info.items() if keys} == {}
        assert model.config.id2label == {0: "no", 1: "yes"}
    assert json.loads((out / "teacher" / "results.json").read_text())["settings"]["learning_rate"] == 5e-3
    assert json.loads((out / "corpus" / "statistics.json").read_text())["rows"] == report["corpus"]["rows"]

    head, *table = format_report(report).splitlines()
    assert head.split() == ["accuracy", "of", "the", "teacher", "parameters", "MB", "ms", "a", "row", "speed-up"]
    rows = [line.split() for line in table[:5]]
    assert [row[0] for row in rows] == ["majority", "teacher", "student", "baseline", "int8"]
    for (role, score, *_), size in zip(rows[1:], ("teacher", "student", "student", "int8"), strict=True):
        assert score == f"{report[role]['score']:.4f}"
        assert f"{report['latency'][f'{size}_bytes'] / 1e6:.1f}" in table[[row[0] for row in rows].index(role)]
    assert rows[0][1:] == [f"{report['majority']['score']:.4f}", rows[0][2], "-", "-", "-", "-"]
    assert table[-1] == f"go on with: hf-distill push {report['folder']}/student USER/NAME --dry_run"


def test_the_student_is_exported_and_the_page_has_everything(finished, out):
    exported = json.loads((out / "student" / "onnx" / "export.json").read_text())
    assert finished["int8"]["scores"] == exported["scores"]
    assert finished["int8"]["score"] == exported["scores"]["onnx_int8"]
    assert finished["latency"]["int8_bytes"] == (out / "student" / "onnx" / "model_quantized.onnx").stat().st_size
    assert finished["latency"]["int8_speedup"] > 0
    page = (out / "report.html").read_text()
    for part in ("int8", "baseline", "majority", "data:image/svg+xml"):
        assert part in page


def test_without_the_packages_of_onnx_a_line_says_so_and_the_rest_is_there(run, out, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "onnx", None)
    for verb in VERBS.values():
        monkeypatch.setattr(verb, "run", kill)
    (out / "student" / "onnx" / MARKER).unlink()
    report = run(export=True)
    assert report["int8"] is None
    assert report["student"]["score"] == json.loads((out / "student" / "results.json").read_text())["student"]["score"]
    assert not (out / "student" / "onnx").exists(), "files of another student would be taken for this one's"
    (line,) = (record.getMessage() for record in caplog.records if "left out" in record.getMessage())
    assert line.startswith("[student/onnx] left out: ONNX export needs the package `onnx`")
    assert line.endswith("pip install 'hf_distill[onnx]'")
    assert "int8" not in format_report(report)


def test_the_card_has_scores_objectives_corpus_and_model_index(finished, out, material):
    card, facts = (out / "student" / "README.md").read_text(), read_facts(out / "student")
    header = yaml.safe_load(card.split("---")[1])
    (measured,) = header["model-index"][0]["results"][0]["metrics"]
    assert (measured["type"], measured["value"]) == ("accuracy", finished["student"]["score"])
    (score,) = facts.scores
    assert [score.student, score.teacher, score.baseline] == [
        finished[role]["score"] for role in ("student", "teacher", "baseline")
    ]
    assert {objective.name: objective.weight for objective in facts.objectives} == {"relation": 1.0, "logits": 0.5}
    assert facts.initialisation.startswith("cut out of the teacher: teacher layers")
    assert facts.corpus.licence == "cc0-1.0"
    assert facts.corpus.statistics["rows"] == finished["corpus"]["rows"]
    assert facts.speed["speedup"] == finished["latency"]["speedup"]
    assert set(facts.curves) >= {"loss", "loss/relation/qq", "loss/logits/soft"}
    for part in ("make it", "encoder, fine-tuned on mood", "general.jsonl", "(bm25s)"):
        assert part in card
    is_adapted = finished["student"]["choice"]["kept"] == "adapted"
    assert ("learning rate 0.005" in card) == is_adapted == (facts.adaptation is not None)
    assert str(material) not in card
    (alone,) = read_facts(out / "student" / "baseline").scores
    assert (alone.student, alone.majority) == (finished["baseline"]["score"], finished["majority"]["score"])


def test_a_second_call_does_nothing_again_and_tells_the_same(run, finished, started, caplog):
    logger = logging.getLogger("hf_distill")
    with caplog.at_level(logging.WARNING, logger=logger.name):
        second = run(export=True)
    assert started == {}
    assert [f"[{stage}] finished before" in caplog.text for stage in STAGES] == [True] * 4
    anew = {"latency", "seconds"}
    first = public(json.loads(json.dumps(finished)))
    second = public(second)
    assert {k: v for k, v in second.items() if k not in anew} == {k: v for k, v in first.items() if k not in anew}


def test_the_seconds_are_those_of_the_whole_job(run, finished, started):
    of_stages = sum(finished["stage_seconds"].values())
    assert finished["seconds"] >= of_stages - 0.1
    assert run(export=True)["seconds"] >= of_stages - 0.1


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({}, []),
        ({"adapt": {**QUIET, "max_steps": 3}}, STAGES[3:]),
        ({"student_shape": "1x12:2h:20"}, STAGES[2:]),
        ({"top_k": 2}, STAGES[1:]),
        ({"seed": 1}, STAGES),
    ],
    ids=["nothing", "adapt", "student_shape", "top_k", "seed"],
)
def test_a_changed_setting_runs_its_stage_and_the_later_ones(run, started, change, again):
    run(**change)
    assert list(started) == again
    started.clear()
    run(**change)
    assert not started


def test_other_rows_under_an_old_name_are_other_rows(run, started, material):
    path = material / "general.jsonl"
    before, written = path.read_text(), path.stat()
    path.write_text(before + json.dumps({"text": "one more film"}) + "\n")
    run()
    path.write_text(before)
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))
    assert list(started) == STAGES[1:]


def test_a_killed_run_continues_where_it_stopped(run, finished, out, monkeypatch):
    shutil.rmtree(out / "student")
    with monkeypatch.context() as patched:
        patched.setattr(adapt, "run", kill)
        with pytest.raises(KeyboardInterrupt):
            run()
    for verb in (teach, corpus, distill):
        monkeypatch.setattr(verb, "run", kill)
    continued = run()
    for role in ("teacher", "student", "baseline"):
        assert continued[role]["score"] == finished[role]["score"]
    assert (out / "student" / "README.md").is_file()


def test_a_stage_killed_with_other_settings_is_not_taken_for_finished(run, started, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(distill, "run", kill)
        with pytest.raises(KeyboardInterrupt):
            run(student_shape="1x12:2h:20")
    run()
    assert list(started) == ["distilled"]


def test_settings_of_all_stages_reach_each_and_a_flag_wins_over_the_file(run, started):
    run("--distill", '{"max_steps": 7}', seed=5, bf16=True, max_textbook_rows=9)
    student, teacher, textbook, training = started["distilled"]
    # Of the mapping `distill` the flag names one setting: the others are those of the file.
    assert (training.max_steps, training.objectives, training.max_length) == (7, ["relation", "logits:0.5"], 16)
    assert (student.student_shape, textbook.max_textbook_rows) == ("2x12:2h:20", 9)
    assert teacher.teacher_model == started["student"][3].teacher_model
    for arguments in (started["teacher"][2], training, started["student"][2]):
        assert (arguments.seed, arguments.bf16, arguments.use_cpu) == (5, True, True)
    assert started["teacher"][2].learning_rate == started["student"][2].learning_rate == 5e-3


def test_what_is_left_is_said_at_the_speed_of_what_ran(run, started, monkeypatch, caplog):
    fake = teach.run
    monkeypatch.setattr(teach, "run", lambda *arguments: fake(*arguments) | {"seconds": 600.0})
    run(seed=3)
    lines = {line.split()[0]: line for line in map(str, caplog.messages) if " starts: stage" in line}
    assert [("left" in lines[f"[{stage}]"]) for stage in STAGES] == [False, False, True, True]
    # Weights of three layers of width 24, and of two of width 12.
    teacher, student = 3 * (4 * 24 * 24 + 2 * 24 * 32), 2 * (4 * 12 * 12 + 2 * 12 * 20)
    work = {"teacher": 3 * teacher, "distilled": teacher + 3 * student, "student": 2 * 3 * student}
    left = 10 * (work["distilled"] + work["student"]) / work["teacher"]
    assert f"about {left:.0f} left" in lines["[distilled]"]


class TestPlan:
    """How long student and baseline are fine-tuned, told by sizes alone."""

    @pytest.fixture
    def plan(self, tmp_path):
        def make(shape=(6, 384, 1536), objectives=("relation", "logits"), **given):
            layers, width, inner = shape
            BertConfig(
                num_hidden_layers=layers, hidden_size=width, intermediate_size=inner, num_attention_heads=12,
                architectures=["BertForSequenceClassification"], id2label={0: "no", 1: "yes"},
            ).save_pretrained(tmp_path)  # fmt: skip
            spec = TaskSpec("mood", ("text",), ("no", "yes"), fine_tuning=fine_tuning_of(2_400))
            train = Dataset.from_dict({"text": ["good"] * 2_400, "label": [1] * 2_400})
            rows, teacher = LoadedTask(spec, DatasetDict(train=train), "here"), TeacherArguments(str(tmp_path))
            last = DistillationArguments(str(tmp_path / "distilled"), objectives=list(objectives), use_cpu=True)
            training = FineTuningArguments(str(tmp_path), use_cpu=True, **given)
            plan = pipeline_plan.Plan(
                PipelineArguments(), ["task"], None, None, None, training, StudentArguments(), [last], training
            )
            seen = pipeline_plan.rows_distilled(plan, rows, None)
            found = pipeline_plan.plan_adaptation(plan, teacher, rows, seen)
            return found, pipeline_plan.reckon_work(plan, found, teacher, rows, seen)

        return make

    @pytest.mark.parametrize("shape", [(6, 384, 1536), (12, 768, 3072)])
    def test_student_and_baseline_take_no_longer_than_the_distillation_and_see_as_many_rows(self, plan, shape):
        found, work = plan(shape)
        assert (found.learnt, found.student.num_train_epochs, found.baseline.num_train_epochs) == (True, 1, 3 + 1)
        assert work["student"] <= work["distilled"]

    def test_what_the_user_chose_counts(self, plan):
        found, _ = plan(num_train_epochs=2)
        assert (found.student.num_train_epochs, found.baseline.num_train_epochs) == (2, 2)

    def test_a_student_without_the_tasks_head_and_its_baseline_learn_for_the_tasks_epochs(self, plan):
        found, _ = plan(objectives=["relation"])
        assert (found.learnt, found.student.num_train_epochs, found.baseline.num_train_epochs) == (False, None, None)


def test_the_tasks_own_text_joins_the_corpus(run, started, material, out):
    run(with_task_text=True)
    assert list(started) == STAGES[2:]
    assert started["distilled"][2].textbook == [str(out / "corpus"), str(material / "mood")]


def test_a_file_that_the_student_is_scored_on_has_the_columns_of_the_task(run, started, out, tmp_path, sentences):
    lines = "".join(f"{i},{text},{('no', 'yes')[i % 2]}\n" for i, text in enumerate(sentences))
    for name in ("moods", "dev"):
        (tmp_path / f"{name}.csv").write_text(f"text,said,mood\n{lines}", encoding="utf-8")
    columns = {"text_columns": ["said"], "label_column": "mood"}
    watched = {**QUIET, "max_steps": 2, "eval_strategy": "steps"}
    for name, file, named in (("moods", str(out / "task"), {}), ("dev", str(tmp_path / "dev.csv"), columns)):
        distil = {**watched, "eval_task": str(tmp_path / f"{name}.csv")}
        run(task=str(tmp_path / "moods.csv"), **columns, distill=distil)
        _, _, textbook, training = started["distilled"]
        assert training.eval_task == file
        assert textbook.column_settings() == named


def test_one_file_and_a_classifier_are_enough(
    run, material, tmp_path, sentences, caplog, tiny_bert_config, tiny_tokenizer
):
    set_seed(0)
    classifier = BertForSequenceClassification(tiny_bert_config(id2label={0: "no", 1: "yes"}))
    save_model(material / "classifier", classifier, tiny_tokenizer)
    path = tmp_path / "moods.csv"
    lines = [f"{('bad', 'good')[i % 2]} {text},{('no', 'yes')[i % 2]}" for i, text in enumerate(sentences)]
    path.write_text("\n".join(["what they said,mood", *lines]), encoding="utf-8")
    out = tmp_path / "moods"
    changes = {"task": str(path), "teacher_model": str(material / "classifier"), "output_dir": str(out)}
    given = {"corpus": None, "corpus_licence": None, "teach": None, "distill": {**QUIET, "max_steps": 2}}
    given["adapt"] = {**QUIET, "per_device_train_batch_size": 8}
    report = run(**changes, **given)
    # Two updates of 8 rows, and one epoch: as many rows as the student saw.
    rows = report["student"]["train_rows"]
    assert report["baseline"]["settings"]["num_train_epochs"] == pytest.approx(1 + 16 / rows)
    assert report["student"]["choice"]["split"] == report["split"] == "validation"
    told = format_report(report)
    assert "before, " in told
    assert f"scores are of the {report['split_rows']} rows of validation" in told
    assert (report["task"], report["kind"], report["metric"]) == ("moods", "text_classification", "accuracy")
    assert set(report["distillation"]["objectives"]) == {"relation", "logits"}
    assert not (out / "teacher").exists()
    assert "text in 'what they said', labels in 'mood' (2 classes)" in caplog.text
    assert "labels ['no', 'yes']: it is taken as it is" in caplog.text
    assert "[student] starts: stage 2 of 3" in caplog.text
    caplog.clear()
    run(**changes, **given)
    assert caplog.text.count("starts") == 1, "the report"
    path.write_text(path.read_text(encoding="utf-8").replace("good", "fine"), encoding="utf-8")
    run(**changes, **given)
    assert "[distilled] starts: stage 1 of 3" in caplog.text
    assert AutoModelForSequenceClassification.from_pretrained(out / "student").config.id2label == {0: "no", 1: "yes"}
    facts = read_facts(out / "student")
    assert facts.corpus.name == "The texts of moods"
    assert facts.example.output[0]["label"] in ("no", "yes")
    assert [score.majority is not None and score.seed for score in facts.scores] == [42] * len(facts.scores)


@pytest.mark.parametrize(
    ("labels", "names", "told"),
    [
        (["no", "yes"], ("no", "yes"), "it is taken as it is"),
        (["LABEL_0", "LABEL_1"], ("no", "yes"), r"['LABEL_0', 'LABEL_1'], but those of the task are ['no', 'yes']"),
        (["toxic", "fine"], ("no", "yes"), "or say `--no_finetune_teacher`"),
        (["LABEL_0"], None, "but those of the task are numbers: it is fine-tuned"),
    ],
)
def test_why_a_teacher_is_fine_tuned_is_said(labels, names, told, tmp_path, caplog, tiny_bert_config):
    config = tiny_bert_config(id2label=dict(enumerate(labels)), architectures=["BertForSequenceClassification"])
    config.save_pretrained(tmp_path)
    spec = TaskSpec("t", ("text",), label_names=names, metrics=("accuracy",) if names else ("pearson",))
    assert pipeline_plan.knows_task(TeacherArguments(str(tmp_path)), spec) == (labels == ["no", "yes"])
    assert told in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"with_task_text": True, "text_columns": ["text"]}, r"`--with_task_text`.*\['text_columns'\].*task\.yaml"),
        (
            {"distill": {"objektives": ["relation"]}},
            r"`--distill` has unknown arguments \['objektives'\].*'objectives'",
        ),
        ({"teach": {"lerning_rate": 1e-3}}, r"`--teach` has unknown arguments \['lerning_rate'\].*'learning_rate'"),
        ({"adapt": {"max_steps": "few"}}, r"`--adapt`: `max_steps` is 'few'; it must be a number"),
        (
            {"distill": {"objectives": [{"objective": "logits", "logits_loss": "l1"}]}},
            "`--objectives`: 'logits', `logits_loss` is 'l1'; allowed are 'ce', 'kl', 'mse'",
        ),
        ({"distill": {"objectives": ["relatoin"]}}, r"`--objectives` has 'relatoin'"),
        ({"distill": {"objectives": ["logits"], "temperature": -1}}, r"`--temperature` is -1"),
        ({"adapt": {"output_dir": "x"}}, r"`--adapt` cannot set `output_dir`"),
        ({"teach": "max_steps=3"}, r"`--teach` must be JSON such as .*; 'max_steps=3' is not JSON"),
        ({"teach": [1]}, r"`--teach` must be `name: value` pairs, but is \[1\]"),
        ({"student_shape": "huge"}, r"'huge'"),
        ({"with_labels": True}, r"`--with_labels` needs the task's own text alone"),
        (
            {"textbook_source": "wiki"},
            r"`--textbook_source` is 'wiki'; it is one of \['cc', 'taskda', 'general', 'task'\]",
        ),
        ({"textbook_source": "cc+cc"}, r"`--textbook_source` is 'cc\+cc'"),
        ({"textbook_source": "general", "corpus": None}, r"`--textbook_source general` needs a general corpus"),
        ({"textbook_source": "cc+taskda"}, r"`--textbook_source cc\+taskda` needs a masked language model"),
        (
            {"textbook_source": "taskda", "augment": {"masked_lm": "encoder", "copies": 2}},
            r"`--augment` has unknown arguments \['copies'\]",
        ),
        (
            {"distill_next": {"objectives": ["relatoin"]}, "textbook_source": "cc+task"},
            r"`--objectives` has 'relatoin'",
        ),
        ({"teacher_model": None}, r"`--teacher_model` is missing"),
    ],
)
def test_wrong_settings_are_refused_before_the_first_stage(run, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        run(**{"output_dir": str(tmp_path / "new"), **change})
    assert not (tmp_path / "new").exists()


def texts_of_stages(run, monkeypatch, **changes):
    """The text, first model and learning rate of every distillation, which does nothing here."""
    seen = []

    def learn(student, teacher, textbook, training):
        seen.append((textbook.textbook, student.student_model, training.learning_rate))
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(distill, "run", learn)
        with pytest.raises(InterruptedError):
            run(**changes)
    return seen


def test_one_flag_swaps_what_the_student_learns_on(run, monkeypatch, material, tmp_path):
    out, task = str(tmp_path / "swapped"), str(material / "mood")
    quick = {"output_dir": out, "finetune_teacher": False, "max_textbook_rows": 7}
    for source, place in (("cc", f"{out}/corpus"), ("general", f"{out}/general"), ("task", task)):
        seen = texts_of_stages(run, monkeypatch, textbook_source=source, **quick)
        assert seen[0][0] == [place]
    assert json.loads((tmp_path / "swapped" / "general" / "statistics.json").read_text())["rows"] == 7


@pytest.fixture(scope="module")
def masked_lm(material, tiny_bert_config, tiny_tokenizer):
    set_seed(0)
    save_model(material / "mlm", BertForMaskedLM(tiny_bert_config(initializer_range=0.3)), tiny_tokenizer)
    return str(material / "mlm")


def test_stages_follow_one_another_and_the_second_begins_with_the_student_of_the_first(run, tmp_path, masked_lm):
    report = run(
        output_dir=str(tmp_path / "staged"),
        textbook_source="cc+taskda",
        augment={"masked_lm": masked_lm, "num_samples": 2},
        distill_next={"learning_rate": 1e-4, "max_steps": 3},
    )
    first, last = (
        json.loads((tmp_path / "staged" / name / "results.json").read_text()) for name in ("distilled_cc", "distilled")
    )
    # Results are written for others: folders are there by their names.
    assert (first["textbook"], last["textbook"]) == (["corpus"], ["augmented"])
    assert (first["student_init"], last["student_init"]) == ("teacher", "distilled_cc")
    assert (first["steps"], last["steps"]) == (2, 3)
    assert last["settings"]["learning_rate"] == 1e-4
    assert report["distillation"]["steps"] == 3
    assert report["corpus"]["rows"] > 0
    assert read_facts(tmp_path / "staged" / "student").initialisation.startswith("cut out of the teacher")


@pytest.fixture(scope="module")
def tagger(material, tiny_bert_config, tiny_tokenizer, sentences):
    """A task that tags words, beside a model that has its head; returns the changes that name both."""
    folder = material / "names"
    folder.mkdir()
    rows = [
        {"tokens": text.split(), "tags": ["B-X" if w[0] < "h" else "O" for w in text.split()]} for text in sentences
    ]
    for split, part in (("train", rows[:40]), ("validation", rows[40:])):
        write_rows(folder / f"{split}.jsonl", part)
    spec = {"kind": "token_classification", "text_columns": ["tokens"], "label_column": "tags"}
    (folder / "task.yaml").write_text(yaml.safe_dump(spec | {"label_names": ["O", "B-X"]}))
    set_seed(0)
    model = BertForTokenClassification(tiny_bert_config(id2label={0: "O", 1: "B-X"}))
    save_model(material / "tagger", model, tiny_tokenizer)
    return {"task": str(folder), "teacher_model": str(material / "tagger")}


def test_a_tagger_is_distilled_on_its_own_text_without_corpus_and_scored_as_it_is(run, tagger, tmp_path):
    own = {"corpus": None, "with_task_text": True, "finetune_teacher": False, "adapt_student": False}
    quick = {**QUIET, "max_steps": 2, "per_device_train_batch_size": 8}
    report = run(**tagger, **own, output_dir=str(tmp_path), preset="textbrewer_t4_tiny", distill=quick)
    assert (report["kind"], report["metric"], report["corpus"]) == ("token_classification", "f1", None)
    assert set(report["distillation"]["objectives"]) == {"logits", "hidden", "nst"}
    assert list(report["stage_seconds"]) == ["distill", "adapt"]
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "student")
    distilled = AutoModelForTokenClassification.from_pretrained(tmp_path / "distilled")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), distilled.parameters(), strict=True))
    header = yaml.safe_load((tmp_path / "student" / "README.md").read_text().split("---")[1])
    assert header["pipeline_tag"] == "token-classification"


def test_flags_win_over_a_preset(run, started):
    run(preset="textbrewer_t4_tiny", distill={"learning_rate": 7e-4})
    student, _, _, training = started["distilled"]
    assert student.student_shape == "2x12:2h:20"
    assert training.learning_rate == 7e-4
    assert [item["objective"] for item in training.objectives] == ["logits", "hidden", "nst"]


@pytest.mark.parametrize(("name", "found"), [("n_gpu", "2 GPUs in one process"), ("world_size", "2 processes")])
def test_several_gpus_are_refused_before_the_first_stage(run, name, found, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingArguments, name, property(lambda self: 2))
    with pytest.raises(ValueError, match=f"{found}: start it as `CUDA_VISIBLE_DEVICES=0 hf-distill pipeline"):
        run(output_dir=str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
