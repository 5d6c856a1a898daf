"""The page of corpus statistics shows what was measured, and the orderings are those of its numbers."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "compare.md"


@pytest.fixture
def benchmark_module(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("corpus_statistics", ROOT / "benchmarks" / "corpus_statistics.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def results(benchmark_module):
    return json.loads((ROOT / benchmark_module.RESULTS).read_text(encoding="utf-8"))


def test_the_tables_of_the_page_are_those_of_the_results(benchmark_module, results):
    text = PAGE.read_text(encoding="utf-8")
    assert benchmark_module.tables(results) in text
    assert benchmark_module.with_tables(text, results) == text


def test_the_figures_are_there_and_small(benchmark_module):
    text = PAGE.read_text(encoding="utf-8")
    for name in ("corpus_overlap.png", "corpus_top_shares.png", "corpus_matrix.png"):
        figure = PAGE.parent / "figures" / name
        assert f"](figures/{name})" in text
        assert figure.read_bytes().startswith(b"\x89PNG")
        assert figure.stat().st_size < 200_000


def test_the_results_say_how_they_were_made(benchmark_module, results):
    assert len(results["tasks"]) >= 4
    for name, facts in results["tasks"].items():
        assert facts["made"]["command"].startswith("python benchmarks/corpus_statistics.py --tasks ")
        assert {"seed", "commit", "machine", "versions"} < set(facts["made"])
        assert results["orderings"][name] == benchmark_module.orderings(facts)
        assert facts["built"]["taskda"]["source_rows"] == facts["corpora"]["task"]["rows"]


def facts_of(overlap, distinct):
    """A comparison with these words in common and means of Distinct-n."""
    shares = [{"name": f"cc {20 * n} %", "top_share": n / 5} for n in range(1, 6)]
    names = ["task", "taskda", *(point["name"] for point in shares), "general"]
    groups = [
        {"size_of": size, "corpora": {name: {n: {"mean": mean} for n in "12"} for name, mean in distinct.items()}}
        for size in ("task", "cc")
    ]
    return {
        "overlap": {"names": names, "share": [overlap] + [[0] * len(names)] * (len(names) - 1)},
        "top_shares": {"cc": shares},
        "distinct": {"orders": [1, 2], "groups": groups},
    }


def test_all_orderings_of_the_paper_hold_in_its_numbers(benchmark_module):
    # SST-2 in Figure 3 and Table 3.
    overlap = [100, 77.5, 40.8, 40.5, 40.2, 39.9, 39.8, 26.4]
    found = benchmark_module.orderings(facts_of(overlap, {"task": 2.5, "taskda": 3.7, "cc": 8.2, "general": 8.1}))
    assert len(found) == 16
    assert all(found.values())


@pytest.mark.parametrize(
    ("overlap", "distinct", "refuted"),
    [
        ([100, 35, 40, 39, 38, 37, 36, 20], {}, {"overlap: TaskDA > CC20"}),
        ([100, 70, 40, 41, 38, 37, 36, 20], {}, {"overlap: CC20 ≥ CC40 ≥ CC60 ≥ CC80 ≥ CC100"}),
        ([100, 70, 40, 40, 40, 40, 40, 40], {}, {"overlap: CC100 > general"}),
        ([100, 70, 40, 40, 40, 40, 40, 30], {"cc": 7.0}, {"≈ general"}),
        ([100, 70, 40, 40, 40, 40, 40, 30], {"taskda": 9.0}, {"CC > TaskDA", "general > TaskDA"}),
    ],
)
def test_what_does_not_hold_is_refuted(benchmark_module, overlap, distinct, refuted):
    means = {"task": 2.5, "taskda": 3.7, "cc": 8.2, "general": 8.1, **distinct}
    found = benchmark_module.orderings(facts_of(overlap, means))
    wrong = {claim for claim, holds in found.items() if not holds}
    assert wrong
    assert all(any(claim.endswith(end) for end in refuted) for claim in wrong)
    assert all(any(claim.endswith(end) for claim in wrong) for end in refuted)
