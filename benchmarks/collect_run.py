"""Gather the results of one real run (teach, corpus, distill, evaluate) into one JSON file under benchmarks/results.

    python benchmarks/collect_run.py --teacher runs/sst2/teacher --corpus runs/sst2/corpus \
        --distilled runs/sst2/distilled --student runs/sst2/student --output benchmarks/results/sst2.json

Local folders are replaced by their last part; the commands are rebuilt from the arguments that the stages recorded,
where these differ from their defaults.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import yaml
from record import head_commit

# Arguments of the stages that do not affect the result.
SILENT = {
    "data_dir",
    "disable_tqdm",
    "index_dir",
    "work_dir",
    "logging_dir",
    "run_name",
    "accelerator_config",
    # Set by the argument classes themselves.
    "activation_checkpointing",
    "gradient_checkpointing",
    "dataloader_pin_memory",
    "ddp_find_unused_parameters",
    "debug",
    "resume_from_checkpoint",
    "report_to",
}
STAGES = {
    "teacher": ("teach", "TaskArguments TeacherArguments FineTuningArguments"),
    "corpus": ("corpus", "TaskArguments CorpusArguments"),
    "distilled": (
        "distill",
        "StudentArguments TeacherArguments TextbookArguments DistillationArguments",
    ),
    "student": ("adapt", "TaskArguments AdaptationArguments FineTuningArguments TeacherArguments"),
    "baseline": ("adapt", "TaskArguments AdaptationArguments FineTuningArguments TeacherArguments"),
}
# Of other jobs, for `collect_grid.py` and `model_cards.py`.
JOBS = STAGES | {
    "stored": ("precompute", "TeacherArguments TextbookArguments PrecomputeArguments"),
    "mtl": ("mtl", "TasksArguments TeacherArguments MTLArguments"),
    "grid": ("grid", "GridArguments"),
    "generation": (
        "generate",
        "GenerationTaskArguments GenerationArguments GenerationTrainingArguments",
    ),
}


def without_paths(value: Any) -> Any:
    """Shorten strings that are paths to their last part."""
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    if isinstance(value, str) and "/" in value and (Path(value).exists() or value.startswith(("/", "../", "runs/"))):
        return Path(value).name
    return value


def command_of(stage: str, folder: Path) -> str:
    """The job's command line, rebuilt from its recorded arguments."""
    from dataclasses import MISSING, fields

    import hf_distill.settings as arguments

    verb, classes = JOBS[stage]
    written = yaml.safe_load((folder / "arguments.yaml").read_text(encoding="utf-8"))
    words = [f"hf-distill {verb}"]
    for name in classes.split():
        for item in fields(getattr(arguments, name)):
            default = item.default_factory() if item.default_factory is not MISSING else item.default
            value = written.get(item.name)
            if item.name in SILENT or value is None or value == default or str(value) == str(default):
                continue
            shown = without_paths(value)
            words.append(f"--{item.name} {' '.join(map(str, shown)) if isinstance(shown, list) else shown}")
    return " ".join(words)


def measure_speed(teacher: Path, student: Path, num_batches: int) -> dict[str, Any]:
    """Teacher against student on this machine, on the papers' batches of 32 rows with 128 tokens."""
    from hf_distill import latency_ratio
    from hf_distill.hub.loading import load_model

    models = (load_model(str(path), flag="--teacher") for path in (teacher, student))
    return latency_ratio(*models, num_batches=num_batches, warmup=2).to_dict()


def main() -> None:
    """Parse, gather, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for stage in STAGES:
        parser.add_argument(f"--{stage}", type=Path, required=stage not in ("baseline", "corpus"))
    parser.add_argument("--note", default="", help="what a reader should know")
    parser.add_argument("--commit", help="commit that the runs were made with; by default the one checked out")
    parser.add_argument("--speed_batches", type=int, default=20, help="batches of 32 x 128 for the speed-up")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    gathered: dict[str, Any] = {"note": options.note, "commands": {}, "stages": {}}
    for stage in STAGES:
        folder = getattr(options, stage)
        if folder is None:
            continue
        facts = json.loads((folder / ("statistics.json" if stage == "corpus" else "results.json")).read_text())
        if "history" in facts:
            entries = facts["history"]
            facts["history"] = entries[:: max(1, len(entries) // 12)]
        gathered["stages"][stage] = without_paths(facts)
        gathered["commands"][stage] = command_of(stage, folder)
    scores = gathered["stages"]["student"]
    base = (gathered["stages"].get("baseline") or scores).get("baseline") or {}
    teacher = scores.get("teacher") or gathered["stages"]["teacher"]
    speed = measure_speed(options.teacher, options.student, options.speed_batches)
    summary = {
        "task": scores["task"],
        "student_shape": gathered["stages"]["distilled"]["student_shape"],
        "metric": scores["metric"],
        "teacher": teacher["score"],
        "student": scores["student"]["score"],
        "baseline": base.get("score"),
        "speedup": round(speed["speedup"], 2),
        "machine": {"cores": os.cpu_count(), "load_average": round(os.getloadavg()[0], 1)},
        "commit": options.commit or head_commit(),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(
        json.dumps({"summary": summary, "speed": speed, **gathered}, indent=1, default=str) + "\n", encoding="utf-8"
    )
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
