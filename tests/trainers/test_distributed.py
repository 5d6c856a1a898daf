"""Two processes over gloo train as one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

SCRIPT = Path(__file__).with_name("distributed_run.py")
ROOT = SCRIPT.parents[2]
# Four launches of torch; a busy machine takes minutes for them.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def run(output_dir, batch_size, *, processes=1, resume=""):
    launcher = [sys.executable]
    if processes > 1:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [*launcher, str(SCRIPT), str(output_dir), str(batch_size), str(resume)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((output_dir / "result.json").read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return folder, run(folder, 8)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    return folder, run(folder, 4, processes=2)


def test_losses_terms_and_gradient_norms_agree(alone, together):
    for one, two in zip(alone[1]["history"], together[1]["history"], strict=True):
        for key in ("loss", "grad_norm", "loss/relation/qq", "loss/logits/soft", "loss/labels/hard"):
            assert two[key] == pytest.approx(one[key], rel=1e-4), key


def test_the_trained_students_agree(alone, together):
    one, two = (load_file(folder / "student" / "model.safetensors") for folder, _ in (alone, together))
    for name, weight in one.items():
        assert_close(two[name], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("count", ["1", "5", "32", "37"])
def test_an_evaluation_counts_every_row_once(alone, together, count):
    one, two = (run["metrics"][count] for _, run in (alone, together))
    assert set(one) == set(two)
    assert two["eval_rows"] == int(count)
    compared = [key for key in one if not key.endswith(("second", "runtime", "time"))]
    assert {"eval_loss", "eval_loss/labels/hard", "eval_agreement", "eval_agreement/relation"} <= set(compared)
    for key in compared:
        assert two[key] == pytest.approx(one[key], rel=1e-4, abs=1e-6), key


def test_predictions_of_rows_without_labels_keep_their_order(alone, together):
    one, two = (run["metrics"]["bare"] for _, run in (alone, together))
    assert len(one["predictions"]) == 37
    assert_close(torch.tensor(two["predictions"]), torch.tensor(one["predictions"]), rtol=1e-4, atol=1e-5)
    assert two["test_loss"] == pytest.approx(one["test_loss"], rel=1e-4)


def test_the_loss_of_labels_counts_every_row_once(alone, together):
    one, two = (run["metrics"]["of labels"] for _, run in (alone, together))
    assert two["eval_loss"] == pytest.approx(one["eval_loss"], rel=1e-5)


def test_every_objective_gives_the_losses_of_one_process(alone, together):
    one, two = (run["objectives"] for _, run in (alone, together))
    for first, second in zip(one["history"], two["history"], strict=True):
        assert second == pytest.approx(first, rel=1e-4, abs=1e-6)
    compared = [key for key in one["metrics"] if "loss" in key]
    assert len(compared) > 13
    for key in compared:
        assert two["metrics"][key] == pytest.approx(one["metrics"][key], rel=1e-4, abs=1e-6), key


def test_signals_that_two_processes_store_are_the_same(alone, together):
    one, two = (run["stored"] for _, run in (alone, together))
    assert one["shards"] == two["shards"]
    assert one["rows"] == two["rows"] == 37
    for first, second in zip(one["history"], two["history"], strict=True):
        assert second == pytest.approx(first, rel=1e-4, abs=1e-6)
    for key in (key for key in one["metrics"] if "loss" in key or "agreement" in key):
        assert two["metrics"][key] == pytest.approx(one["metrics"][key], rel=1e-4, abs=1e-6), key


def test_statistics_are_those_of_all_processes(together):
    one, two = together[1]["masses"]
    assert one == two != [1 / 3] * 3
    one, two = together[1]["tasks"]["weights"]
    assert one == two
    assert sum(one.values()) == pytest.approx(2.0, rel=1e-5)
    assert one["two"] != 1.0


def test_the_scores_of_many_tasks_count_every_row_once(alone, together):
    one, two = (run["tasks"]["metrics"] for _, run in (alone, together))
    for key in ("eval_two_accuracy", "eval_three_accuracy", "eval_mean", "eval_two_loss", "eval_three_loss"):
        assert two[key] == pytest.approx(one[key], rel=1e-5), key


def test_a_sharded_student_has_the_gradients_of_a_whole_one(together):
    """FSDP2 itself, over gloo; accelerate's way to it needs GPUs."""
    assert together[1]["sharded"].keys() == {"relation", "relation+logits", "hidden"}
    assert max(together[1]["sharded"].values()) < 1e-6


def test_batches_by_tokens_have_every_row_once(alone, together):
    one, two = (run["tokens"] for _, run in (alone, together))
    assert one["rows"] == two["rows"]
    assert len(one["rows"]) == 37
    assert two["steps"] == -(-one["steps"] // 2)


def test_a_stream_of_text_is_learnt_and_evaluated_as_by_one_process(alone, together):
    one, two = (run["stream"] for _, run in (alone, together))
    assert {"eval_loss", "eval_agreement"} <= set(one["metrics"])
    for first, second in zip([*one["history"], one["metrics"]], [*two["history"], two["metrics"]], strict=True):
        for key in (key for key in first if "loss" in key or "agreement" in key):
            assert second[key] == pytest.approx(first[key], rel=1e-4, abs=1e-6), key


def test_a_resumed_run_of_two_processes_continues(together, tmp_path):
    resumed = run(tmp_path, 4, processes=2, resume=together[0] / "checkpoint-2")
    assert [e["loss"] for e in resumed["history"]][-2:] == [e["loss"] for e in together[1]["history"]][-2:]
