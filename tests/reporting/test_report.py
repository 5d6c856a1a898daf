"""A page about runs: what is read from their folders, what is drawn, and what is refused."""

import base64
import html.parser
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
import yaml

from hf_distill.cli import main
from hf_distill.commands.report import run as report
from hf_distill.reports.figures import (
    FEWEST_SMOOTHED,
    MOST_POINTS,
    Figure,
    Line,
    Panel,
    draw_scores,
    group_of,
    limits,
    plan_figures,
    scale_of,
    shown_points,
    smoothed,
    thinned,
)
from hf_distill.reports.page import bars_of, shown, tables_of
from hf_distill.reports.runs import read_runs, short_names
from hf_distill.settings import ReportArguments

DISTILLED = {
    "job": "distill",
    "teacher": "me/teacher",
    "student_shape": "4x312",
    "steps": 30,
    "training_seconds": 12.5,
    "seed": 1,
    "objectives": {"relation": {"weight": 1.0}, "logits": {"weight": 0.5}},
    "best": {"metric": "agreement", "value": 0.75, "step": 20, "loaded": True},
    "history": [
        {"step": step, "loss": 3.0 / step, "loss/relation/qq": 1.0 / step, "learning_rate": 1e-3, "epoch": 0.1}
        for step in (10, 20, 30)
    ],
    "evaluations": [
        {"step": step, "eval_loss": 2.0, "eval_agreement": 0.7, "eval_task/accuracy": 0.6, "eval_runtime": 3.0}
        for step in (20, 30)
    ],
    "environment": {"torch": "2.13", "device": "x86_64", "threads": 2},
}
MODEL = {
    "score": 0.8,
    "parameters": 1_500_000,
    "history": [{"step": 5, "loss": 0.4}, {"step": 5, "eval_accuracy": 0.8}],
}
EVALUATED = {
    "job": "adapt",
    "task": "glue/sst2",
    "metric": "accuracy",
    "split": "validation",
    "student": MODEL,
    "teacher": {"score": 0.9, "parameters": 20_000_000},
    "baseline": {**MODEL, "score": 0.7},
}


@pytest.fixture
def write(tmp_path):
    """`write(folder, results, **arguments)`: a folder of a run."""

    def make(name, results, file="results.json", **arguments):
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(json.dumps(results))
        if arguments:
            (folder / "arguments.yaml").write_text(yaml.safe_dump(arguments))
        return str(folder)

    return make


@pytest.fixture
def two(write):
    """Two distillations that differ in one setting that counts."""
    same = {"max_steps": 30, "objectives": ["relation", "logits:0.5"]}
    return [
        write("one", DISTILLED, learning_rate=1e-3, output_dir="one", **same),
        write("two", {**DISTILLED, "steps": 29}, learning_rate=5e-4, output_dir="two", **same),
    ]


class Tags(html.parser.HTMLParser):
    """Names and attributes of all tags, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def table(runs, title):
    return next((one for one in tables_of(runs) if one.title == title), None)


# --- what is read ---------------------------------------------------------------------------------------------------


def test_a_distillation_gives_terms_evaluations_and_facts(write):
    [run] = read_runs([write("student", DISTILLED)])
    curves = run.curves["distill"]
    assert curves["loss/relation/qq"] == [(10, 0.1), (20, 0.05), (30, pytest.approx(1 / 30))]
    assert curves["eval_agreement"] == [(20, 0.7), (30, 0.7)]
    assert not {"epoch", "step", "eval_runtime"} & curves.keys()
    assert run.facts["objectives"] == "relation x 1, logits x 0.5"
    assert run.facts["best"] == "agreement 0.75 at step 20"
    assert run.facts["device"] == "x86_64, 2 threads"


def test_several_teachers_of_one_student_are_named(write):
    [run] = read_runs([write("student", {**DISTILLED, "teacher": ["one", "two"]})])
    assert run.facts["teacher"] == "one, two"


def test_an_evaluation_gives_scores_beside_teacher_and_baseline(write):
    [run] = read_runs([write("sst2", EVALUATED)])
    assert [item["role"] for item in run.scores] == ["teacher", "student", "baseline"]
    assert list(run.curves) == ["adapt", "baseline"]
    rows = table([run], "Scores").rows
    assert rows[1] == ["sst2", "student", "glue/sst2", "validation", "accuracy", "0.8000", "88.9%", "1.5 M", None]


def test_the_majority_stands_beside_the_models(write):
    majority = {"label": "no", "score": 0.45, "scores": {"validation": {"accuracy": 0.45}}}
    [run] = read_runs([write("sst2", {**EVALUATED, "majority": majority})])
    scores = table([run], "Scores")
    assert scores.rows[-1][1:] == ["majority", "glue/sst2", "validation", "accuracy", "0.4500", "50.0%", None, None]
    assert scores.note.endswith("majority: the most frequent label for every row.")


def test_an_encoder_that_writes_has_its_score_and_its_curves(write):
    history = [{"step": 1, "loss": 2.0}, {"step": 2, "eval_loss": 1.5}]
    wrote = {"job": "generate", "base_model": "me/student", "task": "xsum", "metric": "rouge2", "split": "validation"}
    [run] = read_runs([write("xsum", {**wrote, "score": 0.12, "parameters": 22_000_000, "history": history})])
    assert run.facts["student"] == "me/student"
    assert run.curves["generate"] == {"loss": [(1, 2.0)], "eval_loss": [(2, 1.5)]}
    assert table([run], "Scores").rows[0][1:6] == ["student", "xsum", "validation", "rouge2", "0.1200"]


def test_a_pipeline_is_one_run_with_the_curves_of_its_stages(write, tmp_path):
    scored = {**EVALUATED, "latency": {"speedup": 4.2}, "command": "make it", "seconds": 60.0}
    folder = write("all", scored, file="report.json")
    taught = {"job": "teach", "base_model": "me/base", "task": "glue/sst2", "score": 0.9, "history": MODEL["history"]}
    taught |= {"steps": 7, "training_seconds": 3.5}
    write("all/teacher", taught, learning_rate=1e-5)
    write("all/distilled", DISTILLED, learning_rate=1e-3)
    write("all/student", EVALUATED, learning_rate=2e-5)
    [run] = read_runs([folder])
    assert (run.job, list(run.curves)) == ("pipeline", ["teach", "distill", "adapt", "baseline"])
    assert [item["speedup"] for item in run.scores] == [1.0, 4.2, 4.2]
    assert (run.facts["steps"], run.facts["training_seconds"]) == (30, 12.5)
    assert (run.facts["teacher steps"], run.facts["teacher training_seconds"]) == (7, 3.5)
    assert {run.settings[f"{stage}.learning_rate"] for stage in ("teach", "distill", "adapt")} == {1e-5, 1e-3, 2e-5}


def test_a_training_that_still_runs_is_read_from_its_last_checkpoint(write, tmp_path):
    for step in (9, 10):
        state = {"global_step": step, "log_history": [{"step": step, "loss": 1.0, "loss/logits/soft": 0.5}]}
        write(f"running/checkpoint-{step}", state, file="trainer_state.json")
    [run] = read_runs([tmp_path / "running"])
    assert (run.job, run.facts) == ("training", {"steps": 10})
    assert run.curves == {"distill": {"loss": [(10, 1.0)], "loss/logits/soft": [(10, 0.5)]}}


def test_missing_fields_are_missing_and_values_that_are_not_finite_are_counted(write):
    history = [{"step": 1, "loss": None}, {"step": 2, "loss": 1.0}, {"loss": 5.0}, {"step": 3, "loss": "broken"}]
    [run] = read_runs([write("bare", {"job": "distill", "history": history})])
    assert run.curves == {"distill": {"loss": [(2, 1.0)]}}
    assert run.left_out == {"distill: loss": 2}
    assert table([run], "Values that are not finite").rows == [["bare", "distill: loss", 2]]
    state = '{"log_history": [{"step": 1, "loss": NaN}, {"step": 2, "loss": Infinity}]}'
    (run.folder / "results.json").unlink()
    (run.folder / "trainer_state.json").write_text(state)
    [run] = read_runs([run.folder])
    assert (run.curves, run.left_out) == ({}, {"fine-tuning: loss": 2})


def test_names_are_as_much_of_the_paths_as_differs(tmp_path):
    assert short_names([tmp_path / "a" / "student", tmp_path / "b" / "student"]) == ["a/student", "b/student"]
    assert short_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]


# --- tables and figures ---------------------------------------------------------------------------------------------


def test_only_settings_that_differ_are_compared(two, write):
    runs = read_runs(two)
    found = table(runs, "Settings that differ")
    assert (found.head, found.rows) == (["setting", "one", "two"], [["distill.learning_rate", 1e-3, 5e-4]])
    alone = table(runs[:1], "Settings")
    assert [row[0] for row in alone.rows] == ["distill.learning_rate", "distill.max_steps", "distill.objectives"]
    other = [*runs, *read_runs([write("sst2", EVALUATED)])]
    assert "There are no settings beside sst2." in table(other, "Settings that differ").note


def test_every_quantity_has_a_panel_with_a_line_for_every_run(two):
    figures = plan_figures(read_runs(two))
    assert [(figure.stage, figure.title) for figure in figures] == [
        ("Distillation", title)
        for title in ("Score on the task", "Agreement with the teacher", "Loss and its terms", "Optimizer")
    ]
    loss = figures[2].panels[0]
    assert (loss.name, [(line.run, line.evaluated) for line in loss.lines]) == (
        "loss",
        [("one", False), ("one", True), ("two", False), ("two", True)],
    )


def test_names_of_the_log_belong_to_their_kind():
    kinds = {"temperature/logits": "Schedules", "kl/logits": "Agreement with the teacher", "accuracy": "Scores"}
    assert {name: group_of(name) for name in kinds} == kinds


def test_long_curves_are_thinned_and_keep_their_ends():
    points = [(step, float(step)) for step in range(10_000)]
    few = thinned(points)
    assert (len(few), few[0], few[-1]) == (MOST_POINTS, points[0], points[-1])
    assert thinned(points[:5]) == points[:5]


def test_noise_is_smoothed_and_a_constant_stays():
    noisy = [(step, 1.0 + (-1) ** step * 0.5) for step in range(200)]
    points = smoothed(noisy)
    assert [step for step, _ in points] == list(range(200))
    assert points[0] == noisy[0]
    assert all(abs(value - 1.0) < 0.1 for _, value in points[20:])
    assert [value for _, value in smoothed([(step, 3.0) for step in range(50)])] == pytest.approx([3.0] * 50)
    assert smoothed(noisy[: FEWEST_SMOOTHED - 1]) == noisy[: FEWEST_SMOOTHED - 1]


def test_only_what_the_batches_of_the_training_measure_is_smoothed():
    noisy = [(step, float(step % 2)) for step in range(100)]
    assert shown_points(Line("a", noisy, evaluated=False), "loss/relation/qq") != noisy
    assert shown_points(Line("a", noisy, evaluated=True), "loss/relation/qq") == noisy
    assert shown_points(Line("a", noisy, evaluated=False), "learning_rate") == noisy


def test_terms_of_one_objective_and_scores_have_one_scale():
    names = ["loss", "loss/logits/soft", "loss/relation/kk", "loss/relation/qq"]
    losses = Figure("Distillation", "Loss and its terms", [Panel(name, []) for name in names])
    assert [scale_of(losses, panel) for panel in losses.panels] == [
        "loss", "loss/logits", "loss/relation", "loss/relation",
    ]  # fmt: skip
    scores = Figure("Distillation", "Score on the task", [Panel("task/f1", []), Panel("task/accuracy", [])])
    assert len({scale_of(scores, panel) for panel in scores.panels}) == 1


def test_a_scale_holds_both_curves_but_for_single_spikes():
    spiky = [(step, 1.0) for step in range(100)]
    spiky[50] = (50, 1000.0)
    low, high = limits([Panel("loss/a/x", [Line("a", spiky, evaluated=False)]), Panel("loss/a/y", [])])
    assert low < 1.0 < high < 300
    other = Panel("loss/a/y", [Line("a", [(1, 5.0)], evaluated=True)])
    assert limits([other, Panel("loss/a/x", [Line("a", [(1, 2.0)], evaluated=True)])]) == pytest.approx((1.82, 5.18))
    assert limits([Panel("loss", [Line("a", [(1, 0.0)], evaluated=True)])]) == (-1.0, 1.0)


def test_scores_stand_beside_sizes(write):
    majority = {"label": "no", "score": 0.45}
    runs = read_runs([write("sst2", {**EVALUATED, "majority": majority})])
    [(title, bars)] = bars_of(runs).items()
    assert title == "glue/sst2 accuracy"
    assert [(bar.name, bar.score, bar.millions) for bar in bars] == [
        ("teacher", 0.9, 20.0), ("student", 0.8, 1.5), ("baseline", 0.7, 1.5), ("majority", 0.45, None),
    ]  # fmt: skip
    drawn = draw_scores(bars, title)
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert all(text in drawn for text in ("teacher", "baseline", "80.0", "20.0", "dotted: majority, 45.0"))
    other = write("again", {**EVALUATED, "student": {**MODEL, "score": 0.85}})
    names = [bar.name for bar in bars_of(read_runs([str(runs[0].folder), other]))[title]]
    assert names == ["teacher", "sst2: student", "sst2: baseline", "majority", "again: student", "again: baseline"]


def test_cells_are_short():
    values = [None, True, 12345, 0.000123456, ["a", 1], "/home/me/teacher", "runs/teacher", []]
    assert [shown(value) for value in values] == [
        "–", "on", "12,345", "0.0001235", "a 1", "teacher", "runs/teacher", "–",
    ]  # fmt: skip


# --- the page -------------------------------------------------------------------------------------------------------


def test_a_page_of_html_needs_nothing_else(two, tmp_path):
    results = report(ReportArguments(two, str(tmp_path / "pages" / "page.html"), title="A <b> & c"))
    text = (tmp_path / "pages" / "page.html").read_text()
    page = Tags(text)
    assert not page.open, "every tag is closed"
    assert "A <b> & c" in page.text
    assert not any(tag in ("script", "link", "b") for tag, _ in page.tags)
    pictures = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 4
    for source in pictures:
        kind, _, data = source.partition(",")
        assert kind == "data:image/svg+xml;base64"
        drawn = base64.b64decode(data).decode()
        assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert not re.search(r"(src|href)=\"http", text)
    assert results == {
        "job": "report", "output": str(tmp_path / "pages" / "page.html"), "runs": ["one", "two"], "curves": 12,
        "without_curves": None,
    }  # fmt: skip


def test_markdown_has_its_pictures_beside_it_and_is_the_same_every_time(two, tmp_path):
    report(ReportArguments(two, str(tmp_path / "page.md")))
    text = (tmp_path / "page.md").read_text()
    linked = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert linked[0] == "page_figures/01_distillation_score_on_the_task.svg"
    before = {path: (tmp_path / path).read_bytes() for path in linked}
    report(ReportArguments(two, str(tmp_path / "page.md")))
    assert {path: (tmp_path / path).read_bytes() for path in linked} == before
    assert (tmp_path / "page.md").read_text() == text
    assert "| distill.learning_rate | 0.001 | 0.0005 |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)


def test_what_a_run_says_is_text_and_no_markup(write, tmp_path):
    folder = write("odd", {**DISTILLED, "teacher": "<script>alert(1)</script> | x"})
    for name in ("page.html", "page.md"):
        report(ReportArguments([folder], str(tmp_path / name)))
        assert "<script" not in (tmp_path / name).read_text()
    assert "&lt;script>alert(1)&lt;/script> \\| x" in (tmp_path / "page.md").read_text()


def test_without_matplotlib_the_page_says_so_and_has_its_tables(two, tmp_path, monkeypatch):
    def missing(*_, **__):
        raise ImportError("needs matplotlib: pip install 'hf_distill[plots]'")

    monkeypatch.setattr("hf_distill.reports.figures.require", missing)
    results = report(ReportArguments(two, str(tmp_path / "page.html")))
    text = (tmp_path / "page.html").read_text()
    assert "There are no curves: needs matplotlib" in text
    assert "distill.learning_rate" in text
    assert results["without_curves"].startswith("needs matplotlib")


def test_the_verb_takes_folders_before_its_flags(two, tmp_path, capsys):
    output = tmp_path / "page.md"
    assert main(["report", *two, "--output", str(output), "--names", "slow", "fast"]) == 0
    assert output.read_text().startswith("# slow, fast\n")
    assert f"page in {output}" in capsys.readouterr().out


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folders", "options", "message"),
    [
        (["nowhere"], {}, "`--runs`: there is no folder '.*nowhere'"),
        (["empty"], {}, "is not the folder of a run: it has none of results.json, report.json, checkpoint-"),
        (["."], {}, r"is not the folder of a run.*There are runs in it: .*corpus, .*one\."),
        (["corpus"], {}, "is of the job 'corpus'; a report is about distill, teach, adapt, evaluate"),
        (["broken"], {}, "results.json' cannot be read as JSON, it may be cut short"),
        (["one", "one"], {}, "Two runs have one name"),
        (["one"], {"names": ["a", "b"]}, "`--names` has 2 names, but there are 1 runs"),
        (["one"], {"output": "one/README.md"}, "`--output` is '.*README.md', which is an existing card"),
        (["one"], {"output": "page.pdf"}, "`--output` is '.*page.pdf'; its ending must be one of .html, .htm, .md"),
        ([], {}, "`--runs` is empty"),
    ],
)
def test_what_is_no_run_is_refused(write, tmp_path, folders, options, message):
    write("one", DISTILLED)
    write("corpus", {"job": "corpus"})
    (tmp_path / "one" / "README.md").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "results.json").write_text('{"job": "dist')
    if folders == ["."]:
        for name in ("empty", "broken"):
            for path in (tmp_path / name).iterdir():
                path.unlink()
    output = str(tmp_path / options.pop("output", "page.html"))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        report(ReportArguments([str(tmp_path / name) for name in folders], output, **options))


def test_a_page_is_written_without_torch(write, tmp_path):
    words = ["report", write("one", DISTILLED, learning_rate=1e-3), "--output", str(tmp_path / "page.md")]
    code = f"import sys; from hf_distill.cli import main; print(main({words}), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False"
    assert "learning_rate" in (tmp_path / "page.md").read_text()
