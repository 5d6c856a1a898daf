"""Documents as sentences and passages: nothing is lost, nothing is changed, sources stay."""

import sys

import pytest
from datasets import Dataset
from datasets.fingerprint import Hasher

pytest.importorskip("sentencex", reason="pip install 'hf_distill[documents]'")

from hf_distill.corpus.text.analysis import units
from hf_distill.corpus.text.rows import SplitDocuments, sentences_of, split_documents

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


def test_a_missing_column_is_an_error_that_lists_the_columns():
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
