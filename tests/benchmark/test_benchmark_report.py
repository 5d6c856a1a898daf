"""Scores from what lies beside a model, tables and the figure."""

from __future__ import annotations

import json

import pytest

from hf_distill.hub.model_card import CardFacts, ModelFacts, ScoreFacts, write_model_card
from hf_distill.reports.speed.quality import Quality, read_quality
from hf_distill.reports.speed.report import Point, draw_quality, format_report, points_of, short_models


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


# --- scores ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "results",
    [
        {"job": "teach", "task": "glue/sst2", "metric": "accuracy", "score": 0.9},
        {"job": "adapt", "task": "glue/sst2", "metric": "accuracy", "student": {"score": 0.9}, "teacher": None},
    ],
)
def test_a_score_is_read_from_the_results_of_a_job(results, tmp_path):
    write(tmp_path / "results.json", results)
    assert read_quality(tmp_path) == Quality("glue/sst2", "accuracy", 0.9)


def test_or_from_the_facts_of_the_card(tmp_path):
    scores = [ScoreFacts("glue/rte", "accuracy", "validation", student=0.6)]
    write_model_card(tmp_path, CardFacts("m", [], ModelFacts("m"), scores=scores))
    write(tmp_path / "results.json", {"job": "distill", "steps": 5})
    assert read_quality(tmp_path) == Quality("glue/rte", "accuracy", 0.6)


def test_nobody_scored_it(tmp_path):
    assert read_quality(tmp_path) is None
    assert read_quality("no/such-model") is None


def test_files_have_scores_of_their_own_if_they_are_of_the_same_task(tmp_path):
    write(tmp_path / "results.json", {"job": "teach", "task": "glue/sst2", "metric": "accuracy", "score": 0.9})
    exported = {"task": "glue/sst2", "metric": "accuracy", "scores": {"pytorch": 0.9, "onnx": 0.9, "onnx_int8": 0.89}}
    write(tmp_path / "onnx" / "export.json", exported)
    quality = read_quality(tmp_path)
    assert (quality.on("sdpa"), quality.on("compiled"), quality.on("onnx_int8")) == (0.9, 0.9, 0.89)
    write(tmp_path / "onnx" / "export.json", exported | {"task": "glue/rte"})
    assert read_quality(tmp_path).on("onnx") is None


# --- tables ---------------------------------------------------------------------------------------------------------


def row(model, engine, seconds, shape=(32, 128), **more):
    return {
        "model": model,
        "engine": engine,
        "batch_size": shape[0],
        "seq_length": shape[1],
        "num_batches": 100,
        "seconds": seconds,
        "mean_seconds": seconds,
        "sentences_per_second": shape[0] / seconds,
        "speedup": 2 / seconds,
        "speedup_over_reference": 2 / seconds,
        "ratio_of_means": 2 / seconds,
        **more,
    }


def model(name, score=None, task="glue/sst2", **by_engine):
    quality = {"task": task, "metric": "accuracy", "score": score, "by_engine": {"sdpa": score, **by_engine}}
    return {
        "name": name,
        "layers": 12,
        "hidden_size": 768,
        "parameters": 110_000_000,
        "embedding_parameters": 24_000_000,
        "bytes": {"sdpa": 440_000_000, "onnx": 441_000_000},
        "quality": None if score is None else quality,
    }


@pytest.fixture
def facts():
    return {
        "models": [model("big", 0.92, onnx=0.92), model("small", 0.88, onnx=None), model("random")],
        "reference_engine": "sdpa",
        "protocol": [row("big", "sdpa", 2.0, papers=None), row("small", "sdpa", 0.4, papers=5.3)],
        "grid": [
            row("big", "sdpa", 0.1, (1, 32)),
            row("big", "sdpa", 2.0),
            row("big", "onnx", 1.6),
            row("small", "sdpa", 0.4),
            row("small", "onnx", 0.3, speedup=None),
            row("random", "sdpa", 0.2),
        ],
        "left_out": [
            {"model": "big", "engine": "compiled", "reason": "no compiler"},
            {"what": "the figure", "reason": "no scores"},
        ],
        "device": "cpu (2 threads)",
        "inputs": "random tokens",
        "fp32_matmul": "fast",
    }


def test_the_report_has_sizes_ratios_the_papers_and_what_is_missing(facts):
    text = format_report(facts)
    assert text.startswith("# small, random against big\n")
    assert "| big | 12x768 | 110.0 M | 86.0 M | 440.0 | 441.0 | 0.9200 (accuracy, glue/sst2) |" in text
    assert "| random | 12x768 | 110.0 M | 86.0 M | 440.0 | 441.0 | – |" in text
    assert "100 batches of 32 rows with 128 tokens, on sdpa" in text
    assert "| small | 400.0 | 80.0 | 5.00x | 5.00x | 5.3x |" in text
    assert "| 1 x 32 | big | sdpa | 100.00 | 10.0 | 20.00x | 20.00x |" in text
    assert "| 32 x 128 | small | onnx | 300.00 | 106.7 | – | 6.67x |" in text
    assert "- big on compiled: no compiler\n- the figure: no scores\n" in text


def test_every_row_of_a_table_has_the_cells_of_its_head(facts):
    tables = [part.splitlines() for part in format_report(facts).split("\n\n") if part.startswith("|")]
    assert len(tables) == 3
    assert all(len({line.count("|") for line in table}) == 1 for table in tables)


# --- the figure -----------------------------------------------------------------------------------------------------


def test_the_figure_shows_what_was_scored_at_the_last_shape(facts):
    assert points_of(facts) == [
        Point("big", "sdpa", 62.5, 0.92),
        Point("big", "onnx", 50.0, 0.92),
        Point("small", "sdpa", 12.5, 0.88),
    ]


def test_scores_of_another_task_do_not_compare(facts):
    facts["models"][1] = model("small", 0.6, task="glue/rte")
    assert {point.model for point in points_of(facts)} == {"big"}
    facts["models"] = [model("big"), model("small")]
    assert points_of(facts) == []


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_it_is_drawn(facts, suffix, tmp_path):
    pytest.importorskip("matplotlib", reason="pip install 'hf_distill[plots]'")
    path = draw_quality(points_of(facts), tmp_path / f"figure.{suffix}", title="cpu", ylabel="accuracy on glue/sst2")
    head = path.read_bytes()[:5]
    assert head == {"png": b"\x89PNG\r", "svg": b"<?xml"}[suffix]
    if suffix == "svg":
        assert "milliseconds per sentence" in path.read_text(encoding="utf-8")


def test_models_are_called_by_what_tells_them_apart():
    assert short_models(["sst2_teacher", "sst2_4x312"]) == {"sst2_teacher": "teacher", "sst2_4x312": "4x312"}
    assert short_models(["sst2_a b", "sst2_a"]) == {"sst2_a b": "a b", "sst2_a": "a"}
    assert short_models(["my_model"]) == {"my_model": "my model"}
