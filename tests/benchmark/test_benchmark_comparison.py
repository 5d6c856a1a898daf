"""What is compared with what, on which batches; never how long it takes."""

from __future__ import annotations

import statistics

import pytest

from hf_distill.reports.speed import comparison, engines
from hf_distill.reports.speed.comparison import PAPER_SPEEDUPS, ComparedModel, Protocol, compare, paper_speedups
from hf_distill.reports.speed.engines import ENGINES, EngineUnavailableError
from hf_distill.reports.speed.latency import random_batch
from hf_distill.settings import BenchmarkArguments

SMALL = Protocol(
    batch_size=4,
    seq_length=16,
    num_batches=5,
    warmup=2,
    grid_batch_sizes=(1, 2),
    grid_seq_lengths=(8, 16),
    grid_batches=3,
    engines=("sdpa", "eager"),
)


@pytest.fixture
def entrants(teacher_model, student_model):
    return ComparedModel("big", teacher_model), [ComparedModel("small", student_model)]


@pytest.fixture
def source(teacher_model):
    """Random batches, and a note of what was asked for."""

    def make(batch_size, seq_length, number):
        make.asked.append((batch_size, seq_length, number))
        return [random_batch(teacher_model, 50, batch_size, seq_length, seed) for seed in range(number)]

    make.asked = []
    return make


def test_the_grid_has_every_model_on_every_engine_at_every_shape(entrants, source):
    facts = compare(*entrants, SMALL, source)
    found = [(row["batch_size"], row["seq_length"], row["engine"], row["model"]) for row in facts["grid"]]
    shapes = [(1, 8), (2, 8), (1, 16), (2, 16)]
    assert found == [
        (*shape, engine, model) for shape in shapes for engine in SMALL.engines for model in ("big", "small")
    ]
    assert {row["num_batches"] for row in facts["grid"]} == {3}


def test_the_protocol_runs_on_the_first_engine_alone(entrants, source):
    facts = compare(*entrants, SMALL, source)
    assert facts["reference_engine"] == "sdpa"
    rows = [(row["model"], row["engine"], row["batch_size"], row["seq_length"]) for row in facts["protocol"]]
    assert rows == [("big", "sdpa", 4, 16), ("small", "sdpa", 4, 16)]
    assert all(row["num_batches"] == 5 for row in facts["protocol"])
    # One example to open the engines with, a few batches per cell of the grid, then all of the protocol's.
    assert source.asked == [(1, 8, 1), (1, 8, 3), (2, 8, 3), (1, 16, 3), (2, 16, 3), (4, 16, 5)]


def test_ratios_are_those_of_the_teacher_on_the_same_batches(entrants, source, monkeypatch):
    times = {}

    def note(runs, batches, num_batches, warmup, device, **more):
        # Each way has a speed of its own, and batches differ.
        times.update({key: tuple((place + 1.0) * (batch + 1) for batch in range(3)) for place, key in enumerate(runs)})
        return {key: times[key] for key in runs}

    monkeypatch.setattr(comparison, "take_turns", note)
    facts = compare(*entrants, SMALL, source)
    row = facts["grid"][3]
    assert (row["model"], row["engine"]) == ("small", "eager")
    assert row["seconds"] == statistics.median(times["small", "eager"]) == 8.0
    assert row["speedup"] == pytest.approx(3 / 4)  # the teacher on eager was the third
    assert row["speedup_over_reference"] == row["ratio_of_means"] == pytest.approx(1 / 4)
    assert row["sentences_per_second"] == 1 / 8
    assert facts["grid"][0]["speedup"] == 1.0


def test_models_have_their_sizes(entrants, source):
    big, small = compare(*entrants, SMALL, source)["models"]
    assert (big["name"], big["layers"], big["hidden_size"]) == ("big", 2, 24)
    assert big["parameters"] == entrants[0].model.num_parameters() > small["parameters"]
    assert 0 < big["embedding_parameters"] < big["parameters"]
    assert set(big["bytes"]) == {"sdpa", "eager"}


def test_what_cannot_be_run_is_left_out_with_its_reason(entrants, source, monkeypatch):
    def open_some(ways, engine, example):
        if engine == "sdpa" and ways.model is entrants[0].model:
            raise EngineUnavailableError("no such attention")
        return lambda batch: None

    monkeypatch.setattr(engines.Engines, "open", open_some)
    facts = compare(*entrants, SMALL, source)
    assert facts["left_out"] == [{"model": "big", "engine": "sdpa", "reason": "no such attention"}]
    assert facts["reference_engine"] == "eager"
    alone = next(row for row in facts["grid"] if row["engine"] == "sdpa")
    assert alone["speedup"] is None
    assert alone["speedup_over_reference"] > 0


def test_there_must_be_an_engine_for_all(entrants, source, monkeypatch):
    def refuse(ways, engine, example):
        raise EngineUnavailableError("broken")

    monkeypatch.setattr(engines.Engines, "open", refuse)
    with pytest.raises(ValueError, match=r"None of the engines .*`--engines`.*big on sdpa: broken"):
        compare(*entrants, SMALL, source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engines": ("sdpa", "jax")}, r"`--engines` has \['jax'\]; allowed are sdpa, eager, compiled"),
        ({"engines": ()}, "`--engines` has none"),
        ({"grid_batch_sizes": ()}, "`--grid_batch_sizes` and `--grid_seq_lengths` need a number each"),
        ({"num_batches": 0}, "num_batches=0"),
        ({"grid_batches": 0}, "num_batches=0"),
        ({"seq_length": 17}, "seq_length=17, but BertForSequenceClassification has only 16 positions"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_runs(change, message, entrants, source):
    protocol = Protocol(**{**vars(SMALL), **change})
    with pytest.raises(ValueError, match=message):
        compare(*entrants, protocol, source)
    assert source.asked == []


def test_the_papers_numbers_stand_beside_their_shapes_only(entrants):
    assert paper_speedups(*entrants) == {}
    assert PAPER_SPEEDUPS[6, 384] == 5.3
    assert PAPER_SPEEDUPS[4, 312] == 9.4


def test_the_flags_have_the_protocol_of_the_papers_and_every_engine():
    arguments = BenchmarkArguments(teacher_shape="12x768", student_shapes=["6x384"])
    assert arguments.engines == list(ENGINES) == list(Protocol().engines)
    for name, value in vars(Protocol()).items():
        assert getattr(arguments, name) == (list(value) if isinstance(value, tuple) else value), name
    assert (arguments.batch_size, arguments.seq_length, arguments.num_batches) == (32, 128, 100)
