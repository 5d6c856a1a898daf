"""A general corpus in whatever form a user has it."""

import csv
import gc
import gzip
import io
import json

import pandas as pd
import pytest
from builder_cases import GENERAL, build, rows_of
from datasets import Dataset, DatasetDict, IterableDataset

from hf_distill.corpus.build import loading
from hf_distill.corpus.build.loading import corpus_label, load_general_corpus

TEXTS = ["red fox", "blue dog", "caf\u00e9"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def write(folder, name):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = Dataset.from_dict({"text": TEXTS})
    lines = {
        "jsonl": "".join(json.dumps({"text": text}) + "\n" for text in TEXTS),
        "txt": "\n".join(TEXTS) + "\n",
        "csv": "text\n" + "\n".join(TEXTS) + "\n",
        "tsv": "id\ttext\n" + "".join(f"{row}\t{text}\n" for row, text in enumerate(TEXTS)),
    }
    kind = name.removesuffix(".gz").rsplit(".", 1)[-1]
    if kind == "parquet":
        rows.to_parquet(str(path))
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines[kind].encode()))
    else:
        path.write_text(lines[kind], encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["c.parquet", "c.jsonl", "c.txt", "c.csv", "c.tsv", "c.jsonl.gz", "c.txt.gz"])
def test_a_file(tmp_path, name):
    assert load_general_corpus(write(tmp_path, name))["text"][:] == TEXTS


@pytest.mark.parametrize("name", ["c.parquet", "c.jsonl", "c.txt", "c.csv", "c.tsv", "c.jsonl.gz", "c.txt.gz"])
# pandas closes a csv file when it is collected, if it is not read to its end.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_first_rows_of_a_file_are_streamed(tmp_path, name):
    file = write(tmp_path, name)
    assert load_general_corpus(file, max_rows=2)["text"][:] == TEXTS[:2]
    assert load_general_corpus(file, max_rows=9)["text"][:] == TEXTS
    assert load_general_corpus(file, max_rows=2).column_names == load_general_corpus(file).column_names
    gc.collect()


def test_first_rows_are_read_again_only_if_the_file_has_changed(tmp_path):
    file = write(tmp_path, "c.jsonl")
    load_general_corpus(file, max_rows=2)
    (cached,) = (tmp_path / "cache").rglob("*/*.arrow")
    before = cached.stat().st_mtime_ns
    assert load_general_corpus(file, max_rows=2)["text"][:] == TEXTS[:2]
    assert cached.stat().st_mtime_ns == before
    file.write_text('{"text": "new"}\n{"text": "rows"}\n{"text": "here"}\n')
    assert load_general_corpus(file, max_rows=2)["text"][:] == ["new", "rows"]


def test_nothing_beyond_the_first_rows_is_read(tmp_path):
    # Broken far behind the first rows, in another batch of the reader.
    lines = [json.dumps({"text": "red fox " * 100}) for _ in range(20_000)]
    (tmp_path / "c.jsonl").write_text("\n".join([*lines, "{broken"]))
    assert len(load_general_corpus(tmp_path / "c.jsonl", max_rows=100)) == 100


@pytest.mark.parametrize("name", ["c.jsonl", "c.txt", "c.csv", "c.tsv"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_byte_order_mark_is_no_text_and_brackets_in_a_name_are_no_pattern(tmp_path, name):
    file = write(tmp_path, name)
    file = file.rename(tmp_path / f"my [final] {name}")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load_general_corpus(file)["text"][:] == TEXTS
    assert load_general_corpus(file, max_rows=2)["text"][:] == TEXTS[:2]
    assert load_general_corpus(file).column_names[-1] == "text"
    gc.collect()


def test_a_byte_order_mark_of_a_compressed_file_is_no_text(tmp_path):
    for name in ("a.txt.gz", "b.txt.gz"):
        (tmp_path / name).write_bytes(gzip.compress(b"\xef\xbb\xbf" + "\n".join(TEXTS).encode()))
    assert load_general_corpus(tmp_path)["text"][:] == TEXTS * 2
    assert load_general_corpus(tmp_path / "a.txt.gz", max_rows=2)["text"][:] == TEXTS[:2]


def test_a_table_with_quoted_cells_of_any_kind_is_read(tmp_path):
    texts = ['He said "no"', "two\tcells", "two\nlines"]
    with (tmp_path / "c.tsv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, delimiter="\t").writerows([("text",), *((text,) for text in texts)])
    assert load_general_corpus(tmp_path / "c.tsv")["text"][:] == texts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.jsonl", b'{"text": "caf\xe9"}\n', "in Latin-1 or Windows-1252: save it as UTF-8"),
        ("c.csv", b"text\ncaf\xe9\n", "in Latin-1 or Windows-1252: save it as UTF-8"),
        ("c.txt", "red fox\n".encode("utf-16"), "in UTF-16: save it as UTF-8"),
        ("c.csv", b"text,text\na,b\n", "several columns of the name 'text'"),
        ("c.csv", b"text\n", "hold no rows"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_general_corpus(tmp_path / name)


def test_pandas_writes_parquet_files_without_rows(tmp_path):
    pd.DataFrame({"text": pd.Series([], dtype=str)}).to_parquet(tmp_path / "c.parquet")
    with pytest.raises(ValueError, match="hold no rows"):
        load_general_corpus(tmp_path / "c.parquet")


def test_the_first_rows_of_a_folder(tmp_path):
    write(tmp_path / "data", "a.parquet")
    write(tmp_path / "data", "b.parquet")
    assert load_general_corpus(tmp_path / "data", max_rows=4)["text"][:] == [*TEXTS, TEXTS[0]]
    Dataset.from_dict({"text": TEXTS}).save_to_disk(str(tmp_path / "saved"))
    assert load_general_corpus(tmp_path / "saved", max_rows=2)["text"][:] == TEXTS[:2]


CELLS = ["plain", "NA", "None", "nan", "#N/A", "007", '"opens only', 'two "marks" inside', "comma, inside", "a; b"]


@pytest.mark.parametrize("name", ["c.csv", "semicolons.csv", "c.tsv", "c.csv.gz", "semicolons.csv.gz", "C.TSV.gz"])
def test_cells_of_tables_are_read_as_they_are_written(name, tmp_path):
    lines = io.StringIO()
    if "tsv" in name.lower():
        lines.write("text\tsource\n" + "".join(f"{text}\tNA\n" for text in CELLS))
    else:
        table = csv.writer(lines, delimiter=";" if name.startswith("semicolons") else ",")
        table.writerows([("text", "source"), *((text, "NA") for text in CELLS)])
    content = lines.getvalue().encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    rows = load_general_corpus(tmp_path / name)
    assert (rows["text"][:], set(rows["source"])) == (CELLS, {"NA"})


def test_numbers_in_tables_stay_what_they_are_in_the_file(tmp_path):
    (tmp_path / "c.csv").write_text(",text,source\n0,001,007\n1,1e3,\n2,,1.50\n")
    rows = load_general_corpus(tmp_path / "c.csv")
    assert rows["text"][:] == ["001", "1e3", None]
    assert rows["source"][:] == ["007", None, "1.50"]


def test_tables_with_other_marks_between_cells_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("text,source\nred fox,a\n")
    (tmp_path / "b.csv").write_text("text;source\nred fox;a\n")
    with pytest.raises(ValueError, match=r"mixes tables whose separators are ',' and ';' \('a.csv', ...\)"):
        load_general_corpus(tmp_path)


def test_a_folder_of_files(tmp_path):
    write(tmp_path / "data", "a.parquet")
    write(tmp_path / "data", "b.parquet")
    (tmp_path / "data" / "README.md").write_text("about")
    assert load_general_corpus(tmp_path / "data")["text"][:] == TEXTS * 2


def test_a_folder_with_splits_gives_the_one_asked_for(tmp_path):
    write(tmp_path / "data", "train-00000-of-00001.parquet")
    write(tmp_path / "data", "test-00000-of-00001.jsonl")
    assert len(load_general_corpus(tmp_path / "data")) == 3
    assert len(load_general_corpus(tmp_path / "data", split="test")) == 3


def test_files_beside_those_of_a_split_are_not_left_out_in_silence(tmp_path, warnings_of):
    said = warnings_of(loading)
    for name in ("train-0.txt", "books.txt", ".ipynb_checkpoints/books-checkpoint.txt"):
        write(tmp_path / "data", name)
    assert load_general_corpus(tmp_path / "data")["text"][:] == TEXTS
    assert len(said) == 1
    assert "is, by the names of the files, train-0.txt; left out: books.txt." in said[0]


@pytest.mark.parametrize(
    ("names", "split", "rows"),
    [
        (["training_manuals.txt", "testimonies.txt"], "train", 6),
        (["training.txt", "dev.txt"], "train", 3),
        (["train/test_0.txt", "dev/a.txt", "dev/b.txt"], "validation", 6),
        (["books.txt", "news.txt"], "validation", 6),
        (["en-0.txt", "en-1.txt", "entry.txt"], "en", 6),
    ],
)
def test_the_split_of_a_file_is_a_word_of_its_name_or_folder(tmp_path, names, split, rows):
    for name in names:
        write(tmp_path / "data", name)
    assert len(load_general_corpus(tmp_path / "data", split=split)) == rows


@pytest.mark.parametrize("names", [["train-0.txt", "dev-0.txt"], ["train-0.txt", "dev-0.txt", "books.txt"]])
def test_a_split_that_no_file_has_is_an_error(tmp_path, names):
    for name in names:
        write(tmp_path / "data", name)
    with pytest.raises(ValueError, match=r"no files of the split 'test' \(--corpus_split\); it has .*'validation'\]"):
        load_general_corpus(tmp_path / "data", split="test")


def test_of_a_corpus_that_was_built_here_only_its_rows_are_read(tmp_path, warnings_of):
    said = warnings_of(loading)
    write(tmp_path, "data/part.parquet")
    write(tmp_path, "dropped.parquet")
    (tmp_path / "statistics.json").write_text("{}")
    assert load_general_corpus(tmp_path)["text"][:] == TEXTS
    assert said == []


def test_a_folder_written_by_save_to_disk(tmp_path):
    rows = Dataset.from_dict({"text": TEXTS})
    rows.save_to_disk(str(tmp_path / "one"))
    DatasetDict(train=rows, more=rows.select([0])).save_to_disk(str(tmp_path / "two"))
    assert load_general_corpus(tmp_path / "one")["text"][:] == TEXTS
    assert len(load_general_corpus(tmp_path / "two", split="more")) == 1
    with pytest.raises(ValueError, match=r"no split 'test' \(--corpus_split\); it has \['more', 'train'\]"):
        load_general_corpus(tmp_path / "two", split="test")


def test_files_of_several_kinds_are_an_error(tmp_path):
    write(tmp_path / "data", "a.parquet")
    write(tmp_path / "data", "b.txt")
    with pytest.raises(ValueError, match=r"mixes files of the kinds \['parquet', 'text'\]"):
        load_general_corpus(tmp_path / "data")


def test_a_file_of_no_known_kind_is_an_error(tmp_path):
    (tmp_path / "c.pdf").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"'c.pdf' \(--corpus\) is of an unknown kind; known are .parquet"):
        load_general_corpus(tmp_path / "c.pdf")
    with pytest.raises(ValueError, match="holds no file of a known kind"):
        load_general_corpus(tmp_path)


def test_neither_local_nor_on_the_hub(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`--corpus` .*nowhere' is neither a file nor a folder"):
        load_general_corpus(str(tmp_path / "nowhere"))


def test_a_label_names_no_folder_of_this_machine(tmp_path):
    assert corpus_label(tmp_path / "general.parquet") == "general.parquet"
    assert corpus_label("some-owner/some-corpus") == "some-owner/some-corpus"


def test_of_a_compressed_file_the_encoding_is_the_fault_and_not_the_compression(tmp_path):
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress("caf\u00e9\n".encode("latin-1")))
    with pytest.raises(ValueError, match="It seems to be in Latin-1 or Windows-1252: save it as UTF-8"):
        load_general_corpus(tmp_path / "c.txt.gz")


# --- streams --------------------------------------------------------------------------------------------------------


def test_a_stream_gives_the_corpus_of_the_same_rows(tmp_path):
    whole = build(tmp_path / "rows")
    streamed = build(tmp_path / "stream", corpus=GENERAL.to_iterable_dataset(num_shards=3))
    assert rows_of(streamed) == rows_of(whole)
    again = build(tmp_path / "stream", corpus=GENERAL.to_iterable_dataset(num_shards=3))
    assert rows_of(again) == rows_of(whole)


def test_numbers_that_are_none_do_not_make_it_another_stream(tmp_path):
    rows = GENERAL.add_column("weight", [float("nan")] * len(GENERAL))
    first, again = (build(tmp_path, corpus=rows.to_iterable_dataset()) for _ in range(2))
    assert rows_of(first) == rows_of(again)


def test_no_more_of_a_stream_is_read_than_asked_for(tmp_path):
    def endless():
        yield from GENERAL.to_list()
        raise AssertionError("read on")

    few = build(tmp_path / "stream", corpus=IterableDataset.from_generator(endless), max_corpus_rows=90)
    assert rows_of(few) == rows_of(build(tmp_path / "rows", max_corpus_rows=90))


@pytest.mark.parametrize("early", [1, 3])
def test_a_stream_may_begin_with_rows_that_lack_something(tmp_path, monkeypatch, early):
    monkeypatch.setattr(loading, "_BATCH", 2)

    def rows():
        yield from [{"text": None, "source": None}] * early
        yield from ({"text": "fox dog", "source": "s"}, {"text": "dog"}, {"text": None, "source": "t"})

    found = rows_of(build(tmp_path, ["fox dog"], IterableDataset.from_generator(rows), corpus_name="mine", top_k=2))
    assert [(row["text"], row["source"]) for row in found] == [("fox dog", "s"), ("dog", "mine")]


@pytest.mark.parametrize(
    ("late", "batch", "message"),
    [
        ({"text": "dog", "label": 1}, 1, r"columns \['label'\], which the first ones lack: \['text'\]"),
        ({"text": ["dog"]}, 1, "do not have the types of the first ones"),
        ({"text": ["dog"]}, 2, "a column has values of several types"),
    ],
)
def test_rows_of_a_stream_that_do_not_fit_the_first_are_an_error(tmp_path, monkeypatch, late, batch, message):
    monkeypatch.setattr(loading, "_BATCH", batch)
    stream = IterableDataset.from_generator(lambda: iter([{"text": "fox"}, late]))
    with pytest.raises(ValueError, match=message):
        build(tmp_path, ["fox"], stream)


def test_a_stream_needs_a_folder_which_keeps_no_other(tmp_path):
    stream = GENERAL.to_iterable_dataset()
    with pytest.raises(ValueError, match="A streaming corpus needs `work_dir`"):
        build(None, corpus=stream)
    build(tmp_path, corpus=stream)
    with pytest.raises(ValueError, match="holds the rows of another stream"):
        build(tmp_path, corpus=GENERAL.select(range(5, 200)).to_iterable_dataset())
    with pytest.raises(ValueError, match="The streaming corpus has no row"):
        build(tmp_path / "empty", corpus=IterableDataset.from_generator(lambda: iter(())))
