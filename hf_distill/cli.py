"""`hf-distill`: one verb per job. Heavy packages are loaded by the verb that needs them, so that help is quick.

A verb is a module of `hf_distill.commands` with `run`, which does the job, and `summary`, which says what came of it;
its settings are in the module of the same name in `hf_distill.settings`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hf_distill import __version__
from hf_distill.commands.ending import run_command


@dataclass(frozen=True)
class Verb:
    """What the program knows of a verb without loading it.

    Attributes:
        about: What it does, in one line.
        arguments: Its argument classes. `--help` reads their source, the verb itself imports them.
        words: The arguments that words before every flag stand for; the last one takes all that remain.
        presets: Whether `--preset` stands under its settings.
        told: Whether its job is told its command line, which results and cards repeat.
    """

    about: str
    arguments: tuple[str, ...]
    words: tuple[str, ...] = ()
    presets: bool = False
    told: bool = False


VERBS = {
    "teach": Verb("Fine-tune a teacher on a task.", ("TaskArguments", "TeacherArguments", "FineTuningArguments")),
    "mtl": Verb(
        "Fine-tune one encoder on many tasks at once.", ("TasksArguments", "TeacherArguments", "MTLArguments")
    ),
    "corpus": Verb(
        "Build the contextualized corpus of a task.", ("TaskArguments", "CorpusArguments", "ShardArguments")
    ),
    "general": Verb(
        "Mix general corpora into one, in chosen shares and without repeats.", ("GeneralCorpusArguments",)
    ),
    "augment": Verb(
        "Augment a task's training rows by replacing words (TaskDA).", ("TaskArguments", "AugmentationArguments")
    ),
    "compare": Verb(
        "Compare corpora with a task's text: size, diversity, words in common, with tables and figures.",
        ("TaskArguments", "ComparisonArguments"),
        told=True,
    ),
    "mlm": Verb(
        "Fit a masked-LM head on an encoder that has none, for augment.",
        ("MLMHeadArguments", "TextbookArguments", "MaskedHeadArguments"),
    ),
    "precompute": Verb(
        "Store a teacher's signals, so that students are distilled without it.",
        ("TeacherArguments", "TextbookArguments", "PrecomputeArguments"),
    ),
    "vocabulary": Verb(
        "Trim a model's vocabulary to what texts need: vocabulary MODEL --textbook TEXT.",
        ("VocabularyArguments",),
        words=("model",),
    ),
    "distill": Verb(
        "Distil a teacher into a student on a textbook.",
        ("StudentArguments", "TeacherArguments", "TextbookArguments", "MultiTeacherArguments", "RunArguments"),
        presets=True,
    ),
    "adapt": Verb(
        "Fine-tune a student on a task's labels and score it, beside its teacher and a baseline.",
        ("TaskArguments", "AdaptationArguments", "FineTuningArguments", "TeacherArguments"),
    ),
    "evaluate": Verb(
        "Score a model on a task as it is: evaluate MODEL --task TASK.",
        ("TaskArguments", "EvaluationArguments"),
        words=("model",),
    ),
    "generate": Verb(
        "Fine-tune an encoder to write texts (questions, summaries), let it write, score what it wrote.",
        ("GenerationTaskArguments", "GenerationArguments", "GenerationTrainingArguments"),
    ),
    "grid": Verb(
        "Fine-tune many models on many tasks, with shares of the rows and seeds, and print the tables.",
        ("GridArguments",),
    ),
    "pipeline": Verb(
        "Run the whole job: teach, corpus, distill, adapt, card.",
        ("TaskArguments", "TeacherArguments", "StudentArguments", "CorpusArguments", "PipelineArguments"),
        told=True,
    ),
    "export": Verb(
        "Export a model to ONNX, in fp32 and int8, checked against it; with a task, scored beside it.",
        ("ScoredTaskArguments", "ExportArguments"),
    ),
    "bench": Verb(
        "Time students against their teacher on PyTorch, compiled and ONNX Runtime: speed, size and quality.",
        ("BenchmarkArguments",),
        told=True,
    ),
    "report": Verb(
        "Make one page with the curves, scores and settings of runs: report RUN... [--output report.html|report.md].",
        ("ReportArguments",),
        words=("runs",),
    ),
    "attention": Verb("Draw the attention of teacher and students on a sentence.", ("AttentionArguments",)),
    "push": Verb(
        "Push a student or a corpus to the Hub: push FOLDER REPO [--dry_run] [--private] [--revision BRANCH].",
        ("PushArguments",),
        words=("folder", "repo"),
    ),
    "convert": Verb(
        "Turn another library's configuration into one for distill: convert textbrewer CONFIG.json [--output FILE].",
        ("ConversionArguments",),
        words=("library", "config"),
    ),
    "info": Verb(
        "Show versions, device and what there is; with a topic, more about it (objectives, presets, tasks, ...).",
        ("InfoArguments",),
        words=("topic",),
    ),
}


def run_verb(name: str, argv: Sequence[str]) -> str:
    """Do the job of a verb.

    Args:
        name: The verb.
        argv: The words behind it.

    Returns:
        What came of it, for a reader.

    Raises:
        ValueError: If a flag or value is wrong, or what the verb itself raises.
    """
    from hf_distill.hub.disclosure import public_command

    arguments = _parse(name, argv)
    module = importlib.import_module(f"hf_distill.commands.{name}")
    told = {"command": public_command(["hf-distill", name, *argv])} if VERBS[name].told else {}
    return str(module.summary(module.run(*arguments, **told)))


def _parse(name: str, argv: Sequence[str]) -> tuple[Any, ...]:
    """The arguments of a verb, one instance per class."""
    from hf_distill import settings
    from hf_distill.settings.parsing import UnknownArgumentsError, name_leading_words, parse

    verb = VERBS[name]
    classes = tuple(getattr(settings, cls) for cls in verb.arguments)
    words = name_leading_words(argv, verb.words)
    try:
        return parse(classes, words, verb.about, prog=f"hf-distill {name}", presets=verb.presets)
    except UnknownArgumentsError as error:
        if name != "evaluate":
            raise
        raise ValueError(f"{error} `hf-distill evaluate` trains nothing: `hf-distill adapt` does.") from error


def _help(name: str) -> str:
    """The page of a verb with the flags of this package, in milliseconds."""
    from hf_distill.settings.help import help_page
    from hf_distill.settings.presets import list_presets

    verb = VERBS[name]
    presets = list_presets() if verb.presets else ()
    return help_page(f"hf-distill {name}", verb.about, verb.arguments, preset_names=presets)


def usage() -> str:
    """The page that `hf-distill` alone prints."""
    lines = [f"  {name:<12}{verb.about}" for name, verb in VERBS.items()]
    more = "hf-distill VERB --help shows the flags of this package, --help_all those of transformers too."
    return "usage: hf-distill VERB [CONFIG.yaml] [--flag value ...]\n\n" + "\n".join([*lines, "", more])


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status of `run_command`, which ends every error with one line."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        return run_command("hf-distill", lambda: _say(usage()))
    if words[0] == "--version":
        return run_command("hf-distill", lambda: _say(f"hf-distill {__version__}"))
    name, *words = words
    if name not in VERBS:
        sys.stderr.write(f"hf-distill: unknown verb {name!r}\n{usage()}\n")
        return 2
    if {"-h", "--help"} & set(words):
        return run_command(f"hf-distill {name}", lambda: _say(_help(name)))
    # Past this point a page of help is that of all flags.
    given = ["--help" if word == "--help_all" else word for word in words]
    return run_command(f"hf-distill {name}", lambda: _say(run_verb(name, given)))


if __name__ == "__main__":
    sys.exit(main())
