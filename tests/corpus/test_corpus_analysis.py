"""Words of any script, and the terms that are made of them."""

from __future__ import annotations

import importlib.util
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from datasets.fingerprint import Hasher

from hf_distill.corpus.text import analysis as module
from hf_distill.corpus.text.analysis import (
    Analyzer,
    chinese_segmenter,
    chinese_words,
    chinese_words_and_marks,
    spaced_words,
    stop_words,
    units,
    words,
    words_and_marks,
)

needs_rjieba = pytest.mark.skipif(
    importlib.util.find_spec("rjieba") is None, reason="pip install 'hf_distill[chinese]'"
)
CHINESE = "我喜欢这部电影，价格是3.5元！OK"


def test_words_are_folded_runs_of_letters_and_digits():
    assert words("The Cats: 3 x_y, it's") == ["the", "cats", "3", "x", "y", "it", "s"]
    assert words("\uff26ull \ufb01sh STRA\u00dfE") == ["full", "fish", "stra\u00dfe"]


def test_marks_belong_to_the_letters_before_them():
    assert words("हिन्दी भाषा") == ["हिन्दी", "भाषा"]
    assert words("مَرْحَبًا") == ["مَرْحَبًا"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\u4e2d\u6587\u6587\u672c", ["\u4e2d\u6587", "\u6587\u6587", "\u6587\u672c"]),
        ("\u4e2d", ["\u4e2d"]),
        ("T\u6064\u886b2024\u5e74", ["t", "\u6064\u886b", "2024", "\u5e74"]),
        ("\u30b3\u30fc\u30d2\u30fc", ["\u30b3\u30fc", "\u30fc\u30d2", "\u30d2\u30fc"]),
        ("\ud55c\uad6d\uc5b4 \ub2e8\uc5b4", ["\ud55c\uad6d\uc5b4", "\ub2e8\uc5b4"]),
        ("na\u00efve \u041c\u0438\u0440", ["na\u00efve", "\u043c\u0438\u0440"]),
    ],
)
def test_scripts_without_spaces_give_pairs_of_characters_all_others_words(text, expected):
    assert words(text) == expected


def test_a_character_keeps_its_marks_in_a_pair():
    # Thai writes vowels and tones above and below the consonants: two consonants, one pair.
    assert words("\u0e17\u0e35\u0e48\u0e19\u0e35\u0e49") == ["\u0e17\u0e35\u0e48\u0e19\u0e35\u0e49"]


def test_every_pair_of_a_query_is_in_a_text_that_holds_it():
    text, query = "\u6211\u559c\u6b22\u8fd9\u90e8\u7535\u5f71", "\u8fd9\u90e8\u7535\u5f71"
    assert set(words(query)) <= set(words(text))


def test_units_count_characters_where_there_are_no_spaces():
    assert units("Two words") == ["two", "words"]
    assert len(units("\u6211\u559c\u6b22 T\u6064")) == 5


def test_no_row_that_arrow_splits_ends_in_a_blank():
    # At the end of a batch Arrow would read beyond its memory, and keep the blank in the word if it finds no text.
    assert [spaced_words(text) for text in ("ancient Greece.", "!?", "caf\u00e9 ", "")] == [
        "ancient greece",
        "",
        "caf\u00e9",
        "",
    ]


@pytest.mark.parametrize("text", ["The CAT, it's_so", "caf\u00e9 \u4e2d\u6587\u672c x\u3000y", ""])
def test_spaced_words_are_the_words(text):
    assert spaced_words(text).split() == words(text)


def test_words_and_marks_keep_inner_hyphens_and_apostrophes():
    assert words_and_marks("Non-rock, don't - (1980),") == ["non-rock", ",", "don't", "-", "(", "1980", ")", ","]
    assert words_and_marks("भाषा, में") == ["भाषा", ",", "में"]


@needs_rjieba
def test_chinese_is_cut_into_words():
    assert chinese_words(CHINESE) == ["我", "喜欢", "这部", "电影", "价格", "是", "3", "5", "元", "ok"]
    assert chinese_words_and_marks(CHINESE)[3:6] == ["电影", ",", "价格"]
    assert not any(piece.isspace() for piece in chinese_words_and_marks("中文 文本\n"))


@needs_rjieba
def test_the_segmenter_says_what_it_is():
    assert chinese_segmenter()[0].startswith("rjieba 0.")


def without(monkeypatch, *missing):
    real = importlib.util.find_spec
    monkeypatch.setattr(module, "find_spec", lambda name: None if name in missing else real(name))
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    return chinese_segmenter.__wrapped__


def test_without_a_segmenter_the_error_says_how_to_install_one(monkeypatch):
    with pytest.raises(ImportError, match=r"`--language chinese` needs .*pip install 'hf_distill\[chinese\]'"):
        without(monkeypatch, "rjieba", "jieba")()


@pytest.mark.skipif(importlib.util.find_spec("jieba") is None, reason="pip install jieba")
def test_jieba_takes_the_place_of_rjieba_in_silence():
    # A process of its own: jieba's own code warns when it is compiled.
    code = (
        "import sys; sys.modules['rjieba'] = None\n"
        "from hf_distill.corpus.text import analysis as words\n"
        "real = words.find_spec; words.find_spec = lambda name: None if name == 'rjieba' else real(name)\n"
        "print(words.chinese_segmenter()[0].split()[0], words.chinese_words('我喜欢这部电影'))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "jieba ['我', '喜欢', '这部', '电影']"
    assert done.stderr == ""


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
        ("my_terms:CONSTANT", "is not a function but int"),
    ],
)
def test_a_function_that_is_not_there_is_an_error_that_names_the_flag(own_functions, name, message):
    with pytest.raises(ValueError, match=f"`--token_analysis` is '{name}'.*{message}"):
        Analyzer(token_analysis=name)


def test_terms_that_engines_cannot_take_are_errors(own_functions):
    with pytest.raises(TypeError, match="must return strings, but one is int: 1"):
        Analyzer(token_analysis="my_terms:numbers").tokens("x")
    with pytest.raises(ValueError, match="returned the term 'new york'; a term must not be empty or contain a blank"):
        Analyzer(token_analysis="my_terms:blanks").encode([["x"]])
