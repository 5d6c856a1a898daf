"""A grid of fine-tunings: every cell once, resumable, tables with means and spreads."""

import json
import statistics

import pytest
from tiny_data import MOODS, mood_rows, save_model, write_task
from transformers import BertModel, set_seed

from hf_distill.commands import grid
from hf_distill.commands.grid import Cell, format_tables, grid_cells, run as run_grid, table
from hf_distill.hub.disclosure import public
from hf_distill.settings import GridArguments
from hf_distill.settings.parsing import parse

SPEC = MOODS | {"fine_tuning": {"max_length": 16, "epochs": 1, "batch_size": 8, "learning_rate": 1e-3}}


@pytest.fixture
def data(tmp_path, sentences, tiny_bert_config, tiny_tokenizer):
    """Two tasks and two encoders."""
    for name in ("mood", "praise"):
        write_task(tmp_path / name, mood_rows(sentences), **SPEC)
    for seed, name in enumerate(("one", "two")):
        set_seed(seed)
        save_model(tmp_path / name, BertModel(tiny_bert_config()), tiny_tokenizer)
    return tmp_path


def arguments(data, **values):
    given = {
        "models": [f"first={data / 'one'}", str(data / "two")], "tasks": [str(data / "mood"), str(data / "praise")],
        "use_cpu": True, "output_dir": str(data / "grid"),
    }  # fmt: skip
    return GridArguments(**{**given, **values})


def test_every_model_task_share_and_seed_has_a_cell(data):
    facts = run_grid(arguments(data, tasks=[str(data / "mood")], fractions=[0.5, 1.0], seeds=[1, 2]))
    assert len(facts["cells"]) == 8
    assert {cell["train_rows"] for cell in facts["cells"]} == {20, 40}
    assert set(facts["tables"]) == {"0.5", "1"}
    of_cell = [
        cell["score"] for cell in facts["cells"]
        if (cell["model"], cell["task"], cell["fraction"]) == ("first", "mood", 0.5)
    ]  # fmt: skip
    entry = facts["tables"]["0.5"]["first"]["mood"]
    assert entry["mean"] == pytest.approx(statistics.fmean(of_cell))
    assert entry["spread"] == pytest.approx(statistics.stdev(of_cell))
    assert public(facts) == json.loads((data / "grid" / "grid.json").read_text())
    assert format_tables(facts) + "\n" == (data / "grid" / "grid.md").read_text()
    (again,) = parse((GridArguments,), [str(data / "grid" / "arguments.yaml")])
    assert again == arguments(data, tasks=[str(data / "mood")], fractions=[0.5, 1.0], seeds=[1, 2])


def test_a_file_is_a_task_and_results_of_other_columns_are_not_taken(data, sentences):
    rows = "".join(f"{row['text']},{row['text']},{row['label']}\n" for row in mood_rows(sentences))
    file = data / "reviews.csv"
    file.write_text(f"text,said,label\n{rows}", encoding="utf-8")
    given = {"models": [str(data / "one")], "tasks": [str(file)], "epochs": [1], "batch_sizes": [8], "max_length": 16}
    facts = run_grid(arguments(data, **given, text_columns=["said"]))
    assert list(facts["metrics"]) == ["reviews"]
    assert facts["cells"][0]["columns"] == {"text_columns": ["said"]}
    with pytest.raises(ValueError, match=r"was made with other settings .*columns"):
        run_grid(arguments(data, **given))


def test_what_is_done_is_not_done_again(data, monkeypatch):
    first = run_grid(arguments(data))
    calls = []
    original = grid._fine_tune
    monkeypatch.setattr(grid, "_fine_tune", lambda *given: calls.append(given[0]) or original(*given))
    assert run_grid(arguments(data))["cells"] == first["cells"]
    assert calls == []
    run_grid(arguments(data, seeds=[42, 7]))
    assert {cell.seed for cell in calls} == {7}
    assert len(calls) == 4


def test_a_grid_that_was_stopped_goes_on(data, monkeypatch):
    original, calls = grid._fine_tune, []

    def stopped(*given):
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(grid, "_fine_tune", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_grid(arguments(data))
    calls.extend([None] * 3)
    facts = run_grid(arguments(data))
    assert len(facts["cells"]) == 4
    assert len(calls) == 3 + 3 + 2


def test_results_of_another_model_are_refused(data):
    run_grid(arguments(data))
    with pytest.raises(ValueError, match=r"made with other settings \(path: .*give another `--output_dir`"):
        run_grid(arguments(data, models=[f"first={data / 'two'}"]))


def test_results_of_other_weights_or_rows_under_an_old_name_are_refused(
    data, sentences, tiny_bert_config, tiny_tokenizer
):
    given = {"models": [str(data / "one")], "tasks": [str(data / "mood")]}
    run_grid(arguments(data, **given))
    kept = (data / "one" / "model.safetensors").read_bytes()
    set_seed(7)
    save_model(data / "one", BertModel(tiny_bert_config()), tiny_tokenizer)
    with pytest.raises(ValueError, match=r"made with other settings \(path_content: "):
        run_grid(arguments(data, **given))
    (data / "one" / "model.safetensors").write_bytes(kept)
    (data / "one" / "README.md").write_text("A card.")
    run_grid(arguments(data, **given))
    rows = mood_rows(sentences)
    write_task(data / "mood", [*rows[1:], rows[0]], **SPEC)
    with pytest.raises(ValueError, match=r"made with other settings \(data_content: "):
        run_grid(arguments(data, **given))


def test_a_model_and_a_task_that_were_moved_are_the_same(data, monkeypatch):
    facts = run_grid(arguments(data, models=[f"first={data / 'one'}"], tasks=[str(data / "mood")]))
    (data / "moved").mkdir()
    for name in ("one", "mood", "grid"):
        (data / name).rename(data / "moved" / name)
    monkeypatch.setattr(grid, "finetune", lambda *_, **__: pytest.fail("fine-tuned again"))
    moved = arguments(data / "moved", models=[f"first={data / 'moved' / 'one'}"], tasks=[str(data / "moved" / "mood")])
    assert run_grid(moved)["tables"] == facts["tables"]


def test_a_share_is_drawn_once_for_all_models_and_seeds(data, monkeypatch):
    drawn = []
    original = grid.finetune
    monkeypatch.setattr(
        grid,
        "finetune",
        lambda model, task, *rest, **more: drawn.append(task.train["text"][:]) or original(model, task, *rest, **more),
    )
    run_grid(arguments(data, tasks=[str(data / "mood")], fractions=[0.25], seeds=[1, 2]))
    assert len(drawn) == 4
    assert all(rows == drawn[0] and len(rows) == 10 for rows in drawn)


def cell(score, seed, learning_rate=None, model="m"):
    return {
        "model": model, "task": "t", "fraction": 1.0, "seed": seed, "score": score,
        "learning_rate": learning_rate, "epochs": None, "batch_size": None,
    }  # fmt: skip


def test_the_best_settings_are_those_with_the_best_mean():
    cells = [cell(0.9, 1, 1e-5), cell(0.1, 2, 1e-5), cell(0.6, 1, 2e-5), cell(0.6, 2, 2e-5)]
    entry = table(cells, 1.0)["m"]["t"]
    assert entry == {"mean": 0.6, "runs": 2, "tried": 2, "spread": 0.0, "settings": {"learning_rate": 2e-5}}


def test_a_score_that_does_not_exist_is_the_worst():
    entry = table([cell(None, 1, 1e-5), cell(0.0, 1, 2e-5)], 1.0)["m"]["t"]
    assert entry["settings"] == {"learning_rate": 2e-5}


def test_a_table_reads_like_the_papers():
    cells = [cell(0.5, 1), cell(0.7, 2), cell(0.8, 1, model="n"), cell(0.8, 2, model="n")]
    cells[2]["constant"] = "positive"
    majority = {"t": {"label": "positive", "score": 0.8}}
    facts = {"metrics": {"t": "accuracy"}, "tables": {"0.1": table(cells, 1.0)}, "majority": majority}
    assert format_tables(facts).splitlines() == [
        "| 10 % of the rows | t (accuracy) | mean |",
        "|---|---|---|",
        "| m | 60.0 ± 14.1 | 60.0 |",
        "| n | 80.0 ± 0.0 | 80.0 |",
        "| majority | 80.0 | 80.0 |",
        "",
        "Predicts one label only, whatever the text says: n on t (10 %): 1 of 2 runs.",
    ]
    # A mean is correlated with nothing.
    facts["majority"] = {"t": {"label": 1.5, "score": None}}
    assert "| majority | – | – |" in format_tables(facts)


def test_cells_have_files_of_their_own(data):
    values = {"fractions": [0.01, 1.0], "seeds": [1, 2], "learning_rates": [1e-5, 3e-5], "epochs": [3.0, 10.0]}
    names = {str(data / name): name for name in ("mood", "praise")}
    cells = list(grid_cells(arguments(data, **values), names))
    assert len({one.file for one in cells}) == len(cells) == 2 * 2 * 2 * 2 * 2 * 2
    assert Cell("m", "glue/rte", 0.01, 1, 1e-5, None, 16).file == "cells/m/glue_rte/0.01/seed1_lr1e-05_bs16.json"


def test_a_task_may_have_settings_of_its_own(data):
    mood, praise = str(data / "mood"), str(data / "praise")
    own = {praise: {"learning_rates": [1e-3], "batch_sizes": [4, 8]}}
    grid = arguments(data, models=[str(data / "one")], epochs=[1.0, 2.0], task_settings=own)
    cells = list(grid_cells(grid, {mood: "mood", praise: "praise"}))
    assert [(one.task, *one.settings) for one in cells] == [
        ("mood", None, 1.0, None),
        ("mood", None, 2.0, None),
        *(("praise", 1e-3, epochs, batch) for epochs in (1.0, 2.0) for batch in (4, 8)),
    ]


def test_the_warm_up_of_a_grid_is_that_of_its_fine_tunings(data, monkeypatch):
    seen = []
    monkeypatch.setattr(
        grid, "finetune", lambda model, task, tokenizer, training, **_: seen.append(training) or Done()
    )
    run_grid(arguments(data, models=[str(data / "one")], tasks=[str(data / "mood")], warmup_steps=0.25))
    assert [one.warmup_steps for one in seen] == [0.25]


class Done:
    """A fine-tuning that took no time."""

    score, scores, steps, seconds, constant = 0.5, {"accuracy": 0.5}, 1, 0.0, None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task_settings": {"u": {}}}, r"`--task_settings` has 'u', which is none of the `--tasks` \['t'\]"),
        ({"task_settings": {"t": {"epoch": [1]}}}, "has 'epoch'; allowed are learning_rates, epochs, batch_sizes"),
        ({"task_settings": {"t": {"epochs": ["3"]}}}, "must be a list of numbers above 0, each once"),
        ({"task_settings": {"t": {"epochs": 3}}}, "must be a list of numbers above 0, each once"),
        ({"warmup_steps": -0.1}, "`--warmup_steps` is -0.1"),
        ({"fractions": [0.0]}, r"`--fractions` has \[0.0\]"),
        ({"seeds": [1, 1]}, r"`--seeds` is \[1, 1\]; it must have at least one entry, each once"),
        ({"models": ["a/x", "b/x"]}, r"have the names \['x', 'x'\]"),
        ({"tasks": []}, r"`--tasks` is \[\]"),
        ({"seeds": [1, -1]}, r"`--seeds` is -1; it must be at least 0"),
        ({"learning_rates": [0.0]}, r"`--learning_rates` is 0.0; it must be above 0"),
        ({"batch_sizes": [8, -1]}, r"`--batch_sizes` is -1; it must be above 0"),
        ({"max_length": 0}, r"`--max_length` is 0; it must be at least 1"),
    ],
)
def test_a_grid_that_makes_no_sense_names_its_flag(values, message):
    with pytest.raises(ValueError, match=message):
        GridArguments(**{"models": ["m"], "tasks": ["t"], **values})


def test_settings_of_other_tasks_of_a_paper_are_left_out():
    arguments = GridArguments(["glue/sst2"], ["m"], task_settings={"squad_v2": {"epochs": [3]}})
    assert arguments.settings_of("glue/sst2") == (None, None, None)


def test_a_share_must_leave_a_row(data):
    with pytest.raises(ValueError, match=r"`--fractions` has 0.01, which leaves no row of the 40 of 'mood'"):
        run_grid(arguments(data, fractions=[0.01]))
