"""The arguments that tests of the corpus job share."""

from hf_distill.settings import CorpusArguments, TaskArguments


def arguments(data, **fields):
    """What builds the corpus of the fixture `data`."""
    task = TaskArguments("glue/sst2", data_dir=str(data / "sst2"))
    settings = {"corpus": str(data / "general.txt"), "corpus_dir": str(data / "out"), "engine": "bm25s", "top_k": 3}
    return task, CorpusArguments(**{**settings, **fields})
