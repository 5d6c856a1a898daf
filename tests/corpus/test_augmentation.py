"""An augmented corpus: what comes out, and that nothing but rows, model and settings decides it."""

import json
import re
import shutil
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import pytest
from augmentation_cases import bert, wordpiece
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from hf_distill.corpus.augment import builder as augmentation
from hf_distill.corpus.augment.builder import build_augmented_corpus
from hf_distill.corpus.augment.candidates import CandidateFinder
from hf_distill.corpus.augment.sampler import Replacements, draw_row, random_of
from hf_distill.settings import AugmentationArguments

SINGLE = [
    "The dull film!",
    "a good story about unbreakable dogs",
    "of it",
    "a good story about unbreakable dogs",
    "cat",
]
SECOND = ["a fine film", "the night", "the dull film", "green birds", "of it"]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masked_lm")
    tokenizer = wordpiece()
    bert(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def args(model_folder, tmp_path):
    return AugmentationArguments(
        masked_lm=model_folder, num_samples=4, num_candidates=6, use_cpu=True, work_dir=str(tmp_path / "work")
    )


@pytest.fixture
def rows():
    features = Features({"s": Value("string"), "o": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    return Dataset.from_dict({"s": SINGLE, "o": SECOND, "label": [1, 0, 1, 0, 1]}, features=features)


def by_hand(args, rows, columns):
    """The same from the finder and the sampler alone, all texts at once."""
    finder = CandidateFinder(args)
    found = []
    for number, texts in enumerate(zip(*(rows[column] for column in columns), strict=True)):
        sources = []
        for text in texts:
            [split], _ = finder([text])
            sources.append(Replacements(text, split.words, split.candidates))
        drawn = draw_row(sources, args.num_samples, 0.4, random_of(args.seed, number), keep_last=args.tinybert_compat)
        found += [(*texts, rows["label"][number], number) for texts in drawn]
    return found


def tuples(dataset):
    return list(zip(*(dataset[column] for column in dataset.column_names), strict=True))


def test_rows_are_drawn_from_the_candidates_with_label_and_number_of_their_row(args, rows):
    result = build_augmented_corpus(rows, args, columns=["s"], label_column="label")
    assert result.dataset.column_names == ["text", "label", "row"]
    assert result.dataset.features["label"] == rows.features["label"]
    assert tuples(result.dataset) == by_hand(args, rows, ["s"])
    firsts = {row: text for text, _, row in reversed(tuples(result.dataset))}
    assert [firsts[row] for row in range(5)] == SINGLE


@pytest.mark.parametrize("compat", [False, True])
def test_pairs_have_two_texts(args, rows, compat):
    args = replace(args, tinybert_compat=compat)
    result = build_augmented_corpus(rows, args, columns=["s", "o"], label_column="label")
    assert result.dataset.column_names == ["text", "text_pair", "label", "row"]
    assert tuples(result.dataset) == by_hand(args, rows, ["s", "o"])


@pytest.mark.parametrize(
    "changed",
    [
        {"batch_tokens": 1},
        {"batch_tokens": 100_000, "shard_texts": 2},
        {"shard_texts": 1, "num_proc": 2},
    ],
    ids=str,
)
def test_batches_shards_and_processes_do_not_decide_it(args, rows, changed, tmp_path):
    expected = build_augmented_corpus(rows, args, columns=["s", "o"]).dataset
    other = replace(args, work_dir=str(tmp_path / "other"), **changed)
    assert tuples(build_augmented_corpus(rows, other, columns=["s", "o"]).dataset) == tuples(expected)


def test_a_process_that_dies_is_an_error_that_says_how_to_go_on(args, rows, monkeypatch):
    def die(*_):
        raise BrokenProcessPool

    monkeypatch.setattr(augmentation.ProcessPoolExecutor, "map", die)
    with pytest.raises(OSError, match=r"One of 2 processes .* has died.* `--num_proc`"):
        build_augmented_corpus(rows, args, columns=["s"], shard_texts=1, num_proc=2)
    assert build_augmented_corpus(rows, args, columns=["s"], shard_texts=1).statistics["source_rows"] == 5


def test_another_seed_draws_others_from_the_same_candidates(args, rows, tmp_path):
    one = build_augmented_corpus(rows, args, columns=["s"])
    two = build_augmented_corpus(rows, args, columns=["s"], seed=7, work_dir=tmp_path / "seven")
    assert tuples(one.dataset) != tuples(two.dataset)
    assert one.statistics["candidates"] == two.statistics["candidates"]


@pytest.mark.parametrize("killed_at", ["candidates-00000", "candidates-00002", "rows"])
def test_a_killed_build_continues_and_ends_in_the_same_corpus(args, rows, tmp_path, monkeypatch, killed_at):
    args = replace(args, shard_texts=2)
    expected = build_augmented_corpus(rows, args, columns=["s", "o"], work_dir=tmp_path / "whole").dataset
    done = []
    shard, draw = augmentation._Shard.__call__, augmentation._Build._draw

    def shard_or_die(self, folder):
        facts = shard(self, folder)
        done.append(folder.name)
        if folder.name == killed_at and len(done) == len(set(done)):
            raise KeyboardInterrupt
        return facts

    def die(self, folder):
        (folder / "rows.arrow").write_text("half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(augmentation._Shard, "__call__", shard_or_die)
    if killed_at == "rows":
        monkeypatch.setattr(augmentation._Build, "_draw", die)
    with pytest.raises(KeyboardInterrupt):
        build_augmented_corpus(rows, args, columns=["s", "o"])
    monkeypatch.setattr(augmentation._Build, "_draw", draw)
    assert tuples(build_augmented_corpus(rows, args, columns=["s", "o"]).dataset) == tuples(expected)
    assert [name for name in done if done.count(name) > 1] == ([killed_at] * 2 if killed_at != "rows" else [])


def test_a_damaged_shard_is_made_anew_of_its_own_texts(args, rows, tmp_path):
    args = replace(args, shard_texts=2)
    expected = build_augmented_corpus(rows, args, columns=["s", "o"]).dataset
    shutil.rmtree(tmp_path / "work" / "rows")
    (tmp_path / "work" / "candidates-00001" / "rows.arrow").unlink()
    assert tuples(build_augmented_corpus(rows, args, columns=["s", "o"]).dataset) == tuples(expected)


@pytest.mark.parametrize(
    "changed", [{"seed": 1}, {"num_samples": 5}, {"exclude_original": True}, {"language": "german"}], ids=str
)
def test_a_work_folder_of_another_corpus_is_refused(args, rows, changed):
    build_augmented_corpus(rows, args, columns=["s"])
    with pytest.raises(ValueError, match=f"other settings .*{next(iter(changed))}"):
        build_augmented_corpus(rows, args, columns=["s"], **changed)


def test_other_rows_or_labels_are_another_corpus(args, rows):
    build_augmented_corpus(rows, args, columns=["s"], label_column="label")
    with pytest.raises(ValueError, match=r"other settings \(rows: "):
        build_augmented_corpus(rows.select([1, 0, 2, 3, 4]), args, columns=["s"], label_column="label")


def test_statistics_count_what_happened(args, rows):
    statistics = build_augmented_corpus(rows, args, columns=["s"]).statistics
    assert statistics["source_rows"] == 5
    assert statistics["rows_per_source_row"] == round(statistics["rows"] / 5, 2)
    assert statistics["candidates"] | {"rechecked": 0} == {
        "texts": 4,
        "words": 4 + 6 + 2 + 1,
        "one_piece": 5,
        "several_pieces": 2,
        "beyond_limit": 0,
        "without_candidates": 0,
        "rechecked": 0,
    }
    assert statistics["masked_lm"]["embeddings"]["table"] == "input embeddings"
    json.dumps(statistics)


def test_words_of_several_pieces_take_the_neighbours_of_a_table(args, rows, tmp_path):
    (tmp_path / "table.txt").write_text("unbreakable 1 0\nsolid 0.9 0.1\ndogs 0 1\nwolves 0.1 0.9\n")
    args = replace(args, embeddings=str(tmp_path / "table.txt"), num_candidates=1)
    [found], counts = CandidateFinder(args)(["a story about unbreakable dogs sings"])
    assert found.candidates[3:5] == [["solid"], ["wolves"]]
    assert found.candidates[5] == ["sings"], "a word that no table has may only be replaced by itself"
    assert found.candidates[0] == found.candidates[2] == []
    assert counts["without_candidates"] == 1


def test_progress_of_a_finder_adds_up_to_all_texts(args):
    seen = []
    CandidateFinder(args)(list(dict.fromkeys([*SINGLE, *SECOND])), seen.append)
    assert sum(seen) == len({*SINGLE, *SECOND})


def test_a_model_in_memory_does_the_same_and_stays_in_its_process(args, rows, tmp_path):
    expected = build_augmented_corpus(rows, args, columns=["s"]).dataset
    tokenizer = wordpiece()
    given = {"masked_lm": bert(tokenizer), "tokenizer": tokenizer, "columns": ["s"], "work_dir": tmp_path / "memory"}
    assert tuples(build_augmented_corpus(rows, args, **given).dataset) == tuples(expected)
    with pytest.raises(ValueError, match="`--num_proc` is 2"):
        build_augmented_corpus(rows, args, num_proc=2, **given)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["nothing"], r"no columns \['nothing'\]"),
        (["s", "o", "s"], "single ones or pairs"),
        (["label"], "must hold a text"),
    ],
)
def test_rows_that_do_not_fit_are_refused(args, rows, columns, message):
    with pytest.raises(ValueError, match=message):
        build_augmented_corpus(rows, args, columns=columns)


@pytest.mark.parametrize("rows", [DatasetDict(train=Dataset.from_dict({"s": ["a"]})), [{"s": "a"}]])
def test_splits_and_lists_are_no_rows(args, rows):
    with pytest.raises(TypeError, match=rf"`rows` must be a `Dataset`, but it is a {type(rows).__name__}"):
        build_augmented_corpus(rows, args, columns=["s"])


@pytest.mark.parametrize("kind", ["torch", "numpy", "pandas"])
def test_the_format_of_the_rows_does_not_decide_it(args, tmp_path, kind):
    rows = Dataset.from_dict({"s": SINGLE[:2], "label": [0.1, None]})
    expected = build_augmented_corpus(rows, args, columns=["s"], label_column="label").dataset
    given = {"columns": "s", "label_column": "label", "work_dir": tmp_path / kind}
    result = build_augmented_corpus(rows.with_format(kind), args, **given).dataset
    assert tuples(result) == tuples(expected)
    assert set(result["label"]) == {0.1, None}


def test_no_rows_are_refused(args, rows):
    with pytest.raises(ValueError, match="no row to augment"):
        build_augmented_corpus(rows.select([]), args, columns=["s"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_samples": 0}, "`--num_samples` is 0"),
        ({"replace_probability": 0.0}, "`--replace_probability` is 0.0"),
        ({"tinybert_compat": True, "exclude_original": True}, "`--tinybert_compat`"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        AugmentationArguments(**fields)


def test_no_model_is_an_error_that_names_the_flag(rows, tmp_path):
    with pytest.raises(ValueError, match="`--masked_lm` is missing"):
        build_augmented_corpus(rows, columns=["s"], work_dir=tmp_path)


def test_chinese_characters_are_replaced_one_by_one_without_blanks(args, model_folder):
    text = "我爱北京，天安门！"
    rows = Dataset.from_dict({"text": [text]})
    found = build_augmented_corpus(rows, args, language="chinese", num_samples=30).dataset["text"][:]
    assert len(found) > 5
    assert all(drawn.startswith("我") and "，" in drawn and drawn.endswith("！") for drawn in found)
    assert not any(re.search("[^a-z] | [^a-z]", drawn) for drawn in found)


def test_more_candidates_than_pieces_are_refused(args, rows):
    with pytest.raises(ValueError, match="`--num_candidates` is 1000"):
        build_augmented_corpus(rows, args, columns=["s"], num_candidates=1000)
