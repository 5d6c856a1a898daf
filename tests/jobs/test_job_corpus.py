"""The corpus job: from a task and a general corpus to a folder that others can load."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml
from corpus_job_cases import arguments
from datasets import Dataset, load_dataset

from hf_distill.cli import main
from hf_distill.commands.corpus import PAPER_TOP_K, run as build_corpus
from hf_distill.corpus.build.loading import load_general_corpus
from hf_distill.tasks.loading import load_task

TASK = {"train": ["a fine film", "a dull film", "a fine film"], "validation": ["the plot is thin"]}
GENERAL = ["The film was fine.", "The plot is thin!", "A dull plot of a film.", "Rivers run.", "Plot and film."]


def test_the_job_writes_a_corpus_with_card_statistics_and_arguments(data):
    results = build_corpus(*arguments(data))
    folder = data / "out"
    loaded = load_dataset(str(folder), split="train")
    assert loaded["text"][:] == load_general_corpus(folder)["text"][:]
    assert set(loaded["text"]) == {"The film was fine.", "A dull plot of a film.", "Plot and film."}
    assert set(loaded["source"]) == {"general.txt"}
    assert results["rows"] == len(loaded) == 3
    assert json.loads((folder / "statistics.json").read_text()) == results["statistics"]
    assert yaml.safe_load((folder / "arguments.yaml").read_text())["top_k"] == 3
    json.dumps(results)


def test_the_card_names_no_folder_of_this_machine(data):
    build_corpus(*arguments(data, corpus_licence="cc0-1.0", work_dir=str(data / "work")))
    card = (data / "out" / "README.md").read_text()
    assert str(data) not in card
    assert (
        "hf-distill corpus --task glue/sst2 --corpus general.txt --corpus_licence cc0-1.0 --engine bm25s --top_k 3"
        in card
    )


def test_evaluation_texts_of_the_task_are_kept_out(data):
    task, corpus = arguments(data, top_k=5, query="text")
    Dataset.from_dict({"sentence": ["plot"], "label": [0], "idx": [0]}).to_parquet(
        str(data / "sst2" / "train.parquet")
    )
    results = build_corpus(task, corpus)
    assert results["statistics"]["evaluation_texts"] == 1
    assert results["statistics"]["dropped"]["equals_evaluation_text"] == 1


def test_candidates_belong_to_folders_of_documents_and_queries(data):
    with pytest.raises(
        ValueError, match=r"`--num_candidates` is 8, but `--task` 'glue/sst2' is not a folder of documents.*`--top_k`"
    ):
        build_corpus(*arguments(data, num_candidates=8))


def test_choices_are_evaluation_texts_too(data, tmp_path):
    row = {"text": "a film", "a": "It was fine.", "b": "the plot is thin", "label": 0}
    others = {"a": "A dull one.", "b": "Rivers are wide."}
    for split, lines in {"train": [row | others], "validation": [row]}.items():
        Dataset.from_list(lines).to_parquet(str(tmp_path / "choices" / f"{split}.parquet"))
    task = load_task(
        str(tmp_path / "choices"), text_columns=["text"], kind="multiple_choice", choice_columns=["a", "b"]
    )
    task_arguments, corpus = arguments(data, top_k=3, query="text")
    Dataset.from_dict({"text": ["It was fine!", "a dull film", "rivers"]}).to_parquet(str(data / "c.parquet"))
    results = build_corpus(task_arguments, replace(corpus, corpus=str(data / "c.parquet")), loaded=task)
    assert results["statistics"]["evaluation_texts"] == 3
    assert load_general_corpus(data / "out")["text"][:] == ["a dull film"]


def test_rows_that_were_left_out_are_written_when_asked_and_are_no_part_of_the_corpus(data):
    results = build_corpus(*arguments(data, write_dropped=True, max_words=4))
    dropped = Dataset.from_parquet(str(data / "out" / "dropped.parquet"), cache_dir=str(data / "cache"))
    assert dict(zip(dropped["text"], dropped["reason"], strict=True)) == {"A dull plot of a film.": "too_many_words"}
    assert len(load_general_corpus(data / "out")) == len(load_dataset(str(data / "out"), split="train"))
    assert len(load_general_corpus(data / "out")) == results["rows"] == 2
    build_corpus(*arguments(data, max_words=4))
    assert not (data / "out" / "dropped.parquet").exists()


def test_the_card_says_that_shared_ngrams_were_looked_for(data):
    build_corpus(*arguments(data))
    assert "words in a row" not in (data / "out" / "README.md").read_text()
    build_corpus(*arguments(data, decontaminate_ngram=13, corpus_dir=str(data / "other")))
    assert "Rows that share 13 words in a row with one were left out" in (data / "other" / "README.md").read_text()


def test_the_card_says_that_rows_are_sentences_of_documents(data):
    pytest.importorskip("sentencex")
    (data / "general.txt").write_text(" ".join(GENERAL) + "\n")
    results = build_corpus(*arguments(data, unit="sentence"))
    assert results["rows"] == 3
    assert "| documents whose sentences they are | 1 |" in (data / "out" / "README.md").read_text()


def test_top_k_is_the_paper_s_for_the_task_unless_given(data):
    with pytest.warns(UserWarning, match="`--top_k` is 150, but the general corpus has only 5"):
        results = build_corpus(*arguments(data, top_k=None))
    assert results["statistics"]["top_k"] == {"asked": 150, "used": 5}
    assert PAPER_TOP_K["glue/rte"] == 1000


def test_rows_that_are_loaded_already_are_used(data):
    task, corpus = arguments(data)
    loaded = load_task(task.task, task.data_dir)
    assert build_corpus(task, corpus, loaded=loaded)["rows"] == 3


def test_anchors_are_those_of_the_training_rows_asked_for(data):
    task, corpus = arguments(data)
    task.max_train_samples = 1
    assert build_corpus(task, corpus)["statistics"]["anchors"]["texts"] == 1


def test_a_second_run_with_other_settings_needs_another_work_folder(data):
    build_corpus(*arguments(data))
    with pytest.raises(ValueError, match="top_k: 3 there, 2 now"):
        build_corpus(*arguments(data, top_k=2))
    assert build_corpus(*arguments(data, top_k=2, work_dir=str(data / "other")))["rows"] == 3


def test_files_that_no_build_wrote_are_never_removed(data):
    (data / "out" / "data").mkdir(parents=True)
    (data / "out" / "data" / "mine.parquet").write_text("precious")
    with pytest.raises(FileExistsError, match=r"`--corpus_dir`.*mine\.parquet.*another folder"):
        build_corpus(*arguments(data))
    assert (data / "out" / "data" / "mine.parquet").read_text() == "precious"


def test_a_folder_with_a_model_is_refused_before_anything_is_read(data):
    (data / "out").mkdir()
    (data / "out" / "model.safetensors").write_text("precious")
    with pytest.raises(FileExistsError, match=r"`--corpus_dir` is .*out', which holds a model \(model.safetensors\)"):
        build_corpus(*arguments(data, corpus="nowhere"))
    assert [path.name for path in (data / "out").iterdir()] == ["model.safetensors"]


def test_no_general_corpus_is_an_error_that_names_the_flag(data):
    with pytest.raises(ValueError, match="`--corpus`"):
        build_corpus(*arguments(data, corpus=None))


@pytest.mark.parametrize("as_yaml", [False, True])
def test_the_verb_takes_flags_or_a_file(data, capsys, as_yaml):
    values = {
        "task": "glue/sst2",
        "data_dir": str(data / "sst2"),
        "corpus": str(data / "general.txt"),
        "corpus_dir": str(data / "out"),
        "engine": "bm25s",
        "top_k": 2,
    }
    words = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    if as_yaml:
        (data / "corpus.yaml").write_text(yaml.safe_dump(values))
        words = [str(data / "corpus.yaml"), "--top_k", "3"]
    assert main(["corpus", *words]) == 0
    statistics = json.loads((data / "out" / "statistics.json").read_text())
    assert statistics["top_k"]["used"] == (3 if as_yaml else 2)
    assert statistics["general_corpus"]["rows"] == 5
    assert "BM25 engine: bm25s (asked for)" in capsys.readouterr().out


def test_a_corpus_is_built_without_torch_and_transformers(data):
    words = ["corpus", "--task", "glue/sst2", "--data_dir", str(data / "sst2"), "--corpus", str(data / "general.txt")]
    words += ["--engine", "bm25s", "--corpus_dir", str(data / "out")]
    code = f"import sys; from hf_distill.cli import main; print(main({words}), {{'torch', 'transformers'}}"
    code += " & set(sys.modules))"
    environment = os.environ | {"HF_DATASETS_CACHE": str(data / "cache")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "0 set()"
    assert list((data / "out" / "data").glob("*.parquet"))
