"""`hf-distill`: one verb per job. Heavy packages are loaded by the verb that needs them, so that help is quick."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

from hf_distill import __version__


def teach(argv: Sequence[str]) -> None:
    """Fine-tune a teacher on a task."""
    from hf_distill.arguments import FineTuningArguments, TaskArguments, TeacherArguments
    from hf_distill.jobs.teach import teach as job
    from hf_distill.parsing import parse

    results = job(
        *parse((TaskArguments, TeacherArguments, FineTuningArguments), argv, teach.__doc__, prog="hf-distill teach")
    )
    _say(f"{results['task']}: {results['metric']} {results['score']:.4f}; teacher in {results['model']}")


def corpus(argv: Sequence[str]) -> None:
    """Build the contextualized corpus of a task."""
    from hf_distill.arguments import CorpusArguments, TaskArguments
    from hf_distill.jobs.corpus import build_corpus
    from hf_distill.parsing import parse

    results = build_corpus(*parse((TaskArguments, CorpusArguments), argv, corpus.__doc__, prog="hf-distill corpus"))
    _say(f"{results['rows']:,} rows in {results['seconds']:.0f} s; corpus in {results['corpus_dir']}")


def precompute(argv: Sequence[str]) -> None:
    """Store a teacher's signals, so that students are distilled without it."""
    from hf_distill.arguments import PrecomputeArguments, TeacherArguments, TextbookArguments
    from hf_distill.jobs.precompute import precompute as job
    from hf_distill.parsing import parse

    classes = (TeacherArguments, TextbookArguments, PrecomputeArguments)
    results = job(*parse(classes, argv, precompute.__doc__, prog="hf-distill precompute"))
    _say(
        f"{results['rows']:,} rows in {results['seconds']:.0f} s ({results['bytes'] / 1e6:,.1f} MB); "
        f"stored teacher in {results['folder']}"
    )


def distill(argv: Sequence[str]) -> None:
    """Distil a teacher into a student on a textbook."""
    from hf_distill.arguments import MultiTeacherArguments, StudentArguments, TeacherArguments, TextbookArguments
    from hf_distill.jobs.distill import distill as job
    from hf_distill.parsing import parse

    classes = (StudentArguments, TeacherArguments, TextbookArguments, MultiTeacherArguments)
    results = job(*parse(classes, argv, distill.__doc__, prog="hf-distill distill", presets=True))
    _say(f"{results['steps']} steps in {results['training_seconds']:.0f} s; student in {results['model']}")


def evaluate(argv: Sequence[str]) -> None:
    """Adapt a student to a task's labels and evaluate it, beside its teacher and a baseline."""
    from hf_distill.arguments import EvaluationArguments, FineTuningArguments, TaskArguments, TeacherArguments
    from hf_distill.jobs.evaluate import adapt_and_evaluate
    from hf_distill.parsing import parse

    task, evaluation, training, teacher = parse(
        (TaskArguments, EvaluationArguments, FineTuningArguments, TeacherArguments),
        argv,
        evaluate.__doc__,
        prog="hf-distill evaluate",
    )
    results = adapt_and_evaluate(task, evaluation, training, teacher)
    for role in ("student", "teacher", "baseline"):
        if results[role] is not None:
            _say(f"{role}: {results['metric']} {results[role]['score']:.4f} on {results['split']}")


def pipeline(argv: Sequence[str]) -> None:
    """Run the whole job: teach, corpus, distill, evaluate, card."""
    from hf_distill.arguments import (
        CorpusArguments,
        PipelineArguments,
        StudentArguments,
        TaskArguments,
        TeacherArguments,
    )
    from hf_distill.jobs.pipeline import format_report, run_pipeline
    from hf_distill.parsing import parse

    classes = (TaskArguments, TeacherArguments, StudentArguments, CorpusArguments, PipelineArguments)
    task, teacher, student, corpus_arguments, stages = parse(
        classes, argv, pipeline.__doc__, prog="hf-distill pipeline"
    )
    command = shlex.join(["hf-distill", "pipeline", *argv])
    _say(format_report(run_pipeline(task, teacher, student, corpus_arguments, stages, command)))


def push(argv: Sequence[str]) -> None:
    """Push a student or a corpus to the Hub: push FOLDER REPO [--dry_run] [--private] [--revision BRANCH]."""
    from hf_distill.arguments import PushArguments
    from hf_distill.jobs.push import format_push
    from hf_distill.jobs.push import push as job
    from hf_distill.parsing import name_leading_words, parse

    words = name_leading_words(argv, ("folder", "repo"))
    results = job(*parse((PushArguments,), words, push.__doc__, prog="hf-distill push"))
    _say(format_push(results))
    if not results["dry_run"]:
        _say(f"{results['repo']} is at {results['url']} (commit {results['commit']})")


def convert(argv: Sequence[str]) -> None:
    """Turn another library's configuration into one for distill: textbrewer CONFIG.json [--output FILE]."""
    import argparse
    from pathlib import Path

    from hf_distill.textbrewer import convert_file

    parser = argparse.ArgumentParser("hf-distill convert", description=convert.__doc__)
    parser.add_argument("library", choices=["textbrewer"], help="Whose configuration it is.")
    parser.add_argument("config", help="JSON file of a DistillationConfig.")
    parser.add_argument("--output", help="YAML file to write. Default: show it.")
    words = parser.parse_args(argv)
    done = convert_file(words.config)
    for warning in done.warnings:
        sys.stderr.write(f"hf-distill convert: {warning}\n")
    if words.output is None:
        _say(done.as_yaml().rstrip())
    else:
        Path(words.output).write_text(done.as_yaml(), encoding="utf-8")
        _say(f"{len(done.arguments['objectives'])} objectives written to {words.output}")


def info(argv: Sequence[str]) -> None:
    """Show what there is: objectives, presets, tasks, shapes, engines or architectures; versions without a topic."""
    topics: dict[str, Callable[[], dict[str, str]]] = {
        "objectives": _objectives,
        "presets": _presets,
        "tasks": _tasks,
        "shapes": _shapes,
        "engines": _engines,
        "architectures": _architectures,
    }
    if not argv:
        _table(_versions())
    elif argv[0] in ("-h", "--help"):
        _say(f"usage: hf-distill info [{' | '.join(topics)}]\n\n{info.__doc__}")
    elif argv[0] in topics:
        _table(topics[argv[0]]())
    else:
        raise ValueError(f"unknown topic {argv[0]!r}; there are {', '.join(topics)}.")


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"hf_distill": __version__}
    for package in ("torch", "transformers", "datasets", "evaluate", "peft", "bm25s", "retriv"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _objectives() -> dict[str, str]:
    from hf_distill.objectives.catalogue import catalogue

    return {
        entry.name: "\n".join(
            (
                entry.summary,
                f"needs: {', '.join(entry.needs) or 'nothing'}",
                f"formula: {entry.formula or '-'}",
                f"citation: {entry.citation or '-'}",
            )
        )
        for entry in catalogue()
    }


def _presets() -> dict[str, str]:
    from hf_distill.presets import list_presets, read_preset

    found = map(read_preset, list_presets())
    return {p.name: f"{p.about}\nfrom: {p.source}\ncitation: {p.citation}" for p in found}


def _tasks() -> dict[str, str]:
    from hf_distill.tasks import get_task, list_tasks

    return {name: f"{', '.join(get_task(name).text_columns)}: {get_task(name).headline}" for name in list_tasks()}


def _shapes() -> dict[str, str]:
    from hf_distill.shapes import NAMED_SHAPES

    return {
        name: f"{s.num_layers} layers of {s.hidden_size}, {s.num_heads} heads, feed-forward {s.intermediate_size}"
        for name, s in NAMED_SHAPES.items()
    }


def _engines() -> dict[str, str]:
    from hf_distill.corpus.retrieval import ENGINES, engine_class

    rows = {name: engine_class(name) for name in ENGINES}
    return {name: f"auto takes it up to {engine.max_rows:,} rows" for name, engine in rows.items()}


def _architectures() -> dict[str, str]:
    from hf_distill.architectures import known_architectures

    return {
        name: f"layers in {spec.layers}, attention by {spec.mechanism}" for name, spec in known_architectures().items()
    }


def _table(rows: dict[str, str]) -> None:
    width = max(map(len, rows))
    for name, text in rows.items():
        _say(f"{name:<{width}}  " + text.replace("\n", "\n" + " " * (width + 2)))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


VERBS: dict[str, Callable[[Sequence[str]], Any]] = {
    verb.__name__: verb for verb in (teach, corpus, precompute, distill, evaluate, pipeline, push, convert, info)
}


def usage() -> str:
    """The page that `hf-distill` alone prints."""
    lines = [f"  {name:<12}{(verb.__doc__ or '').partition(chr(10))[0]}" for name, verb in VERBS.items()]
    return "usage: hf-distill VERB [CONFIG.yaml] [--flag value ...]\n\n" + "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; errors of the user end with one line and exit status 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        _say(usage())
        return 0
    if words[0] == "--version":
        _say(f"hf-distill {__version__}")
        return 0
    if words[0] not in VERBS:
        sys.stderr.write(f"hf-distill: unknown verb {words[0]!r}\n{usage()}\n")
        return 2
    try:
        VERBS[words[0]](words[1:])
    except (ValueError, OSError, ImportError) as error:
        # Some errors of libraries are pages; one line is what a terminal or a log should end with.
        sys.stderr.write(f"hf-distill {words[0]}: {' '.join(str(error).split())}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
