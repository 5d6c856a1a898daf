"""The tables in docs/tasks.md are those of the registry."""

import runpy
from pathlib import Path

from hf_distill.tasks.catalogue.registry import get_task, list_tasks

FOLDER = Path(__file__).parents[2] / "docs"
HINT = "write it anew: python docs/task_tables.py"
task_tables = runpy.run_path(str(FOLDER / "task_tables.py"))["task_tables"]


def test_the_tables_of_the_docs_are_those_of_the_registry():
    names = [name for name in list_tasks() if not name.startswith("mine/")]
    shown = (
        (FOLDER / "tasks.md").read_text(encoding="utf-8").split("<!-- tasks -->\n")[1].split("\n<!-- /tasks -->")[0]
    )
    assert shown == task_tables(names), HINT


def test_every_task_says_where_its_settings_stand_and_what_its_licence_is():
    for name in list_tasks():
        spec = get_task(name)
        assert name.startswith("mine/") or (spec.licence and spec.fine_tuning.source)
        assert name.startswith("mine/") or spec.fine_tuning.source != "the user's task file"


def test_tasks_of_the_same_settings_share_a_row():
    tables = task_tables(["glue/rte", "glue/mrpc", "glue/stsb"])
    assert "| `glue/rte`, `glue/mrpc`, `glue/stsb` | 10 | 2e-05 | 16 | 0.06 | 0.01 | 128 | Contextualized" in tables
    assert "| `glue/stsb` | `sentence1`, `sentence2` | `label`: a number, 0 to 5 | `pearson`, `spearman` |" in tables
