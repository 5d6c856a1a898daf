"""The rows of a general corpus: cleaned, judged by their lengths, cut into sentences and passages."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets
from datasets.fingerprint import Hasher

from hf_distill.corpus.text.analysis import units
from hf_distill.corpus.text.rows import (
    DROP_REASONS,
    SplitDocuments,
    checksum_of_column,
    clean,
    describe_rows,
    fetch_texts,
    find_usable_rows,
    sentences_of,
    split_documents,
    usable_texts,
)
from hf_distill.settings.corpus import CorpusArguments

TEXTS = ["red fox", None, "", "  \n", "x" * 50, "tab\there\x00too", "fox", "caf\u00e9 au lait", "a\u2028b \ufeffc"]


def usable(texts, **limits):
    return find_usable_rows(Dataset.from_dict({"text": texts}), CorpusArguments(**{"max_chars": 40, **limits}))


def test_every_row_has_a_fate():
    found = usable(TEXTS)
    assert found.rows.tolist() == [0, 5, 6, 7, 8]
    assert found.counts == {
        "rows": 9,
        "kept": 5,
        "none": 1,
        "empty": 2,
        "too_long": 1,
        "too_few_words": 0,
        "too_many_words": 0,
        "control_characters": 2,
    }
    assert sum(found.counts[name] for name in ("kept", *DROP_REASONS)) == len(TEXTS)
    assert found.bytes == sum(len(clean(TEXTS[row]).encode()) for row in found.rows)


def test_short_rows_are_dropped_when_asked():
    found = usable(TEXTS, min_words=2)
    assert 6 not in found.rows
    assert found.counts["too_few_words"] == 1


def test_long_rows_are_dropped_when_asked():
    found = usable(TEXTS, max_words=2)
    assert found.rows.tolist() == [0, 6]
    assert found.counts["too_many_words"] == 3


def test_characters_are_counted_where_there_are_no_spaces():
    found = usable(["\u6211\u559c\u6b22\u7535\u5f71", "\u4e2d\u6587", "one two three"], min_words=3, max_words=4)
    assert found.rows.tolist() == [2]
    assert (found.counts["too_few_words"], found.counts["too_many_words"]) == (1, 1)


def test_a_row_without_words_is_kept_unless_a_number_of_words_is_asked_for():
    assert usable(["!!!", "fox"], max_words=5).counts["kept"] == 2
    assert usable(["!!!", "red fox"], min_words=2).counts["kept"] == 1


def test_the_mean_number_of_words_counts_characters_where_there_are_no_spaces():
    rows = Dataset.from_dict({"text": ["it 's fine", "\u6211\u7231\u5317\u4eac\u3002 OK"], "source": ["a", "b"]})
    assert describe_rows(rows)["mean_words"] == (3 + 5) / 2


def test_control_characters_become_a_blank():
    assert clean("tab\there\x00\x01too\n") == "tab here too"
    assert clean("a\u2028b\ufeff\ud800c") == "a b c"
    assert clean("caf\u00e9\u00a0\u4e2d") == "caf\u00e9\u00a0\u4e2d"


def test_the_checksum_tells_texts_apart_and_survives_moves():
    assert usable(TEXTS).checksum == usable(TEXTS).checksum
    assert usable(["ab", "c"]).checksum != usable(["a", "bc"]).checksum
    assert usable(["a", None, "b"]).checksum != usable([None, "a", "b"]).checksum


def test_texts_come_cleaned_in_the_order_of_the_rows():
    corpus = Dataset.from_dict({"text": TEXTS})
    assert list(fetch_texts(corpus, "text", np.array([7, 0, 5]), "")) == [[TEXTS[7], "red fox", "tab here too"]]
    rows = usable(TEXTS).rows
    sequential = [text for batch in usable_texts(corpus, "text", rows, "") for text in batch]
    assert sequential == [text for batch in fetch_texts(corpus, "text", rows, "") for text in batch]


def test_an_empty_corpus_is_an_error():
    with pytest.raises(ValueError, match="corpus is empty"):
        usable([])


def test_a_corpus_without_usable_rows_is_an_error_with_the_counts():
    with pytest.raises(ValueError, match=r"No row .* can be used: .*'none': 1, 'empty': 1"):
        usable([None, " "])


def test_a_missing_column_is_an_error_that_lists_the_columns():
    with pytest.raises(ValueError, match=r"no column 'text' \(--text_column\); it has \['body'\]"):
        find_usable_rows(Dataset.from_dict({"body": ["a"]}), CorpusArguments())


def test_a_column_of_numbers_is_an_error():
    with pytest.raises(ValueError, match=r"\(--text_column\) of the general corpus holds Value\('int64'\), not text"):
        usable([1, 2])


def test_the_checksum_of_a_column_is_that_of_its_values_alone():
    values = ["a", None, "bc", "", "é"]
    rows = Dataset.from_dict({"text": values, "other": [1, 2, 3, 4, 5]})
    expected = checksum_of_column(rows, "text")
    shifted = concatenate_datasets([rows.select([4]), rows]).select(range(1, 6))
    pieces = concatenate_datasets([rows.select([0, 1]), rows.select([2, 3, 4])])
    assert {checksum_of_column(other, "text") for other in (shifted, pieces)} == {expected}
    for changed in (["a", "", "bc", "", "é"], ["ab", None, "c", "", "é"], ["a", None, "bc", "é", ""], values[:4]):
        assert checksum_of_column(Dataset.from_dict({"text": changed}), "text") != expected
    assert checksum_of_column(rows, "other") != checksum_of_column(rows.select([1, 0, 2, 3, 4]), "other")
    assert checksum_of_column(rows, "missing") is None


pytest.importorskip("sentencex", reason="pip install 'hf_distill[documents]'")


TEXT = 'Dr. Smith went to the U.S. in 1999. He said: "Go away!" The end?\nA new line here\n\nAnother paragraph.'


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        (
            TEXT,
            "english",
            [
                "Dr. Smith went to the U.S. in 1999. ",
                'He said: "Go away!" ',
                "The end?\n",
                "A new line here\n\n",
                "Another paragraph.",
            ],
        ),
        (
            "我们去了。2007年夏天。价格是3.5元！你呢？",
            "chinese",
            ["我们去了。", "2007年夏天。", "价格是3.5元！", "你呢？"],
        ),
        ("Er kam z.B. am 3. Mai. Dann ging er.", "german", ["Er kam z.B. am 3. Mai. ", "Dann ging er."]),
        ("One. Two!", "none", ["One. ", "Two!"]),
        ("One. Two!", "tlh", ["One. ", "Two!"]),
        ("  \n no mark at its end ", "en", ["no mark at its end"]),
    ],
)
def test_sentences(text, language, expected):
    assert sentences_of(text, language) == expected


@pytest.mark.parametrize("language", ["english", "chinese", "none"])
def test_joined_again_sentences_are_the_text(language):
    text = f"{TEXT} \u6211\u559c\u6b22\u3002 \u6ca1\u6709...\r\n\u2028 x! 3.5 e.g. y ?! "
    assert "".join(sentences_of(text, language)) == text.strip()


def split(text, unit="passage", passage_words=6):
    return list(SplitDocuments("text", unit, passage_words, "english").split(text))


@pytest.mark.parametrize("blank", ["\u00a0", "\u3000", "\u2009"])
def test_a_wide_blank_before_a_full_stop_ends_no_process(blank):
    text = f"Plan A{blank}. Then B{blank}.  \u00c9{blank}. C."
    assert "".join(sentences_of(text, "english")) == text
    assert sentences_of(f"Plan A{blank}.", "english") == [f"Plan A{blank}."]


def test_a_language_that_is_neither_a_name_nor_a_code_is_refused():
    assert SplitDocuments("text", "sentence", 100, "fi").language == "fi"
    with pytest.raises(ValueError, match=r"`--language` is 'englsh'; sentences end by the rules of chinese, .*code"):
        SplitDocuments("text", "sentence", 100, "englsh")


def test_a_passage_is_as_many_sentences_as_fit():
    text = "One two three. Four five six. Seven eight. Nine ten eleven twelve. Thirteen."
    assert split(text) == ["One two three. Four five six.", "Seven eight. Nine ten eleven twelve.", "Thirteen."]
    assert all(len(units(passage)) <= 6 for passage in split(text))


def test_a_longer_sentence_is_a_passage_of_its_own():
    assert split("One. Two three four five six seven eight. Nine.") == [
        "One.",
        "Two three four five six seven eight.",
        "Nine.",
    ]


def test_passages_keep_what_stands_between_their_sentences():
    assert split("One.  Two.\n\nThree four five six. Seven.") == ["One.  Two.\n\nThree four five six.", "Seven."]


def test_sentences_have_no_blanks_around_them():
    assert split("One.  Two.\n\nThree ", "sentence") == ["One.", "Two.", "Three"]


CORPUS = Dataset.from_dict(
    {"text": ["One. Two.", None, "", "Three."], "source": ["a", "b", None, "d"], "other": [1, 2, 3, 4]}
)


def split_corpus(unit="sentence", **options):
    settings = {"passage_words": 80, "language": "english", "source_column": "source", **options}
    return split_documents(CORPUS, "text", unit=unit, **settings)


def test_a_corpus_has_a_row_per_sentence_with_the_source_of_its_document():
    rows = split_corpus()
    assert rows["text"][:] == ["One.", "Two.", None, "", "Three."]
    assert rows["source"][:] == ["a", "a", "b", None, "d"]
    assert rows.column_names == ["text", "source"]


def test_a_corpus_without_sources_has_none():
    assert split_corpus(source_column="nothing").column_names == ["text"]


def test_rows_are_left_as_they_are():
    assert split_corpus("row") is CORPUS


def test_one_process_and_two_give_the_same():
    assert split_corpus(num_proc=2)["text"][:] == split_corpus()["text"][:]


def test_documents_without_the_column_are_an_error_that_lists_the_columns():
    with pytest.raises(ValueError, match=r"no column 'body' \(--text_column\); it has \['text', 'source', 'other'\]"):
        split_documents(CORPUS, "body", unit="sentence", passage_words=1, language="english")


def test_without_the_library_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencex", None)
    with pytest.raises(ImportError, match=r"`--unit passage` needs .*pip install 'hf_distill\[documents\]'"):
        split_corpus("passage")


def test_units_of_older_code_are_not_taken_from_the_cache(monkeypatch):
    before = Hasher.hash(SplitDocuments("text", "sentence", 20, "english"))
    assert Hasher.hash(SplitDocuments("text", "sentence", 20, "english")) == before
    monkeypatch.setattr(SplitDocuments, "VERSION", 2)
    assert Hasher.hash(SplitDocuments("text", "sentence", 20, "english")) != before
