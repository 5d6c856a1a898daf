"""Terms: the same for running and for pre-split text, for one text and for many, in every process."""

import importlib.util
import pickle
import sys
import textwrap

import numpy as np
import pytest
from datasets.fingerprint import Hasher

from hf_distill.corpus.text.analysis import Analyzer, stop_words

needs_rjieba = pytest.mark.skipif(
    importlib.util.find_spec("rjieba") is None, reason="pip install 'hf_distill[chinese]'"
)


@pytest.fixture(scope="module")
def analyzer():
    return Analyzer()


def test_words_are_lower_cased_without_stop_words_and_stemmed(analyzer):
    assert analyzer.tokens("The cats were running towards 3 Houses!") == ["cat", "run", "toward", "3", "hous"]


def test_stop_words_go_before_stemming(analyzer):
    # Stemmed first, they would be `becaus`, `dure`, `have` and stay.
    assert analyzer.tokens("because during having") == []


def test_pre_split_and_running_text_give_the_same_terms(analyzer):
    assert analyzer.tokens("it 's fun , do n't wait") == analyzer.tokens("It's fun, don't wait") == ["fun", "wait"]


def test_composed_and_decomposed_letters_are_one(analyzer):
    assert analyzer.tokens("cafe\u0301 na\u00efve") == analyzer.tokens("caf\u00e9 nai\u0308ve")


TEXTS = [
    "The red fox",
    "",
    "  ",
    "!!!",
    "of the and",
    "fox Fox FOXES",
    "caf\u00e9_bar \u4e2d\u6587",
    "x\u00a0y\u3000z",
    "red",
]


@pytest.mark.parametrize("size", [1, 2, 100])
def test_streams_are_the_tokens_of_every_text_whatever_the_batches(analyzer, size):
    streams = analyzer.encode([TEXTS[start : start + size] for start in range(0, len(TEXTS), size)])
    assert list(streams.texts()) == [analyzer.tokens(text) for text in TEXTS]
    assert streams.num_texts == len(TEXTS)
    assert streams.checksum() == analyzer.encode([TEXTS]).checksum()


def test_the_vocabulary_is_in_the_order_of_first_appearance(analyzer):
    assert analyzer.encode([["red fox", "blue red"]]).vocabulary == ["red", "fox", "blue"]


def test_no_text_at_all(analyzer):
    streams = analyzer.encode([[]])
    assert streams.num_texts == 0
    assert np.array_equal(streams.offsets, [0])


def test_other_text_has_another_checksum(analyzer):
    assert analyzer.encode([["red fox"]]).checksum() != analyzer.encode([["red", "fox"]]).checksum()


def test_an_analyzer_travels_as_its_settings(analyzer):
    used = Analyzer()
    used.tokens("many words that fill the cache")
    assert Hasher.hash(used) == Hasher.hash(Analyzer())
    assert Hasher.hash(used) != Hasher.hash(Analyzer(stem=False))
    assert pickle.loads(pickle.dumps(used)).tokens("running cats") == ["run", "cat"]


def test_settings_tell_analyzers_apart():
    assert Analyzer().settings() == Analyzer("english").settings()
    assert Analyzer(stem=False).settings() != Analyzer().settings()
    assert Analyzer(stopwords=["fox"]).settings() != Analyzer().settings()


def test_own_stop_words_replace_the_list():
    assert Analyzer(stopwords=["fox"], stem=False).tokens("the fox runs") == ["the", "runs"]


def test_language_none_keeps_every_word_as_it_is():
    assert Analyzer("none").tokens("The Cats running") == ["the", "cats", "running"]


def test_contractions_are_stop_words_in_their_parts_too():
    assert {"don't", "don", "t", "n", "s", "the"} <= stop_words("english")
    assert "fox" not in stop_words("english")


def test_an_unknown_language_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match=r"'klingon' \(--language\).*english.*none"):
        Analyzer("klingon")


CHINESE_TEXTS = ["我喜欢这部电影。", "", "这 部 电影 的 价格", "OK，3.5元", "的"]


@needs_rjieba
def test_chinese_is_segmented_without_stop_words():
    analyzer = Analyzer("chinese")
    assert analyzer.tokens("我喜欢这部电影的价格") == ["喜欢", "这部", "电影", "价格"]
    assert analyzer.settings()["segmenter"].startswith("rjieba")
    assert analyzer.settings() == Analyzer("chinese", stem=False).settings()


@needs_rjieba
@pytest.mark.parametrize("size", [1, 100])
def test_chinese_streams_are_the_tokens_of_every_text(size):
    analyzer = Analyzer("zh")
    batches = [CHINESE_TEXTS[start : start + size] for start in range(0, len(CHINESE_TEXTS), size)]
    assert list(analyzer.encode(batches).texts()) == [analyzer.tokens(text) for text in CHINESE_TEXTS]


@needs_rjieba
def test_words_of_a_query_are_not_cut_again():
    analyzer = Analyzer("chinese")
    # Together they would be another word: 中 + 国人 -> 中国人.
    assert analyzer.tokens_of_words("国人 喜欢 电影-票房") == ["国人", "喜欢", "电影", "票房"]
    assert Analyzer().tokens_of_words("red foxes non-rock") == Analyzer().tokens("red foxes non-rock")


def test_without_a_language_text_without_spaces_is_searched_by_pairs_of_characters():
    assert Analyzer("none").tokens("电影好") == ["电影", "影好"]
    assert list(Analyzer("none").encode([["电影好 OK"]]).texts()) == [["电影", "影好", "ok"]]


@pytest.fixture
def own_functions(tmp_path, monkeypatch):
    """A module `my_terms` as a user would write it."""
    (tmp_path / "my_terms.py").write_text(
        textwrap.dedent(
            """
            def letters(text):
                return [letter for letter in text.upper() if letter.isalpha()]

            def numbers(text):
                return [1]

            def blanks(text):
                return ["new york"]

            CONSTANT = 3
            """
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_terms", raising=False)
    return tmp_path / "my_terms.py"


def test_an_own_function_takes_the_place_of_words_stop_words_and_stemmer(own_functions):
    analyzer = Analyzer(token_analysis="my_terms:letters")
    assert analyzer.tokens("the a!") == ["T", "H", "E", "A"]
    assert list(analyzer.encode([["ab", "", "the"]]).texts()) == [["A", "B"], [], ["T", "H", "E"]]
    assert "the" in analyzer.stop_words  # keyword phrases still end there


def test_an_own_function_travels_by_its_name(own_functions):
    analyzer = Analyzer(token_analysis="my_terms:letters")
    assert pickle.loads(pickle.dumps(analyzer)).tokens("ab") == ["A", "B"]
    assert Hasher.hash(analyzer) != Hasher.hash(Analyzer())


def test_a_changed_function_is_another_analysis(own_functions, monkeypatch):
    before = Analyzer(token_analysis="my_terms:letters").settings()
    assert before["token_analysis"] == "my_terms:letters"
    own_functions.write_text("def letters(text):\n    return text.split()\n")
    monkeypatch.delitem(sys.modules, "my_terms")
    import linecache

    linecache.clearcache()
    importlib.invalidate_caches()
    after = Analyzer(token_analysis="my_terms:letters").settings()
    assert before["source"] != after["source"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_terms", "must look like package.module:function"),
        ("my_terms:nothing", "cannot be imported: .*PYTHONPATH"),
        ("no_such_module:f", "cannot be imported"),
        ("my_terms:CONSTANT", "is no function but int"),
    ],
)
def test_a_function_that_is_not_there_is_an_error_that_names_the_flag(own_functions, name, message):
    with pytest.raises(ValueError, match=f"`--token_analysis` is '{name}'.*{message}"):
        Analyzer(token_analysis=name)


def test_terms_that_engines_cannot_take_are_errors(own_functions):
    with pytest.raises(TypeError, match="must return strings, but one is int: 1"):
        Analyzer(token_analysis="my_terms:numbers").tokens("x")
    with pytest.raises(ValueError, match="returned the term 'new york'; terms are not empty, without blanks"):
        Analyzer(token_analysis="my_terms:blanks").encode([["x"]])
