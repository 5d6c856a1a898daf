"""What a build searches and what it leaves out: units, languages, own terms, duplicates, evaluation texts, reasons."""

from collections import Counter

import pytest
from builder_cases import ANCHORS, GENERAL, build
from datasets import Dataset

from hf_distill.corpus.build.duplicates import normalize
from hf_distill.corpus.text.rows import DROP_REASONS

DIRTY = Dataset.from_dict(
    {"text": [*GENERAL["text"][:], None, "", "FOX dog!", "fox dog", "fox dog", "x" * 9000, "dog " * 60]}
)


def test_the_rows_that_were_left_out_are_written_with_their_reasons(tmp_path):
    options = {"corpus": DIRTY, "evaluation_texts": [GENERAL["text"][0]], "max_words": 50, "top_share": 0.8}
    result = build(tmp_path, [*ANCHORS, "fox dog"], write_dropped=True, **options)
    assert result.dropped.column_names == ["row", "text", "reason", "instead"]
    general, dropped = result.statistics["general_corpus"], result.statistics["dropped"]
    expected = {**{reason: general[reason] for reason in DROP_REASONS}, **dropped}
    assert Counter(result.dropped["reason"]) == Counter({name: n for name, n in expected.items() if n})
    assert {"none", "empty", "too_long", "too_many_words", "beyond_top_share", "normalized_duplicate"} <= set(
        result.dropped["reason"]
    )
    texts, kept = DIRTY["text"][:], set(result.dataset["text"])
    assert result.dropped["row"][:] == sorted(result.dropped["row"])
    for line in result.dropped.to_list():
        assert line["text"] == texts[line["row"]]
        if line["reason"].endswith("duplicate"):
            assert normalize(texts[line["instead"]]) == normalize(line["text"])
            assert texts[line["instead"]] in kept
        else:
            assert line["instead"] is None


def test_dropped_rows_can_be_asked_for_after_the_build(tmp_path):
    assert build(tmp_path).dropped is None
    assert len(build(tmp_path, write_dropped=True).dropped) == sum(build(tmp_path).statistics["dropped"].values())


def test_near_duplicates_and_shared_ngrams_are_left_out_when_asked(tmp_path):
    pytest.importorskip("datasketch")
    near = "the quick brown fox jumps over the lazy dog near the old river"
    texts = [f"{near} bank", f"{near} side", "one two fox three four five six", "plain fox"]
    corpus = Dataset.from_dict({"text": texts})
    held_out = ["zero one two fox three four"]
    options = {"anchors": ["fox"], "corpus": corpus, "top_k": 4, "evaluation_texts": held_out}
    assert len(build(tmp_path / "a", **options).dataset) == 4
    result = build(tmp_path / "b", **options, deduplicate="near", decontaminate_ngram=4)
    assert set(result.dataset["text"]) == {f"{near} bank", "plain fox"}
    assert result.statistics["dropped"]["near_duplicate"] == 1
    assert result.statistics["dropped"]["shares_evaluation_ngram"] == 1


def test_documents_are_searched_by_sentences_or_passages(tmp_path):
    pytest.importorskip("sentencex")
    corpus = Dataset.from_dict(
        {"text": ["A red fox ran. The river is wide. Dogs sleep.", "No word of it."], "source": ["a", "b"]}
    )
    options = {"anchors": ["fox", "river"], "corpus": corpus, "top_k": 2}
    sentences = build(tmp_path / "a", unit="sentence", **options)
    assert set(sentences.dataset["text"]) == {"A red fox ran.", "The river is wide."}
    assert set(sentences.dataset["source"]) == {"a"}
    assert sentences.statistics["general_corpus"]["documents"] == 2
    assert sentences.statistics["general_corpus"]["rows"] == 4
    passages = build(tmp_path / "b", unit="passage", passage_words=8, **options)
    assert passages.dataset["text"] == ["A red fox ran. The river is wide."]


def test_a_chinese_corpus(tmp_path):
    pytest.importorskip("rjieba")
    corpus = Dataset.from_dict(
        {"text": ["这部电影的音响效果很好。", "今天天气不错。", "电影的票房很高！", "the film"]}
    )
    options = {"corpus": corpus, "top_k": 3, "language": "chinese"}
    result = build(tmp_path / "a", ["我喜欢这部电影"], **options)
    assert result.dataset["text"] == ["这部电影的音响效果很好。", "电影的票房很高！"]
    result = build(tmp_path / "b", ["我喜欢这部电影"], **options, evaluation_texts=["电影的票房很高"])
    assert result.dataset["text"] == ["这部电影的音响效果很好。"]


def test_a_text_without_spaces_is_searched_without_a_segmenter_too(tmp_path):
    corpus = Dataset.from_dict({"text": ["この映画は面白い", "天気がいい", "the film"]})
    result = build(tmp_path, ["映画が好き"], corpus, top_k=3, language="none")
    assert result.dataset["text"][0] == "この映画は面白い"


def test_an_own_token_analysis(tmp_path, monkeypatch):
    (tmp_path / "letters_of.py").write_text("def letters(text):\n    return list(text.replace(' ', ''))\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    corpus = Dataset.from_dict({"text": ["abc", "xyz"]})
    for number, processes in enumerate([None, 2]):
        result = build(
            tmp_path / str(number),
            ["c", "q"],
            corpus,
            token_analysis="letters_of:letters",
            top_k=2,
            num_proc=processes,
        )
        assert result.dataset["text"] == ["abc"]
    assert result.statistics["settings"]["index_analysis"]["token_analysis"] == "letters_of:letters"
