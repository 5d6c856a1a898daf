"""The task, the general corpus and the arguments that tests of the corpus job share."""

from datasets import Dataset

from hf_distill.settings import CorpusArguments, TaskArguments


def write_sources(folder, task, general):
    """A task in GLUE's form (`task`: split -> texts) and a general corpus, a line each."""
    (folder / "sst2").mkdir()
    for split, texts in task.items():
        rows = {"sentence": texts, "label": [row % 2 for row in range(len(texts))], "idx": range(len(texts))}
        Dataset.from_dict(rows).to_parquet(str(folder / "sst2" / f"{split}.parquet"))
    (folder / "general.txt").write_text("\n".join(general) + "\n")


def arguments(data, **fields):
    """What builds the corpus of `write_sources`' files."""
    task = TaskArguments("glue/sst2", data_dir=str(data / "sst2"))
    settings = {"corpus": str(data / "general.txt"), "corpus_dir": str(data / "out"), "engine": "bm25s", "top_k": 3}
    return task, CorpusArguments(**{**settings, **fields})
