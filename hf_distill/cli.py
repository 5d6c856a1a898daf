"""`hf-distill`: one verb for each job. Heavy packages are imported by the verb that needs them, so help is fast.

A verb is a module of `hf_distill.commands` with `run`, which does the job, and `summary`, which describes the result;
its settings are in the module of the same name in `hf_distill.settings`.

After an error, the program ends with one line and an exit status. A user's error (a wrong value, a missing file, a
package that is not installed) has the status 2. An unexpected exception is a fault of this package: it has the status
70, and the line says how to see the traceback.
"""

from __future__ import annotations

import importlib
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hf_distill import __version__
from hf_distill.commands.terminal import begin_quietly, quiet
from hf_distill.hub.disclosure import public_command, without_secrets
from hf_distill.storage.plain_values import did_you_mean

# Shows the whole traceback of every error.
DEBUG_VARIABLE = "HF_DISTILL_DEBUG"
VERBOSE = "--verbose"
USER_ERROR, OUT_OF_MEMORY, PEER_GONE, FAULT, INTERRUPTED, BROKEN_PIPE, TERMINATED = 2, 1, 1, 70, 130, 141, 143
# Part of gloo's message if a process of `torchrun` no longer answers; NCCL's errors have their own types.
_PEER = "gloo/transport"


class TerminatedError(KeyboardInterrupt):
    """The program is ended by something other than the user, such as a scheduler."""


@dataclass(frozen=True)
class Verb:
    """Facts about a verb that the program has without importing it.

    Attributes:
        about: What it does, in one line.
        arguments: Its argument classes. `--help` reads their source, the verb itself imports them.
        words: The arguments for positional words before every flag; the last one takes all remaining words.
        presets: Whether it accepts `--preset`.
        told: Whether its job receives its command line, which results and cards repeat.
        examples: Commands at the beginning of its help.
        flags: The flags that its help shows, if it has many.
        then: Commands for the next step with its output in `{folder}`; what a user must fill in is in capital letters.
    """

    about: str
    arguments: tuple[str, ...]
    words: tuple[str, ...] = ()
    presets: bool = False
    told: bool = False
    examples: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    then: tuple[str, ...] = ()


_ON_TEXTS = ("hf-distill distill --teacher_model {folder} --textbook TEXTS --output_dir outputs/student",)
_OF_TEACHER = ("hf-distill distill --teacher_model TEACHER --textbook {folder} --output_dir outputs/student",)
_PUBLISH = "hf-distill push {folder} USER/NAME --dry_run"
# Where to find settings that users may look for at another verb.
_ELSEWHERE = {
    "evaluate": "`hf-distill evaluate` trains nothing: `hf-distill adapt` does.",
    "pipeline": "Settings of its trainings are in `--teach`, `--distill` and `--adapt`, such as "
    "--distill '{\"num_train_epochs\": 3}'.",
}

VERBS = {
    "teach": Verb(
        "Fine-tune a teacher on a task.",
        ("TaskArguments", "TeacherArguments", "FineTuningArguments"),
        examples=(
            "hf-distill teach --task reviews.csv --teacher_model google-bert/bert-base-uncased --output_dir teacher",
            "hf-distill teach --task glue/sst2 --teacher_model encoder --num_train_epochs 1 --output_dir teacher",
        ),
        flags=(
            *("task", "data_dir", "text_columns", "label_column", "teacher_model", "output_dir", "num_train_epochs"),
            *("per_device_train_batch_size", "learning_rate", "max_length", "lora_r", "bf16"),
        ),
        then=_ON_TEXTS,
    ),
    "mtl": Verb(
        "Fine-tune one encoder on many tasks at once.",
        ("TasksArguments", "TeacherArguments", "MTLArguments"),
        then=_ON_TEXTS,
    ),
    "corpus": Verb(
        "Build the contextualized corpus of a task.",
        ("TaskArguments", "CorpusArguments", "ShardArguments"),
        examples=(
            "hf-distill corpus --task reviews.csv --corpus general.parquet --corpus_dir outputs/corpus",
            "hf-distill corpus --task glue/sst2 --corpus wikimedia/wikipedia --corpus_config 20231101.en "
            "--unit sentence",
        ),
        flags=(
            *("task", "data_dir", "text_columns", "corpus", "corpus_config", "corpus_dir", "top_k", "unit"),
            *("language", "engine", "deduplicate", "num_shards"),
        ),
        then=_OF_TEACHER,
    ),
    "general": Verb(
        "Mix general corpora into one, in chosen shares and without duplicates.",
        ("GeneralCorpusArguments",),
        then=_OF_TEACHER,
    ),
    "augment": Verb(
        "Augment a task's training rows by replacing words (TaskDA).",
        ("TaskArguments", "AugmentationArguments"),
        then=_OF_TEACHER,
    ),
    "compare": Verb(
        "Compare corpora with a task's text: size, diversity, words in common, with tables and figures.",
        ("TaskArguments", "ComparisonArguments"),
        told=True,
    ),
    "mlm": Verb(
        "Fit a masked-LM head on an encoder that has none, for augment.",
        ("MLMHeadArguments", "TextbookArguments", "MaskedHeadArguments"),
        then=("hf-distill augment --task TASK --masked_lm {folder}",),
    ),
    "precompute": Verb(
        "Store a teacher's signals, so that students are distilled without it.",
        ("TeacherModelArguments", "TextbookArguments", "PrecomputeArguments"),
        examples=(
            "hf-distill precompute --teacher_model teacher --textbook outputs/corpus --output_dir outputs/stored",
            "hf-distill precompute --teacher_model teacher --textbook text.txt --objectives relation logits",
        ),
        then=("hf-distill distill --teacher_model {folder} --output_dir outputs/student",),
    ),
    "vocabulary": Verb(
        "Trim a model's vocabulary to what texts need: vocabulary MODEL --textbook TEXT.",
        ("VocabularyArguments",),
        words=("model",),
        then=_ON_TEXTS,
    ),
    "distill": Verb(
        "Distil a teacher into a student on a textbook.",
        ("FamilyArguments", "TeacherModelArguments", "TextbookArguments", "MultiTeacherArguments", "RunArguments"),
        presets=True,
        examples=(
            "hf-distill distill --teacher_model teacher --textbook outputs/corpus --output_dir outputs/student",
            "hf-distill distill --teacher_model teacher --textbook text.txt --student_shape 6x384 "
            "--objectives relation logits:0.5 --dry_run",
        ),
        flags=(
            *("teacher_model", "textbook", "output_dir", "student_shape", "student_model", "student_vocabulary"),
            *("objectives", "preset", "num_train_epochs", "max_steps", "per_device_train_batch_size", "max_length"),
            *("eval_task", "dry_run", "resume_from_checkpoint"),
        ),
        then=("hf-distill adapt --task TASK --student_model {folder} --output_dir outputs/adapted", _PUBLISH),
    ),
    "adapt": Verb(
        "Fine-tune a student on a task's labels and score it, beside its teacher and a baseline.",
        ("TaskArguments", "AdaptationArguments", "FineTuningArguments", "TeacherModelArguments"),
        examples=(
            "hf-distill adapt --task reviews.csv --student_model outputs/student --output_dir outputs/adapted",
            "hf-distill adapt --task glue/rte --student_model outputs/student --teacher_model teacher --from_scratch",
        ),
        flags=(
            *("task", "data_dir", "text_columns", "label_column", "student_model", "teacher_model", "from_scratch"),
            *("output_dir", "num_train_epochs", "per_device_train_batch_size", "learning_rate", "max_length"),
        ),
        then=("hf-distill export --model {folder}", _PUBLISH),
    ),
    "evaluate": Verb(
        "Score a model on a task without training it: evaluate MODEL --task TASK.",
        ("TaskArguments", "EvaluationArguments"),
        words=("model",),
        examples=(
            "hf-distill evaluate outputs/reviews/student --task reviews.csv",
            "hf-distill evaluate outputs/encoder --task glue/stsb --data_dir glue --output_dir outputs/scores",
        ),
    ),
    "predict": Verb(
        "Predict the labels of texts with a classifier: predict MODEL --text FILE, or for GLUE and CLUE --task TASK.",
        ("PredictionArguments",),
        words=("model",),
        examples=(
            "hf-distill predict outputs/reviews/student --text new.csv --text_column review --file_format csv",
            "hf-distill predict outputs/sst2 --task glue/sst2 --submission",
        ),
    ),
    "generate": Verb(
        "Fine-tune an encoder to generate texts (questions, summaries), let it generate, score the texts.",
        ("GenerationTaskArguments", "GenerationArguments", "GenerationTrainingArguments"),
        then=(_PUBLISH,),
    ),
    "grid": Verb(
        "Fine-tune many models on many tasks, with shares of the rows and seeds, and print the tables.",
        ("GridArguments",),
        examples=(
            "hf-distill grid --models small=outputs/small large=outputs/large --tasks glue/rte --seeds 1 2 3",
            "hf-distill grid table.yaml --tasks glue/sst2 --output_dir outputs/trial",
        ),
    ),
    "pipeline": Verb(
        "Run the whole job: teach, corpus, distill, adapt, card.",
        ("TaskArguments", "TeacherArguments", "StudentArguments", "CorpusArguments", "PipelineArguments"),
        told=True,
        examples=(
            "hf-distill pipeline --task reviews.csv --teacher_model my-classifier --output_dir outputs/reviews",
            "hf-distill pipeline --task glue/sst2 --teacher_model google-bert/bert-base-uncased "
            "--corpus general.parquet",
        ),
        flags=(
            *("task", "data_dir", "text_columns", "label_column", "teacher_model", "output_dir", "student_shape"),
            *("student_vocabulary", "corpus", "textbook_source", "preset", "teach", "distill", "adapt"),
        ),
    ),
    "export": Verb(
        "Export a model to ONNX, in fp32 and int8, checked against it; with a task, scored beside it.",
        ("ScoredTaskArguments", "ExportArguments"),
        examples=(
            "hf-distill export outputs/reviews/student --task reviews.csv",
            "hf-distill export me/reviews-4x312 --output_dir outputs/onnx",
        ),
        words=("model",),
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
    "card": Verb(
        "Write the card of a student's folder, and check it: card FOLDER [--repo OWNER/NAME] [--check].",
        ("CardArguments",),
        examples=(
            "hf-distill card outputs/reviews/student --repo me/reviews-4x312 --licence apache-2.0 --language en",
            "hf-distill card outputs/reviews/student --check",
        ),
        words=("folder",),
    ),
    "push": Verb(
        "Push a student or a corpus to the Hub: push FOLDER REPO [--dry_run] [--private] [--revision BRANCH].",
        ("PushArguments",),
        examples=(
            "hf-distill push outputs/reviews/student me/reviews-4x312 --dry_run",
            "hf-distill push outputs/corpus me/reviews-corpus --private",
        ),
        words=("folder", "repo"),
    ),
    "convert": Verb(
        "Turn another library's configuration into one for distill: convert textbrewer CONFIG.json [--output FILE].",
        ("ConversionArguments",),
        words=("library", "config"),
    ),
    "info": Verb(
        "Show versions, device and available names; with a topic, more about it (objectives, presets, tasks, ...).",
        ("InfoArguments",),
        words=("topic",),
    ),
}


def run_verb(name: str, argv: Sequence[str]) -> str:
    """Run a verb.

    Args:
        name: The verb.
        argv: The words after it; with `--verbose`, messages of other packages and all log lines are shown.

    Returns:
        The result in words, where it was written, and the commands for the next step.

    Raises:
        ValueError: If a flag or value is wrong; also every error of the verb itself.
    """
    words = [word for word in argv if word != VERBOSE]
    arguments = _parse(name, words)
    module = importlib.import_module(f"hf_distill.commands.{name}")
    told = {"command": public_command(["hf-distill", name, *argv])} if VERBS[name].told else {}
    started = time.time()
    with nullcontext() if VERBOSE in argv else quiet():
        results = module.run(*arguments, **told)
        said = str(module.summary(results))
    # Report the output folder even if it was not named by a flag.
    written = next((folder for item in arguments for folder in _written_by(item, started)), None)
    if written is None:
        return said
    lines = [said] if written in said else [said, f"everything is in {written}"]
    # Dry runs, shards and families have another next step.
    then = VERBS[name].then if results.get("job", name) == name else ()
    for number, command in enumerate(then):
        lines.append(f"{'        or' if number else 'go on with'}: {command.format(folder=shlex.quote(written))}")
    return "\n".join(lines)


def _written_by(arguments: Any, started: float) -> Iterator[str]:
    """The output folders of a job to which something was written."""
    for name in ("output_dir", "corpus_dir"):
        folder = Path(getattr(arguments, name, None) or os.devnull)
        # File systems store times with low resolution.
        if folder.is_dir() and any(path.stat().st_mtime >= started - 1 for path in (folder, *folder.iterdir())):
            yield str(folder)


def _parse(name: str, argv: Sequence[str]) -> tuple[Any, ...]:
    """The arguments of a verb, one instance of each class."""
    from hf_distill import settings
    from hf_distill.settings.parsing import UnknownArgumentsError, name_leading_words, parse

    verb = VERBS[name]
    classes = tuple(getattr(settings, cls) for cls in verb.arguments)
    words = name_leading_words(argv, verb.words)
    try:
        return parse(classes, words, verb.about, prog=f"hf-distill {name}", presets=verb.presets)
    except UnknownArgumentsError as error:
        if name not in _ELSEWHERE:
            raise
        raise ValueError(f"{error} {_ELSEWHERE[name]}") from error


def _help(name: str) -> str:
    """The help of a verb, which takes only milliseconds."""
    from hf_distill.settings.help import help_page, short_page

    verb = VERBS[name]
    page = partial(short_page, flags=verb.flags) if verb.flags else help_page
    return page(f"hf-distill {name}", verb.about, verb.arguments, examples=verb.examples)


def usage() -> str:
    """The page that `hf-distill` alone prints."""
    lines = [f"  {name:<12}{verb.about}" for name, verb in VERBS.items()]
    more = "hf-distill VERB --help shows the most common flags, --help_all every flag; --verbose shows every log."
    return "usage: hf-distill VERB [CONFIG.yaml] [--flag value ...]\n\n" + "\n".join([*lines, "", more])


def _say(text: str) -> None:
    """Write a text to stdout; a character that the encoding of the terminal lacks is written as its number."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(f"{text}\n".encode(encoding, "backslashreplace").decode(encoding))


def run_command(name: str, job: Callable[[], Any]) -> int:
    """Run a job as a shell command.

    Args:
        name: Prefix of the lines on stderr: the program and its verb.
        job: The job; its result is ignored.

    Returns:
        The exit status: 0, or 2 (wrong input), 1 (out of memory, or another process of the run has ended), 70 (fault
            of this package), 130 (interrupted), 141 (the output was closed), 143 (terminated).

    Raises:
        Exception: Every error of the job unchanged, if the environment variable HF_DISTILL_DEBUG is set.
    """
    try:
        job()
        sys.stdout.flush()
    except BrokenPipeError:
        _close_output()
        return BROKEN_PIPE
    except KeyboardInterrupt as error:
        is_terminated = isinstance(error, TerminatedError)
        sys.stderr.write(f"\n{name}: {'terminated' if is_terminated else 'interrupted'}\n")
        return TERMINATED if is_terminated else INTERRUPTED
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        line, status = _explain(error)
        sys.stderr.write(f"{name}: {line}\n")
        return status
    return 0


def _explain(error: Exception) -> tuple[str, int]:
    """One line about an error, and the exit status."""
    # Some errors of libraries have many lines; the output should end with a single one.
    text = str(without_secrets(" ".join(str(error).split())))
    if isinstance(error, (ValueError, OSError, ImportError)):
        return text or type(error).__name__, USER_ERROR
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"out of memory ({text or 'no further words'}): take smaller batches or shorter rows.", OUT_OF_MEMORY
    if "RANK" in os.environ and (_PEER in text or type(error).__name__.startswith("Dist")):
        return f"another process of this run has ended; its own last line says why ({text[:120]}).", PEER_GONE
    return (
        f"this is a fault of hf_distill, please report it: {type(error).__name__}: {text} "
        f"({DEBUG_VARIABLE}=1 shows the traceback)",
        FAULT,
    )


def _close_output() -> None:
    """Let the interpreter exit silently although the reader of its output is gone."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        # The output is not a real file, so nothing is flushed at exit.
        return


def end_in_order() -> None:
    """Let the signal TERM end the program like an interruption: it removes locks and unfinished files and says so.

    This excludes processes of `torchrun`, which ends all of them when one has failed: they might wait for that one
    forever.
    """

    def end_at_once() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def end(*_: Any) -> None:
        end_at_once()
        raise TerminatedError

    if "RANK" not in os.environ and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end)
        if hasattr(os, "register_at_fork"):
            # Workers have nothing to clean up.
            os.register_at_fork(after_in_child=end_at_once)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status of `run_command`, which reports every error in one line."""
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        end_in_order()
        if VERBOSE not in words:
            begin_quietly()
    if not words or words[0] in ("-h", "--help", "help"):
        return run_command("hf-distill", lambda: _say(usage()))
    if words[0] == "--version":
        return run_command("hf-distill", lambda: _say(f"hf-distill {__version__}"))
    name, *words = words
    if name not in VERBS:
        sys.stderr.write(f"{usage()}\n\nhf-distill: unknown verb {name!r}.{did_you_mean(name, VERBS)}\n")
        return 2
    if {"-h", "--help"} & set(words):
        return run_command(f"hf-distill {name}", lambda: _say(_help(name)))
    # From here on, `--help` means the help with all flags.
    given = ["--help" if word == "--help_all" else word for word in words]
    return run_command(f"hf-distill {name}", lambda: _say(run_verb(name, given)))


if __name__ == "__main__":
    sys.exit(main())
