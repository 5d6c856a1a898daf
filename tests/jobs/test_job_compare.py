"""The comparison job: from a task and corpora to tables, figures and sections of cards that a push takes along."""

import json

import pytest
from datasets import Dataset

from hf_distill.commands import compare as module
from hf_distill.commands.compare import run as compare
from hf_distill.commands.corpus import run as build_corpus
from hf_distill.hub.disclosure import public
from hf_distill.hub.selection import select_files
from hf_distill.settings import ComparisonArguments, CorpusArguments, TaskArguments


@pytest.fixture
def data(tmp_path, datasets_cache, sentences):
    """SST-2 and RTE in GLUE's form, a general corpus, a retrieved one, and one with pairs."""
    (tmp_path / "cc" / "data").mkdir(parents=True)
    for task, columns in (("sst2", ["sentence"]), ("rte", ["sentence1", "sentence2"])):
        (tmp_path / task).mkdir()
        for split, start in (("train", 0), ("validation", 20)):
            rows = {column: sentences[start + 8 * i : start + 8 * i + 8] for i, column in enumerate(columns)}
            rows |= {"label": [0, 1] * 4, "idx": list(range(8))}
            Dataset.from_dict(rows).to_parquet(str(tmp_path / task / f"{split}.parquet"))
    general = [f"{first} and {second}" for first, second in zip(sentences, reversed(sentences), strict=True)]
    (tmp_path / "general.txt").write_text("\n".join(general * 3))
    Dataset.from_dict({"text": sentences[:6], "text_pair": sentences[6:12]}).to_parquet(
        str(tmp_path / "pairs.parquet")
    )
    ranks = [row % 5 for row in range(30)]
    Dataset.from_dict({"text": sentences[:30], "rank": ranks}).to_parquet(str(tmp_path / "cc" / "data" / "a.parquet"))
    (tmp_path / "cc" / "statistics.json").write_text(json.dumps({"top_k": {"used": 5}}))
    return tmp_path


def run(data, *corpora, task="sst2", **fields):
    arguments = ComparisonArguments(list(corpora), output_dir=str(data / "out"), num_draws=2, **fields)
    return compare(TaskArguments(f"glue/{task}", data_dir=str(data / task)), arguments, "a command")


def test_it_writes_tables_and_figures(data):
    facts = run(data, f"cc={data / 'cc'}", f"general={data / 'general.txt'}")
    folder = data / "out"
    assert json.loads((folder / "comparison.json").read_text()) == json.loads(json.dumps(public(facts)))
    assert facts["command"] == "a command"
    assert list(facts["corpora"]) == ["task", "cc", "general"]
    assert facts["corpora"]["cc"]["top_k"] == 5
    assert [point["top_share"] for point in facts["top_shares"]["cc"]] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert facts["overlap"]["names"][-1] == "evaluation"
    page = (folder / "comparison.md").read_text()
    assert page.startswith("# Corpora for glue/sst2\n")
    for figure in ("vocabulary_overlap.png", "top_shares.png"):
        assert f"]({figure})" in page
        assert (folder / figure).read_bytes().startswith(b"\x89PNG")
        assert (folder / figure).stat().st_size < 200_000


def test_pairs_are_rows_with_two_texts(data):
    facts = run(data, f"taskda={data / 'pairs.parquet'}", task="rte")
    assert [(facts["corpora"][name]["rows"], facts["corpora"][name]["texts"]) for name in ("task", "taskda")] == [
        (8, 16),
        (6, 12),
    ]
    assert facts["top_shares"] == {}
    assert facts["figures"] == ["vocabulary_overlap.png"]


def test_a_corpus_without_a_name_is_called_by_its_path(data):
    assert list(run(data, str(data / "cc"), str(data / "general.txt"))["corpora"]) == ["task", "cc", "general.txt"]


def test_the_task_is_limited_to_the_rows_that_a_corpus_was_built_for(data):
    task = TaskArguments("glue/sst2", data_dir=str(data / "sst2"), max_train_samples=3)
    facts = compare(task, ComparisonArguments([f"cc={data / 'cc'}"], output_dir=str(data / "out")))
    assert facts["corpora"]["task"]["rows"] == 3


def test_cards_have_the_comparison_once_and_a_push_takes_its_figures(data):
    settings = CorpusArguments(str(data / "general.txt"), corpus_dir=str(data / "built"), engine="bm25s", top_k=5)
    build_corpus(TaskArguments("glue/sst2", data_dir=str(data / "sst2")), settings)
    for _ in range(2):
        run(data, f"cc={data / 'built'}", f"general={data / 'general.txt'}", write_cards=True)
    card = (data / "built" / "README.md").read_text()
    assert card.count("## Beside other corpora") == 1
    assert card.index("| cc 20 % |") < card.index("## Licence") < card.index("## Citations")
    assert "](figures/vocabulary_overlap.png)" in card
    pushed = {file.path for file in select_files(data / "built").files}
    assert {"figures/vocabulary_overlap.png", "figures/top_shares.png", "README.md", "statistics.json"} <= pushed


def test_without_matplotlib_there_are_tables(data, monkeypatch):
    def missing(*_, **__):
        raise ImportError("pip install 'hf_distill[plots]'")

    monkeypatch.setattr(module, "draw_overlap", missing)
    facts = run(data, f"general={data / 'general.txt'}")
    assert facts["figures"] == []
    assert "![" not in (data / "out" / "comparison.md").read_text()


@pytest.mark.parametrize("corpora", [["a={g}", "a={g}"], ["task={g}"], ["evaluation={g}"], ["{g}", "{g}"]])
def test_a_name_that_is_taken_is_refused(data, corpora):
    with pytest.raises(ValueError, match="two corpora with the name"):
        run(data, *(corpus.format(g=data / "general.txt") for corpus in corpora))


def test_a_corpus_without_its_column_is_refused(data):
    with pytest.raises(ValueError, match=r"no column 'words' \(`--text_column`\): \['text'\]"):
        run(data, f"g={data / 'general.txt'}", text_column="words")


def test_numbers_are_no_text(data):
    Dataset.from_dict({"text": [1, 2]}).to_parquet(str(data / "numbers.parquet"))
    with pytest.raises(ValueError, match=r"'text' holds Value\('int64'\), not text \(`--text_column`\)"):
        run(data, f"n={data / 'numbers.parquet'}")


@pytest.mark.parametrize("ranks", [["first", "last"], [0, None], [0.5, 1.5]])
def test_a_column_that_has_not_the_ranks_of_all_rows_is_no_rank(data, ranks):
    Dataset.from_dict({"text": ["a good film", "the plot"], "rank": ranks}).to_parquet(str(data / "other.parquet"))
    facts = run(data, f"o={data / 'other.parquet'}")
    assert facts["top_shares"] == {}
    assert facts["corpora"]["o"]["top_k"] is None


@pytest.mark.parametrize(("field", "value"), [("top_words", 0), ("num_draws", 0), ("top_shares", [0.2, 1.5])])
def test_impossible_settings_are_refused(field, value):
    with pytest.raises(ValueError, match=f"`--{field}`"):
        ComparisonArguments(["a"], **{field: value})
