"""`hf-distill`: what its words do, and how it ends when they are wrong."""

import dataclasses
import importlib
import inspect
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tiny_data import mood_rows, save_model, write_task
from transformers import AutoModelForSequenceClassification, BertModel, set_seed

from hf_distill import __version__, cli, settings as arguments
from hf_distill.cli import VERBS, main, usage
from hf_distill.commands import info
from hf_distill.corpus.search.retrieval import ENGINES
from hf_distill.objectives import list_objectives
from hf_distill.settings.presets import list_presets
from hf_distill.students.shapes import NAMED_SHAPES
from hf_distill.tasks import list_tasks

ROOT = Path(cli.__file__).parents[1]
QUICK = "--use_cpu --disable_tqdm true --report_to none --max_steps 2 --save_strategy no".split()


@pytest.fixture
def data(tmp_path, tiny_tokenizer, tiny_bert_config, sentences):
    """A task folder, a general corpus and an encoder in one folder."""
    write_task(tmp_path / "mood", mood_rows(sentences, ("no", "yes")))
    general = [f"{first} and {second}" for first, second in zip(sentences, reversed(sentences), strict=True)]
    (tmp_path / "general.txt").write_text("\n".join(general))
    set_seed(0)
    save_model(tmp_path / "encoder", BertModel(tiny_bert_config()), tiny_tokenizer)
    return tmp_path


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_alone_it_shows_its_verbs(words, capsys):
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out == f"{usage()}\n"
    for name, verb in VERBS.items():
        assert name in out
        assert verb.about in out


def test_it_tells_its_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"hf-distill {__version__}\n"


def test_an_unknown_verb_is_refused(capsys):
    assert main(["destil"]) == 2
    err = capsys.readouterr().err
    assert "unknown verb 'destil'. Did you mean 'distill'?" in err
    assert usage() in err


@pytest.mark.parametrize("verb", VERBS)
def test_help_all_shows_every_flag_with_its_text(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100000")
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help_all"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: hf-distill {verb} [CONFIG.yaml]")
    assert VERBS[verb].about in out
    text = " ".join(out.split())
    for name in VERBS[verb].arguments:
        cls = getattr(arguments, name)
        for field in dataclasses.fields(cls):
            if field.init:
                assert f"--{field.name}" in text
            if field.name in inspect.get_annotations(cls):
                assert " ".join(field.metadata["help"].split()) in text, f"{name}.{field.name}"


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["settings.yaml", "--help"]])
def test_help_begins_with_two_examples_and_shows_what_most_runs_set(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["distill", *words]) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: hf-distill distill [CONFIG.yaml]")
    assert VERBS["distill"].about in out
    assert out.index(VERBS["distill"].examples[0]) < out.index("--student_shape")
    assert "  --output_dir\n      Output folder." in out
    assert "--preset" in out
    assert sum(line.startswith("  --") for line in out.splitlines()) <= 16
    assert out.endswith("hf-distill distill --help_all\n")


@pytest.mark.parametrize("name", [name for name, verb in VERBS.items() if verb.examples])
def test_the_examples_of_the_help_are_understood(name, monkeypatch):
    verb = VERBS[name]
    for example in verb.examples:
        words = shlex.split(example.replace("table.yaml", "--models what-the-file-names"))
        assert words[:2] == ["hf-distill", name]
        assert len(cli._parse(name, words[2:])) == len(verb.arguments)
    fields = {field.name for cls in verb.arguments for field in dataclasses.fields(getattr(arguments, cls))}
    assert set(verb.flags) - {"preset"} <= fields


@pytest.mark.parametrize("name", [name for name, verb in VERBS.items() if verb.then])
def test_the_commands_that_go_on_are_understood(name):
    for command in VERBS[name].then:
        _, verb, *words = shlex.split(command.format(folder="outputs/made"))
        assert "outputs/made" in words
        assert len(cli._parse(verb, words)) == len(VERBS[verb].arguments)


def test_help_of_a_verb_with_few_flags_shows_all(capsys):
    assert main(["evaluate", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"--{field.name}" in out for field in dataclasses.fields(arguments.EvaluationArguments))
    assert all(f"\n  {example}\n" in out for example in VERBS["evaluate"].examples)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_one_stem(verb):
    module = importlib.import_module(f"hf_distill.commands.{verb}")
    assert callable(module.run)
    assert callable(module.summary)
    own = importlib.import_module(f"hf_distill.settings.{verb}")
    assert any(getattr(arguments, name).__module__ == own.__name__ for name in VERBS[verb].arguments)


@pytest.mark.parametrize(
    ("room", "shared"),
    [
        (
            "commands",
            {
                "corpus_folder",
                "distill_family",
                "distill_student",
                "distill_teachers",
                "folders",
                "grid_students",
                "pipeline_plan",
                "results",
                "stages",
                "student_facts",
                "terminal",
                "textbook",
            },
        ),
        ("settings", {"flags", "help", "parsing", "task", "values"}),
    ],
)
def test_a_module_is_that_of_a_verb_or_says_what_is_shared(room, shared):
    assert {path.stem for path in (ROOT / "hf_distill" / room).glob("[!_]*.py")} == {*VERBS, *shared}


def test_info_shows_versions(capsys):
    assert main(["info"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["hf_distill"] == __version__
    assert {"torch", "transformers", "datasets", "device", "more"} <= lines.keys()


def test_info_says_which_extras_are_installed_and_how_to_get_the_others(capsys, monkeypatch):
    missing = {"onnxruntime", "tantivy"}
    monkeypatch.setattr(info, "_version", lambda name: None if name in missing else "1.0")
    assert main(["info"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["missing"] == "onnx, tantivy"
    assert set(lines["extras"].split(", ")) == set(info.EXTRAS) - {"onnx", "tantivy"}
    assert main(["info", "extras"]) == 0
    shown = capsys.readouterr().out
    assert "onnx 1.0, onnxruntime (missing), onnxscript 1.0\n" in shown
    assert "pip install 'hf_distill[onnx]'" in shown


def test_the_extras_are_those_of_the_project():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    own = {
        extra: {re.match(r"[\w.-]+", requirement)[0] for requirement in requirements}
        for extra, requirements in declared.items()
        if extra not in {"all", "dev", "docs", "test"}
    }
    # retriv's own requirements cannot be met: its extra has what it needs, and it comes by itself.
    assert {extra: set(names) - {"retriv"} for extra, names in info.EXTRAS.items()} == own


def test_info_names_what_there_is_to_choose_from(capsys):
    assert main(["info"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert set(lines["objectives"].split(", ")) <= set(list_objectives())
    assert lines["tasks"].split(", ") == list(list_tasks())
    assert lines["engines"].split(", ") == list(ENGINES)
    assert lines["presets"].split(", ") == list_presets()
    assert lines["shapes"].split(", ") == list(NAMED_SHAPES)


@pytest.mark.parametrize(
    ("topic", "names"),
    [
        ("objectives", list_objectives()),
        ("tasks", list_tasks()),
        ("shapes", NAMED_SHAPES),
        ("engines", ["retriv", "bm25s"]),
        ("architectures", ["bert", "roberta", "distilbert", "modernbert", "deberta-v2"]),
    ],
)
def test_info_shows_a_topic(topic, names, capsys):
    assert main(["info", topic]) == 0
    shown = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert set(names) <= shown
    assert main(["info", "--help"]) == 0
    assert topic in capsys.readouterr().out


def test_info_shows_what_an_objective_needs_computes_and_cites(capsys):
    assert main(["info", "objectives"]) == 0
    shown = capsys.readouterr().out
    entry = shown[shown.index("\npkd ") :].split("\n")[1:6]
    assert [line[len("tinybert_prediction") + 2 :].partition(":")[0] for line in entry[1:]] == [
        "needs",
        "settings",
        "formula",
        "citation",
    ]
    assert entry[1].endswith("needs: teacher, hidden states")
    assert "settings: layers pkd_skip" in entry[2]
    assert entry[4].endswith("citation: pkd")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["info", "tasks", "shapes"], "hf-distill info: Unknown words ['shapes']."),
        (["info", "colours"], "hf-distill info: unknown topic 'colours'; there are objectives"),
        (["corpus", "--task", "x", "--bm25_b", "3"], "hf-distill corpus: `--bm25_k1`"),
        (["corpus", "--task", "x"], "hf-distill corpus: Name a general corpus: `--corpus`"),
        (["teach", "--task", "x", "--teacher_model", "no/such", "--use_cpu"], "hf-distill teach: "),
        (["teach", "--task", "glue/sst2", "--use_cpu"], "hf-distill teach: `--teacher_model` is missing"),
        (["distill", "--textbook", "x.txt", "--use_cpu"], "hf-distill distill: `--teacher_model` is missing"),
        (["precompute", "--textbook", "x.txt", "--use_cpu"], "hf-distill precompute: `--teacher_model` is missing"),
        (["distill", "--textbook", "x", "--colour", "red"], "hf-distill distill: Unknown words ['--colour', 'red']."),
        (["distill", "nowhere.yaml"], "hf-distill distill: There is no configuration file 'nowhere.yaml'"),
        (
            ["pipeline", "--task", "x", "--with_task_text", "--distill", "{"],
            "hf-distill pipeline: `--distill` must be JSON",
        ),
        (["push", "nowhere", "me/x"], "hf-distill push: There is no folder 'nowhere'"),
    ],
)
def test_a_users_error_ends_with_one_line_and_status_2(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    last = capsys.readouterr().err
    assert last.startswith(message)
    assert last.count("\n") == 1


def test_a_missing_flag_ends_with_a_line_about_it_and_status_2(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["teach"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hf-distill teach: `--task` is missing. A registered task (glue/sst2")


def test_pages_that_a_library_says_become_one_line(capsys, monkeypatch):
    def fail(*_):
        raise OSError("first\n  second\n")

    monkeypatch.setattr(cli, "run_verb", fail)
    assert main(["teach"]) == 2
    assert capsys.readouterr().err == "hf-distill teach: first second\n"


def test_a_fault_of_the_package_is_one_line_that_says_so(monkeypatch, capsys):
    def fail(*_):
        raise KeyError("bug")

    monkeypatch.setattr(cli, "run_verb", fail)
    assert main(["teach"]) == 70
    line = capsys.readouterr().err
    assert line == (
        "hf-distill teach: this is a fault of hf_distill, please report it: KeyError: 'bug' (HF_DISTILL_DEBUG=1 shows "
        "the traceback)\n"
    )
    monkeypatch.setenv("HF_DISTILL_DEBUG", "1")
    with pytest.raises(KeyError, match="bug"):
        main(["teach"])


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (KeyboardInterrupt(), 130, "\nhf-distill teach: interrupted\n"),
        (cli.TerminatedError(), 143, "\nhf-distill teach: terminated\n"),
        (
            MemoryError(),
            1,
            "hf-distill teach: out of memory (no further words): take smaller batches or shorter rows.\n",
        ),
        (BrokenPipeError(), 141, ""),
        (ValueError(), 2, "hf-distill teach: ValueError\n"),
        (ValueError("hub_token=hf_ABCDEFGHIJKLMN"), 2, "hf-distill teach: hub_token=***\n"),
    ],
)
def test_other_ends_are_one_line_too(error, status, line, monkeypatch, capsys):
    def fail(*_):
        raise error

    monkeypatch.setattr(cli, "run_verb", fail)
    assert main(["teach"]) == status
    assert capsys.readouterr().err == line


def test_a_process_of_torchrun_does_not_take_the_end_of_another_for_a_fault(monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer")

    monkeypatch.setattr(cli, "run_verb", fail)
    assert main(["distill"]) == 70
    monkeypatch.setenv("RANK", "0")
    assert main(["distill"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(
        "hf-distill distill: another process of this run has ended; its own last line says why ([/pytorch"
    )


def test_what_the_terminal_cannot_show_does_not_end_a_job_as_an_error(monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", write_through=True)
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setattr(cli, "run_verb", lambda name, words: "caf\u00e9 \u4e2d")
    assert main(["info"]) == 0
    assert shown.buffer.getvalue() == b"caf\xe9 \\u4e2d\n"


def test_nobody_has_to_read_the_help_to_its_end():
    code = "import sys; from hf_distill.cli import main; sys.exit(main(['distill', '--help']))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as run:
        run.stdout.close()
        assert run.stderr.read() == b""


def test_the_verbs_follow_one_another(data, capsys):
    task = ["--task", str(data / "mood"), "--text_columns", "text", "--class_names", "no", "yes"]
    short = ["--max_length", "16"]
    teacher, corpus, student = (str(data / name) for name in ("teacher", "corpus", "student"))

    assert (
        main(["teach", *task, *short, *QUICK, "--teacher_model", str(data / "encoder"), "--output_dir", teacher]) == 0
    )
    assert f"; teacher in {teacher}" in capsys.readouterr().out
    found = ["--corpus", str(data / "general.txt"), "--engine", "bm25s", "--top_k", "3", "--corpus_dir", corpus]
    assert main(["corpus", *task, *found]) == 0
    assert f"; corpus in {corpus}" in capsys.readouterr().out
    shape = ["--student_shape", "2x12:2h:20", "--objectives", "relation", "logits:0.5"]
    words = ["distill", *short, *QUICK, *shape, "--textbook", corpus, "--teacher_model", teacher]
    assert main([*words, "--output_dir", student]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-3].startswith("2 steps in ")
    assert f"; student in {student}\ngo on with: hf-distill adapt --task TASK --student_model {student} " in out
    assert out.endswith(f"        or: hf-distill push {student} USER/NAME --dry_run\n")
    stored = ["precompute", *short, "--use_cpu", "--textbook", corpus, "--teacher_model", teacher]
    assert main([*stored, "--objectives", "relation", "logits", "--output_dir", str(data / "stored")]) == 0
    assert f" MB); stored teacher in {data / 'stored'}" in capsys.readouterr().out
    words = ["distill", *short, *QUICK, *shape, "--teacher_model", str(data / "stored"), "--output_dir", student]
    assert main(words) == 0
    assert f"; student in {student}" in capsys.readouterr().out
    words = ["adapt", *task, *short, *QUICK, "--student_model", student, "--teacher_model", teacher]
    assert main([*words, "--from_scratch", "--output_dir", str(data / "adapted")]) == 0
    out = capsys.readouterr().out
    results = json.loads((data / "adapted" / "results.json").read_text())
    for role in ("student", "teacher", "baseline"):
        assert f"{role}: accuracy {results[role]['score']:.4f} on validation" in out
    assert AutoModelForSequenceClassification.from_pretrained(data / "adapted").config.id2label == {0: "no", 1: "yes"}
    words = ["evaluate", str(data / "adapted"), *task, *short, "--use_cpu", "--output_dir", str(data / "scores")]
    assert main(words) == 0
    assert f"mood: accuracy {results['student']['score']:.4f} on validation" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--student_model", "x"], ["x", "--num_train_epochs", "2"], ["config.yaml"]])
def test_evaluate_says_where_the_flags_of_trainings_are(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("student_model: x")
    assert main(["evaluate", *words, "--task", "glue/sst2"]) == 2
    line = capsys.readouterr().err
    assert line.endswith("`hf-distill evaluate` trains nothing: `hf-distill adapt` does.\n")
    assert line.count("\n") == 1


def test_push_takes_folder_and_repository_as_words_and_shows_what_a_dry_run_finds(data, capsys):
    folder = str(data / "encoder")
    assert main(["push", folder, "me/encoder", "--dry_run"]) == 0
    shown = capsys.readouterr().out
    assert "would be uploaded to me/encoder (model):\n  config.json" in shown
    assert main(["push", "--dry-run", "--folder", folder, "--repo", "me/encoder"]) == 0
    assert capsys.readouterr().out == shown


def test_a_push_in_offline_mode_keeps_everything_and_says_how_to_go_on(data, capsys):
    assert main(["push", str(data / "encoder"), "me/encoder", "--private"]) == 2
    last = capsys.readouterr().err
    assert last.startswith("hf-distill push: HF_HUB_OFFLINE is set")
    assert last.endswith(f"to go on: hf-distill push {data / 'encoder'} me/encoder --private\n")


def test_pipeline_hands_its_command_on_and_shows_the_table(monkeypatch, capsys):
    from hf_distill.commands import pipeline

    models = {role: {"score": 0.5, "parameters": 1_000_000} for role in ("teacher", "student", "baseline")}
    report = {**models, "metric": "accuracy", "latency": {"speedup": 3.0}}
    given = []
    monkeypatch.setattr(pipeline, "run", lambda *arguments, command: given.extend([*arguments, command]) or report)
    assert main(["pipeline", "--task", "my task", "--top_k", "5"]) == 0
    assert given[-1] == "hf-distill pipeline --task 'my task' --top_k 5"
    assert given[3].top_k == 5
    assert pipeline.summary(report) in capsys.readouterr().out


def test_where_everything_is_stands_at_the_end_also_where_nobody_named_a_folder(tmp_path, monkeypatch, capsys):
    from hf_distill.commands import bench

    def write(arguments, command):
        Path(arguments.output_dir).mkdir(parents=True, exist_ok=True)
        Path(arguments.output_dir, "bench.json").write_text("{}", encoding="utf-8")
        return {}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "run", write)
    monkeypatch.setattr(bench, "summary", lambda results: "fast")
    words = ["bench", "--teacher_model", "a", "--student_models", "b"]
    assert main(words) == 0
    said, where = capsys.readouterr().out.splitlines()
    assert (said, where.split()[:3]) == ("fast", ["everything", "is", "in"])
    assert (tmp_path / where.split()[-1] / "bench.json").is_file()
    monkeypatch.setattr(bench, "run", lambda arguments, command: {})
    os.utime(tmp_path / where.split()[-1] / "bench.json", (1, 1))
    os.utime(tmp_path / where.split()[-1], (1, 1))
    assert main(words) == 0
    assert capsys.readouterr().out == "fast\n", "nothing was written there"


def test_help_and_version_load_nothing_heavy():
    code = (
        "import sys; from hf_distill.cli import VERBS, main; main([]); main(['--version']); "
        "[main([verb, '--help']) for verb in VERBS]; "
        "print(sorted({'torch', 'transformers', 'datasets', 'evaluate', 'peft'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"


def test_info_does_not_load_torch_to_say_what_is_known_without():
    code = (
        "import sys; from importlib import metadata; known = metadata.version; "
        "metadata.version = lambda name: '9.0+cpu' if name == 'torch' else known(name); "
        "from hf_distill.cli import main; main(['info']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "False"
    assert "(a torch without GPUs)" in done.stdout


def test_the_module_runs_too_for_torchrun():
    done = subprocess.run(
        [sys.executable, "-m", "hf_distill.cli", "no"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 2
    assert "unknown verb 'no'" in done.stderr


class TestTerminal:
    """A verb shows a line for each training; `--verbose` brings what transformers shows by itself."""

    @pytest.fixture
    def words(self, data):
        line = ["teach", "--task", str(data / "mood"), "--text_columns", "text", "--teacher_model"]
        line += [str(data / "encoder"), "--max_length", "16", "--output_dir", str(data / "teacher"), "--use_cpu"]
        return [*line, "--max_steps", "2", "--logging_steps", "1", "--report_to", "none", "--save_strategy", "no"]

    def test_logs_are_in_the_bar(self, words, capsys):
        assert main(words) == 0
        shown = capsys.readouterr()
        assert "'loss':" not in shown.out + shown.err
        assert "2/2" in shown.err
        assert ", loss 0." in shown.err

    def test_verbose_shows_every_log(self, words, capsys):
        assert main([*words, "--verbose"]) == 0
        assert capsys.readouterr().out.count("{'loss':") == 2


@pytest.mark.parametrize("verb", ["distill", "adapt", "precompute"])
def test_settings_of_lora_are_those_of_verbs_that_fine_tune_a_teacher(verb, capsys):
    """Nothing but a teacher is trained by LoRA: a rank would have no effect there."""
    needed = ["--task", "glue/sst2", "--student_model", "student"] if verb == "adapt" else []
    assert main([verb, *needed, "--lora_r", "8"]) == 2
    assert "lora_r" in capsys.readouterr().err
