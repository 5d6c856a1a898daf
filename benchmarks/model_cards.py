"""The cards of the released students: `model_cards/NAME/facts.yaml` is rendered to the `README.md` beside it.

    python benchmarks/model_cards.py                                # renders every folder of model_cards
    python benchmarks/model_cards.py model_cards/NAME --student runs/x/student --scores runs/x/sst2 runs/x/rte \
        --corpus runs/x/corpus --speed runs/x/bench/bench.json --commands runs/x/teacher runs/x/student
    python benchmarks/model_cards.py model_cards/NAME --student runs/x/encoder --scores runs/x/stsb \
        --teacher_scores runs/teacher/stsb --commands runs/stored runs/x/encoder

The second form first reads the measurements from the folders of the runs and writes them into `facts.yaml`; facts that
were written by hand (names on the Hub, licences, limits, how the text was made) are kept. `model_cards/README.md`
lists every key. Incomplete cards of a release are an error, and nothing is shown that was not measured.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from collect_run import STAGES, command_of, without_paths
from record import head_commit

from hf_distill.hub.model_card import SENTENCES, CardFacts, downsample_curves, render_card
from hf_distill.hub.selection import FACTS_FILE
from hf_distill.tasks.vectors import Pairs

ROOT = Path(__file__).parent.parent
CARDS = ROOT / "model_cards"
FACTS = "facts.yaml"
CARD = "README.md"
# Facts that a released card must have, also for every score.
REQUIRED = (
    *("teacher", "student", "objectives", "corpus", "updates", "rows_per_update", "seed", "scale", "scores", "speed"),
    *("commands", "hardware", "versions", "limits", "citations", "language", "licence"),
)
REQUIRED_OF_SCORES = ("student", "teacher", "rows", "seed", "commit")
TEXT = "text_classification"
# The Hub's name of a task where it is not that of the rows.
TASK_TYPES = {Pairs.headline: SENTENCES}
TEXTBOOK_ROWS = "rows of the whole textbook"
# Facts about models and corpus that no run knows; those in the file are kept.
BY_HAND = ("name", "hub_id", "revision", "lineage", "licence", "description")


def read_card_facts(folder: Path) -> CardFacts:
    """The facts of a released student.

    Raises:
        FileNotFoundError: If the folder has none.
        ValueError: If a key is unknown or something that was to be measured is missing.
    """
    values = yaml.safe_load((folder / FACTS).read_text(encoding="utf-8"))
    facts = CardFacts.from_dict(values)
    missing = [name for name in REQUIRED if getattr(facts, name) in (None, [], {})]
    missing += [
        f"scores ({score.task}): {name}"
        for score in facts.scores
        for name in REQUIRED_OF_SCORES
        if getattr(score, name) is None
    ]
    missing += ["student: parameters"] if facts.student.parameters is None else []
    missing += ["corpus: statistics: rows"] if facts.corpus and "rows" not in facts.corpus.statistics else []
    if missing:
        raise ValueError(f"{folder / FACTS} does not say: {'; '.join(missing)}.")
    return facts


def render_folder(folder: Path) -> Path:
    """Write the card beside its facts."""
    (folder / CARD).write_text(render_card(read_card_facts(folder)), encoding="utf-8")
    return folder / CARD


def gather(options: argparse.Namespace, known: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a folder after its runs: measured ones from their folders, the others as they were.

    Args:
        options: Folders of the runs, any of them `None`.
        known: What the file has so far.
    """
    facts = dict(known)
    commit = options.commit or head_commit()
    if options.student:
        facts = with_student(facts, options.student)
    if options.corpus:
        statistics = without_paths(json.loads((options.corpus / "statistics.json").read_text(encoding="utf-8")))
        shown = {"rows": statistics["rows"], "bytes": statistics["bytes"], "mean words": statistics["mean_words"]}
        shown |= {"engine": statistics["engine"]["name"], "rows searched": statistics["general_corpus"]["kept"]}
        corpus = {"name": "Contextualized corpus"} | dict(facts.get("corpus") or {})
        whole = {key: value for key, value in corpus.get("statistics", {}).items() if key == TEXTBOOK_ROWS}
        facts["corpus"] = corpus | {"statistics": shown | whole}
    if options.scores:
        of_teacher = [_results(folder) for folder in options.teacher_scores or []]
        facts["scores"] = scores_of([_results(folder) for folder in options.scores], commit, of_teacher)
    if options.speed:
        facts["speed"] = speed_of(json.loads(options.speed.read_text(encoding="utf-8")), options.speed_of)
    if options.commands:
        facts["commands"] = [command_of(_stage(folder), folder) for folder in options.commands]
    return facts


def with_student(known: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The facts that a distillation wrote beside its student, under those that were written by hand."""
    written = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    results = _results(folder)
    settings = results["settings"]
    names = ("objectives", "layer_map", "versions", "citations", "pipeline_tag")
    # Of some students only.
    names += tuple(name for name in ("labels", "text_pairs", "several_labels", "writes") if written.get(name))
    measured = {key: written[key] for key in names}
    measured |= {
        "settings": {key: value for key, value in written["settings"].items() if value is not False and value != []},
        "curves": _downsampled(written["curves"]),
        "initialisation": results["first_weights"],
        "updates": results["steps"],
        "rows_per_update": settings.get("per_device_train_batch_size", 8)
        * settings.get("gradient_accumulation_steps", 1),
        "seed": results["seed"],
        "seconds": results["training_seconds"] or known.get("seconds"),
    }
    machine = results["environment"]
    hardware = f"{machine['device']}, {machine['cpus']} cores, {machine['threads']} of them used"
    corpus = {"name": "Textbook"} | dict(known.get("corpus") or {})
    rows = results["textbook_rows"]
    corpus["statistics"] = {"rows": rows} | corpus.get("statistics", {}) | {TEXTBOOK_ROWS: rows}
    teachers = known.get("teacher") or [{} for _ in written["teacher"]]
    return {
        "model_name": written["model_name"],
        "hardware": hardware,
        **known,
        **measured,
        "corpus": corpus,
        "student": _model(written["student"], known.get("student") or {}, _bytes(folder)),
        "teacher": [_model(model, hand, None) for model, hand in zip(written["teacher"], teachers, strict=True)],
    }


def _model(measured: Mapping[str, Any], known: Mapping[str, Any], size: int | None) -> dict[str, Any]:
    """A model's facts: what was measured, and what somebody wrote."""
    model = {key: value for key, value in measured.items() if value is not None}
    model |= {"bytes": size} if size else {}
    return without_paths(model | {key: known[key] for key in BY_HAND if known.get(key) is not None})


def _bytes(folder: Path) -> int:
    """Bytes of the weights."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _downsampled(curves: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, list[list[float]]]:
    """The curves at the steps that a card shows."""
    shown = [step for step, _ in downsample_curves({name: [(int(s), v) for s, v in c] for name, c in curves.items()})]
    return {name: [[step, value] for step, value in points if step in shown] for name, points in curves.items()}


def scores_of(
    results: Sequence[Mapping[str, Any]], commit: str, of_teacher: Sequence[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """One entry per task, split and seed.

    Args:
        results: What `hf-distill adapt` wrote, where a later run may add the baseline, or `evaluate` of the student.
        commit: That was measured.
        of_teacher: What `hf-distill evaluate` wrote of the teacher.
    """
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    for result in [*map(_as_adapted, results), *(_as_adapted(result, "teacher") for result in of_teacher)]:
        score = found.setdefault(
            (result["task"], result["split"], result["seed"]),
            {key: result[key] for key in ("task", "metric", "split", "seed")}
            | {"task_type": TASK_TYPES.get(result["metric"]) or result.get("kind", TEXT).replace("_", "-")}
            | {"rows": result.get("split_rows"), "commit": commit},
        )
        for role in ("student", "teacher", "baseline"):
            if result[role] is not None:
                score.setdefault(role, result[role]["score"])
    return list(found.values())


def _as_adapted(result: Mapping[str, Any], role: str = "student") -> dict[str, Any]:
    """A result with a score for every role, as `adapt` writes it; that of `evaluate` is of one model alone."""
    if result.get("job") != "evaluate":
        return dict(result)
    return {**result, "student": None, "teacher": None, "baseline": None, role: {"score": result["score"]}}


def speed_of(record: Mapping[str, Any], model: str | None) -> dict[str, Any]:
    """The speed for a card, from `bench.json`, from a file of `collect_run.py`, or as `latency_ratio` gives it.

    Raises:
        ValueError: If `bench.json` has several students and none was named.
    """
    if "protocol" not in record:
        return dict(record.get("speed", record))
    rows = {row["model"]: row for row in record["protocol"][1:]}
    if model is None and len(rows) == 1:
        model = next(iter(rows))
    if model not in rows:
        raise ValueError(f"`--speed_of` is {model!r}; allowed are {sorted(rows)}.")
    row = rows[model]
    shape = {key: row[key] for key in ("num_batches", "batch_size", "seq_length")}
    return {"speedup": row["speedup"], **shape, "device": record["device"], "dtype": "float32"}


def _results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def _stage(folder: Path) -> str:
    """What kind of run a folder is, by what it wrote; a corpus writes statistics."""
    if not (folder / "results.json").is_file():
        return "corpus"
    kinds = {"teach": "teacher", "precompute": "stored", "distill": "distilled", "adapt": "student"}
    return kinds[_results(folder)["job"]]


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, gather where runs are named, render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="folders with facts; by default all of model_cards")
    parser.add_argument("--student", type=Path, help="folder of hf-distill distill")
    parser.add_argument("--corpus", type=Path, help="folder of hf-distill corpus")
    parser.add_argument(
        "--scores", nargs="+", type=Path, help="folders of hf-distill adapt, or evaluate of the student"
    )
    parser.add_argument("--teacher_scores", nargs="+", type=Path, help="folders of hf-distill evaluate of the teacher")
    parser.add_argument("--speed", type=Path, help="bench.json, or a file of collect_run.py")
    parser.add_argument("--speed_of", help="the student's name in bench.json, if there are several")
    parser.add_argument("--commands", nargs="+", type=Path, help=f"folders of stages: {', '.join(STAGES)}")
    parser.add_argument("--commit", help="commit that was measured; by default the one checked out")
    options = parser.parse_args(argv)
    folders = options.folders or sorted(path.parent for path in CARDS.glob(f"*/{FACTS}"))
    if any((options.student, options.corpus, options.scores, options.speed, options.commands)):
        if len(folders) != 1:
            parser.error("name the one folder that the runs belong to")
        path = folders[0] / FACTS
        known = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = gather(options, known or {})
        path.write_text(yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=110), encoding="utf-8")
    for folder in folders:
        print(render_folder(folder))


if __name__ == "__main__":
    main()
