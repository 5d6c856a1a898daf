"""The textbooks of a pipeline's student, one stage after the other, and the settings that make them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hf_distill.settings import (
    AugmentationArguments,
    CorpusArguments,
    GeneralCorpusArguments,
    PipelineArguments,
)
from hf_distill.settings.parsing import from_mapping

# The textbooks of the paper (Contextualized Corpus, Table 2): retrieved text, the task's rows with words replaced,
# general text as it is, and the task's own text.
SOURCES = ("cc", "taskda", "general", "task")


def chosen_sources(pipeline: PipelineArguments, corpus: CorpusArguments) -> list[str]:
    """The textbooks in the order of their stages.

    Raises:
        ValueError: If one is unknown, there twice, or what it is made of is missing.
    """
    if pipeline.textbook_source is None:
        if corpus.corpus is None and not pipeline.with_task_text:
            raise ValueError(
                "Name a general corpus (`--corpus` FILE, FOLDER or Hub id), or let the student learn on the task's "
                "own text (`--with_task_text`)."
            )
        return ["task" if corpus.corpus is None else "cc"]
    sources = pipeline.textbook_source.split("+")
    if not set(sources) <= set(SOURCES) or len(set(sources)) < len(sources):
        raise ValueError(
            f"`--textbook_source` is {pipeline.textbook_source!r}; it is one of {list(SOURCES)}, or several different "
            "ones in the order of their stages (cc+taskda)."
        )
    if corpus.corpus is None and {"cc", "general"} & set(sources):
        raise ValueError(f"`--textbook_source {pipeline.textbook_source}` needs a general corpus: `--corpus`.")
    if "taskda" in sources and "masked_lm" not in pipeline.settings("augment"):
        raise ValueError(
            f"`--textbook_source {pipeline.textbook_source}` needs a masked language model: "
            "`--augment '{\"masked_lm\": ...}'`."
        )
    return sources


def augmentation_settings(pipeline: PipelineArguments, folder: Path) -> AugmentationArguments:
    """Return the settings by which the task's rows are augmented.

    Raises:
        ValueError: If a setting is unknown.
    """
    common: dict[str, Any] = {"seed": pipeline.seed, "use_cpu": pipeline.use_cpu, "corpus_dir": str(folder)}
    made: AugmentationArguments = from_mapping(
        AugmentationArguments, {**common, **pipeline.settings("augment")}, "`--augment`"
    )
    return made


def general_settings(pipeline: PipelineArguments, corpus: CorpusArguments, folder: Path) -> GeneralCorpusArguments:
    """A draw from the general corpus, cut and filtered as the rows that the task's corpus would be searched in."""
    same = (
        *("corpus_split", "corpus_licence", "text_column", "source_column", "unit", "passage_words", "language"),
        *("max_chars", "min_words", "max_words", "num_proc"),
    )
    where = f"{corpus.corpus}:{corpus.corpus_config}" if corpus.corpus_config else str(corpus.corpus)
    return GeneralCorpusArguments(
        corpora=[where],
        rows=None if pipeline.max_textbook_rows is None else [pipeline.max_textbook_rows],
        seed=pipeline.seed,
        corpus_dir=str(folder),
        **{name: getattr(corpus, name) for name in same},
    )
