"""Fine-tunes many models on many tasks, with shares of the rows, seeds and settings, and prints the papers' tables.

The students that an ablation compares are distilled first, each once.

A cell of the grid is one fine-tuning with its own result file. So a stopped grid continues where it was, and a grid
that grows runs only the new cells. For each model, task and share, the settings with the best mean score over the
seeds on the evaluation rows are chosen, as in the papers; with a single setting nothing is chosen.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash
from datasets.utils import logging as progress_bars
from transformers import set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_distill.commands import distill
from hf_distill.commands.evaluate import score_model
from hf_distill.commands.folders import content_of, contents, wherever, writes_folder
from hf_distill.commands.grid_students import STUDENTS, Student, for_task, plan_students
from hf_distill.commands.results import finish, write_results
from hf_distill.hub.disclosure import is_secret_name, public, without_secrets
from hf_distill.hub.loading import load_tokenizer
from hf_distill.hub.selection import RESULTS_FILE
from hf_distill.settings import (
    FineTuningArguments,
    GridArguments,
    MultiTeacherArguments,
    StudentArguments,
    TaskArguments,
    TeacherModelArguments,
    TextbookArguments,
)
from hf_distill.settings.parsing import parse
from hf_distill.storage.files import read_mapping, write_text, write_yaml
from hf_distill.storage.steps import differences, mark, read_marker
from hf_distill.tasks.loading import LoadedTask, load_tasks, takes_columns
from hf_distill.tasks.majority import majority_scores
from hf_distill.trainers.checkpoints import LAST_CHECKPOINT
from hf_distill.trainers.fine_tuning.task_models import load_task_model
from hf_distill.trainers.fine_tuning.trainer import finetune

logger = logging.getLogger(__name__)

GRID_FILE, TABLE_FILE, CELLS = "grid.json", "grid.md", "cells"
RESUME = "resume_from_checkpoint"
CLASSES = (StudentArguments, TeacherModelArguments, TextbookArguments, MultiTeacherArguments)


@dataclass(frozen=True)
class Cell:
    """One fine-tuning.

    Attributes:
        model: Name of the model.
        task: Name of the task.
        fraction: Share of its training rows.
        seed: Seed of the fine-tuning; `None` if the model is only scored.
        learning_rate: `None` takes the task's.
        epochs: `None` takes the task's.
        batch_size: `None` takes the task's.
        path: Id or folder of the model.
        distillation_seed: Seed of the distillation that made the model, if the grid has several.
    """

    model: str
    task: str
    fraction: float
    seed: int | None
    learning_rate: float | None
    epochs: float | None
    batch_size: int | None
    path: str = ""
    distillation_seed: int | None = None

    @property
    def settings(self) -> tuple[float | None, float | None, int | None]:
        """The settings that the search chooses from."""
        return self.learning_rate, self.epochs, self.batch_size

    @property
    def file(self) -> str:
        """The path of its result, relative to the folder of the grid."""
        task = self.task.replace("/", "_")
        chosen = "_".join(
            f"{name}{value:g}"
            for name, value in zip(("lr", "ep", "bs"), self.settings, strict=True)
            if value is not None
        )
        seeds = {"distilled": self.distillation_seed, "seed": self.seed}
        parts = [*(f"{kind}{seed}" for kind, seed in seeds.items() if seed is not None), chosen]
        name = "_".join(part for part in parts if part) or "as_it_is"
        return f"{CELLS}/{self.model}/{task}/{self.fraction:g}/{name}.json"


@writes_folder("cells", "students")
def run(arguments: GridArguments) -> dict[str, Any]:
    """Distil the missing students, run every cell without a result, and write tables.

    Writes `grid.json`, `grid.md` with the tables, and `arguments.yaml`, which repeats the run.

    Args:
        arguments: The grid.

    Returns:
        The content of `grid.json`: `cells` with their scores; `tables` by share: model -> task -> `mean`, `spread`
        (standard deviation over the seeds, absent for a single seed), `runs`, `settings`, and `constant_runs`, the
        number of runs that predict the same label for every row, if there are any; and `majority` by task.

    Raises:
        ValueError: If a result was made from another model, other rows or another maximum length.
    """
    started = time.perf_counter()
    folder = Path(arguments.output_dir)
    loaded = {
        name: task.subset(None, arguments.max_eval_samples, seed=arguments.fraction_seed)
        for name, task in zip(
            arguments.tasks, load_tasks(arguments.tasks, arguments.data_dir, **arguments.column_fields()), strict=True
        )
    }
    names = {name: task.spec.name for name, task in loaded.items()}
    distil_students(plan_students(arguments, names), folder)
    metrics = {task.spec.name: task.spec.headline for task in loaded.values()}
    cells = list(grid_cells(arguments, names))
    tasks = {names[name]: task for name, task in loaded.items()}
    rows, done = {name: task.checksum() for name, task in tasks.items()}, []
    for number, cell in enumerate(cells, 1):
        found = _result(folder / cell.file, cell, tasks[cell.task], rows[cell.task], arguments)
        logger.info(f"{number} of {len(cells)}: {cell.file} {metrics[cell.task]} {found['score']}")
        done.append(found)
    tables = {f"{share:g}": table(done, share) for share in arguments.fractions}
    facts = {
        "job": "grid",
        "output_dir": str(folder),
        "models": dict(arguments.named_models())
        | {name: str(folder / STUDENTS / name) for name in arguments.student_changes()},
        "metrics": metrics,
        "cells": done,
        "tables": tables,
        "majority": {task.spec.name: majority_scores(task) for task in loaded.values()},
    }
    finish(folder, facts, started, arguments, name=GRID_FILE)
    write_text(folder / TABLE_FILE, format_tables(public(facts)) + "\n")
    return facts


def summary(results: Mapping[str, Any]) -> str:
    """Return the tables, and where they are."""
    return f"{format_tables(results)}\n{len(results['cells'])} cells; tables in {results['output_dir']}"


def grid_cells(arguments: GridArguments, names: Mapping[str, str]) -> Iterator[Cell]:
    """Every cell of the grid; cells of the same model and task are consecutive.

    Args:
        arguments: The grid.
        names: Task as given -> its name.
    """
    students = plan_students(arguments, names)
    models: list[tuple[str, str, int | None, tuple[str, ...]]] = [
        (name, path, None, tuple(names)) for name, path in arguments.named_models()
    ]
    models += [(one.name, one.folder, one.seed, one.tasks) for one in students]
    seeds = arguments.seeds if arguments.fine_tune else [None]
    for model, path, distilled, tasks in models:
        for given in tasks:
            settings = (values or [None] for values in arguments.settings_of(given))
            chosen: Any = itertools.product(arguments.fractions, *settings, seeds)
            place = for_task(path, given, names[given])
            for fraction, learning_rate, epochs, batch_size, seed in chosen:
                yield Cell(model, names[given], fraction, seed, learning_rate, epochs, batch_size, place, distilled)


def _result(path: Path, cell: Cell, task: LoadedTask, content: str, arguments: GridArguments) -> dict[str, Any]:
    """The result of a cell, read from its file or computed; `content` identifies the rows of the task."""
    rows = math.floor(len(task.train) * cell.fraction + 1e-9)
    if rows < 1:
        raise ValueError(
            f"`--fractions` has {cell.fraction:g}, which leaves no row of the {len(task.train)} of {cell.task!r}."
        )
    identity = {
        **asdict(cell),
        "train_rows": rows,
        "data": task.source,
        "data_content": content,
        # A Hub id is only identified by its name.
        "path_content": content_of(Path(cell.path)) if Path(cell.path).is_dir() else None,
        "max_length": arguments.max_length or task.spec.fine_tuning.max_length,
        "max_eval_samples": arguments.max_eval_samples,
        "fraction_seed": arguments.fraction_seed,
        "bf16": arguments.bf16,
        "warmup_steps": arguments.warmup_steps,
        # Guessed columns are the same in every run, so only tasks that take flags for columns record them.
        **({"columns": arguments.column_fields()} if takes_columns(task.source) else {}),
    }
    # A moved folder is recognised by its content; a result records only the last names of folders.
    places = {"path": Path(cell.path).is_dir(), "data": Path(task.source).exists()}
    deciding = {name: value for name, value in identity.items() if not places.get(name)}
    digest = xxhash.xxh3_128(json.dumps(deciding, sort_keys=True).encode()).hexdigest()
    shown = public(identity)
    identity = {**shown, "identity": digest}
    if path.is_file():
        found = read_mapping(path)
        if found.get("identity") != digest:
            changed = differences({name: found.get(name) for name in shown}, shown)
            shown = changed or "another id of the same name, of the model or of the rows"
            raise ValueError(f"{str(path)!r} was made with other settings ({shown}); give another `--output_dir`.")
        return found
    score = _fine_tune if arguments.fine_tune else _score
    found = identity | score(cell, task.subset(rows, None, seed=arguments.fraction_seed), arguments)
    write_results(path.parent, found, path.name)
    return found


def _score(cell: Cell, task: LoadedTask, arguments: GridArguments) -> dict[str, Any]:
    """Score a model with its own head."""
    started = time.perf_counter()
    scratch = str(Path(arguments.output_dir, "scratch"))
    running = FineTuningArguments(scratch, bf16=arguments.bf16, use_cpu=arguments.use_cpu, report_to="none")
    limits = TaskArguments(task.spec.name, max_length=arguments.max_length)
    found = score_model(cell.path, task, running, limits, flag="--models")
    facts = {name: found[name] for name in ("score", "constant", "scores")}
    return {**facts, "steps": 0, "seconds": round(time.perf_counter() - started, 2)}


def _fine_tune(cell: Cell, task: LoadedTask, arguments: GridArguments) -> dict[str, Any]:
    seed = 0 if cell.seed is None else cell.seed
    set_seed(seed)
    settings = {
        "learning_rate": cell.learning_rate,
        "num_train_epochs": cell.epochs,
        "per_device_train_batch_size": cell.batch_size,
        "warmup_steps": arguments.warmup_steps,
    }
    training = FineTuningArguments(
        str(Path(arguments.output_dir, "scratch")),
        seed=seed,
        bf16=arguments.bf16,
        use_cpu=arguments.use_cpu,
        report_to="none",
        save_strategy="no",
        disable_tqdm=not progress_bars.is_progress_bar_enabled(),
        **settings,  # type: ignore[arg-type]
    )
    result = finetune(
        load_task_model(cell.path, task.spec, flag="--models"),
        task,
        load_tokenizer(cell.path, flag="--models"),
        training,
        max_length=arguments.max_length,
        save=False,
    )
    facts = {"score": result.score, "constant": result.constant, "scores": result.scores}
    return {**facts, "steps": result.steps, "seconds": result.seconds}


# --- students --------------------------------------------------------------------------------------------------------


def distil_students(students: Sequence[Student], root: Path) -> None:
    """Distil every unfinished student, in order.

    The settings of a student are in `NAME.yaml` beside its folder, a file that `hf-distill distill` accepts; if the
    grid was moved, they are written again.

    Args:
        students: See `plan_students`; a student may be the teacher or the starting point of a later one.
        root: The folder of the grid.

    Raises:
        ValueError: If a student was begun with other settings, or `hf-distill distill` does not have a setting.
    """
    for one in students:
        folder, settings = Path(one.folder), one.settings
        file = folder.with_name(f"{folder.name}.yaml")
        finished = (folder / RESULTS_FILE).is_file()
        begun = any(folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"))
        inputs = wherever(contents(settings), root)
        if finished or begun:
            _check_same(file, settings, one.name, folder.relative_to(root), root)
            _check_same_files(folder, inputs, one.name)
        write_yaml(file, _without_secret_fields(settings), sort_keys=False)
        if finished:
            logger.warning(f"[{one.name}] distilled before: {folder}")
            continue
        mark(folder, {"inputs": inputs})
        logger.warning(f"[{one.name}] starts: {folder}")
        # Secrets are passed to the training only, and are not in any file.
        secrets = {key: value for key, value in settings.items() if is_secret_name(key) and value is not None}
        words = [word for key, value in secrets.items() for word in (f"--{key}", str(value))]
        words += [f"--{RESUME}", LAST_CHECKPOINT] if begun and RESUME not in settings else []
        distill.run(*parse(CLASSES, [str(file), *words], presets=True, prog="hf-distill grid"))


def _without_secret_fields(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields without secrets, which may be written to a file."""
    kept = {name: value for name, value in settings.items() if not is_secret_name(name)}
    return dict(without_secrets(kept))


def _check_same(file: Path, settings: dict[str, Any], name: str, place: Path, root: Path) -> None:
    """Refuse a student that was begun with other settings; `place` is its folder below `root`, the grid's folder."""
    before = read_mapping(file) if file.is_file() else {}
    earlier = Path(str(before.get("output_dir", "")))
    is_ours = earlier.parts[-len(place.parts) :] == place.parts
    earlier_root = Path(*earlier.parts[: -len(place.parts)]) if is_ours else root
    # Neither the point of resumption nor the location of the grid changes the result.
    old = {**wherever(before, earlier_root), RESUME: None}
    new = {**wherever(_without_secret_fields(settings), root), RESUME: None}
    changed = differences(old, new)
    if changed:
        raise ValueError(
            f"`--students`: {name!r} was begun with other settings ({changed}); give it another name, or the grid "
            "another `--output_dir`."
        )


def _check_same_files(folder: Path, inputs: Mapping[str, str], name: str) -> None:
    before = (read_marker(folder) or {"settings": {}})["settings"].get("inputs")
    changed = differences(before, inputs, "there") if before is not None else ""
    if changed:
        raise ValueError(
            f"`--students`: {name!r} was begun with files of another content ({changed}); give it another name, or "
            "the grid another `--output_dir`."
        )


# --- tables ----------------------------------------------------------------------------------------------------------


def table(cells: Sequence[Mapping[str, Any]], fraction: float) -> dict[str, dict[str, Any]]:
    """Model -> task -> mean and spread over the seeds, for its best settings."""
    found: dict[str, dict[str, Any]] = {}
    of_share = [cell for cell in cells if cell["fraction"] == fraction]
    keys = dict.fromkeys((cell["model"], cell["task"]) for cell in of_share)
    for model, task in keys:
        groups: dict[tuple[Any, ...], list[float]] = {}
        constants: dict[tuple[Any, ...], int] = {}
        for cell in of_share:
            if (cell["model"], cell["task"]) == (model, task):
                settings = (cell["learning_rate"], cell["epochs"], cell["batch_size"])
                # JSON has no NaN: an undefined score counts as the worst.
                groups.setdefault(settings, []).append(-math.inf if cell["score"] is None else cell["score"])
                constants[settings] = constants.get(settings, 0) + (cell.get("constant") is not None)
        settings, scores = max(groups.items(), key=lambda item: statistics.fmean(item[1]))
        entry: dict[str, Any] = {"mean": statistics.fmean(scores), "runs": len(scores), "tried": len(groups)}
        if len(scores) > 1:
            entry["spread"] = statistics.stdev(scores)
        if constants[settings]:
            entry["constant_runs"] = constants[settings]
        names = ("learning_rate", "epochs", "batch_size")
        entry["settings"] = {name: value for name, value in zip(names, settings, strict=True) if value is not None}
        found.setdefault(model, {})[task] = entry
    return found


def format_tables(facts: Mapping[str, Any]) -> str:
    """Markdown tables, one for each share, with a row for each model, a column for each task, and the mean."""
    parts = []
    for share, found in facts["tables"].items():
        tasks = list(facts["metrics"])
        head = [f"{task} ({facts['metrics'][task]})" for task in tasks]
        lines = [
            f"| {100 * float(share):g} % of the rows | {' | '.join(head)} | mean |",
            "|---" * (len(tasks) + 2) + "|",
        ]
        for model, by_task in found.items():
            shown = [_shown(by_task[task]) if task in by_task else "–" for task in tasks]
            # A mean over some of the tasks would be misleading beside means over all of them.
            means = [by_task[task]["mean"] for task in tasks if task in by_task]
            mean = f"{100 * statistics.fmean(means):.1f}" if len(means) == len(tasks) else "–"
            lines.append(f"| {model} | {' | '.join(shown)} | {mean} |")
        lines.append(_majority_row(facts, tasks))
        parts.append("\n".join(lines))
    tried = max(entry["tried"] for found in facts["tables"].values() for by in found.values() for entry in by.values())
    note = (
        f"\n\nThe best of {tried} settings for each model, task and share, chosen on the same rows."
        if tried > 1
        else ""
    )
    constant = [
        f"{model} on {task} ({100 * float(share):g} %): {entry['constant_runs']} of {entry['runs']} runs"
        for share, found in facts["tables"].items()
        for model, by_task in found.items()
        for task, entry in by_task.items()
        if "constant_runs" in entry
    ]
    if constant:
        note += f"\n\nPredicts one label only, whatever the text says: {'; '.join(constant)}."
    return "\n\n".join(parts) + note


def _majority_row(facts: Mapping[str, Any], tasks: Sequence[str]) -> str:
    """The row with the scores of the majority label of the training rows; a dash where there is none."""
    scores = [(facts["majority"].get(task) or {}).get("score") for task in tasks]
    shown = ["–" if score is None else f"{100 * score:.1f}" for score in scores]
    known = [score for score in scores if score is not None]
    mean = f"{100 * statistics.fmean(known):.1f}" if len(known) == len(scores) else "–"
    return f"| majority | {' | '.join(shown)} | {mean} |"


def _shown(entry: Mapping[str, Any]) -> str:
    spread = f" ± {100 * entry['spread']:.1f}" if "spread" in entry else ""
    return f"{100 * entry['mean']:.1f}{spread}"
