"""`hf-distill`: one verb per job. Heavy packages are loaded by the verb that needs them, so that help is quick."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hf_distill import __version__
from hf_distill.commands.ending import run_command
from hf_distill.hub.disclosure import public_command

# The argument classes of every verb that takes flags. `--help` reads their source, the verb itself imports them.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "teach": ("TaskArguments", "TeacherArguments", "FineTuningArguments"),
    "mtl": ("TasksArguments", "TeacherArguments", "MTLArguments"),
    "corpus": ("TaskArguments", "CorpusArguments", "ShardArguments"),
    "general": ("GeneralCorpusArguments",),
    "augment": ("TaskArguments", "AugmentationArguments"),
    "compare": ("TaskArguments", "ComparisonArguments"),
    "mlm": ("MLMHeadArguments", "TextbookArguments", "DistillationArguments"),
    "precompute": ("TeacherArguments", "TextbookArguments", "PrecomputeArguments"),
    "distill": (
        *("StudentArguments", "TeacherArguments", "TextbookArguments", "MultiTeacherArguments"),
        "RunArguments",
    ),
    "evaluate": ("TaskArguments", "EvaluationArguments", "FineTuningArguments", "TeacherArguments"),
    "generate": ("GenerationTaskArguments", "GenerationArguments", "GenerationTrainingArguments"),
    "grid": ("GridArguments",),
    "pipeline": ("TaskArguments", "TeacherArguments", "StudentArguments", "CorpusArguments", "PipelineArguments"),
    "export": ("ScoredTaskArguments", "ExportArguments"),
    "bench": ("BenchmarkArguments",),
    "report": ("ReportArguments",),
    "attention": ("AttentionArguments",),
    "push": ("PushArguments",),
}
WITH_PRESETS = ("distill",)


def teach(argv: Sequence[str]) -> None:
    """Fine-tune a teacher on a task."""
    from hf_distill.commands.teach import teach as job
    from hf_distill.tasks.majority import constant_remark

    results = job(*_parse(teach, argv))
    remark = constant_remark(results["constant"])
    _say(f"{results['task']}: {results['metric']} {results['score']:.4f}{remark}; teacher in {results['model']}")
    _say_majority(results["majority"])


def mtl(argv: Sequence[str]) -> None:
    """Fine-tune one encoder on many tasks at once."""
    from hf_distill.commands.mtl import fine_tune_on_tasks
    from hf_distill.commands.results import cost_of_training
    from hf_distill.tasks.majority import constant_remark

    results = fine_tune_on_tasks(*_parse(mtl, argv))
    for task, score in results["headlines"].items():
        _say(f"{task}: {results['metrics'][task]} {score:.4f}{constant_remark(results['constants'][task])}")
        _say_majority(results["majority"][task])
    _say(f"{cost_of_training(results)}; encoder in {results['model']}")


def corpus(argv: Sequence[str]) -> None:
    """Build the contextualized corpus of a task."""
    from hf_distill.commands.corpus import build_corpus
    from hf_distill.commands.corpus_shards import format_shard

    results = build_corpus(*_parse(corpus, argv))
    if "shard" in results:
        return _say(format_shard(results))
    engine = results["statistics"]["engine"]
    _say(f"BM25 engine: {engine['name']} ({engine['why']})")
    _say(f"{results['rows']:,} rows in {results['seconds']:.0f} s; corpus in {results['corpus_dir']}")


def general(argv: Sequence[str]) -> None:
    """Mix general corpora into one, in chosen shares and without repeats."""
    from hf_distill.commands.general import mix_general

    results = mix_general(*_parse(general, argv))
    _say(f"{results['rows']:,} rows in {results['seconds']:.0f} s; corpus in {results['corpus_dir']}")


def augment(argv: Sequence[str]) -> None:
    """Augment a task's training rows by replacing words (TaskDA)."""
    from hf_distill.commands.augment import augment as job

    results = job(*_parse(augment, argv))
    _say(f"{results['rows']:,} rows in {results['seconds']:.0f} s; corpus in {results['corpus_dir']}")


def compare(argv: Sequence[str]) -> None:
    """Compare corpora with a task's text: size, diversity, words in common, with tables and figures."""
    from hf_distill.commands.compare import compare as job

    task, comparison = _parse(compare, argv)
    results = job(task, comparison, public_command(["hf-distill", "compare", *argv]))
    _say(f"{', '.join(results['corpora'])}: compared in {results['seconds']:.0f} s; see {results['output_dir']}")


def mlm(argv: Sequence[str]) -> None:
    """Fit a masked-LM head on an encoder that has none, for augment."""
    from hf_distill.commands.mlm_head import fit_mlm_head
    from hf_distill.commands.results import cost_of_training

    results = fit_mlm_head(*_parse(mlm, argv))
    if results["after"] is not None:
        _say(
            f"masked tokens found: {results['before']['masked_accuracy']:.4f} before, "
            f"{results['after']['masked_accuracy']:.4f} after"
        )
    _say(f"{cost_of_training(results)}; masked language model in {results['model']}")


def precompute(argv: Sequence[str]) -> None:
    """Store a teacher's signals, so that students are distilled without it."""
    from hf_distill.commands.precompute import precompute as job

    results = job(*_parse(precompute, argv))
    _say(
        f"{results['rows']:,} rows in {results['seconds']:.0f} s ({results['bytes'] / 1e6:,.1f} MB); "
        f"stored teacher in {results['folder']}"
    )


def distill(argv: Sequence[str]) -> None:
    """Distil a teacher into a student on a textbook."""
    from hf_distill.commands.distill import distill as job
    from hf_distill.commands.results import cost_of_training

    *arguments, run = _parse(distill, argv)
    if run.dry_run:
        from hf_distill.commands.dry_run import dry_run, format_dry_run

        return _say(format_dry_run(dry_run(*arguments)))
    results = job(*arguments)
    _say(f"{cost_of_training(results)}; student in {results['model']}")


def evaluate(argv: Sequence[str]) -> None:
    """Adapt a student to a task's labels and evaluate it, beside its teacher and a baseline."""
    from hf_distill.commands.evaluate import adapt_and_evaluate
    from hf_distill.tasks.majority import constant_remark

    results = adapt_and_evaluate(*_parse(evaluate, argv))
    for role in ("student", "teacher", "baseline"):
        if results[role] is not None:
            remark = constant_remark(results[role]["constant"])
            _say(f"{role}: {results['metric']} {results[role]['score']:.4f} on {results['split']}{remark}")
    _say_majority(results["majority"])


def generate(argv: Sequence[str]) -> None:
    """Fine-tune an encoder to write texts (questions, summaries), let it write, score what it wrote."""
    from hf_distill.commands.generation import format_generation
    from hf_distill.commands.generation import generate as job

    _say(format_generation(job(*_parse(generate, argv))))


def grid(argv: Sequence[str]) -> None:
    """Fine-tune many models on many tasks, with shares of the rows and seeds, and print the tables."""
    from hf_distill.commands.grid import format_tables, run_grid

    (arguments,) = _parse(grid, argv)
    results = run_grid(arguments)
    _say(f"{format_tables(results)}\n{len(results['cells'])} cells; tables in {arguments.output_dir}")


def pipeline(argv: Sequence[str]) -> None:
    """Run the whole job: teach, corpus, distill, evaluate, card."""
    from hf_distill.commands.pipeline import run_pipeline
    from hf_distill.commands.pipeline_report import format_report

    task, teacher, student, corpus_arguments, stages = _parse(pipeline, argv)
    command = public_command(["hf-distill", "pipeline", *argv])
    _say(format_report(run_pipeline(task, teacher, student, corpus_arguments, stages, command)))


def export(argv: Sequence[str]) -> None:
    """Export a model to ONNX, in fp32 and int8, checked against it; with a task, scored beside it."""
    from hf_distill.commands.export import export as job

    results = job(*_parse(export, argv))
    for name, size in results["bytes"].items():
        score = f"; {results['metric']} {results['scores'][name]:.4f}" if "scores" in results else ""
        _say(f"{name}: {size / 1e6:.1f} MB{score}")
    _say(f"largest difference from PyTorch {results['difference']:.1e}; files in {results['folder']}")


def bench(argv: Sequence[str]) -> None:
    """Time students against their teacher on PyTorch, compiled and ONNX Runtime: speed, size and quality."""
    from hf_distill.commands.bench import bench as job
    from hf_distill.reports.speed.report import format_report

    (arguments,) = _parse(bench, argv)
    results = job(arguments, public_command(["hf-distill", "bench", *argv]))
    _say(f"{format_report(results)}\n{results['seconds']:.0f} s; written to {results['settings']['output_dir']}")


def report(argv: Sequence[str]) -> None:
    """Make one page with the curves, scores and settings of runs: report RUN... [--output report.html|report.md]."""
    from hf_distill.commands.report import report as job

    folders = list(itertools.takewhile(lambda word: not word.startswith("-"), argv))
    named = bool(folders) and not folders[0].endswith((".yaml", ".yml", ".json"))
    results = job(*_parse(report, ["--runs", *argv] if named else argv))
    _say(f"{results['curves']} curves of {len(results['runs'])} runs; page in {results['output']}")


def attention(argv: Sequence[str]) -> None:
    """Draw the attention of teacher and students on a sentence."""
    from hf_distill.commands.attention import draw_attention_of

    results = draw_attention_of(*_parse(attention, argv))
    _say(f"attention of {', '.join(model['name'] for model in results['models'])}; picture in {results['output']}")


def push(argv: Sequence[str]) -> None:
    """Push a student or a corpus to the Hub: push FOLDER REPO [--dry_run] [--private] [--revision BRANCH]."""
    from hf_distill.commands.push import format_push
    from hf_distill.commands.push import push as job
    from hf_distill.settings.parsing import name_leading_words

    results = job(*_parse(push, name_leading_words(argv, ("folder", "repo"))))
    _say(format_push(results))
    if not results["dry_run"]:
        _say(f"{results['repo']} is at {results['url']} (commit {results['commit']})")


def convert(argv: Sequence[str]) -> None:
    """Turn another library's configuration into one for distill: textbrewer CONFIG.json [--output FILE]."""
    import argparse

    parser = argparse.ArgumentParser("hf-distill convert", description=convert.__doc__)
    parser.add_argument("library", choices=["textbrewer"], help="Whose configuration it is.")
    parser.add_argument("config", help="JSON file of a DistillationConfig.")
    parser.add_argument("--output", help="YAML file to write. Default: show it.")
    words = parser.parse_args(argv)
    from hf_distill.settings.textbrewer import convert_file
    from hf_distill.storage.files import write_text
    from hf_distill.storage.folders import check_apart

    done = convert_file(words.config)
    for warning in done.warnings:
        sys.stderr.write(f"hf-distill convert: {warning}\n")
    if words.output is None:
        _say(done.as_yaml().rstrip())
    else:
        check_apart(words.output, {"the configuration": words.config}, flag="--output")
        write_text(words.output, done.as_yaml())
        _say(f"{len(done.arguments['objectives'])} objectives written to {words.output}")


def info(argv: Sequence[str]) -> None:
    """Show versions, device and what there is; with a topic, more about it (objectives, presets, tasks, ...)."""
    from hf_distill.commands.info import TOPICS, overview
    from hf_distill.settings.plugins import load_plugins, take_plugins

    words, plugins = take_plugins(argv, "hf-distill info")
    load_plugins(plugins)
    if not words:
        _table(overview())
    elif {"-h", "--help", "--help_all"} & set(words):
        _say(f"usage: hf-distill info [{' | '.join(TOPICS)}] [--plugins MODULE ...]\n\n{info.__doc__}")
    elif words[0] not in TOPICS:
        raise ValueError(f"unknown topic {words[0]!r}; there are {', '.join(TOPICS)}.")
    elif words[1:]:
        raise ValueError(f"one topic at a time: {words[0]!r} comes with {words[1:]}.")
    else:
        _table(TOPICS[words[0]]())


def _table(rows: dict[str, str]) -> None:
    width = max(map(len, rows))
    for name, text in rows.items():
        _say(f"{name:<{width}}  " + text.replace("\n", "\n" + " " * (width + 2)))


def _say_majority(majority: Mapping[str, Any] | None) -> None:
    from hf_distill.tasks.majority import majority_line

    line = majority_line(majority)
    if line is not None:
        _say(line)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


VERBS: dict[str, Callable[[Sequence[str]], Any]] = {
    verb.__name__: verb
    for verb in (
        *(teach, mtl, corpus, general, augment, compare, mlm, precompute, distill, evaluate, generate, grid),
        *(pipeline, export, bench, report, attention, push, convert, info),
    )
}


def _parse(verb: Callable[[Sequence[str]], Any], argv: Sequence[str]) -> tuple[Any, ...]:
    """The arguments of a verb, one instance per class."""
    from hf_distill import settings as arguments
    from hf_distill.settings.parsing import parse

    name = verb.__name__
    classes = tuple(getattr(arguments, cls) for cls in ARGUMENTS[name])
    return parse(classes, argv, verb.__doc__, prog=f"hf-distill {name}", presets=name in WITH_PRESETS)


def _help(verb: str) -> str:
    """The page of a verb with the flags of this package, in milliseconds."""
    from hf_distill.settings.help import help_page
    from hf_distill.settings.presets import list_presets

    presets = list_presets() if verb in WITH_PRESETS else ()
    return help_page(f"hf-distill {verb}", VERBS[verb].__doc__ or "", ARGUMENTS[verb], preset_names=presets)


def usage() -> str:
    """The page that `hf-distill` alone prints."""
    lines = [f"  {name:<12}{(verb.__doc__ or '').partition(chr(10))[0]}" for name, verb in VERBS.items()]
    more = "hf-distill VERB --help shows the flags of this package, --help_all those of transformers too."
    return "usage: hf-distill VERB [CONFIG.yaml] [--flag value ...]\n\n" + "\n".join([*lines, "", more])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status of `run_command`, which ends every error with one line."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        return run_command("hf-distill", lambda: _say(usage()))
    if words[0] == "--version":
        return run_command("hf-distill", lambda: _say(f"hf-distill {__version__}"))
    if words[0] not in VERBS:
        sys.stderr.write(f"hf-distill: unknown verb {words[0]!r}\n{usage()}\n")
        return 2
    if words[0] in ARGUMENTS and {"-h", "--help"} & set(words[1:]):
        return run_command(f"hf-distill {words[0]}", lambda: _say(_help(words[0])))
    # Past this point a page of help is that of all flags.
    given = ["--help" if word == "--help_all" else word for word in words[1:]]
    return run_command(f"hf-distill {words[0]}", lambda: VERBS[words[0]](given))


if __name__ == "__main__":
    sys.exit(main())
