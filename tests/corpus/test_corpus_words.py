"""Words of any script, without a download and without the name of the language."""

import importlib.util
import subprocess
import sys

import pytest

from hf_distill.corpus.text import analysis as module
from hf_distill.corpus.text.analysis import (
    chinese_segmenter,
    chinese_words,
    chinese_words_and_marks,
    spaced_words,
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
