"""The GPU benchmark, in small on the CPU."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    return gpu


def run(gpu, monkeypatch, tmp_path, *words):
    output = tmp_path / "gpu.jsonl"
    given = ["gpu.py", "--small", "--commit", "abc", "--output", str(output), *words]
    monkeypatch.setattr(sys, "argv", given)
    gpu.main()
    return [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []


def test_every_line_says_what_it_is(gpu, monkeypatch, tmp_path):
    lines = run(gpu, monkeypatch, tmp_path, "--cases", "relation", "small_divergence", "ceilings", "step", "tiles")
    assert {line["case"].split()[0] for line in lines} == {
        "relation",
        "small_divergence",
        "ceilings",
        "step",
        "tiles",
    }
    for line in lines:
        assert "error" not in line
        assert {"benchmark", "command", "seed", "commit", "machine", "minutes", "versions"} <= set(line)
    relations = [line for line in lines if line["case"].startswith("relation")]
    assert all(line["slices"]["errors"]["loss"] < 1e-5 for line in relations)


def test_what_fails_is_a_line_and_the_rest_goes_on(gpu, monkeypatch, tmp_path, capsys):
    def fail(*given):
        raise RuntimeError("no memory")

    monkeypatch.setattr(gpu, "measure_relation", fail)
    lines = run(gpu, monkeypatch, tmp_path, "--cases", "relation", "small_divergence")
    assert lines[0]["error"] == "RuntimeError: no memory"
    assert "error" not in lines[1]
    assert "no memory" in capsys.readouterr().err


def test_what_no_time_was_left_for_is_named(gpu, monkeypatch, tmp_path, capsys):
    assert run(gpu, monkeypatch, tmp_path, "--cases", "curve", "--minutes", "0") == []
    assert "left out: curve fp32 slices, curve fp32 fused" in capsys.readouterr().out


def test_operations_are_counted_as_the_models_have_them(gpu):
    """Linear maps of a layer have 12 d² weights, two operations each; of the last layer only Q, K, V are computed."""
    large = gpu.WORKLOADS["w1_large"]
    teacher = 18 * (2 * 12 * 1024**2 + 4 * 128 * 1024) + 2 * 3 * 1024**2
    student = 5 * (2 * 12 * 384**2 + 4 * 128 * 384) + 2 * 3 * 384**2
    assert large.operations(128) == teacher + 3 * student
