"""A table is looked at before it is read: its separators, its quotation marks, and what would be lost."""

import csv
import gzip
import io

import pytest

from hf_distill.storage import tables
from hf_distill.storage.files import DamagedFileError

ROWS = [("text", "label"), ('He said "no".', "1"), ("two\tcells", "0"), ("two\nlines", "1"), ("plain", "0")]


def written(rows, **options):
    stream = io.StringIO()
    csv.writer(stream, **options).writerows(rows)
    return stream.getvalue()


@pytest.mark.parametrize("text", ["null\nnull\n", "\n  null", "1\n", '"a"\n', "\ufeffnull\n"])
def test_json_lines_begin_with_a_mapping(tmp_path, text):
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(DamagedFileError, match="the first row is"):
        tables.check_rows_of_json(tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n')
    tables.check_rows_of_json(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("name", "suffix", "stem"),
    [
        ("a.csv", ".csv", "a"),
        ("My Reviews.CSV.GZ", ".csv", "My Reviews"),
        ("train-v1.1.json", ".json", "train-v1.1"),
        ("a.gz", "", "a"),
        ("plain", "", "plain"),
    ],
)
def test_a_compression_is_no_format(name, suffix, stem):
    assert (tables.suffix_of(f"/some/folder.csv/{name}"), tables.stem_of(name)) == (suffix, stem)


@pytest.mark.parametrize(
    ("header", "separator"),
    [
        ("text,label", ","),
        ("text;label", ";"),
        ("text\tlabel", "\t"),
        ('"text, as it is";label', ";"),
        ('"text; as it is",label', ","),
        ("text", ","),
    ],
)
def test_a_csv_file_is_separated_by_what_parts_its_header(tmp_path, header, separator):
    (tmp_path / "a.csv").write_text(f"\ufeff{header}\nx\n", encoding="utf-8")
    form = tables.form_of_table(tmp_path / "a.csv")
    assert (form.separator, form.quoted) == (separator, True)
    assert form.header[0] in ("text", "text, as it is", "text; as it is")


@pytest.mark.parametrize(
    ("line", "escape"),
    [
        ('"He said \\"no\\", twice",1', "\\"),
        ('"a path: C:\\",1', None),
        ('"one ""mark"" and C:\\",1', None),
        ("plain,1", None),
    ],
)
def test_marks_within_cells_are_doubled_or_have_a_backslash(tmp_path, line, escape):
    (tmp_path / "a.csv").write_text(f"text,label\n{line}\n", encoding="utf-8")
    form = tables.form_of_table(tmp_path / "a.csv")
    assert form.escape == escape
    assert len(form.row) == 2


class TestQuotes:
    """A tab-separated file has quoted cells if a writer of quoted cells can have written it."""

    @pytest.mark.parametrize(
        "options",
        [{}, {"lineterminator": "\n"}, {"quoting": csv.QUOTE_ALL}, {"quoting": csv.QUOTE_NONNUMERIC}],
        ids=["minimal", "line feeds", "all", "texts"],
    )
    def test_those_of_a_writer(self, tmp_path, options):
        content = written(ROWS, delimiter="\t", **options)
        (tmp_path / "a.tsv").write_text(content, encoding="utf-8", newline="")
        assert tables.form_of_table(tmp_path / "a.tsv").quoted
        # Spreadsheets quote cells with commas, and a last line may have no end.
        (tmp_path / "a.tsv").write_text(content + '"a, b"\t1', encoding="utf-8", newline="")
        assert tables.form_of_table(tmp_path / "a.tsv").quoted

    @pytest.mark.parametrize(
        "line",
        ['He said "no"\t1', '"opens only\t1', '"quoted" film\t1', 'closes only"\t1', '"one\t1\n"two\t0', '"one cell"'],
    )
    def test_characters_of_a_text(self, tmp_path, line):
        for more in ("", '"whole"\t0\n'):
            (tmp_path / "a.tsv").write_text(f"text\tlabel\n{more}{line}\n", encoding="utf-8")
            assert not tables.form_of_table(tmp_path / "a.tsv").quoted

    @pytest.mark.parametrize("length", range(40, 72, 3))
    def test_only_the_beginning_of_a_long_file_is_looked_at(self, tmp_path, monkeypatch, length):
        monkeypatch.setattr(tables, "_LOOKED_AT", length)
        (tmp_path / "a.tsv").write_text(written(ROWS, delimiter="\t"), encoding="utf-8", newline="")
        assert tables.form_of_table(tmp_path / "a.tsv").quoted
        (tmp_path / "a.tsv").write_text('text\t"label\n' + "x\t1\n" * 40, encoding="utf-8")
        assert not tables.form_of_table(tmp_path / "a.tsv").quoted


class TestCheck:
    def test_a_row_has_no_more_cells_than_there_are_columns(self, tmp_path):
        file = tmp_path / "a.csv"
        file.write_text('text,label\n"fine, very fine",1\n')
        tables.form_of_table(file).check()
        file.write_text("text,label\nfine, very fine,1\n")
        with pytest.raises(DamagedFileError, match="3 cells for 2 columns"):
            tables.form_of_table(file).check()
        (tmp_path / "a.csv.gz").write_bytes(gzip.compress(file.read_bytes()))
        with pytest.raises(DamagedFileError, match="3 cells for 2 columns"):
            tables.form_of_table(tmp_path / "a.csv.gz").check()
        (tmp_path / "a.tsv").write_text("a\tb\n")
        tables.form_of_table(tmp_path / "a.tsv").check(["one", "two"])
        with pytest.raises(DamagedFileError, match="2 cells for 1 columns"):
            tables.form_of_table(tmp_path / "a.tsv").check(["one"])

    def test_no_two_columns_have_one_name(self, tmp_path):
        (tmp_path / "a.csv").write_text(",,text,text\n1,2,a,b\n")
        with pytest.raises(DamagedFileError, match=r"a.csv' has several columns of the name 'text': rename them"):
            tables.form_of_table(tmp_path / "a.csv").check()

    def test_cells_may_be_long(self, tmp_path):
        before = csv.field_size_limit()
        (tmp_path / "a.csv").write_text(f"text,label\n{'long ' * 40_000},1\n")
        assert len(tables.form_of_table(tmp_path / "a.csv").row[0]) == 200_000
        assert csv.field_size_limit() == before
