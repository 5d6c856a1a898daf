"""The dataset card says what the statistics say, and the Hub can read its header."""

import pytest
import yaml

from hf_distill.hub.dataset_card import CorpusCardFacts, dataset_metadata, render_dataset_card, write_dataset_card

STATISTICS = {
    "rows": 1234,
    "bytes": 98765,
    "mean_words": 12.5,
    "mean_rank": 3.2,
    "sources": {"wiki|pedia": 1000, "news": 234},
    "kept_share": 0.4321,
    "hits": 2856,
    "retrieved_rows": 1300,
    "dropped": {"beyond_top_share": 0, "equals_evaluation_text": 7, "normalized_duplicate": 59},
    "top_k": {"asked": 100, "used": 90},
    "top_share": 1.0,
    "anchors": {"texts": 50, "none": 1, "empty": 2, "duplicates": 3, "beyond_max_anchors": 0, "anchors": 44},
    "queries": {"queries": 44, "searched_by_text": 1, "without_terms": 2, "mean_terms": 5.1, "without_hits": 3},
    "evaluation_texts": 872,
    "general_corpus": {
        "name": "general.parquet",
        "rows": 90000,
        "kept": 89990,
        "none": 4,
        "empty": 3,
        "too_long": 2,
        "too_few_words": 1,
    },
    "engine": {"name": "bm25s", "version": "0.3.16", "why": "retriv is not installed"},
    "settings": {"query": "rake", "index_k1": 1.2, "index_b": 0.75, "decontaminate": "equal"},
}


def card(**facts):
    return render_dataset_card(CorpusCardFacts("Corpus for SST-2", **{"statistics": STATISTICS, **facts}))


def test_numbers_engine_and_reason_are_in_the_card():
    text = card(task="glue/sst2", command="hf-distill corpus --top_k 100", versions={"datasets": "5.2.0"})
    for fact in (
        "| rows | 1,234 |",
        "| hits per anchor (top k) | 90 (asked: 100) |",
        "| wiki\\|pedia | 1,000 |",
        "Engine: bm25s 0.3.16, because retriv is not installed.",
        "k1 1.2, b 0.75",
        "| general corpus: too long | 2 |",
        "| retrieved: equals evaluation text | 7 |",
        "872 texts of the task's validation and test sets were kept out",
        "(3 repeated, 3 empty)",
        "2 have only stop words, 3 found nothing",
        "hf-distill corpus --top_k 100",
        "datasets 5.2.0.",
        "@inproceedings{liu2022rethinking",
    ):
        assert fact in text
    assert "{{" not in text


def test_the_header_is_what_the_hub_reads():
    text = card(task="glue/sst2", corpus_licence="cc-by-sa-3.0")
    header = yaml.safe_load(text.split("---")[1])
    assert header == dataset_metadata(
        CorpusCardFacts("Corpus for SST-2", STATISTICS, task="glue/sst2", corpus_licence="cc-by-sa-3.0")
    )
    assert header["license"] == "cc-by-sa-3.0"
    assert header["size_categories"] == ["1K<n<10K"]
    assert header["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*"}]


def test_an_unknown_licence_is_said():
    text = card()
    assert yaml.safe_load(text.split("---")[1])["license"] == "other"
    assert "Its licence was not given" in text


def test_missing_decontamination_is_said():
    settings = {**STATISTICS["settings"], "decontaminate": "none"}
    assert "were not looked for" in card(statistics={**STATISTICS, "settings": settings})
    assert "No evaluation texts were given" in card(statistics={**STATISTICS, "evaluation_texts": 0})


def test_large_corpora_have_a_size_too():
    assert dataset_metadata(CorpusCardFacts("x", {**STATISTICS, "rows": 3_800_000}))["size_categories"] == ["1M<n<10M"]


def test_an_unknown_citation_is_an_error():
    with pytest.raises(ValueError, match="Unknown citation 'nobody'"):
        card(citations=["nobody"])


def test_the_card_is_the_folder_s_readme(tmp_path):
    path = write_dataset_card(tmp_path / "corpus", CorpusCardFacts("x", STATISTICS))
    assert path.name == "README.md"
    assert path.read_text(encoding="utf-8").startswith("---\npretty_name: x\n")


def test_a_card_that_was_not_written_here_is_kept_beside_the_new_one(tmp_path, caplog):
    folder, facts = tmp_path, CorpusCardFacts("Corpus", STATISTICS)
    for name, text in (("README.earlier.md", "of my project"), ("README.earlier1.md", "another")):
        (folder / "README.md").write_text(text)
        write_dataset_card(folder, facts)
        assert (folder / name).read_text() == text
        assert f"is kept as {name}" in caplog.messages[-1]
    (folder / "README.md").write_text("A small BertModel distilled with `hf_distill`.")
    write_dataset_card(folder, facts)
    assert "distilled" in (folder / "README.earlier2.md").read_text()
    (folder / "README.earlier2.md").unlink()
    write_dataset_card(folder, facts)
    assert {path.name for path in folder.iterdir()} == {"README.md", "README.earlier.md", "README.earlier1.md"}
    assert len(caplog.messages) == 3
