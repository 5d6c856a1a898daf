"""Neighbours among word embeddings: by cosine, without the word itself, from a table or from a model's own."""

import gzip

import numpy as np
import pytest
from augmentation_cases import byte_level, wordpiece

from hf_distill.corpus.augment.embeddings import PieceVectors, WordVectors
from hf_distill.corpus.augment.words import Vocabulary

TABLE = {"cat": [2, 0], "dog": [1.9, 0.3], "lion": [0.5, 0.1], "car": [0, 5], "bus": [0.4, 4.0], "nothing": [0, 0]}


def write(path, table=TABLE, *, header=False):
    lines = [f"{word} {' '.join(map(str, vector))}\n" for word, vector in table.items()]
    text = "".join([f"{len(table)} 2\n", *lines] if header else lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize(("name", "header"), [("glove.txt", False), ("word2vec.txt", True), ("glove.txt.gz", False)])
def test_the_nearest_by_angle_come_first_and_never_the_word_itself(tmp_path, name, header):
    table = WordVectors.read(write(tmp_path / name, header=header))
    assert table.neighbours(["cat", "car"], 2) == [["dog", "lion"], ["bus", "lion"]]
    assert table.describe()["table"] == name
    assert table.describe()["words"] == 5, "a vector of zeros has no direction"


def test_neighbours_are_those_of_a_plain_reference_however_many_are_asked():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(300, 12)).astype(np.float32)
    words = [f"w{i}" for i in range(300)]
    table = WordVectors(words, vectors * generator.uniform(0.1, 9, size=(300, 1)), "random")
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    expected = [
        [words[j] for j in np.argsort(-(unit @ unit[i]), kind="stable") if j != i][:7] for i in range(len(words))
    ]
    assert table.neighbours(words, 7) == expected
    assert [table.neighbours([word], 7)[0] for word in words[:70]] == expected[:70]
    assert len(table.neighbours(["w0"], 1000)[0]) == 299


def test_equal_vectors_come_in_the_order_of_the_table():
    table = WordVectors(["a", "b", "c", "d"], np.ones((4, 3)), "same")
    assert table.neighbours(["b"], 3) == [["a", "c", "d"]]


def test_a_word_that_is_not_there_has_none(tmp_path):
    assert WordVectors.read(write(tmp_path / "t")).neighbours(["elephant", "cat"], 1) == [[], ["dog"]]


def test_a_capitalised_word_is_looked_up_in_lower_case_and_its_neighbours_are_capitalised(tmp_path):
    table = WordVectors.read(write(tmp_path / "t"))
    assert table.neighbours(["Cat", "CAT"], 1) == [["Dog"], ["dog"]]


def test_only_the_first_words_are_read_and_the_first_of_equal_ones_counts(tmp_path):
    path = write(tmp_path / "t", header=True)
    with path.open("a") as file:
        file.write("cat 0 1\n")
    assert WordVectors.read(path, 2).words == ["cat", "dog"]
    assert WordVectors.read(path).neighbours(["cat"], 1) == [["dog"]]


def test_a_word_with_a_blank_in_it_does_not_shift_the_numbers(tmp_path):
    path = tmp_path / "t"
    path.write_text("cat 1 0\nnew york 0 1\ncity 0.1 1\n")
    assert WordVectors.read(path).neighbours(["city"], 1) == [["new york"]]


@pytest.mark.parametrize("line", ["cat", "cat one two", "cat 1", "cat nan 1", "cat 1 inf", "cat 1 1e99"])
def test_a_line_that_is_no_vector_is_named(tmp_path, line):
    path = tmp_path / "t"
    path.write_text(f"dog 1 2\n{line}\n")
    with pytest.raises(ValueError, match=r"`--embeddings` .*, line 2: expected a word and 2 numbers"):
        WordVectors.read(path)


def test_empty_lines_and_a_byte_order_mark_are_no_words(tmp_path):
    path = tmp_path / "t"
    path.write_bytes(b"\xef\xbb\xbfcat 1 0\n\ndog 0.9 0.1\r\n\n")
    assert WordVectors.read(path).words == ["cat", "dog"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("t.txt", b"cat 1 0\ncaf\xe9 0 1\n"), ("t.zip", b"PK\x03\x04\xff"), ("t.gz", b"cat 1 0\n"),
     ("cut.gz", gzip.compress(b"cat 1 0\n" * 99)[:-9])],
)  # fmt: skip
def test_a_file_that_is_no_text_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"`--embeddings` '.*{name}' cannot be read as text in UTF-8 \("):
        WordVectors.read(tmp_path / name)


def test_a_file_that_is_missing_or_empty_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="`--embeddings`"):
        WordVectors.read(tmp_path / "missing")
    (tmp_path / "empty").write_text("")
    with pytest.raises(ValueError, match="holds no word"):
        WordVectors.read(tmp_path / "empty")


def test_the_checksum_is_that_of_words_and_vectors():
    one = WordVectors(["a", "b"], np.eye(2), "t").describe()["checksum"]
    assert one == WordVectors(["a", "b"], np.eye(2), "other").describe()["checksum"]
    assert one != WordVectors(["b", "a"], np.eye(2), "t").describe()["checksum"]
    assert one != WordVectors(["a", "b"], -np.eye(2), "t").describe()["checksum"]


@pytest.mark.parametrize("kind", [wordpiece, byte_level])
def test_without_a_table_a_word_is_the_mean_of_its_pieces_and_neighbours_are_whole_words(kind):
    tokenizer = kind()
    vocabulary = Vocabulary.of(tokenizer)
    embeddings = np.random.default_rng(1).normal(size=(len(tokenizer) + 3, 8)).astype(np.float32)
    found = PieceVectors(tokenizer, embeddings, vocabulary).neighbours(["walking", "unbreakable"], 4)
    for word, texts in zip(["walking", "unbreakable"], found, strict=True):
        ids = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        assert len(ids) > 1
        mean = embeddings[ids].mean(axis=0)
        unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        order = [i for i in np.argsort(-(unit @ mean)) if i < len(tokenizer)]
        whole = [i for i in order if vocabulary.begins[i] and vocabulary.is_word[i]]
        assert texts == [vocabulary.texts[i] for i in whole[:4]]


def test_no_words_need_no_tokenizer():
    tokenizer = wordpiece()
    vectors = np.ones((len(tokenizer), 2), dtype=np.float32)
    assert PieceVectors(tokenizer, vectors, Vocabulary.of(tokenizer)).neighbours([], 3) == []
    assert WordVectors(["a"], np.ones((1, 2)), "t").neighbours([], 3) == []
