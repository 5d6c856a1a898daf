"""Reckon what the grids of the papers cost, for the table in `docs/grid.md`: python docs/grid_costs.py --write.

Everything but three things is read from the files in `examples/configs`: how many rows the data sets have, how large
models on the Hub are, and how many products a second a device does.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from pathlib import Path
from typing import Any

import yaml

from hf_distill.commands.grid import CLASSES, grid_cells
from hf_distill.commands.grid_students import Student, plan_students
from hf_distill.settings import GridArguments
from hf_distill.settings.parsing import parse
from hf_distill.students.shapes import StudentShape, parse_shape
from hf_distill.tasks import get_task

ROOT = Path(__file__).parents[1]
CONFIGS, PAGE = ROOT / "examples" / "configs", ROOT / "docs" / "grid.md"
BEGIN, END = "<!-- costs:begin (python docs/grid_costs.py --write) -->", "<!-- costs:end -->"
# What an H200 did in whole steps of MiniLMv2 in bf16, with large and base teachers: 30 and 18 % of 989 TFLOP/s
# (docs/gpu.md). A fifth of the card's rate is taken for everything.
PRODUCTS_A_SECOND = 200e12
# Training rows: tables of the papers, and what is known of the data sets; canli and shopping10 roughly.
ROWS = {
    "glue/mnli": 392_702, "glue/sst2": 67_349, "glue/rte": 2_490, "glue/mrpc": 3_668, "glue/cola": 8_551,
    "glue/stsb": 5_749, "glue/qqp": 363_846, "glue/qnli": 104_743, "squad": 87_599, "squad_v2": 130_319,
    "conll2003": 14_041, "xnli_zh": 392_702, "lcqmc": 238_766, "clue/cmrc2018": 10_142, "clue/drcd": 26_936,
    "clue/afqmc": 34_334, "clue/tnews": 53_360, "clue/iflytek": 12_133, "clue/ocnli": 50_437,
    "clue/cluewsc2020": 1_244, "clue/csl": 20_000, "fewclue/bustm": 160, "fewclue/eprstmt": 160,
    "fewclue/csldcp": 2_036, "chemprot": 4_169, "anli": 162_865, "acl_arc": 1_688, "scierc": 3_219,
    "hyperpartisan": 515, "helpful": 115_251, "scotus": 5_000, "ledgar": 60_000, "financial_phrasebank": 4_846,
    "canli": 9_500, "shopping10": 62_773,
}  # fmt: skip
AUGMENTED = {
    "glue/mnli": 8_017_849, "glue/sst2": 1_107_141, "glue/rte": 143_018, "glue/mrpc": 225_057, "glue/cola": 210_911,
    "glue/stsb": 319_959, "glue/qqp": 7_573_531, "glue/qnli": 4_229_751,
}  # fmt: skip
BASE, LARGE = StudentShape(12, 768, 12, 3072), StudentShape(24, 1024, 16, 4096)
# By a part of the id or folder; the first that fits.
SHAPES = {
    "MiniLMv2-L6-H384": StudentShape(6, 384, 12, 1536), "large": LARGE, "corpus_paper/teachers": LARGE,
    "xbase": StudentShape(20, 1024, 16, 4096), "mitkd_teacher_zh": StudentShape(20, 1024, 16, 4096),
}  # fmt: skip


def weights(shape: StudentShape) -> float:
    """Weights that a token meets: those of the layers, without embeddings."""
    return shape.num_layers * (4 * shape.hidden_size**2 + 2 * shape.hidden_size * shape.intermediate_size)


def shape_of(model: str, made: dict[str, StudentShape]) -> StudentShape:
    """The shape of a model: a student of the grid, one that is known, or base."""
    found = next((shape for folder, shape in made.items() if model == folder), None)
    return found or next((shape for part, shape in SHAPES.items() if part in model), BASE)


@functools.cache
def training_of(settings: str) -> tuple[Any, Any]:
    """Shape and training of a student, by its settings as YAML, over its preset."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "student.yaml")
        file.write_text(settings, encoding="utf-8")
        shape, _, _, training = parse(CLASSES, [str(file)], presets=True)
    return shape, training


def distillation(student: Student, names: dict[str, str], made: dict[str, StudentShape]) -> tuple[float, float, float]:
    """Updates, rows and products of one distillation; its shape is noted under its folder."""
    settings = {**student.settings, "use_cpu": True, "output_dir": "unused"}
    teachers = [*settings.pop("teacher_models", ()), *filter(None, [settings.pop("teacher_model", None)])]
    texts, begun = settings.pop("textbook"), settings.pop("student_model", None)
    for name in ("seed", "eval_task", "resume_from_checkpoint", "combine"):
        settings.pop(name, None)
    shape, training = training_of(yaml.safe_dump(settings))
    batch = training.per_device_train_batch_size * training.gradient_accumulation_steps
    updates = training.max_steps
    if updates < 0:
        sources = texts if isinstance(texts, list) else [texts]
        rows = sum(rows_of(source, names[student.tasks[0]]) for source in sources)
        updates = training.num_train_epochs * -(-rows // batch)
    made[student.folder] = shape_of(begun, made) if begun else parse_shape(shape.student_shape)
    a_token = 6 * weights(made[student.folder]) + 2 * sum(weights(shape_of(one, made)) for one in teachers)
    return updates, updates * batch, updates * batch * training.max_length * a_token


def rows_of(source: str, task: str) -> int:
    """Rows of a text that is read so many times; of any other the updates are given."""
    return AUGMENTED[task] if "taskda" in source else ROWS[source]


def fine_tuning(cell: Any, made: dict[str, StudentShape]) -> tuple[float, float]:
    """Rows and products of one fine-tuning."""
    settings = get_task(cell.task).fine_tuning
    rows = ROWS[cell.task] * cell.fraction * (cell.epochs or settings.epochs)
    return rows, rows * settings.max_length * 6 * weights(shape_of(cell.path, made))


def costs(path: Path) -> dict[str, float]:
    """What a grid does: distillations, updates, rows, fine-tunings, their rows, and hours of a device."""
    (grid,) = parse((GridArguments,), [str(path)])
    names = {task: get_task(task).name for task in grid.tasks}
    made: dict[str, StudentShape] = {}
    distilled = [distillation(student, names, made) for student in plan_students(grid, names)]
    tuned = [fine_tuning(cell, made) for cell in grid_cells(grid, names)] if grid.fine_tune else []
    products = sum(one[2] for one in distilled), sum(one[1] for one in tuned)
    return {
        "distillations": len(distilled),
        "updates": sum(one[0] for one in distilled),
        "rows": sum(one[1] for one in distilled),
        "fine-tunings": len(tuned),
        "fine-tuned rows": sum(one[0] for one in tuned),
        "hours distilling": products[0] / PRODUCTS_A_SECOND / 3600,
        "hours fine-tuning": products[1] / PRODUCTS_A_SECOND / 3600,
    }


def rendered() -> str:
    """The table: one row a file."""
    lines = [
        "| file | distillations | updates | rows | hours | fine-tunings | rows | hours |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for path in sorted(CONFIGS.glob("*.yaml")):
        if "tasks" not in yaml.safe_load(path.read_text(encoding="utf-8")) or "mitkd_teacher" in path.name:
            continue
        found = costs(path)
        cells = [
            f"[`{path.name}`](../examples/configs/{path.name})",
            found["distillations"],
            f"{found['updates'] / 1e6:.2f} M",
            f"{found['rows'] / 1e6:,.0f} M",
            f"{found['hours distilling']:,.0f}",
        ]
        tuned = [found["fine-tunings"], f"{found['fine-tuned rows'] / 1e6:,.0f} M", found["hours fine-tuning"]]
        cells += [f"{tuned[0]:,}", tuned[1], f"{tuned[2]:,.0f}" if tuned[2] >= 1 else "< 1"] if tuned[0] else ["–"] * 3
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def page_with(table: str) -> str:
    """The page with another table."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="Write the table into docs/grid.md.")
    if parser.parse_args().write:
        PAGE.write_text(page_with(rendered()), encoding="utf-8")
    else:
        print(rendered())  # noqa: T201


if __name__ == "__main__":
    main()
